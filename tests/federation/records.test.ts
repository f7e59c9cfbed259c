/** The NodeRecords of peers: asked for on every link, proven, kept; what is not proven changes nothing. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { create, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import { makePair, type Pair } from './pair.ts';

/** What red holds of blue. */
const seqAtRed = ({ red }: Pair): number | undefined => {
  const held = red.federation.records.get('blue.example');
  return held === undefined ? undefined : Number(held.record.seq);
};

/** Blue says this from now on, and red asks again over a new link. */
async function say(pair: Pair, makeRecord: Pair['blue']['makeRecord']): Promise<void> {
  pair.blue.makeRecord = makeRecord;
  pair.network.breakConnections('red.example', 'blue.example');
  await pair.clock.advance(2_000);
  await pair.red.send(pair.blue, `row ${pair.clock.monotonic()}, so that red dials`);
  await pair.clock.advance(120_000);
}

test('a new link brings the peer record, and a restart keeps it', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  assert.deepEqual(red.federation.record('blue.example')?.record, blue.record().record);
  await blue.stop();
  await red.stop();
  await red.start([blue.asPeer]);
  await clock.advance(1_000);
  assert.deepEqual(red.federation.record('blue.example')?.record, blue.record().record);
  assert.equal(red.federation.record('green.example'), undefined);
});

test('a newer record replaces the older one, and listeners hear of it once', async () => {
  await using pair = await makePair();
  const heard: number[] = [];
  pair.red.federation.records.onRecord((_, record) => heard.push(Number(record.seq)));
  await say(pair, () => pair.blue.record({ seq: 7 }));
  assert.equal(seqAtRed(pair), 7);
  await say(pair, () => pair.blue.record({ seq: 7 }));
  assert.deepEqual(heard, [7]);
});

test('what a peer certified with keys that it gave up counts on', async () => {
  await using pair = await makePair();
  const { records } = pair.red.federation;
  assert.deepEqual(records.certifyingKeys('green.example'), []);
  const [now] = records.certifyingKeys('blue.example');
  const givenUp = new Uint8Array(32).fill(7);
  await say(pair, () => pair.blue.record({ seq: 2, formerSignPubs: [givenUp] }));
  assert.deepEqual(records.certifyingKeys('blue.example'), [now, givenUp]);
});

test('what is older, foreign, unsigned or another record of the same seq is refused', async () => {
  await using pair = await makePair();
  const { red, blue } = pair;
  await say(pair, () => blue.record({ seq: 5 }));
  const lies: (readonly [why: string, make: Pair['blue']['makeRecord']])[] = [
    ['replayed', () => blue.record({ seq: 4 })],
    ['another domain', () => blue.record({ seq: 9, domain: 'green.example' })],
    ['same seq, other content', () => blue.record({ seq: 5, versionMax: 2 })],
    ['keys of another node', () => red.record({ seq: 9, domain: 'blue.example' })],
    ['unsigned', () => create(SignedNodeRecordSchema, { record: blue.record({ seq: 9 }).record })],
    ['noise', () => create(SignedNodeRecordSchema, { record: new Uint8Array(99).fill(255) })],
  ];
  for (const [why, make] of lies) {
    const before = red.events('peer record refused').length;
    await say(pair, make);
    assert.equal(seqAtRed(pair), 5, why);
    assert.equal(red.events('peer record refused').length, before + 1, why);
  }
  assert.equal((await blue.received()).length, 1 + lies.length, 'the rows went on');
});
