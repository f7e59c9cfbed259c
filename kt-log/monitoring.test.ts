/**
 * What monitoring and updates ask of a log, and what stays to be monitored (protocol sections 8.2,
 * 9.1, 12.3), in cases that the official vectors leave open: found by comparing with the reference
 * implementation (docs/reference/katie-differences.md).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelLog, record } from './model-log.ts';
import { monitorContact } from './monitoring.ts';
import { checkUpdate } from './updating.ts';
import { monitorFound } from './verify-search.ts';

/** Entry p is issued at `times[p]`; each one holds a version of bob, and those of alice listed. */
async function logOf(times: readonly number[], alice: readonly number[]): Promise<ModelLog> {
  const log = new ModelLog();
  for (const [position, timestampMs] of times.entries()) {
    const count = alice.filter((at) => at === position).length;
    await log.append({ timestampMs, adds: { bob: 1, alice: count } });
  }
  return log;
}
/** A second per entry: only entries on the left edge are a minute wide, and the last one's parents. */
const seconds = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => 1_000_000 + 1000 * i);
const windowMs = 60_000;

test('the path to a monitored entry gives no time of an entry that is not distinguished', async () => {
  const log = await logOf(seconds(16), [6]);
  const map = [{ position: 6, version: 0 }];
  const at = { size: 16, windowMs };
  // 15, 7 and 3 are distinguished, 5 is not; of 7 alone a ladder is asked.
  const { proof } = await record(log, 'alice', at, (tree) => monitorContact(tree, map));
  const times = [15, 7, 3].map((position) => log.entries[position]?.timestampMs);
  assert.deepEqual(proof.timestamps, times);
  assert.equal(proof.prefixProofs.length, 1);
});

test('where all of the previous frontier is distinguished, no lookup of an update is omitted', async () => {
  const log = await logOf(seconds(10), [2, 4]);
  const owner = {
    greatestVersion: 0,
    greatestPosition: 2,
    versionAt: (position: number) => log.greatestAt('alice', position),
  };
  const added = { position: 4, first: 1, greatest: 1 };
  const at = { size: 10, windowMs };
  // The tree before entry 4 has entry 3 on its frontier alone, which holds version zero.
  const { proof } = await record(log, 'alice', at, (tree) => checkUpdate(tree, owner, added));
  const shown = proof.prefixProofs.map(({ results }) =>
    results.map(({ type }) => type === 'inclusion'),
  );
  assert.deepEqual(shown, [[true, true, false, false]]);
});

test('of two versions that meet at one entry, the greater one stays to be monitored', async () => {
  const log = await logOf(seconds(24), [20, 23]);
  // 23 is on the frontier, right of the last distinguished entry; it was found there.
  const map = [
    { position: 20, version: 0 },
    { position: 23, version: 1 },
  ];
  const at = { size: 24, windowMs };
  const { result } = await record(log, 'alice', at, (tree) => monitorContact(tree, map));
  const left = result.map(({ position, version, isSettled }) => ({ position, version, isSettled }));
  assert.deepEqual(left, [{ position: 23, version: 1, isSettled: false }]);
});

test('a commitment that is known is kept when a later search does not repeat it', () => {
  const label = Uint8Array.of(1);
  const key = (version: number, commitment?: number) => ({
    vrfOutput: new Uint8Array(32).fill(version),
    commitment: commitment === undefined ? undefined : new Uint8Array(32).fill(commitment),
  });
  const value = new Uint8Array();
  const found = { label, value, opening: value, terminal: 4, terminalMs: 0, mustMonitor: true };
  const shown = new Map([
    [0, key(0, 10)],
    [1, key(1, 11)],
    [3, key(3)],
  ]);
  const first = monitorFound(undefined, { ...found, version: 1, versions: shown });
  const lesser = new Map([
    [0, key(0, 10)],
    [1, key(1)],
    [3, key(3, 13)],
  ]);
  const { versions } = monitorFound(first, { ...found, version: 0, versions: lesser });
  assert.deepEqual(versions.get(1), key(1, 11));
  assert.deepEqual(versions.get(3), key(3, 13));
});

test('a greater version found further left takes the place of a lesser one', () => {
  const label = Uint8Array.of(1);
  const value = new Uint8Array();
  const versions = new Map();
  const found = { label, value, opening: value, terminalMs: 0, mustMonitor: true, versions };
  // Version 4 was found in entry 9 and monitored up to 11; then version 6 is found in entry 10.
  // Both would come up to the same entries, and section 8.2, step 3.1 takes that for an alarm.
  const before = { label, map: [{ position: 11, version: 4 }], versions };
  const after = monitorFound(before, { ...found, version: 6, terminal: 10 });
  assert.deepEqual(after.map, [{ position: 10, version: 6 }]);
  const covered = monitorFound(after, { ...found, version: 4, terminal: 11 });
  assert.deepEqual(covered.map, after.map);
  const lesser = monitorFound(after, { ...found, version: 4, terminal: 9 });
  assert.deepEqual(lesser.map, [{ position: 9, version: 4 }, ...after.map]);
});
