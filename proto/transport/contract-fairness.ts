/**
 * Cases of large and small messages beside each other, for the engines that schedule streams themselves:
 * the stock glue would take seconds for them, and the memory engine delays what it likes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { patient, Rig, type MakeEngine } from './contract-rig.ts';

/** Less than the window of a stream: only what the connection may send at a time holds it up. */
const largeBytes = 900 * 1024;
const [large, small] = [1, 2];

export function fairnessCases(make: MakeEngine): void {
  test('a call is not held up by large requests that were sent before it', async (t) => {
    const came: number[] = [];
    const rig = await Rig.listen(t, make, {
      onCall: async ({ methodId, requestId }) => {
        came.push(methodId);
        return { status: 0, requestId, payload: new Uint8Array() };
      },
    });
    const connection = await rig.dial();
    const call = (requestId: number, methodId: number) =>
      connection.call(
        { methodId, requestId, payload: new Uint8Array(methodId === large ? largeBytes : 10) },
        patient,
      );
    await Promise.all([call(1, large), call(2, large), call(3, large), call(4, small)]);
    assert.deepEqual(came, [small, large, large, large]);
  });

  test('an answer is not held up by large ones that were given before it', async (t) => {
    const all = Promise.withResolvers<void>();
    let waiting = 0;
    const rig = await Rig.listen(t, make, {
      onCall: async ({ methodId, requestId }) => {
        waiting += 1;
        if (waiting === 4) all.resolve();
        await all.promise;
        const payload = new Uint8Array(methodId === large ? largeBytes : 10);
        return { status: 0, requestId, payload };
      },
    });
    const connection = await rig.dial();
    const answered: number[] = [];
    const call = async (requestId: number, methodId: number): Promise<void> => {
      await connection.call({ methodId, requestId, payload: new Uint8Array() }, patient);
      answered.push(methodId);
    };
    await Promise.all([call(1, large), call(2, large), call(3, large), call(4, small)]);
    assert.deepEqual(answered, [small, large, large, large]);
  });
}
