/** A campaign says so when messages took none of the ways that its mixes are there for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Report, type RunSummary } from './report.ts';

function reportOf(mix: string, ...pastNodes: readonly RunSummary['pastNodes'][]): Report {
  const report = new Report();
  const lists = { violations: [], faults: [], actions: [] };
  const counts = { operations: 1, sent: 1, stored: 1, gaveUp: 0, steps: 1, looks: 1 };
  const times = { simulatedMs: 1, drainMs: 1, cpuMs: 1 };
  for (const [seed, past] of pastNodes.entries()) {
    report.add({ seed, mix, hash: '', pastNodes: past, ...lists, ...counts, ...times });
  }
  return report;
}

const nothing = { direct: 0, relay: 0 };

test('a way past nodes that no message took is a finding', () => {
  const directly = { direct: 9, relay: 0 };
  assert.deepEqual(reportOf('relays', directly, directly, nothing).unused, ['relays relay']);
  assert.deepEqual(reportOf('relays', directly, nothing, { direct: 0, relay: 1 }).unused, []);
  assert.deepEqual(reportOf('dark', nothing, nothing, nothing).unused, ['dark direct']);
  assert.deepEqual(reportOf('dark', nothing, nothing, directly).unused, []);
  assert(
    reportOf('dark', nothing, nothing, nothing)
      .lines()
      .some((line) => line.endsWith('dark direct')),
  );
});

test('one run that had no use for a way says nothing, and neither does a mix without a swarm', () => {
  assert.deepEqual(reportOf('relays', nothing).unused, []);
  assert.deepEqual(reportOf('storm', nothing, nothing, nothing).unused, []);
});
