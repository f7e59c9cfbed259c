/** When a group has a channel: a function of its state, with room between the two bounds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backToDirect, channelRuleBroken, dueMode } from './channel-mode.ts';

const nonce = fc.uint8Array({ minLength: 32, maxLength: 32 });
const modes = fc.record({
  directDevices: fc.integer({ min: 1, max: 256 }),
  channelNonce: fc.option(nonce, { nil: undefined }),
});
const devices = fc.integer({ min: 1, max: 1_024 });

test('a group switches above its bound, and back below three quarters of it', () => {
  const direct = { directDevices: 32, channelNonce: undefined };
  const channel = { directDevices: 32, channelNonce: new Uint8Array(32) };
  assert.deepEqual(
    [32, 33].map((count) => dueMode(direct, count)),
    [undefined, 'channel'],
  );
  assert.deepEqual(
    [24, 25].map((count) => dueMode(channel, count)),
    ['direct', undefined],
  );
});

test('after a switch nothing is due until the number of devices changes', () => {
  fc.assert(
    fc.property(modes, nonce, devices, (info, fresh, count) => {
      const due = dueMode(info, count);
      if (due === undefined) return;
      const after = { ...info, channelNonce: due === 'channel' ? fresh : undefined };
      assert.equal(channelRuleBroken(info, after, count), undefined);
      assert.equal(dueMode(after, count), undefined);
      assert.ok(backToDirect(info) < info.directDevices);
    }),
  );
});

test('nobody switches a group that is not due, and anybody gives it a fresh channel', () => {
  fc.assert(
    fc.property(modes, nonce, devices, (info, fresh, count) => {
      const isDue = dueMode(info, count) !== undefined;
      const other = { ...info, channelNonce: info.channelNonce === undefined ? fresh : undefined };
      assert.equal(channelRuleBroken(info, other, count) === undefined, isDue);
      assert.equal(channelRuleBroken(info, info, count), undefined);
      if (info.channelNonce === undefined) return;
      assert.equal(channelRuleBroken(info, { ...info, channelNonce: fresh }, count), undefined);
    }),
  );
});
