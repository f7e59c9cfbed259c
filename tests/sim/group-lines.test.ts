/** The lines of what a node's store accepted name what is on its disk, and nothing that it left out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import {
  StoreCore,
  type BatchOutcome,
  type OperationRequest,
} from '@quicprochat/nodes/store/simulation';
import { domains, makeStarts } from '../hub-sim/cluster.ts';
import { Disk } from './disk.ts';
import { acceptedEntries } from './group-lines.ts';
import { SimRandom } from './process.ts';
import { nodeConfig } from './world.ts';

test('what others bring to a hub is a line where it was taken, and none where it was left out', async () => {
  const [start] = await makeStarts();
  assert.ok(start !== undefined);
  using disk = new Disk();
  const path = disk.place(start.domain, start.image);
  const { store: limits } = nodeConfig(start.domain);
  using core = new StoreCore({ path, key: start.key, limits, random: new SimRandom('lines') });
  const group = new TestCommitter();
  const none: Uint8Array = new Uint8Array(0);
  const first = { ...group.certify(group.sign(undefined)), commit: none };
  const second = group.offer(first.parsed);
  const third = group.offer(second.parsed);
  const rival = group.offer(second.parsed);

  const run = (nowMs: number, request: OperationRequest): BatchOutcome => {
    const outcome = core.run(nowMs, [request]);
    const [one] = outcome.outcomes;
    if (one?.isOk === false) throw one.error;
    return outcome;
  };
  /** The epochs of the lines, and how many hubs they say. */
  const install = (
    entries: readonly (typeof first)[],
    position: number,
    how: { readonly isRepair?: boolean; readonly isBrought?: true } = {},
  ): readonly (readonly [epoch: number, hubs: number])[] => {
    const installed = {
      ...{ group: group.groupId, hubs: domains, from: domains[1] ?? '', position, entries },
      ...{ groupInfo: none, groupInfoEntry: none, isRepair: false, ...how },
    };
    const request: OperationRequest = { name: 'installEntries', args: [installed] };
    const labels = { nowMs: 1, label: (what: string) => what };
    const lines = acceptedEntries(start.domain, labels, [request], run(1, request));
    return lines.map(({ epoch, hubs }) => [epoch, hubs] as const);
  };

  assert.deepEqual(install([second], 2, { isBrought: true }), [], 'a group that it does not know');
  assert.deepEqual(install([second, third], 2), [], 'a page with a hole before it');
  assert.deepEqual(install([first, second], 1, { isRepair: true }), [
    [0, 3],
    [1, 3],
  ]);
  assert.deepEqual(install([third], 3, { isBrought: true }), [[2, 3]]);
  const id = group.groupId;
  run(1, { name: 'holdGroup', args: [id] });
  run(120_001, { name: 'promiseTerm', args: [id, 4, undefined, true] });
  const late = install([rival], 3, { isBrought: true });
  assert.deepEqual(late, [], 'another one, from a member, once it gave its word');
});
