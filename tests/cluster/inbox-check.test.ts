/** The inbox check itself: each fault that it is there for, planted into a good log, is found. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkInbox, type InboxVerdict, type LogRow, type SentMessage } from './inbox-check.ts';

const sent: readonly SentMessage[] = Array.from({ length: 12 }, (_, index) => ({
  tag: `tag ${index}`,
  lane: index % 3,
  n: Math.floor(index / 3) + 1,
  isAcknowledged: index !== 5,
}));
const rows: readonly LogRow[] = sent.map(({ tag }, index) => ({ seq: index + 1, tag }));
const head = rows.length;

type Fault = Exclude<keyof InboxVerdict, 'isClean' | 'acknowledged' | 'found'>;

/** The faults of a verdict that are not zero. */
function faults(verdict: InboxVerdict): Partial<Record<Fault, number>> {
  const { lost, doubled, unknown, seqFaults, outOfOrder } = verdict;
  const all = { lost, doubled, unknown, seqFaults, outOfOrder };
  return Object.fromEntries(Object.entries(all).filter(([, count]) => count > 0));
}

test('a good log is clean, in whatever order its rows were read', () => {
  const verdict = checkInbox(sent, rows.toReversed(), head);
  assert.deepEqual(faults(verdict), {});
  assert.equal(verdict.isClean, true);
  assert.equal(verdict.acknowledged, 11);
  assert.equal(verdict.found, 12);
});

test('a message whose answer got lost may be missing', () => {
  const without = rows
    .filter(({ tag }) => tag !== 'tag 5')
    .map(({ tag }, index) => ({ seq: index + 1, tag }));
  assert.equal(checkInbox(sent, without, head - 1).isClean, true);
});

const planted: readonly [string, readonly LogRow[], number, Partial<Record<Fault, number>>][] = [
  ['an acknowledged message is missing at the end', rows.slice(0, -1), head - 1, { lost: 1 }],
  [
    'an acknowledged message is missing inside',
    rows.filter(({ seq }) => seq !== 3),
    head,
    { lost: 1, seqFaults: 1 },
  ],
  ['a message stands twice', [...rows, { seq: 13, tag: 'tag 11' }], 13, { doubled: 1 }],
  [
    'a number was given twice',
    [...rows, { seq: 4, tag: 'tag 11' }],
    head,
    { doubled: 1, outOfOrder: 2, seqFaults: 1 },
  ],
  ['bytes that nobody sent', [...rows, { seq: 13, tag: 'junk' }], 13, { unknown: 1 }],
  ['a row beyond the head', rows, head - 1, { seqFaults: 1 }],
  [
    'two messages of one sender changed places',
    rows.map(({ seq, tag }) => ({ seq: seq === 1 ? 4 : seq === 4 ? 1 : seq, tag })),
    head,
    { outOfOrder: 1 },
  ],
];

for (const [name, log, last, found] of planted) {
  test(`found: ${name}`, () => {
    const verdict = checkInbox(sent, log, last);
    assert.deepEqual(faults(verdict), found);
    assert.equal(verdict.isClean, false);
  });
}
