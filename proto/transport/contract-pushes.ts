/** Contract cases of push streams: order, backpressure, ends from either side. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PushFrame } from '../frame.ts';
import { rejectsWith, Rig, type MakeEngine } from './contract-rig.ts';
import type { Connection, PushWriter } from './transport.ts';

function numbered(number: number, bytes = 4): PushFrame {
  const payload = new Uint8Array(bytes);
  new DataView(payload.buffer).setUint32(0, number);
  return { eventType: number & 0xffff, payload };
}

function numberOf({ payload }: PushFrame): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0);
}

/**
 * Collects what arrives on the next push stream of the connection: so many frames, or all until its end.
 * An end that was sent without data can get lost with its packet, so who knows the number does not wait for it.
 */
async function collect(connection: Connection, count = Infinity): Promise<number[]> {
  const done = Promise.withResolvers<number[]>();
  connection.onPushStream(async (frames) => {
    const read: number[] = [];
    try {
      for await (const frame of frames) {
        read.push(numberOf(frame));
        if (read.length === count) done.resolve(read);
      }
      done.resolve(read);
    } catch (error) {
      done.reject(error);
      throw error;
    }
  });
  return done.promise;
}

async function writeAll(writer: PushWriter, count: number, bytes = 4): Promise<void> {
  for (let number = 0; number < count; number += 1) await writer.write(numbered(number, bytes));
}

export function pushCases(make: MakeEngine): void {
  test('frames pushed before anyone listens arrive, in order', async (t) => {
    const rig = await Rig.listen(t, make, {
      onConnection: (connection) => {
        void connection.openPushStream().then(async (writer) => {
          await writeAll(writer, 100);
          await writer.close();
        });
      },
    });
    const connection = await rig.dial();
    await rig.accepted();
    const numbers = await collect(connection, 100);
    assert.deepEqual(numbers, [...Array(100).keys()]);
  });

  test('the dialer pushes too, streams keep their frames apart, empty payloads count', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    const accepted = await rig.accepted();
    const seen = new Map<number, number>();
    const both = Promise.withResolvers<void>();
    accepted.onPushStream(async (frames) => {
      let count = 0;
      for await (const { eventType, payload } of frames) {
        assert.equal(payload.length, 0);
        count += 1;
        seen.set(eventType, count);
        if (seen.get(1) === 50 && seen.get(2) === 50) both.resolve();
      }
    });
    const [one, two] = [await connection.openPushStream(), await connection.openPushStream()];
    for (let count = 0; count < 50; count += 1) {
      await one.write({ eventType: 1, payload: new Uint8Array() });
      await two.write({ eventType: 2, payload: new Uint8Array() });
    }
    await both.promise;
  });

  test('a slow reader holds the writer back, memory stays bounded, nothing is lost', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    const accepted = await rig.accepted();
    const frameBytes = 64 * 1024;
    const count = 96;
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const done = new Promise<number[]>((resolve) => {
      connection.onPushStream(async (frames) => {
        const numbers: number[] = [];
        for await (const frame of frames) {
          begun.resolve();
          await gate.promise;
          numbers.push(numberOf(frame));
          if (numbers.length === count) resolve(numbers);
        }
      });
    });
    const writer = await accepted.openPushStream();
    let written = 0;
    const writing = (async () => {
      for (; written < count; written += 1) await writer.write(numbered(written, frameBytes));
    })();
    await begun.promise;
    // Stalled: the count of accepted frames no longer moves while time passes.
    let last = -1;
    while (written !== last) {
      last = written;
      await rig.runtime.clock.sleep(150);
    }
    const heldBytes = written * frameBytes;
    assert.ok(heldBytes <= 2 * 1024 * 1024, `${heldBytes} bytes are under way`);
    assert.ok(written < count);
    gate.resolve();
    await writing;
    assert.deepEqual(await done, [...Array(count).keys()]);
  });

  test('a reader that returns early stops the writer', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    const accepted = await rig.accepted();
    connection.onPushStream(async (frames) => {
      for await (const frame of frames) if (numberOf(frame) === 3) return;
    });
    const writer = await accepted.openPushStream();
    const forever = (async () => {
      for (let number = 0; ; number += 1) await writer.write(numbered(number, 1024));
    })();
    await rejectsWith(forever, 'cancelled');
    await rejectsWith(writer.write(numbered(0)), 'cancelled');
    // The connection and further push streams are untouched.
    const again = await accepted.openPushStream();
    await again.write(numbered(1));
  });

  test('readers that return early stop writers that wait for room, each of them', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    const accepted = await rig.accepted();
    connection.onPushStream(async (frames) => {
      for await (const frame of frames) if (numberOf(frame) === 3) return;
    });
    const stopped = async (): Promise<void> => {
      const writer = await accepted.openPushStream();
      const forever = async (): Promise<void> => {
        for (let number = 0; ; number += 1) await writer.write(numbered(number, 1024));
      };
      await rejectsWith(forever(), 'cancelled');
    };
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(Array.from({ length: 4 }, stopped));
    }
  });

  test('push streams above the peer’s allowance wait for one to end', async (t) => {
    const rig = await Rig.listen(t, make, { limits: { incomingPushStreams: 2, openPushMs: 400 } });
    const connection = await rig.dial();
    const accepted = await rig.accepted();
    connection.onPushStream(async (frames) => {
      for await (const frame of frames) if (numberOf(frame) === 1) return;
    });
    const one = await accepted.openPushStream();
    await one.write(numbered(0));
    await (await accepted.openPushStream()).write(numbered(0));
    await rejectsWith(accepted.openPushStream(), 'limit');
    await one.write(numbered(1));
    // On a busy machine the credit may take longer than the wait for it.
    const third = async (): Promise<PushWriter> => accepted.openPushStream().catch(third);
    await (await third()).write(numbered(0));
  });

  test('a peer cannot have more push streams open than it is allowed', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { openPushMs: 400 } });
    const connection = await rig.dial({
      limits: { ...rig.dialOptions().limits, incomingPushStreams: 2 },
    });
    const accepted = await rig.accepted();
    let reading = 0;
    connection.onPushStream(async (frames) => {
      reading += 1;
      for await (const _frame of frames);
    });
    for (const allowed of [0, 1]) await (await accepted.openPushStream()).write(numbered(allowed));
    // Refused at opening or stopped while writing, as the engine has it. quiche says only once that a
    // stream is stopped: where that packet got lost the writer would wait, so another one is tried.
    const third = async (): Promise<never> => {
      const writer = await accepted.openPushStream();
      for (let number = 0; ; number += 1) await writer.write(numbered(number, 1024));
    };
    const attempts: Promise<never>[] = [];
    const refused = async (): Promise<never> => {
      for (;;) {
        attempts.push(third());
        await Promise.race([...attempts, new Promise((resolve) => setTimeout(resolve, 2_000))]);
      }
    };
    await rejectsWith(refused(), 'limit', 'cancelled');
    t.diagnostic(`attempts: ${attempts.length}`);
    assert.equal(reading, 2);
  });

  test('a push frame above the bound breaks its stream only', async (t) => {
    const rig = await Rig.listen(t, make);
    const small = { ...rig.dialOptions().limits, maxPayloadBytes: 1000 };
    const connection = await rig.dial({ limits: small });
    const accepted = await rig.accepted();
    const broken = rejectsWith(collect(connection), 'protocol');
    const writer = await accepted.openPushStream();
    await writer.write(numbered(0, 1000));
    // The reader may have given up by the time this is written.
    await Promise.allSettled([writer.write(numbered(1, 1001))]);
    await broken;
    await (await accepted.openPushStream()).write(numbered(0));
  });

  test('the end of the connection fails the reader and the writer', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    const accepted = await rig.accepted();
    const begun = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<Promise<void>>();
    connection.onPushStream(async (frames) => {
      const reading = (async () => {
        for await (const frame of frames) if (numberOf(frame) === 0) begun.resolve();
      })();
      ended.resolve(reading);
      await reading;
    });
    const reading = rejectsWith(ended.promise, 'closed');
    const writer = await accepted.openPushStream();
    await writer.write(numbered(0));
    await begun.promise;
    await connection.close(0x10, 'bye');
    await reading;
    await accepted.closed;
    await rejectsWith(writer.write(numbered(1)), 'closed');
  });
}
