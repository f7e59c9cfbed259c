/** A node that was restored as a whole learns it from its peers, and from nobody else. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { systemRandom } from '@quicprochat/proto';
import {
  create,
  FedHelloRequestSchema,
  type FedHelloResponseSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { makePair, type Pair } from './pair.ts';
import type { SimNode } from './sim-node.ts';

const aCopyAgo = { isWhole: true };

async function sendAndWait({ red, blue, clock }: Pair, ...texts: string[]): Promise<void> {
  for (const text of texts) await red.send(blue, text);
  await clock.advance(2_000);
}

/** What `node` answers to a hello of the other one that says nothing of stores. */
async function hello(
  node: SimNode,
  from: SimNode,
  said: MessageInitShape<typeof FedHelloRequestSchema> = {},
): Promise<MessageInitShape<typeof FedHelloResponseSchema>> {
  const request = create(FedHelloRequestSchema, said);
  const fields = { domain: from.domain, versionMin: 1, versionMax: 1 };
  const { spkiSha256 } = from.identity;
  return node.federation.acceptHello(spkiSha256, Object.assign(request, fields));
}

for (const side of ['red', 'blue'] as const) {
  test(`a whole copy of ${side} from the past gets a new store id before it answers`, async () => {
    await using pair = await makePair();
    await sendAndWait(pair, 'one');
    const node = pair[side];
    const copy = await node.snapshot();
    await pair.clock.advance(2_000);
    await sendAndWait(pair, 'two', 'three');
    // The mark that the other side has is from after the copy.
    pair.network.breakConnections('red.example', 'blue.example');
    await sendAndWait(pair, 'four');
    const { storeId } = node.store;
    await node.restore(copy, aCopyAgo);
    assert.deepEqual(node.store.storeId, storeId, 'the copy does not know that it is one');
    await pair.clock.advance(5_000);
    assert.equal(node.rewinds, 1);
    assert.notDeepEqual(node.store.storeId, storeId);
    assert.equal(node.events('this database is an older copy').length, 1);
    const renewed = node.store.storeId;
    await sendAndWait(pair, 'five');
    assert.deepEqual(node.store.storeId, renewed, 'once is enough');
    assert.ok((await pair.blue.received()).includes('five'));
  });
}

test('a restart, and a mark that is not newer, renew nothing', async () => {
  await using pair = await makePair();
  await sendAndWait(pair, 'one');
  const { storeId } = pair.red.store;
  await pair.red.kill();
  await pair.red.start();
  await pair.clock.advance(5_000);
  assert.deepEqual(pair.red.store.storeId, storeId);
  assert.equal(pair.red.rewinds, 0);
});

test('a peer that claims to remember more than was ever said is not believed', async () => {
  await using pair = await makePair();
  await sendAndWait(pair, 'one');
  const { red, blue } = pair;
  const { storeId, counter, proof } = await hello(red, blue);
  assert.ok(storeId !== undefined && counter !== undefined && proof !== undefined);
  const lies: readonly MessageInitShape<typeof FedHelloRequestSchema>[] = [
    { remembersCounter: counter + 1_000n, remembersProof: proof },
    { remembersCounter: counter + 1_000n, remembersProof: systemRandom.bytes(16) },
    { remembersCounter: 2n ** 53n, remembersProof: proof },
    { remembersCounter: counter + 1n, remembersProof: new Uint8Array(0) },
  ];
  for (const lie of lies) await hello(red, blue, { remembersStoreId: storeId, ...lie });
  // What was really said is no lie, but not ahead either.
  await hello(red, blue, {
    remembersStoreId: storeId,
    remembersCounter: counter,
    remembersProof: proof,
  });
  assert.deepEqual(red.store.storeId, storeId);
  assert.equal(red.rewinds, 0);
});

test('a mark is kept as it was said, and replies to batches bring newer ones', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  const first = await red.store.peerMark('blue.example');
  assert.deepEqual(first?.storeId, blue.store.storeId);
  await clock.advance(60_000);
  await sendAndWait(pair, 'one');
  const second = await red.store.peerMark('blue.example');
  assert.ok((second?.commits ?? 0) > first.commits);
  const answer = await hello(red, blue);
  assert.deepEqual(answer.remembersStoreId, second?.storeId);
  assert.deepEqual(answer.remembersProof, second?.proof);
});

test('peers that cannot be reached hold the devices of a starting node only for a while', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.start([blue.asPeer]);
  let isAsked = false;
  const asked = red.federation.asked(1_000).then(() => (isAsked = true));
  await clock.advance(900);
  assert.equal(isAsked, false);
  await clock.advance(200);
  await asked;
  // One that refuses the dial is not waited for.
  network.heal('red.example', 'blue.example');
  await red.kill();
  await red.start();
  const refused = red.federation.asked(60_000);
  await clock.advance(1_000);
  await refused;
});
