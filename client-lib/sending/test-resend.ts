/** Test support: three devices in one group on one clock, which ask, answer and receipt when a test lets them. */
import { handOver, TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { LaterClock } from '../test-runtime.ts';

export interface ResendCompany {
  readonly clock: LaterClock;
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly carol: TestDevice;
  readonly id: Uint8Array;
}

/** Lets the devices do what is due and delivers all that comes of it. */
export async function exchange(...devices: readonly TestDevice[]): Promise<void> {
  for (;;) {
    let moved = 0;
    for (const device of devices) {
      await device.holes.askDue();
      await device.resender.answerDue();
      await device.receipts.flush();
      await device.settle();
    }
    for (const from of devices) {
      for (const to of devices) if (to !== from) moved += await handOver(from, to);
    }
    if (moved === 0) return;
  }
}

/** alice made a group with bob and carol, on one clock; everybody is in it. */
export async function company(
  options: ConstructorParameters<typeof TestDevice>[2] = {},
): Promise<ResendCompany> {
  const clock = new LaterClock();
  const directory = new TestDirectory();
  const deviceOf = (userId: string): TestDevice =>
    new TestDevice(userId, directory, { clock, ...options });
  const [alice, bob, carol] = [
    deviceOf('alice@red.example'),
    deviceOf('bob@blue.example'),
    deviceOf('carol@red.example'),
  ];
  const id = await alice.conversations.create('resend', [bob.userId, carol.userId]);
  await exchange(alice, bob, carol);
  return { clock, alice, bob, carol, id };
}

export const stateOf = (device: TestDevice, id: Uint8Array, n: number): string | undefined =>
  device.history(id).filter(({ receivedMs }) => receivedMs === undefined)[n]?.sendState;

export const say = async (
  device: TestDevice,
  id: Uint8Array,
  ...texts: string[]
): Promise<void> => {
  for (const text of texts) await device.conversations.send(id, text);
};
