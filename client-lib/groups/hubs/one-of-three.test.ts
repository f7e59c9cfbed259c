/**
 * One of three hubs lies: it answers, with less than there is, with a refusal, or with nonsense. The others are
 * asked (docs/security/hubs.md, "What it can do").
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ConflictError,
  hex,
  methods,
  PermissionDeniedError,
  TransportError,
} from '@quicprochat/proto';
import type { CertifiedEntry } from '@quicprochat/proto/messages';
import { mandatorySuite } from '../../mls/index.ts';
import { company as companyOf, groupOf, HastyClock, type Company } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';
import { testRuntime } from '../../test-runtime.ts';

const red = 'red.example';

async function company(): Promise<Company & { readonly hubs: readonly string[] }> {
  const all = await companyOf([mandatorySuite], new HastyClock(), ['red', 'blue', 'green']);
  const { hubs } = await groupOf(all.alice, all.id);
  assert.deepEqual(hubs, [red, 'blue.example', 'green.example']);
  return { ...all, hubs };
}

test('that shows no newer entries: another one does', async () => {
  const { directory, alice, bob, carol, id } = await company();
  const { hub } = directory;
  const asked: string[] = [];
  hub.beforeLog = async ({ hub: domain }) => {
    asked.push(domain);
    return domain === red ? { entries: [], hasMore: false } : undefined;
  };
  await alice.conversations.removeMembers(id, [bob.userId]);
  hub.takeRows(alice.rid, carol.rid);
  await alice.conversations.send(id, 'without bob');
  await exchange(alice, carol);
  await carol.settle();
  assert.deepEqual(
    await carol.conversations.members(id),
    [alice.userId, carol.userId],
    asked.join(),
  );
  assert.deepEqual(
    carol.history(id).map(({ text }) => text),
    ['without bob'],
  );
  assert.ok(asked.includes(red));
});

test('that shows an older end of the log to a device that lost its place: the newest one of all counts', async () => {
  const { directory, clock, alice, bob, carol, id } = await company();
  const { hub } = directory;
  // What carol never hears of, and no hub has an entry of any more.
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  hub.takeRows(alice.rid, carol.rid);
  hub.restore(id, hub.copyOf(id).slice(-1));
  await carol.groups.pull.pull(id);
  assert.equal(carol.store.groups.conversation(id)?.ended, 'BEHIND');
  // Red has what was there before the last commit, and a state of it: all true, and old.
  const [before] = hub.copyOf(id);
  assert(before !== undefined);
  const info = hub.infoOf(id);
  await alice.conversations.rotateKeys(id);
  hub.takeRows(alice.rid, carol.rid);
  hub.beforeLog = async ({ hub: domain, withGroupInfo }) => {
    if (domain !== red) return undefined;
    const { bytes: groupInfo, entry: groupInfoEntry } = info;
    if (withGroupInfo) return { entries: [], hasMore: false, groupInfo, groupInfoEntry };
    return { entries: [before.control], hasMore: false };
  };
  clock.advance(3_600_000);
  await carol.groups.resyncs.run();
  await carol.settle();
  await exchange(alice, bob, carol);
  assert.equal(carol.store.groups.conversation(id)?.ended, undefined);
  const [ofAlice, ofCarol] = await Promise.all([alice, carol].map((one) => groupOf(one, id)));
  assert.equal(
    hex(ofCarol?.epochAuthenticator ?? new Uint8Array(0)),
    hex(ofAlice?.epochAuthenticator ?? new Uint8Array(1)),
  );
});

test('that refuses changes: they are refused when most of them refuse', async () => {
  const { directory, alice, bob, carol, id } = await company();
  const asked: string[] = [];
  let refusing: readonly string[] = [red];
  directory.hub.beforeSubmit = async (_, { hub }) => {
    asked.push(hub);
    if (refusing.includes(hub)) throw new PermissionDeniedError('PEER_DENIED', 'not with them');
  };
  await alice.conversations.updateMetadata(id, { name: 'all the same' });
  assert.deepEqual(asked, [red, 'blue.example']);
  await exchange(alice, bob, carol);
  assert.equal(carol.store.groups.conversation(id)?.name, 'all the same');

  // However often: red alone does not count for two.
  asked.length = 0;
  let isBack = false;
  directory.hub.beforeSubmit = async (_, { hub }) => {
    asked.push(hub);
    if (hub === red) throw new PermissionDeniedError('PEER_DENIED', 'not with them');
    if (!isBack) throw new TransportError('timeout', 'nobody answers');
  };
  const waits = alice.conversations.updateMetadata(id, { name: 'later' });
  while (asked.filter((hub) => hub === red).length < 4) await testRuntime.clock.sleep(1);
  isBack = true;
  await waits;

  directory.hub.beforeSubmit = async (_, { hub }) => {
    asked.push(hub);
    if (refusing.includes(hub)) throw new PermissionDeniedError('PEER_DENIED', 'not with them');
  };
  refusing = [red, 'blue.example', 'green.example'];
  asked.length = 0;
  await assert.rejects(alice.conversations.rotateKeys(id), { reason: 'PEER_DENIED' });
  assert.equal(new Set(asked).size, 2);
});

test('that answers without deciding anything: another one is asked', async () => {
  const { directory, alice, id } = await company();
  const asked = new Set<string>();
  directory.hub.beforeSubmit = async (_, { hub }) => {
    asked.add(hub);
    if (hub === red) throw new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch');
  };
  await alice.conversations.rotateKeys(id);
  assert.deepEqual([...asked], [red, 'blue.example']);
});

for (const domains of [
  ['red', 'blue', 'green'],
  ['red', 'red', 'red'],
] as const) {
  test(`of ${new Set(domains).size} hubs, one that answers nonsense refused nothing: what it accepted is done`, async () => {
    const { directory, alice, bob, carol, id } = await companyOf(
      [mandatorySuite],
      new HastyClock(),
      domains,
    );
    const { hub } = directory;
    const honest = hub.answer.bind(hub);
    let lies = 0;
    hub.answer = async (from, methodId, request) => {
      const answer = await honest(from, methodId, request);
      if (methodId !== methods.submitCommit.id || lies === 2) return answer;
      lies += 1;
      const { entry } = answer as { readonly entry: CertifiedEntry };
      const signatures = entry.signatures.map((one) => ({ ...one, signature: new Uint8Array(64) }));
      return { entry: { ...entry, signatures } };
    };
    await alice.conversations.updateMetadata(id, { name: 'of certain name' });
    assert.equal(lies, 2);
    await exchange(alice, bob, carol);
    assert.equal(bob.store.groups.conversation(id)?.name, 'of certain name');
  });
}
