/** The checkers of groups that change pass a clean history, and each finds what it is for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { intentsEnd, membersOnly, noGap, noLoss, oneKey, oneLog } from './index.ts';
import type { History, HistoryLine } from './index.ts';

const group = 'g1';
const entry = (
  epoch: number,
  hash: string,
  {
    node = 'red',
    rejects = [],
    atMs = epoch,
    hubs = 3,
  }: Partial<Pick<Entry, 'node' | 'rejects' | 'atMs' | 'hubs'>> = {},
): HistoryLine => ({
  ...{ kind: 'entry', atMs, node, group, epoch, hash, rejects, hubs },
  parent: `e${epoch - 1}`,
});
type Entry = Extract<HistoryLine, { kind: 'entry' }>;
const epoch = (
  device: string,
  at: number,
  hash: string,
  authenticator = `a${hash}`,
): HistoryLine => ({
  ...{ kind: 'epoch', atMs: at, device, group, epoch: at, hash, authenticator },
});
const sent = (n: number, at: number, recipients: readonly string[]): HistoryLine => ({
  ...{ kind: 'sent', atMs: n, device: 'alice/1', user: 'alice', conversation: group },
  ...{ innerId: `m${n}`, n, recipients, epoch: at },
});
const stored = (device: string, n: number): HistoryLine => ({
  ...{ kind: 'stored', atMs: n, device, user: device.slice(0, -2), conversation: group },
  ...{ innerId: `m${n}`, senderDevice: 'alice/1', n },
});
const removed = (device: string, at: number): HistoryLine => ({
  ...{ kind: 'removed', atMs: at, device, conversation: group, epoch: at },
});
const wanted: HistoryLine = {
  ...{ kind: 'wanted', atMs: 1, device: 'bob/1', intent: 7, group, what: 'add' },
};
const settled = (end: string, commits: number, reason?: string): HistoryLine => ({
  ...{ kind: 'settled', atMs: 2, device: 'bob/1', intent: 7, end, commits },
  ...(reason === undefined ? {} : { reason }),
});

const clean: History = [
  entry(1, 'e1'),
  entry(1, 'e1', { node: 'blue' }),
  epoch('bob/1', 1, 'e1'),
  epoch('carol/1', 1, 'e1'),
  sent(1, 1, ['bob/1', 'carol/1']),
  stored('bob/1', 1),
  stored('carol/1', 1),
  wanted,
  settled('DONE', 1),
];

test('a clean history of a group has no violation', () => {
  const judged = [oneLog, membersOnly, intentsEnd].flatMap((checker) => checker(clean));
  assert.deepEqual([...judged, ...noLoss(clean, { promised: 'sent' }), ...noGap(clean)], []);
});

test('one-log finds two children of one parent, unless one rejects the other', () => {
  const other = entry(1, 'x1', { node: 'blue' });
  assert.match(oneLog([...clean, other])[0]?.text ?? '', /two children of g1 e0/);
  assert.deepEqual(oneLog([...clean, entry(1, 'x1', { rejects: ['e1'] })]), []);
});

/** Of a hub of one. */
const alone = (hash: string, atMs: number): HistoryLine => entry(1, hash, { atMs, hubs: 1 });
const restored = (atMs: number, copyMs: number, node = 'red'): HistoryLine => ({
  ...{ kind: 'restored', atMs, node, copyMs },
});
const heldMs = 120_000;
const forks = (...lines: readonly HistoryLine[]): number => oneLog(lines).length;

test('one-log excuses a hub alone that forgot one child with its disk, and waited before it took another', () => {
  const late = alone('x1', 50 + heldMs);
  assert.equal(forks(alone('e1', 10), restored(50, 5), late), 0);
  // What it has the word of comes back at once, after another loss.
  const again = [restored(200_000, 60), alone('e1', 200_001)];
  assert.equal(forks(alone('e1', 10), restored(50, 5), late, ...again), 0);
});

test('one-log excuses no hub that has it still, did not wait, or is one of three', () => {
  const [first, restore, late] = [alone('e1', 10), restored(50, 5), alone('x1', 50 + heldMs)];
  assert.equal(forks(first, late), 1);
  assert.equal(forks(first, restore, alone('x1', 49 + heldMs)), 1);
  assert.equal(forks(first, restore, restored(60, 55), late), 1);
  // Its copy had it, or members brought it back, or another node lost a disk.
  assert.equal(forks(first, restored(50, 20), late), 1);
  assert.equal(forks(first, restore, alone('e1', 51), late), 1);
  assert.equal(forks(first, restored(50, 5, 'blue'), late), 1);
  const ofThree = [entry(1, 'e1', { atMs: 10 }), entry(1, 'x1', { atMs: 50 + heldMs })];
  assert.equal(forks(...ofThree, restore), 1);
  // Neither without a loss in between, nor a third child of its own will.
  assert.equal(forks(first, restore, late, alone('e1', 200_000)), 1);
});

test('one-log finds other keys at one entry, and an entry that no hub accepted', () => {
  assert.equal(oneLog([...clean, epoch('dave/1', 1, 'e1', 'other')])[0]?.checker, 'I6');
  assert.equal(oneLog([...clean, epoch('dave/1', 2, 'e2')])[0]?.checker, 'I7');
  // It was accepted later, by no matter how many hubs.
  const early: HistoryLine = {
    ...{ kind: 'epoch', atMs: 4, device: 'dave/1', group, epoch: 2, hash: 'e2' },
  };
  const accepted = [5, 9].map((atMs) => entry(2, 'e2', { atMs }));
  assert.match(oneLog([...clean, early, ...accepted])[0]?.text ?? '', /before any hub accepted it/);
  assert.deepEqual(oneLog([...clean, { ...early, atMs: 5 }, ...accepted]), []);
  assert.deepEqual(oneLog([...clean, early, ...accepted], { isOneClock: false }), []);
  // Its creator stands there before the hub has heard of the group.
  assert.deepEqual(oneLog([...clean, epoch('dave/1', 0, 'e0')]), []);
});

test('members-only finds who reads what was not for it', () => {
  assert.match(membersOnly([...clean, stored('dave/1', 1)])[0]?.text ?? '', /not for it/);
});

test('an intent has an end, an accepted commit when it is done, and a known reason when it is refused', () => {
  const ends = (...lines: HistoryLine[]): string => intentsEnd([wanted, ...lines])[0]?.text ?? '';
  assert.match(ends(), /has no end/);
  assert.match(ends(settled('DONE', 0)), /no commit/);
  assert.match(ends(settled('REFUSED', 0, 'INTERNAL')), /refused: INTERNAL/);
  assert.match(ends(settled('REFUSED', 0)), /without a reason/);
  assert.equal(ends(settled('REFUSED', 0, 'NOT_ALLOWED')), '');
  assert.equal(ends(settled('SUPERSEDED', 0)), '');
});

test('nothing is owed to who was taken out later, and everything to who came back before', () => {
  const lacking = [sent(1, 3, ['bob/1', 'carol/1']), sent(2, 6, ['bob/1', 'carol/1'])];
  const lost = (history: History): number => noLoss(history, { promised: 'sent' }).length;
  assert.equal(lost(lacking), 4);
  assert.equal(lost([...lacking, removed('bob/1', 4)]), 3);
  assert.equal(lost([...lacking, removed('bob/1', 4), removed('bob/1', 7)]), 2);
});

test('what came when its keys were gone is owed by senders that are in the group still', () => {
  const late = [sent(1, 1, ['bob/1']), sent(2, 20, ['bob/1']), stored('bob/1', 2)];
  const history = [...late, epoch('bob/1', 10, 'e10')];
  const judged = (lines: History, options: Parameters<typeof noGap>[1]): number =>
    noLoss(lines, { promised: 'sent', ...options }).length + noGap(lines, options).length;
  assert.equal(judged(history, {}), 2);
  assert.equal(judged(history, { epochsKept: 9 }), 2);
  assert.equal(judged(history, { epochsKept: 8 }), 0);
  assert.equal(judged(history, { epochsKept: 8, isSealedAnew: true }), 2);
  const left = [...history, removed('alice/1', 12)];
  assert.equal(judged(left, { epochsKept: 8, isSealedAnew: true }), 0);
});

test('one-key finds a second commit in an epoch, unless the first one was given up', () => {
  const sealed = (commit: string, parent = 'e1', device = 'bob/1'): HistoryLine => ({
    ...{ kind: 'sealed', atMs: 1, device, group, parent, commit },
  });
  const spent = { kind: 'spent', atMs: 2, device: 'bob/1', commit: 'c1' } as const;
  assert.deepEqual(
    oneKey([sealed('c1'), sealed('c1'), sealed('c2', 'e2'), sealed('c3', 'e1', 'carol/1')]),
    [],
  );
  assert.deepEqual(oneKey([sealed('c1'), spent, sealed('c2')]), []);
  assert.equal(oneKey([sealed('c1'), sealed('c2'), spent]).length, 1);
});
