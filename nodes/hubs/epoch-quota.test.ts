/** A member that commits as fast as it can: how many epochs of one group come from one device or domain. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConflictError, QpcError, systemRandom } from '@quicprochat/proto';
import { create, GroupEntrySchema } from '@quicprochat/proto/messages';
import { EpochQuota, epochRate } from './epoch-quota.ts';

const messages = { perSecond: 60, burst: 300 };
const { perSecond, burst } = epochRate(messages);

function rig(remembered?: number) {
  let nowMs = 0;
  const quota = new EpochQuota({ monotonic: () => nowMs }, messages, remembered);
  const group = systemRandom.bytes(32);
  const submit = (who: Uint8Array | string, of = group): Promise<boolean> =>
    quota.within({ entry: create(GroupEntrySchema, { group: of }) }, who, async () => true);
  const advance = (ms: number): void => void (nowMs += ms);
  return { quota, group, submit, advance };
}

const waitOf = async (submitting: Promise<unknown>): Promise<number> => {
  const error: unknown = await submitting.then(
    () => assert.fail('it was taken'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof QpcError && error.reason === 'RATE_LIMITED', String(error));
  return error.retryAfterMs ?? 0;
};

test('a device has a burst in a group and then one in three seconds, a domain four times as much', async () => {
  assert.deepEqual([Math.round(1 / perSecond), burst], [3, 60]);
  for (const [who, times] of [
    [systemRandom.bytes(32), 1],
    ['blue.example', 4],
  ] as const) {
    const { submit, advance } = rig();
    // All at once: what was not answered yet counts too.
    const all = await Promise.allSettled(
      Array.from({ length: times * burst + 5 }, () => submit(who)),
    );
    assert.equal(all.filter(({ status }) => status === 'fulfilled').length, times * burst);
    const waitMs = await waitOf(submit(who));
    assert.ok(Math.abs(waitMs - 3_000 / times) <= 1, `${waitMs}`);
    assert.ok(await submit(who, systemRandom.bytes(32)), 'another group');
    assert.ok(await submit(systemRandom.bytes(32)), 'somebody else');
    advance(waitMs - 2);
    await waitOf(submit(who));
    advance(3);
    assert.ok(await submit(who));
    await waitOf(submit(who));
  }
});

test('what the hub refuses costs nothing, and memory is bounded', async () => {
  const { quota, group, submit } = rig(8);
  const device = systemRandom.bytes(32);
  for (let count = 0; count < 2 * burst; count += 1) {
    const lost = quota.within({ entry: create(GroupEntrySchema, { group }) }, device, async () => {
      throw new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch');
    });
    await assert.rejects(lost, { reason: 'EPOCH_CONFLICT' });
  }
  for (let count = 0; count < burst; count += 1) await submit(device);
  await waitOf(submit(device));
  for (let count = 0; count < 8; count += 1) await submit(systemRandom.bytes(32));
  assert.ok(await submit(device), 'the oldest is forgotten');
});
