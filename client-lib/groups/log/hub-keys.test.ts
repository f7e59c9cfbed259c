/** How often the records of hubs are asked for, whoever names them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason, Status } from '@quicprochat/proto';
import { HubKeys, hubKeyLimits } from './hub-keys.ts';
import { LogError } from '../../kt/log-record.ts';
import type { Caller } from '../../dial.ts';
import { LaterClock, testRuntime } from '../../test-runtime.ts';
import { TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';

/** No call is made: what learns of a record is the `logs` beside it. */
const nobody: Caller = { call: () => Promise.reject(new Error('no call is expected')) } as never;

function rig() {
  const device = new TestDevice('alice@red.example', new TestDirectory());
  const asked: string[] = [];
  const clock = new LaterClock();
  const hubKeys = new HubKeys({
    store: device.store,
    runtime: { ...testRuntime, clock },
    logs: {
      renew: (domain) => {
        asked.push(domain);
        return Promise.reject(new LogError('NO_LOG', domain, 'it has none'));
      },
    },
  });
  return { hubKeys, asked, clock };
}

test('strangers who name unknown hubs do not have this device ask without end', async () => {
  const { hubKeys, asked, clock } = rig();
  const names = Array.from({ length: 100 }, (_, index) => `hub-${index}.example`);
  const tell = (): Promise<PromiseSettledResult<void>[]> =>
    Promise.allSettled(names.map((name) => hubKeys.learn(name, nobody)));
  const results = await tell();
  assert.equal(asked.length, hubKeyLimits.strangers);
  const refused = results.filter(({ status }) => status === 'rejected');
  assert.equal(refused.length, names.length - hubKeyLimits.strangers);
  for (const one of refused) {
    assert.ok(one.status === 'rejected' && hasReason(one.reason, 'RATE_LIMITED'));
    assert.equal((one.reason as { status: Status }).status, Status.ResourceExhausted);
  }
  await tell();
  assert.equal(asked.length, hubKeyLimits.strangers);
  clock.advance(hubKeyLimits.askEveryMs + 1);
  await tell();
  assert.equal(asked.length, 2 * hubKeyLimits.strangers);
});
