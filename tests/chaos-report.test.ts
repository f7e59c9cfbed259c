/** The chaos driver's own parts: what it counts, and that a skipped scenario never reads as passed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from './chaos/judge.ts';
import { exitCode, summaryOf, type Outcome } from './chaos/report.ts';
import { isPassed, type Part } from './chaos/scenario.ts';
import type { HistoryLine } from './checkers/index.ts';

const alice = 'alice@red.example';
const bob = 'bob@blue.example';
const said = (n: number, isAccepted = true): HistoryLine[] => [
  {
    kind: 'sent',
    atMs: 100 * n,
    device: alice,
    user: alice,
    conversation: 'pair',
    innerId: `m${n}`,
    n,
    recipients: [bob],
  },
  ...(isAccepted
    ? [{ kind: 'accepted', atMs: 100 * n + 10, device: alice, innerId: `m${n}` } as const]
    : []),
];
const heard = (n: number, atMs = 100 * n + 50): HistoryLine => ({
  kind: 'stored',
  atMs,
  device: bob,
  user: bob,
  conversation: 'pair',
  innerId: `m${n}`,
  senderDevice: alice,
  n,
});
const rests: HistoryLine[] = [alice, bob].map((device) => ({
  kind: 'rest',
  atMs: 2_000,
  device,
  unsent: 0,
  parked: 0,
}));
const healed: HistoryLine = { kind: 'healed', atMs: 1_000 };
const start = (target: string, atMs: number): HistoryLine => ({
  kind: 'fault',
  atMs,
  name: 'start',
  target,
});
const options = { liveWithinMs: 500 };

const clean = [...said(1), heard(1), ...said(2), heard(2), healed, ...rests];

test('a clean history passes, with its counts and recovery times', () => {
  const judgement = judge(
    [start('blue.example', 120), start('red.example', 170), ...clean],
    options,
  );
  assert.deepEqual(judgement.violations, []);
  const { acknowledged, owed, received, lost, doubled, recoveryMs, drainMs } = judgement;
  assert.deepEqual(
    { acknowledged, owed, received, lost, doubled, drainMs },
    { acknowledged: 2, owed: 2, received: 2, lost: 0, doubled: 0, drainMs: 0 },
  );
  // blue: bob took in m1 at 150; red: alice's m2 was accepted at 210.
  assert.deepEqual(recoveryMs, { median: 40, max: 40 });
});

test('lost, doubled and late messages and unopened rows are counted and fail', () => {
  const lost = judge([...said(1), ...said(2), heard(1), healed, ...rests], options);
  assert.equal(lost.lost, 1);
  const doubled = judge([...clean, heard(2)], options);
  assert.equal(doubled.doubled, 1);
  const late = judge([...said(1), heard(1, 1_600), healed, ...rests], options);
  assert.equal(late.drainMs, 600);
  const missing: HistoryLine = {
    kind: 'missing',
    atMs: 300,
    device: bob,
    what: 'undecryptable',
    reason: 'x',
  };
  const unopened = judge([...said(1, false), missing, healed, ...rests], options);
  assert.deepEqual(judge([...clean, missing], options).violations, []);
  for (const { violations } of [lost, doubled, late, unopened]) assert.ok(violations.length > 0);
});

test('what no node acknowledged is owed only where everything sent was promised', () => {
  const history = [...said(1, false), healed, ...rests];
  assert.equal(judge(history, options).lost, 0);
  assert.equal(judge(history, { ...options, promised: 'sent' }).lost, 1);
});

const part: Part = { name: 'x', judgement: judge(clean, options), findings: [], notes: [] };
const passed: Outcome = { name: 'a', parts: [part], seconds: 1 };
const failed: Outcome = { name: 'b', parts: [{ ...part, findings: ['it died'] }], seconds: 1 };
const broken: Outcome = { name: 'c', broken: 'Error', seconds: 1 };
const empty: Outcome = { name: 'd', parts: [], seconds: 1 };
const skipped: Outcome = { name: 'e', skipped: ['root'] };

test('skipped is not passed, and anything failed is failed', () => {
  assert.ok(isPassed(part));
  assert.equal(exitCode([passed]), 0);
  assert.equal(exitCode([passed, skipped]), 77);
  assert.equal(exitCode([skipped]), 77);
  for (const bad of [failed, broken, empty]) {
    assert.equal(exitCode([passed, bad, skipped]), 1);
  }
  assert.equal(
    summaryOf([passed, failed, broken, skipped]),
    '1 passed, 2 failed, 1 skipped (e: not passed)',
  );
});
