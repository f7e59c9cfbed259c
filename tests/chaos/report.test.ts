/** What a run of chaos amounts to: a scenario of which a part was skipped has not passed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from './judge.ts';
import { exitCode, summaryOf, verdictOf, type Outcome } from './report.ts';
import type { Part, SkippedPart } from './scenario.ts';

const atMs = 1;
const judgement = judge(
  [
    { kind: 'healed', atMs },
    { kind: 'rest', atMs, device: 'alice', unsent: 0, parked: 0 },
  ],
  { liveWithinMs: 1 },
);
const good: Part = { name: 'relay', judgement, findings: [], notes: ['a note'] };
const bad: Part = { ...good, findings: ['it ended by itself'] };
const absent: SkippedPart = { name: 'kernel', skipped: ['iptables'] };

function ran(name: string, ...parts: readonly (Part | SkippedPart)[]): Outcome {
  return { name, parts, seconds: 1 };
}

test('a scenario of which a part was skipped is neither passed nor failed, and ends with 77', () => {
  const outcomes = [ran('pause', good), ran('loss', good, absent)];
  assert.deepEqual(outcomes.map(verdictOf), ['passed', 'partly skipped']);
  assert.equal(exitCode(outcomes), 77);
  assert.equal(
    summaryOf(outcomes),
    '1 passed, 0 failed, 0 skipped, 1 partly skipped (loss: not passed)',
  );
});

test('what failed beside a skipped part has failed', () => {
  const outcomes = [ran('loss', bad, absent)];
  assert.deepEqual(outcomes.map(verdictOf), ['failed']);
  assert.equal(exitCode(outcomes), 1);
});

test('nothing but skipped parts is a skipped scenario, no part at all a failed one', () => {
  assert.equal(verdictOf(ran('loss', absent)), 'skipped');
  assert.equal(verdictOf(ran('loss')), 'failed');
  assert.equal(exitCode([{ name: 'clock', skipped: ['faketime'] }]), 77);
  assert.equal(exitCode([{ name: 'clock', broken: 'no port', seconds: 1 }]), 1);
  assert.equal(exitCode([ran('pause', good)]), 0);
});
