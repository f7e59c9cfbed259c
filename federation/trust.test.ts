/** How many domains may be found by their sites: the rest of trust is in tests/federation. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { PeerPolicy } from './policy.ts';
import { PeerRecords } from './records.ts';
import type { HeldPeerRecord } from './store.ts';
import { PeerTrust, trustLimits } from './trust.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

/** A node in mode `open` that has found so many domains. */
async function trustOf(
  found: number,
  heardMs = (_domain: string): number => systemClock.now(),
  answer = async (_domain: string): Promise<Uint8Array> => new Uint8Array(0),
) {
  const held = Array.from({ length: found }, (_, index): HeldPeerRecord => ({
    domain: `found${index}.example`,
    record: undefined,
    retiredPins: [],
    candidate: undefined,
    candidateSinceMs: 0,
    isFound: true,
  }));
  const records = new PeerRecords(
    { peerRecords: async () => held, putPeerRecord: async () => undefined },
    runtime,
  );
  await records.load();
  const file = { peers: [], deniedDomains: [], deniedPins: [] };
  const own = { domain: 'red.example', pin: new Uint8Array(32) };
  const policy = new PeerPolicy(file, own, 'open');
  const asked: string[] = [];
  const site = {
    fetch: async (domain: string) => {
      asked.push(domain);
      return answer(domain);
    },
  };
  const trust = new PeerTrust({
    policy: () => policy,
    records,
    site,
    lostKeyMs: 1,
    heardMs,
    runtime,
  });
  return { trust, asked, records };
}

test('names below a domain of a stranger do not fill the store: sites are not asked without end', async () => {
  const { trust, asked } = await trustOf(trustLimits.foundMax);
  const unreachable = (error: unknown): boolean => hasReason(error, 'PEER_UNREACHABLE');
  await assert.rejects(trust.discover('one-more.example'), unreachable);
  assert.deepEqual(asked, []);
  // Those that are known may have new keys.
  await assert.rejects(trust.discover('found7.example'), unreachable);
  assert.deepEqual(asked, ['found7.example']);

  const other = await trustOf(trustLimits.foundMax - 1);
  await assert.rejects(other.trust.discover('one-more.example'), unreachable);
  assert.deepEqual(other.asked, ['one-more.example']);
});

test('names that strangers make up hold up neither each other for long, nor who is waited for', async () => {
  const isUnreachable = (error: unknown): boolean => hasReason(error, 'PEER_UNREACHABLE');
  const slow = Promise.withResolvers<Uint8Array>();
  const { trust, asked } = await trustOf(0, undefined, () => slow.promise);
  const refused: Promise<void>[] = [];
  const look = async (domain: string, address?: string): Promise<void> => {
    refused.push(assert.rejects(trust.discover(domain, address), isUnreachable));
    // It asks once its room is made.
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  };
  for (let n = 0; n < 20; n += 1) await look(`one${n}.example`, '192.0.2.1');
  assert.deepEqual(asked, ['one0.example'], 'one address has one look at a time');
  for (let n = 0; n < 20; n += 1) await look(`other${n}.example`, `192.0.2.${n + 2}`);
  assert.equal(asked.length, trustLimits.strangersSitesAtOnce);
  await look('waited-for.example');
  assert.equal(asked.at(-1), 'waited-for.example');
  // Who claims what is being asked for anyway shares that look.
  await look('waited-for.example', '192.0.2.1');
  slow.resolve(new Uint8Array(0));
  await Promise.all(refused);
  const before = asked.length;
  await assert.rejects(trust.discover('later.example', '192.0.2.1'), isUnreachable);
  assert.equal(asked.length, before + 1, 'its place is free again');
});

test('a domain that was not heard for long makes room for a new one', async () => {
  const unreachable = (error: unknown): boolean => hasReason(error, 'PEER_UNREACHABLE');
  const nowMs = systemClock.now();
  const heard = new Map([
    ['found3.example', nowMs - trustLimits.forgetMs - 2],
    ['found4.example', nowMs - trustLimits.forgetMs - 1],
  ]);
  const old = await trustOf(trustLimits.foundMax, (domain) => heard.get(domain) ?? nowMs);
  await assert.rejects(old.trust.discover('one-more.example'), unreachable);
  assert.deepEqual(old.asked, ['one-more.example']);
  assert.equal(old.records.keys('found3.example').isFound, false, 'the one heard least lately');
  assert.equal(old.records.found.length, trustLimits.foundMax - 1);

  // Names that were never heard at all go first: each costs a stranger a line in its own zone.
  const silent = await trustOf(trustLimits.foundMax, (domain) =>
    domain === 'found9.example' ? 0 : (heard.get(domain) ?? nowMs),
  );
  await assert.rejects(silent.trust.discover('one-more.example'), unreachable);
  assert.equal(silent.records.keys('found9.example').isFound, false);
  assert.equal(silent.records.keys('found3.example').isFound, true);
});
