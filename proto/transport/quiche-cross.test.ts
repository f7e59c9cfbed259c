/** The two QUIC engines with each other: calls, blobs, pushes, cancels and close codes both ways. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { callEcho, echo, patient, rejectsWith, Rig } from './contract-rig.ts';
import type { MakeEngine } from './contract-rig.ts';
import { quicTransport } from './quic.ts';
import { quicEngine } from './quic-rig.ts';
import { quicheTransport } from './quiche.ts';
import { quicheEngine } from './quic-rig.ts';
import type { CallHandler, Connection } from './transport.ts';

/** Listens with one engine and dials with the other. */
const pairs: readonly (readonly [string, MakeEngine])[] = [
  [
    'stock dialer, quiche listener',
    (runtime) => {
      const own = quicheTransport(runtime);
      const stock = quicEngine(runtime);
      const { transport } = stock;
      return { ...stock, transport: { ...transport, listen: (options) => own.listen(options) } };
    },
  ],
  [
    'quiche dialer, stock listener',
    (runtime) => {
      const stock = quicTransport(runtime);
      const own = quicheEngine(runtime);
      const { transport } = own;
      return { ...own, transport: { ...transport, listen: (options) => stock.listen(options) } };
    },
  ],
];

async function pushAll(from: Connection, to: Connection): Promise<void> {
  const seen = Promise.withResolvers<void>();
  to.onPushStream(async (frames) => {
    let expected = 0;
    for await (const { eventType, payload } of frames) {
      assert.equal(eventType, expected);
      assert.equal(payload.length, expected * 100);
      expected += 1;
      if (expected === 200) seen.resolve();
    }
  });
  const writer = await from.openPushStream();
  for (let count = 0; count < 200; count += 1) {
    await writer.write({ eventType: count, payload: new Uint8Array(count * 100) });
  }
  await seen.promise;
  await writer.close();
}

for (const [name, make] of pairs) {
  test(`${name}: a call in the turn in which the dial is over`, async (t) => {
    const rig = await Rig.listen(t, make);
    await callEcho(await rig.dial());
  });

  test(`${name}: calls and blobs both ways`, async (t) => {
    const rig = await Rig.listen(t, make);
    const dialed = await rig.dial();
    dialed.onCall(echo);
    const accepted = await rig.accepted();
    assert.deepEqual(dialed.peer.spkiSha256, rig.identity.spkiSha256);
    assert.deepEqual(accepted.peer.spkiSha256, rig.dialerIdentity.spkiSha256);
    for (const side of [dialed, accepted]) {
      await Promise.all(Array.from({ length: 256 }, (_, id) => callEcho(side, id, 50 + id)));
      await callEcho(side, 1, 1024 * 1024);
    }
  });

  test(`${name}: pushes both ways`, async (t) => {
    const rig = await Rig.listen(t, make);
    const dialed = await rig.dial();
    const accepted = await rig.accepted();
    await Promise.all([pushAll(dialed, accepted), pushAll(accepted, dialed)]);
  });

  test(`${name}: a cancel aborts the handler, a close code arrives`, async (t) => {
    const entered = Promise.withResolvers<AbortSignal>();
    const onCall: CallHandler = async (request, context) => {
      if (request.methodId === 1) return echo(request, context);
      entered.resolve(context.signal);
      return new Promise(() => {});
    };
    const rig = await Rig.listen(t, make, { onCall });
    const dialed = await rig.dial();
    const accepted = await rig.accepted();
    const abort = new AbortController();
    const request = { methodId: 2, requestId: 1, payload: new Uint8Array(10) };
    const call = dialed.call(request, { ...patient, signal: abort.signal });
    const signal = await entered.promise;
    const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
    abort.abort();
    await rejectsWith(call, 'cancelled');
    await aborted;
    await callEcho(dialed);
    void accepted.close(0x10, 'going down');
    const { code, reason, local } = await dialed.closed;
    assert.deepEqual([code, reason, local], [0x10, 'going down', false]);
  });
}
