/** Children of one entry, by who brings them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConflictError, groupLogLimits, systemRandom, type ParsedEntry } from '@quicprochat/proto';
import { create, GroupEntrySchema } from '@quicprochat/proto/messages';
import { siblingLimits, SiblingQuota, strangers, type Submitter } from './sibling-quota.ts';

const bytes = (): Uint8Array => systemRandom.bytes(32);
const [group, parent] = [bytes(), bytes()];
const child = (of = parent): Pick<ParsedEntry, 'entry' | 'hash'> => ({
  entry: create(GroupEntrySchema, { group, parent: of }),
  hash: bytes(),
});
const quota = { name: 'ResourceExhaustedError', reason: 'QUOTA' };

test('a device brings three children of one entry, a domain twelve, and others find room', async () => {
  const { perDevice, perDomain } = siblingLimits;
  for (const [who, most] of [
    [bytes(), perDevice],
    ['blue.example', perDomain],
  ] as const satisfies readonly (readonly [Submitter, number])[]) {
    const siblings = new SiblingQuota();
    const submit = (one = child(), from: Submitter = who): Promise<boolean> =>
      siblings.within(one, from, async () => true);
    const first = child();
    await submit(first);
    // All at once: what was not answered yet counts too.
    const rest = Array.from({ length: most }, () => submit());
    const settled = await Promise.allSettled(rest);
    assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, most - 1);
    await assert.rejects(submit(), quota);
    assert.ok(await submit(first), 'the same entry again');
    assert.ok(await submit(child(bytes())), 'behind another entry');
    assert.ok(await submit(child(), 'red.example'));
  }
});

test('devices of one node bring twelve together, who brought none yet up to eighteen, and another domain finds room', async () => {
  const { perDevice, perDomain, perHome } = siblingLimits;
  assert.deepEqual([perDomain, perHome, groupLogLimits.rejects], [12, 18, 24]);
  const siblings = new SiblingQuota();
  const submit = (from: Submitter): Promise<boolean> =>
    siblings.within(child(), from, async () => true);
  const known = Array.from({ length: perDomain - 1 }, bytes);
  for (const one of known) await submit(one);
  const [first = bytes()] = known;
  await submit(first);
  await assert.rejects(submit(first), quota, 'it has two of its own three');
  for (let count = perDomain; count < perHome; count += 1) await submit(bytes());
  for (const one of [bytes(), strangers]) await assert.rejects(submit(one), quota);
  assert.ok(perDevice < perHome);
  for (let count = perHome; count < groupLogLimits.rejects; count += 1)
    await submit('blue.example');
});

test('what the hub refuses costs nothing', async () => {
  const siblings = new SiblingQuota();
  const device = bytes();
  for (let count = 0; count < 2 * siblingLimits.perDevice; count += 1) {
    const refused = siblings.within(child(), device, async () => {
      throw new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch');
    });
    await assert.rejects(refused, { reason: 'EPOCH_CONFLICT' });
  }
  assert.equal(await siblings.within(child(), device, async () => 1), 1);
});

test('the same entry again is a repeat once it was accepted, and not before', async () => {
  const siblings = new SiblingQuota();
  const [device, one] = [bytes(), child()];
  const said: boolean[] = [];
  const submit = (answer: Promise<void>): Promise<void> =>
    siblings.within(one, device, (isRepeat) => {
      said.push(isRepeat);
      return answer;
    });
  const first = Promise.withResolvers<void>();
  const both = [submit(first.promise), submit(first.promise)];
  first.reject(new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch'));
  assert.ok((await Promise.allSettled(both)).every(({ status }) => status === 'rejected'));
  for (let times = 0; times < 2; times += 1) await submit(Promise.resolve());
  assert.deepEqual(said, [false, false, false, true]);
});

test('memory is bounded', async () => {
  const remembered = 8;
  const siblings = new SiblingQuota(remembered);
  const device = bytes();
  const submit = (of = parent): Promise<void> =>
    siblings.within(child(of), device, async () => undefined);
  for (let count = 0; count < siblingLimits.perDevice; count += 1) await submit();
  for (let count = 0; count < remembered - 1; count += 1) await submit(bytes());
  await assert.rejects(submit(), quota);
  await submit(bytes());
  await submit();
});
