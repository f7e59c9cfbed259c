/** Whose delivery tokens an inviter passes on, and which of those that were passed on count. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deliveryTokenHash,
  hex,
  renewalBytes,
  signingKeyFromSeed,
  silentLog,
  systemRandom,
} from '@quicprochat/proto';
import { openChannel, parseEnvelope, sealChannel } from '../crypto/envelope.ts';
import type { Caller } from '../dial.ts';
import { DeliveryTokens } from './delivery-tokens.ts';
import { renewalLimits, TokenRenewals } from './token-renewals.ts';
import { mandatorySuite } from '../mls/index.ts';
import { groupOf, TestWorld } from '../mls/test-members.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { tokenBounds } from '../store/token-rows.ts';
import { LaterClock } from '../test-runtime.ts';
import { Writer } from '../writer.ts';

const bytes = (): Uint8Array => systemRandom.bytes(16);

/** Alice with bob and carol in one group. */
async function rig() {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [group] = await groupOf(mandatorySuite, [alice, bob, carol]);
  const store = openMemoryStore();
  const runtime = { clock: new LaterClock(), random: systemRandom, log: silentLog };
  const ridOf = ({ signatureKey }: typeof alice): Uint8Array => signatureKey.publicKey;
  const tokens = new DeliveryTokens({
    store,
    runtime,
    writer: new Writer(store, runtime),
    rid: ridOf(alice),
    identityKey: signingKeyFromSeed(alice.signatureKey.seed),
    session: () => undefined,
    onOutbox: () => undefined,
    onDue: () => undefined,
  });
  await tokens.tellNode({ call: async () => ({}) as never });
  const passed = (...invited: string[]): Uint8Array[] =>
    tokens.forInvitees(group, invited).map(({ rid }) => rid);
  const bobKey = signingKeyFromSeed(bob.signatureKey.seed);
  const [a, b, c] = [ridOf(alice), ridOf(bob), ridOf(carol)];
  return { store, runtime, tokens, group, passed, a, b, c, bobKey };
}

test('an inviter passes on tokens of members, and none that its device keeps back', async () => {
  const { store, tokens, passed, a, b, c } = await rig();
  using open = store;
  const token = bytes();
  tokens.take([{ rid: b, token }], b, 1);
  tokens.take([{ rid: c, token: bytes(), isKeptBack: true }], c, 1);
  assert.deepEqual(passed('dave@red.example'), [a, b]);
  // Only a device itself hands out its token.
  tokens.take([{ rid: c, token: bytes() }], b, 2);
  assert.deepEqual(passed('dave@red.example'), [a, b]);
  // For the own messages to carol it is there.
  assert.notEqual(open.tokens.of(c), undefined);
  // Once it is not kept back any more it may go on.
  tokens.take([{ rid: c, token: bytes() }], c, 3);
  assert.deepEqual(passed('dave@red.example'), [a, b, c]);
  tokens.take([{ rid: b, token, isKeptBack: true }], b, 4);
  assert.deepEqual(passed('dave@red.example'), [a, c]);
});

test('who blocked somebody keeps its token back, so that nobody passes it on to them', async () => {
  const { tokens, group, passed, a, store } = await rig();
  using open = store;
  const handed = (): boolean | undefined =>
    tokens.forInvitees(group, ['dave@red.example']).find(({ rid }) => rid === a)?.isKeptBack;
  assert.equal(handed(), false);
  await tokens.block('eve@blue.example', { call: async () => ({}) as never });
  assert.equal(handed(), true);
  assert.deepEqual(passed('eve@blue.example'), [], 'and hands it to nobody beside them');
  // Whom somebody else adds it tells itself; without blocked people, the inviter does.
  const id = new Uint8Array(32).fill(5);
  open.groups.addConversation({
    ...{ id, groupId: id, suite: 1, name: '', creator: 'alice@red.example' },
    ...{ joinedMs: 1, sentCount: 0, lamport: 0 },
  });
  tokens.mark(id);
  assert.deepEqual(tokens.due(), []);
  tokens.grew(id);
  assert.deepEqual(tokens.due(), [id]);
  tokens.mark(id);
  tokens.unblock('eve@blue.example');
  tokens.grew(id);
  assert.deepEqual(tokens.due(), []);
  assert.equal(handed(), false);
  // It survives the wire.
  const key = systemRandom.bytes(32);
  const kept = [
    { rid: a, token: bytes(), isKeptBack: true },
    { rid: a, token: bytes() },
  ];
  const content = { kind: 'welcome', bytes: bytes(), tokens: kept } as const;
  const sealed = parseEnvelope(sealChannel({ content, key, random: systemRandom }));
  assert(sealed.mode === 'channel');
  assert.deepEqual(openChannel(sealed, () => key).tokens, kept);
});

test('a conversation with somebody blocked is told without them, once, until that is over or it grows', async () => {
  const { tokens, store } = await rig();
  using open = store;
  const [bob, carol] = ['bob@red.example', 'carol@red.example'];
  const id = new Uint8Array(32).fill(6);
  open.groups.addConversation({
    ...{ id, groupId: id, suite: 1, name: '', creator: 'alice@red.example' },
    ...{ joinedMs: 1, sentCount: 0, lamport: 0 },
  });
  const caller = { call: async () => ({}) as never };
  assert.deepEqual(tokens.leavesOut(id, [bob, carol]), []);
  await tokens.block(bob, caller);
  const leavesOut = (): readonly string[] => tokens.leavesOut(id, [bob, carol]);
  const isForAll = (): boolean => tokens.next(id, [bob, carol]) !== undefined;
  assert.deepEqual([leavesOut(), isForAll()], [[bob], false]);
  assert.equal(tokens.next(id, [carol])?.tokens[0]?.isKeptBack, true);
  tokens.mark(id, true);
  assert.deepEqual([leavesOut(), isForAll()], [[], false]);
  // Nobody gave it to who came, whoever invited them.
  for (const isOwn of [true, false]) {
    tokens.grew(id, isOwn);
    assert.deepEqual(leavesOut(), [bob]);
    tokens.mark(id, true);
  }
  // Another one is blocked: a new token, for neither of them.
  await tokens.block(carol, caller);
  assert.deepEqual(leavesOut(), [bob, carol]);
  tokens.mark(id, true);
  tokens.unblock(bob);
  assert.deepEqual([leavesOut(), isForAll()], [[carol], false]);
  tokens.mark(id, true);
  tokens.unblock(carol);
  assert.deepEqual([leavesOut(), isForAll()], [[], true]);
});

test('a token that is passed on replaces none that is known, but one that is old or was refused', async () => {
  const { store, runtime, tokens, group, b, c } = await rig();
  using open = store;
  const [own, passedOn, forged, newer] = [bytes(), bytes(), bytes(), bytes()];
  const now = (): number => runtime.clock.now();
  tokens.take([{ rid: b, token: own }], b, now());
  tokens.takeAtJoin(
    [
      { rid: b, token: forged },
      { rid: c, token: passedOn },
    ],
    group,
    now(),
  );
  tokens.takeAtJoin([{ rid: c, token: forged }], group, now());
  assert.deepEqual([open.tokens.of(b), open.tokens.of(c)], [own, passedOn]);
  const stranger = systemRandom.bytes(32);
  tokens.takeAtJoin([{ rid: stranger, token: forged }], group, now());
  assert.equal(open.tokens.of(stranger), undefined);
  runtime.clock.advance(tokenBounds.passedKeptMs + 1);
  tokens.takeAtJoin(
    [
      { rid: b, token: forged },
      { rid: c, token: newer },
    ],
    group,
    now(),
  );
  assert.deepEqual([open.tokens.of(b), open.tokens.of(c)], [own, newer]);
  // What a liar passed on is no longer in the way once it was refused; the same again is no news.
  const refused = (rid: Uint8Array, token: Uint8Array): void => {
    const copy = { mid: bytes(), payload: bytes(), messageId: undefined };
    open.transaction(() => open.outbox.add({ ...copy, targets: [{ rid, domain: 'x' }] }, now()));
    const { id } = open.outbox.next(hex(rid), 0) ?? { id: 0 };
    assert.ok(open.transaction(() => open.outbox.waitForToken(id, token, now())));
  };
  refused(c, newer);
  refused(b, own);
  for (const token of [newer, passedOn]) {
    const isGood = token === passedOn;
    tokens.takeAtJoin(
      [
        { rid: c, token },
        { rid: b, token: forged },
      ],
      group,
      now(),
    );
    assert.deepEqual([open.tokens.of(c), open.tokens.hasGood(c)], [token, isGood]);
    assert.deepEqual([open.tokens.of(b), open.tokens.hasGood(b)], [own, false], 'of b itself');
  }
});

test('the node has the new token sealed together with its hash, once there are tokens of before', async () => {
  const { tokens, store } = await rig();
  using open = store;
  const told: { readonly hash: string; readonly renewals: number }[] = [];
  let wants = false;
  const caller: Caller = {
    async call(_method, request) {
      const { hashes, renewals } = request as { hashes: Uint8Array[]; renewals: Uint8Array };
      told.push({ hash: hex(hashes[0] ?? new Uint8Array(0)), renewals: renewals.length });
      return { wantsRenewals: wants && renewals.length === 0 } as never;
    },
  };
  const inForce = (): string =>
    hex(deliveryTokenHash(open.tokens.own()?.token ?? new Uint8Array(0)));
  await tokens.tellNode(caller);
  assert.deepEqual(told.splice(0), [{ hash: inForce(), renewals: 0 }]);
  // A store that is an older copy of itself: its node had others.
  wants = true;
  await tokens.tellNode(caller);
  const filled = renewalLimits.devicesShown * renewalBytes;
  const hash = inForce();
  assert.deepEqual(told.splice(0), [
    { hash, renewals: 0 },
    { hash, renewals: filled },
  ]);
  wants = false;
  // What is told of before a block does not come to the node behind it.
  const before = tokens.tellNode(caller);
  await Promise.all([before, tokens.block('eve@blue.example', caller)]);
  assert.notEqual(inForce(), hash);
  assert.deepEqual(told.at(-1), { hash: inForce(), renewals: filled });
});

test('a renewal counts for the token that was asked with, and not over a newer one', async () => {
  const { tokens, store, a, runtime, bobKey } = await rig();
  using open = store;
  const b = bobKey.publicKey;
  const [old, next, newer] = [bytes(), bytes(), bytes()];
  const renewals = new TokenRenewals(bobKey, b).seal(next, [a]);
  let meanwhile = (): void => undefined;
  const asked: unknown[] = [];
  const caller: Caller = {
    async call(_method, request) {
      asked.push(request);
      meanwhile();
      return { hash: deliveryTokenHash(next), renewals } as never;
    },
  };
  tokens.take([{ rid: b, token: old }], b, runtime.clock.now());
  assert.ok(await tokens.renew(caller, b, old));
  assert.deepEqual([open.tokens.of(b), open.tokens.toPass(b)], [next, undefined]);
  assert.ok(await tokens.renew(caller, b, old), 'known already');
  assert.equal(asked.length, 1);
  assert.equal(await tokens.renew(caller, b, next), false, 'the same again is no news');
  meanwhile = () => tokens.take([{ rid: b, token: newer }], b, runtime.clock.now());
  assert.ok(await tokens.renew(caller, b, next));
  assert.deepEqual(open.tokens.of(b), newer);
  // What a node shows of somebody else's, or makes up, is nothing.
  meanwhile = () => undefined;
  assert.equal(await tokens.renew(caller, a, old), false);
});
