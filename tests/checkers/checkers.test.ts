/** Each checker passes a clean history and finds what it is for. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
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
const row = (seq: number, tag: string): HistoryLine => ({
  kind: 'row',
  atMs: 5,
  node: 'red',
  log: 'bob/1',
  storeId: 's1',
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
const cursor = (from: number, seq: number): HistoryLine => ({
  kind: 'cursor',
  atMs: seq,
  device: 'bob/1',
  storeId: 's1',
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
  for (const checker of [noLoss, noDup, noGap, fifo]) assert.deepEqual(checker(clean), []);
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

test('fifo finds holes, double seqs and rows out of order', () => {
  assert.match(fifo([...clean, row(4, 't4')])[0]?.text ?? '', /between 2 and 4/);
  assert.match(fifo([...clean, row(2, 'other')])[0]?.text ?? '', /two rows have seq 2/);
  const swapped = clean.filter((line) => line.kind !== 'acknowledged');
  const found = fifo([...swapped, acknowledged('t2'), acknowledged('t1')]);
  assert.match(found[0]?.text ?? '', /seq 1 was acknowledged after 2/);
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
