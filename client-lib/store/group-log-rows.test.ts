/** What of group logs is kept within bounds, whatever a hub signs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groupLogBounds } from './group-log-rows.ts';
import { openMemoryStore } from './sqlite-store.ts';

test('a hub that contradicts itself without end fills no disk', () => {
  const store = openMemoryStore();
  const [groupId, other] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  const forkOf = (n: number, group = groupId) => ({
    ...{ groupId: group, one: Uint8Array.of(1), other: Uint8Array.of(2, n), hubs: ['red.example'] },
    atMs: n,
  });
  for (let n = 0; n < groupLogBounds.forks; n += 1) {
    assert.equal(store.groupLog.addFork(forkOf(n)), true);
    assert.equal(store.groupLog.addFork(forkOf(n)), false, 'it is known');
  }
  assert.equal(store.groupLog.addFork(forkOf(groupLogBounds.forks)), false);
  assert.equal(
    store.groupLog.addFork(forkOf(0, other)),
    true,
    'another group has places of its own',
  );
  assert.equal(store.groupLog.forks().length, groupLogBounds.forks + 1);
  store.close();
});
