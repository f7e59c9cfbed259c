/** Test support: one group of alice, bob and carol, whose waits take no time where a test wants that. */
import assert from 'node:assert/strict';
import type { Timer } from '@quicprochat/proto';
import type { MlsGroup, MlsSuite } from './mls/index.ts';
import { exchange, TestDevice } from './test-devices.ts';
import { TestDirectory } from './test-directory.ts';
import { LaterClock } from './test-runtime.ts';

/** Waits take no time, and count all the same. */
export class HastyClock extends LaterClock {
  override timer(ms: number, callback: () => void): Timer {
    return super.timer(Math.min(ms, 1), () => {
      this.advance(ms);
      callback();
    });
  }
}

export interface Company {
  readonly directory: TestDirectory;
  readonly clock: LaterClock;
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly carol: TestDevice;
  readonly id: Uint8Array;
}

/** alice's group with bob and carol; people of three domains have three hubs. */
export async function company(
  suites: readonly MlsSuite[],
  clock: LaterClock = new LaterClock(),
  [ofAlice, ofBob, ofCarol]: readonly [string, string, string] = ['red', 'red', 'red'],
): Promise<Company> {
  // The logs stand still while days pass: what they say may be that old here.
  const directory = new TestDirectory({ maxBehindMs: 5_000 * 3_600_000 });
  const [alice, bob, carol] = [
    `alice@${ofAlice}.example`,
    `bob@${ofBob}.example`,
    `carol@${ofCarol}.example`,
  ].map((userId) => new TestDevice(userId, directory, { clock, suites }));
  assert(alice !== undefined && bob !== undefined && carol !== undefined);
  const id = await alice.conversations.create('company', [bob.userId, carol.userId]);
  await exchange(alice, bob, carol);
  return { directory, clock, alice, bob, carol, id };
}

export const groupOf = (device: TestDevice, id: Uint8Array): Promise<MlsGroup> =>
  device.writer.run(async (batch) => {
    const group = batch.group(id);
    assert(group !== undefined);
    return group;
  });
