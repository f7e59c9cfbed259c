/** The judge of a storm: what it refuses, shown on histories as a run writes them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EntryAccepted, History, HistoryLine } from '../checkers/index.ts';
import { comparedEpochs, sameLogs } from './hub-logs.ts';
import { judge } from './judge.ts';

const atMs = 1;
const group = 'storm';
const device = 'mover@red.example';

function entry(
  node: string,
  epoch: number,
  hash: string,
  parent: string,
  rejects: readonly string[] = [],
): EntryAccepted {
  return { kind: 'entry', atMs, node, group, epoch, hash, parent, rejects, hubs: 3 };
}
function logOf(node: string, hashes: readonly string[]): EntryAccepted[] {
  return hashes.map((hash, epoch) => entry(node, epoch, hash, hashes[epoch - 1] ?? ''));
}
function stands(at: string, epoch: number, hash: string, authenticator: string): HistoryLine {
  return { kind: 'epoch', atMs, device: at, group, epoch, hash, authenticator };
}
function shown(innerId: string): HistoryLine {
  return { kind: 'shown', atMs, device, innerId, sender: 'alice' };
}
const started: HistoryLine = { kind: 'fault', atMs, name: 'start', target: device };

const clean: History = [
  ...logOf('red', ['e0', 'e1', 'e2']),
  ...logOf('blue', ['e0', 'e1', 'e2']),
  // It was away at the last commit.
  ...logOf('green', ['e0', 'e1']),
  stands('alice', 2, 'e2', 'k2'),
  stands('bob', 2, 'e2', 'k2'),
  { kind: 'wanted', atMs, device, intent: 1, group, what: 'rekey' },
  { kind: 'settled', atMs, device, intent: 1, end: 'REFUSED', reason: 'REMOVED', commits: 0 },
  shown('m1'),
  { kind: 'healed', atMs },
  { kind: 'rest', atMs, device, unsent: 0, parked: 0 },
];

function found(history: History): readonly string[] {
  const { violations } = judge(history, { liveWithinMs: 1 });
  return violations.map(({ checker }) => checker);
}

test('a storm without a fork passes, with a hub that has less of the log', () => {
  assert.deepEqual(found(clean), []);
  assert.equal(comparedEpochs(clean), 1);
});

test('hubs with different entries at one place are a fork', () => {
  const forked = [
    ...clean,
    ...logOf('green', ['e0', 'e1']).slice(2),
    entry('green', 2, 'x2', 'e1'),
  ];
  assert.deepEqual(found(forked), ['I5', 'same-logs']);
});

test('a log with a hole is found, and one that rejects an entry is none', () => {
  const [first, , third] = logOf('red', ['e0', 'e1', 'e2']);
  assert.ok(first && third);
  assert.match(sameLogs([first, third])[0]?.text ?? '', /entry 1 of storm hangs in the air/);
  const [lacking] = sameLogs([third]);
  assert.match(lacking?.text ?? '', /entry 0/);
  const instead = entry('red', 1, 'f1', 'e0', ['e1']);
  assert.deepEqual(sameLogs([first, entry('red', 1, 'e1', 'e0'), instead]), []);
});

test('members with other keys in one epoch, or at an entry that no hub has, are found', () => {
  assert.deepEqual(found([...clean, stands('carol', 2, 'e2', 'other')]), ['I6']);
  assert.deepEqual(found([...clean, stands('carol', 2, 'x2', 'k2')]), ['I7']);
});

test('a wish without an end is found', () => {
  const open: HistoryLine = { kind: 'wanted', atMs, device, intent: 2, group, what: 'add' };
  assert.deepEqual(found([...clean, open]), ['intents']);
});

test('a message that is read twice is found, unless the reader died before it confirmed', () => {
  assert.deepEqual(found([...clean, shown('m1')]), ['shown-once']);
  assert.deepEqual(found([...clean, started, shown('m1')]), []);
  assert.deepEqual(found([...clean, started, shown('m1'), shown('m1')]), ['shown-once']);
});

test('after a crash the last 16 may come again, and none before them', () => {
  const all = Array.from({ length: 17 }, (_, index) => shown(`n${index}`));
  assert.deepEqual(found([...clean, ...all, started, ...all.slice(1)]), []);
  assert.deepEqual(found([...clean, ...all, started, ...all]), ['shown-once']);
});
