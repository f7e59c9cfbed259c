/** What is heard of logs: evidence is believed when it proves itself, told on once, and junk changes nothing. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { nativeSuite } from '@quicprochat/kt-log';
import {
  firstManifest,
  methods,
  signingKeyFromSeed,
  UnavailableError,
  type Method,
} from '@quicprochat/proto';
import { create } from '@quicprochat/proto/messages';
import type { Caller } from '../dial.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { LogGossip, logGossipLimits } from './log-gossip.ts';
import { labelOf } from './logs.ts';

const times = { reasonableMonitoringWindowMs: 1 };
const domain = 'red.example';

async function pass(directory: TestDirectory): Promise<void> {
  await testRuntime.clock.sleep(5);
  const { publicKey } = signingKeyFromSeed(testRuntime.random.bytes(32));
  const userId = `${Buffer.from(publicKey.subarray(0, 8)).toString('hex')}@${domain}`;
  const accountKey = signingKeyFromSeed(testRuntime.random.bytes(32));
  directory.logVersion(userId, firstManifest(userId, accountKey, publicKey, 0));
  await testRuntime.clock.sleep(5);
}

async function follow(device: TestDevice): Promise<void> {
  const log = await device.logs.of(domain, device.directory);
  await log.client.distinguished(log.transport(device.directory));
}

/** Evidence that two devices found, each of which saw another history of the log. */
async function twoFaces(directory = new TestDirectory(times)) {
  const other = new TestDirectory(times);
  const alice = new TestDevice(`alice@${domain}`, directory);
  const bob = new TestDevice(`bob@${domain}`, other);
  await pass(directory);
  await pass(other);
  await follow(alice);
  await follow(bob);
  const log = bob.logs.known(domain);
  const heads = log?.client.headsMessage();
  assert(heads !== undefined);
  await alice.evidence.take({ credential: new Uint8Array(0), heads: [heads] });
  const [evidence] = alice.logs.known(domain)?.client.evidence() ?? [];
  assert(evidence !== undefined, 'no evidence');
  return { directory, evidence };
}

function gossipOf(device: TestDevice) {
  const alarms: string[] = [];
  const { store, logs } = device;
  const gossip = new LogGossip({
    ...{ store, runtime: testRuntime, logs },
    onConvicted: (of, { reason }) => alarms.push(`${of} ${reason}`),
    onDue: () => undefined,
  });
  return { gossip, alarms };
}

/** A node that has heard something. */
function node(origin: string, hash: Uint8Array, evidence: Uint8Array): Caller {
  return {
    call: async (method: Method) =>
      create(
        method.response,
        method.id === methods.ktHeard.id ? { logs: [{ origin, evidence: [hash] }] } : { evidence },
      ) as never,
  };
}

describe('what is heard of a log', () => {
  test('convicts it when it proves itself, once', async () => {
    const { directory, evidence } = await twoFaces();
    const carol = new TestDevice(`carol@${domain}`, directory);
    await follow(carol);
    const { gossip, alarms } = gossipOf(carol);
    const hash = nativeSuite.sha256(evidence);
    const asked = node(`${domain}/kt`, hash, evidence);
    await gossip.ask(asked);
    await gossip.ask(asked);
    assert.deepEqual(alarms, [`${domain} LOG_CONVICTED`]);
    assert.equal(carol.logs.isConvicted(domain), true);
    // A person decides; the evidence stays.
    carol.logs.trust(domain);
    assert.equal(carol.logs.isConvicted(domain), false);
    assert.equal(carol.logs.known(domain)?.client.evidence().length, 1);
    carol.restart();
    assert.equal(carol.logs.isConvicted(domain), false);
  });

  test('comes by pages, and a node that has no end to it is left', async () => {
    const { directory, evidence } = await twoFaces();
    const carol = new TestDevice(`carol@${domain}`, directory);
    await follow(carol);
    const { gossip, alarms } = gossipOf(carol);
    const origin = `${domain}/kt`;
    const hash = nativeSuite.sha256(evidence);
    const asked: bigint[] = [];
    const paged = (page: (offset: number) => { evidence: Uint8Array; total: bigint }): Caller => ({
      call: async (method: Method, request: object) => {
        if (method.id === methods.ktHeard.id) {
          return create(method.response, { logs: [{ origin, evidence: [hash] }] }) as never;
        }
        const offset = 'offset' in request ? BigInt(String(request.offset)) : 0n;
        asked.push(offset);
        return create(method.response, page(Number(offset))) as never;
      },
    });
    const { evidenceBytes } = logGossipLimits;
    const step = 512 * 1024;
    // More than it says, more than is fetched, and nothing over and over.
    await gossip.ask(paged(() => ({ evidence: new Uint8Array(step), total: 2n ** 50n })));
    assert.equal(asked.splice(0).length, 1);
    await gossip.ask(
      paged((offset) => ({ evidence: new Uint8Array(step), total: BigInt(offset + step + 1) })),
    );
    assert(asked.splice(0).length <= evidenceBytes / step + 1);
    await gossip.ask(paged(() => ({ evidence: new Uint8Array(0), total: 9n })));
    assert.equal(asked.splice(0).length, 1);
    assert.deepEqual(alarms, []);
    const total = BigInt(evidence.length);
    await gossip.ask(
      paged((offset) => ({ evidence: evidence.subarray(offset, offset + 100), total })),
    );
    assert(asked.length > 1, `${evidence.length} bytes`);
    assert.deepEqual(alarms, [`${domain} LOG_CONVICTED`]);
  });

  test('is nothing when it is changed, of another name, or of a log that is not relied on', async () => {
    const { directory, evidence } = await twoFaces();
    const carol = new TestDevice(`carol@${domain}`, directory);
    await follow(carol);
    const { gossip, alarms } = gossipOf(carol);
    const changed = Uint8Array.from(evidence, (byte, i) => (i === 150 ? byte ^ 1 : byte));
    const origin = `${domain}/kt`;
    for (const [hash, bytes] of [
      [nativeSuite.sha256(changed), changed],
      [nativeSuite.sha256(changed), evidence],
      [nativeSuite.sha256(new Uint8Array(3)), new Uint8Array(3)],
    ] as const) {
      await gossip.ask(node(origin, hash, bytes));
    }
    await gossip.ask(node('blue.example/kt', nativeSuite.sha256(evidence), evidence));
    gossip.passedOn([changed, new Uint8Array(0), testRuntime.random.bytes(500)], carol.rid);
    assert.deepEqual(alarms, []);
    assert.equal(carol.logs.isConvicted(domain), false);
    const failing: Caller = {
      call: () => Promise.reject(new UnavailableError('DRAINING', 'not now')),
    };
    await assert.rejects(gossip.ask(failing), { reason: 'DRAINING' });
  });

  test('is told on to conversations with users of that log, once, and not back to where it came from', async () => {
    const { directory, evidence } = await twoFaces();
    const carol = new TestDevice(`carol@${domain}`, directory);
    await follow(carol);
    const { gossip, alarms } = gossipOf(carol);
    const [from, to] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
    gossip.passedOn([evidence], from);
    assert.deepEqual(alarms, [`${domain} LOG_CONVICTED`]);
    assert.equal(gossip.next(from, [`dora@${domain}`]), undefined);
    assert.equal(gossip.next(to, ['emil@blue.example']), undefined);
    assert.deepEqual(gossip.next(to, [`dora@${domain}`])?.convictions, [evidence]);
    gossip.mark(to);
    assert.equal(gossip.next(to, [`dora@${domain}`]), undefined);
  });

  test('of the size that was seen here agrees, or is a fork; unsigned heads are nobody’s', async () => {
    const directory = new TestDirectory(times);
    const carol = new TestDevice(`carol@${domain}`, directory);
    await pass(directory);
    await follow(carol);
    const client = carol.logs.known(domain)?.client;
    const own = client?.head();
    assert(client !== undefined && own !== undefined);
    assert.deepEqual(client.heard.note(own.note).size, own.size);
    const head = { size: own.size, root: own.root, signature: new Uint8Array(64) };
    assert.throws(() => client.heard.head(head), { reason: 'BAD_SIGNATURE' });
    const other = new TestDirectory(times);
    const dora = new TestDevice(`dora@${domain}`, other);
    while ((dora.logs.known(domain)?.client.head()?.size ?? 0) < own.size) {
      await pass(other);
      const log = await dora.logs.of(domain, other);
      await log.client.search(log.transport(other), labelOf(`@${domain}`));
    }
    const theirs = dora.logs.known(domain)?.client.head();
    assert(theirs !== undefined);
    assert.equal(theirs.size, own.size);
    assert.throws(() => client.heard.note(theirs.note), { reason: 'FORK' });
    assert.equal(client.evidence().length, 1);
  });
});
