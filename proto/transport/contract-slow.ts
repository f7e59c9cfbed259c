/**
 * Cases of peers that stay below every limit of their own and take their time, beside an honest caller:
 * for the engines that schedule streams themselves.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { encodeRequest } from '../frame.ts';
import { callEcho, rejectsWith, Rig, type MakeEngine } from './contract-rig.ts';
import { CloseCode } from './transport.ts';

const mebibyte = 1024 * 1024;
const quiet = { onStream() {}, onCredit() {}, onClosed() {} };

export function slowCases(make: MakeEngine): void {
  test('requests that come byte by byte for ever are given up, and calls beside them are answered', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { requestReadMs: 400 } });
    const session = await rig.dialSession();
    session.start(quiet);
    const honest = await rig.dial();
    const frame = encodeRequest({ methodId: 1, requestId: 1, payload: new Uint8Array(100_000) });
    let left = 0;
    const slow = async (): Promise<void> => {
      const stream = session.openStream('call');
      left += 1;
      const given = rejectsWith(Promise.resolve(stream.read()), 'timeout').finally(
        () => (left -= 1),
      );
      const dribble = async (): Promise<void> => {
        for (let at = 0; at < frame.length; at += 1) {
          await stream.write(frame.subarray(at, at + 1));
          await sleep(20);
        }
      };
      // Its end may be the first that the writer hears of.
      await Promise.all([given, rejectsWith(dribble(), 'timeout', 'cancelled')]);
    };
    const all = Array.from({ length: session.streamCredit('call') }, slow);
    assert.ok(left >= 50);
    for (let n = 0; left > 0; n += 1) {
      await callEcho(honest, n);
      await sleep(10);
    }
    await Promise.all(all);
    // What they took is given back.
    await callEcho(honest);
    while (session.streamCredit('call') < 50) await sleep(10);
  });

  test('of peers that ask for much and read nothing, the one with most waiting is ended', async (t) => {
    const rig = await Rig.listen(t, make, {
      listenerLimits: { unreadAnswerBytes: 6 * mebibyte },
      onCall: async ({ methodId, requestId, payload }) => ({
        status: 0,
        requestId,
        payload: methodId === 2 ? new Uint8Array(mebibyte) : payload,
      }),
    });
    const greedy = await rig.dialSession();
    const modest = await rig.dialSession();
    const closed = Promise.withResolvers<number>();
    greedy.start({ ...quiet, onClosed: ({ code }) => closed.resolve(code) });
    modest.start(quiet);
    const honest = await rig.dial();
    let requestId = 0;
    const ask = (session: typeof greedy): void => {
      requestId += 1;
      const request = { methodId: 2, requestId, payload: new Uint8Array() };
      void Promise.resolve(session.openStream('call').finish(encodeRequest(request))).catch(
        () => {},
      );
    };
    ask(modest);
    // A dialer's windows hold up to ten of them.
    for (let n = 0; n < 30; n += 1) ask(greedy);
    assert.equal(await closed.promise, CloseCode.Limit);
    await callEcho(honest);
    assert.ok(modest.streamCredit('call') > 0, 'the modest one was ended too');
  });
}
