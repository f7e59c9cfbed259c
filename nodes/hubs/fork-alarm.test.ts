/** A hub of one that is shown its own word for another entry of a place: its operator hears that it convicts itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom, UnavailableError, type LogFields } from '@quicprochat/proto';
import { addDevice, bigLimits, StoreFixture } from '../store/contract/fixture.ts';
import { TestCommitter } from '../store/contract/group-committer.ts';
import { openNodeStoreInThread } from '../store/open.ts';
import { ForkAlarm } from './fork-alarm.ts';
import { RestoredHub } from './restored-hub.ts';

test('a hub of one that went on beside what it had certified convicts itself, and says so once', async () => {
  await using fixture = new StoreFixture();
  await fixture.create();
  const store = await fixture.open(openNodeStoreInThread, bigLimits);
  const group = new TestCommitter();
  const { domain, hubSigning } = group;
  const told: [string, LogFields | undefined][] = [];
  const log = {
    ...silentLog,
    error: (event: string, fields?: LogFields) => void told.push([event, fields]),
  };
  const keysOf = () => [hubSigning.publicKey];
  const away = () => Promise.reject(new UnavailableError('PEER_UNREACHABLE', 'nobody is there'));
  const clock = { monotonic: () => 0 };
  const forks = new ForkAlarm({ store, keysOf, clock, log, peers: { log: away } });
  const hub = new RestoredHub({ domain, store, keysOf, forks, log });

  const made = group.newGroup(await addDevice(store, 'maker'));
  await store.createGroup(made);
  await hub.submit(group.offer(made.parsed));
  const conflict = { reason: 'EPOCH_CONFLICT' };
  const other = group.offer(made.parsed, { commit: systemRandom.bytes(50) });
  await assert.rejects(hub.submit(other), conflict);
  assert.deepEqual(told, [], "a commit that lost is nobody's fault");
  for (let times = 0; times < 2; times += 1) {
    await assert.rejects(hub.submit({ ...other, wasCertified: true }), conflict);
  }
  const name = Buffer.from(group.groupId).toString('hex').slice(0, 16);
  const fields = { group: name, hubs: domain, epoch: 1, from: 'a member' };
  assert.deepEqual(told, [['a hub of a group is convicted', fields]]);
});
