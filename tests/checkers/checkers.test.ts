/** Each checker passes a clean history and finds what it is for. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  allShown,
  blockedHidden,
  bounded,
  encodeHistory,
  fifo,
  live,
  membersOnly,
  noDup,
  noGap,
  noLoss,
  readHistory,
  shownOnce,
} from './index.ts';
import type { History, HistoryLine } from './index.ts';

const conversation = 'c1';
const sent = (n: number): HistoryLine[] => [
  {
    kind: 'sent',
    atMs: n,
    device: 'alice/1',
    user: 'alice',
    conversation,
    innerId: `m${n}`,
    n,
    recipients: ['bob/1', 'carol/1'],
  },
  { kind: 'accepted', atMs: n + 1, device: 'alice/1', innerId: `m${n}` },
];
const stored = (device: string, n: number): HistoryLine => ({
  kind: 'stored',
  atMs: 10 + n,
  device,
  user: device.slice(0, -2),
  conversation,
  innerId: `m${n}`,
  senderDevice: 'alice/1',
  n,
});
const row = (seq: number, tag: string, storeId = 's1', node = 'red'): HistoryLine => ({
  kind: 'row',
  atMs: 5,
  node,
  log: 'bob/1',
  storeId,
  seq,
  tag,
});
const acknowledged = (tag: string, isDuplicate = false): HistoryLine => ({
  kind: 'acknowledged',
  atMs: 6,
  node: 'red',
  device: 'alice/1',
  log: 'bob/1',
  tag,
  isDuplicate,
});
const cursor = (from: number, seq: number, more: object = {}): HistoryLine => ({
  ...{ kind: 'cursor', atMs: seq, device: 'bob/1', storeId: 's1', ...more },
  from,
  seq,
});
const rest = (device: string, unsent: number): HistoryLine => ({
  kind: 'rest',
  atMs: 200,
  device,
  unsent,
  parked: 0,
});

const clean: History = [
  ...[1, 2].flatMap(sent),
  row(1, 't1'),
  row(2, 't2'),
  acknowledged('t1'),
  acknowledged('t2'),
  acknowledged('t1', true),
  cursor(1, 1),
  cursor(2, 2),
  ...['bob/1', 'carol/1'].flatMap((device) => [stored(device, 1), stored(device, 2)]),
  { kind: 'healed', atMs: 100 },
  rest('alice/1', 0),
  rest('bob/1', 0),
  rest('carol/1', 0),
];
const without = (lost: HistoryLine): History => clean.filter((line) => line !== lost);
const lineOf = (matches: (line: HistoryLine) => boolean): HistoryLine => {
  const line = clean.find(matches);
  assert(line !== undefined);
  return line;
};
const lastOfBob = lineOf(
  (line) => line.kind === 'stored' && line.device === 'bob/1' && line.n === 2,
);
const firstOfBob = lineOf((line) => line.kind === 'stored' && line.device === 'bob/1');

test('a clean history has no violation', () => {
  for (const checker of [noLoss, noDup, noGap, fifo, shownOnce])
    assert.deepEqual(checker(clean), []);
  assert.deepEqual(live(clean, 50), []);
});

test('no-loss finds a message that an acknowledged recipient lacks, unless the sender was told', () => {
  const lost = without(lastOfBob);
  assert.match(noLoss(lost)[0]?.text ?? '', /bob\/1 lacks alice\/1's message 2/);
  const told: HistoryLine = {
    kind: 'gaveUp',
    atMs: 50,
    device: 'alice/1',
    innerId: 'm2',
    recipient: 'bob/1',
    reason: 'expired',
  };
  assert.deepEqual(noLoss([...lost, told]), []);
});

test('no-loss owes unacknowledged messages only where senders live', () => {
  const lost = without(lastOfBob).filter(
    (line) => !(line.kind === 'accepted' && line.innerId === 'm2'),
  );
  assert.deepEqual(noLoss(lost), []);
  assert.equal(noLoss(lost, { promised: 'sent' }).length, 1);
});

test('no-dup finds doubles and strangers', () => {
  assert.match(noDup([...clean, firstOfBob])[0]?.text ?? '', /twice/);
  assert.match(noDup([...clean, stored('bob/1', 7)])[0]?.text ?? '', /never sent/);
});

test('no-gap finds a hole before a later message and a cursor that jumps', () => {
  assert.match(noGap(without(firstOfBob))[0]?.text ?? '', /hole at 1/);
  const gone: HistoryLine = {
    kind: 'missing',
    atMs: 60,
    device: 'bob/1',
    what: 'gone',
    reason: 'GONE',
    senderDevice: 'alice/1',
    conversation,
    n: 1,
  };
  assert.deepEqual(noGap([...without(firstOfBob), gone]), []);
  assert.match(noGap([...clean, cursor(4, 4)])[0]?.text ?? '', /from 2 to 4/);
});

test('no-gap knows the cursor of each channel, which may begin anywhere, and again', () => {
  const log = 'channel1';
  const begun = [...clean, cursor(7, 7, { log, isFirst: true }), cursor(8, 9, { log })];
  assert.deepEqual(noGap([...begun, cursor(3, 3)]), []);
  assert.deepEqual(noGap([...begun, cursor(40, 40, { log, isFirst: true })]), []);
  assert.deepEqual(noGap([...begun, cursor(40, 40, { log, storeId: 's2' })]), []);
  const found = noGap([...begun, cursor(11, 11, { log })]);
  assert.match(found[0]?.text ?? '', /cursor of channel1 went from 9 to 11/);
});

test('fifo finds holes, double seqs and rows out of order', () => {
  assert.match(fifo([...clean, row(4, 't4')])[0]?.text ?? '', /between 2 and 4/);
  assert.match(fifo([...clean, row(2, 'other')])[0]?.text ?? '', /two rows have seq 2/);
  const swapped = clean.filter((line) => line.kind !== 'acknowledged');
  const found = fifo([...swapped, acknowledged('t2'), acknowledged('t1')]);
  assert.match(found[0]?.text ?? '', /seq 1 was acknowledged after 2/);
  const twice = fifo([...clean, row(3, 't1')]);
  assert.match(twice[0]?.text ?? '', /t1 has two rows, 1 and 3/);
});

test('fifo lets a node that went on with an older disk count on, and take again what it lost', () => {
  const lost = [...clean, row(3, 't3'), acknowledged('t3'), row(4, 't4'), acknowledged('t4')];
  const taken = [row(3, 't5', 's2'), acknowledged('t5'), row(4, 't3', 's2'), acknowledged('t3')];
  assert.deepEqual(fifo([...lost, ...taken]), []);
  const swapped = [row(5, 't6', 's2'), row(6, 't7', 's2'), acknowledged('t7'), acknowledged('t6')];
  assert.match(
    fifo([...lost, ...taken, ...swapped])[0]?.text ?? '',
    /seq 5 was acknowledged after 6/,
  );
});

test('fifo looks at the order at another node where nothing excuses another one', () => {
  const relayed = [acknowledged('t3'), acknowledged('t4'), row(1, 't4', 's9', 'blue')];
  const history = [...clean, ...relayed, row(2, 't3', 's9', 'blue')];
  assert.deepEqual(fifo(history), []);
  const found = fifo(history, { isRelayedInOrder: true });
  assert.match(found[0]?.text ?? '', /seq 1 was acknowledged after 2/);
  assert.equal(found.length, 1);
  // Both came back, and were taken anew in their order.
  const inOrder = [row(1, 't3', 's9', 'blue'), row(2, 't4', 's9', 'blue')];
  const again = [...clean, ...relayed.slice(0, 2), acknowledged('t3'), ...inOrder];
  assert.deepEqual(fifo(again, { isRelayedInOrder: true }), []);
});

test('shown-once finds what is given again, unless a life ended before it was had', () => {
  const shown = (innerId: string): HistoryLine => ({
    ...{ kind: 'shown', atMs: 2, device: 'bob/1', innerId, sender: 'alice' },
  });
  const had = (...innerIds: string[]): HistoryLine => ({
    ...{ kind: 'had', atMs: 3, device: 'bob/1', innerIds },
  });
  const start: HistoryLine = { kind: 'fault', atMs: 4, name: 'start', target: 'bob/1' };
  assert.deepEqual(shownOnce([shown('m1'), shown('m2'), start, shown('m1'), shown('m2')]), []);
  const found = (history: History): string => shownOnce(history)[0]?.text ?? '';
  assert.match(found([shown('m1'), shown('m1')]), /bob\/1 was given alice's m1 again/);
  assert.match(found([shown('m1'), start, shown('m1'), shown('m1')]), /m1 again/);
  assert.match(found([shown('m1'), had('m1'), start, shown('m1')]), /m1 again/);
  const many = Array.from({ length: 17 }, (_, index) => shown(`m${index}`));
  assert.match(found([...many, start, shown('m0')]), /m0 again/);
});

test('all-shown finds what an application was never given, unless its sender is blocked there', () => {
  const shown = clean.flatMap((line): HistoryLine[] =>
    line.kind === 'stored'
      ? [{ ...line, kind: 'shown', sender: 'alice' } as unknown as HistoryLine]
      : [],
  );
  assert.deepEqual(allShown([...clean, ...shown]), []);
  const [first, ...others] = shown;
  assert(first !== undefined);
  const missing = [...clean, ...others];
  assert.match(allShown(missing)[0]?.text ?? '', /bob\/1 has m1 of alice\/1, and never showed it/);
  const block = (isBlocked: boolean): HistoryLine => ({
    ...{ kind: 'blocked', atMs: 1, device: 'bob/1', user: 'alice', isBlocked },
  });
  assert.deepEqual(allShown([...missing, block(true)]), []);
  assert.equal(allShown([...missing, block(true), block(false)]).length, 1);
});

test('live finds what is left over, what came late, and a history without an end', () => {
  assert.match(live([...clean, rest('dave/1', 3)], 50)[0]?.text ?? '', /3 copies unsent/);
  const late: HistoryLine = { ...stored('bob/1', 2), atMs: 151 };
  assert.match(live([...clean, late], 50)[0]?.text ?? '', /51 ms after/);
  assert.equal(live(clean.slice(0, 3), 50).length, 1);
});

test('blocked finds what was shown of a blocked person, and nothing before, after or elsewhere', () => {
  const block = (device: string, isBlocked: boolean): HistoryLine => ({
    ...{ kind: 'blocked', atMs: 1, device, user: 'alice', isBlocked },
  });
  const shown = (device: string): HistoryLine => ({
    ...{ kind: 'shown', atMs: 2, device, innerId: 'm1', sender: 'alice' },
  });
  const history = [shown('bob/1'), block('bob/1', true), shown('carol/1'), block('bob/1', false)];
  assert.deepEqual(blockedHidden([...history, shown('bob/1')]), []);
  const found = blockedHidden([block('bob/1', true), ...history]);
  assert.match(found[0]?.text ?? '', /bob\/1 was shown m1 of alice/);
});

test('bounded finds what is too much, what is left at the end, and who was not looked at', () => {
  const held = (count: number, isAtRest: boolean, process = 'red'): HistoryLine => ({
    ...{ kind: 'held', atMs: 5, process, what: 'rows', count, isAtRest },
    bound: isAtRest ? 0 : 3,
  });
  assert.deepEqual(bounded([held(3, false), held(0, true)]), []);
  assert.match(
    bounded([held(4, false), held(0, true)])[0]?.text ?? '',
    /4 rows at 5 ms, at most 3/,
  );
  assert.match(bounded([held(1, true)])[0]?.text ?? '', /1 rows at rest, at most 0/);
  assert.match(bounded([held(0, true), held(1, false, 'blue')])[0]?.text ?? '', /blue: nothing/);
  assert.equal(bounded([]).length, 1);
});

test('members-only knows what was sealed anew for who is in a channel by then', () => {
  const anew: HistoryLine = {
    ...{ kind: 'sealedAnew', atMs: 5, device: 'alice/1', innerId: 'm1', recipients: ['dave/1'] },
  };
  const read = [...clean, stored('dave/1', 1)];
  assert.equal(membersOnly(read).length, 1);
  assert.deepEqual(membersOnly([...read, anew]), []);
});

test('a history survives its file, whose last line may be unfinished', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-history-'));
  try {
    const path = join(directory, 'history.jsonl');
    writeFileSync(path, `${encodeHistory(clean)}{"kind":"sent","atMs`);
    assert.deepEqual(readHistory(path), clean);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
