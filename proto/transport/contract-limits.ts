/** Contract cases of listening and dialing: identities, limits per address, ends of a listener. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { makeIdentity } from './certificate.ts';
import { callEcho, patient, rejectsWith, Rig, type MakeEngine } from './contract-rig.ts';
import { CloseCode } from './transport.ts';

const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };

export function limitCases(make: MakeEngine): void {
  test('each side sees the identity of the other', async (t) => {
    const rig = await Rig.listen(t, make);
    const stranger = await makeIdentity(systemRandom);
    const connection = await rig.dial({ pins: [stranger.spkiSha256, rig.identity.spkiSha256] });
    const accepted = await rig.accepted();
    assert.deepEqual(connection.peer.spkiSha256, rig.identity.spkiSha256);
    assert.deepEqual(accepted.peer.spkiSha256, rig.dialerIdentity.spkiSha256);
    assert.ok(accepted.peer.address.startsWith(accepted.peer.host));
    await callEcho(connection);
  });

  test('a listener that is not the pinned one is refused', async (t) => {
    const rig = await Rig.listen(t, make);
    const stranger = await makeIdentity(systemRandom);
    await rejectsWith(rig.dial({ pins: [stranger.spkiSha256] }), 'refusedIdentity');
    await rejectsWith(rig.dial({ pins: [] }), 'refusedIdentity');
    await callEcho(await rig.dial());
  });

  test('connections above the limit of an address are closed with Limit', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { connectionsPerHost: 2 } });
    const one = await rig.dial();
    const accepted = await rig.accepted();
    const two = await rig.dial();
    await Promise.all([callEcho(one), callEcho(two)]);
    const three = await rig.dial();
    const error = await rejectsWith(three.call(request, patient), 'limit');
    assert.equal(error.closeCode, CloseCode.Limit);
    await callEcho(two);
    await one.close(CloseCode.Normal, 'make room');
    await accepted.closed;
    await callEcho(await rig.dial());
  });

  test('connections above the limit of the listener are closed with Limit', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { connections: 1 } });
    await callEcho(await rig.dial());
    const second = await rig.dial();
    assert.equal((await second.closed).code, CloseCode.Limit);
  });

  test('handshakes above the rate of an address come to nothing', async (t) => {
    const rig = await Rig.listen(t, make, {
      listenerLimits: { handshakesPerHostPerSecond: 1 },
    });
    const limits = { ...rig.dialOptions().limits, handshakeMs: 400 };
    await callEcho(await rig.dial());
    await callEcho(await rig.dial());
    // Over UDP silence; a TCP connection has been made by the system and can only be dropped.
    await rejectsWith(rig.dial({ limits }), 'timeout', 'closed');
    await rig.runtime.clock.sleep(1000);
    await callEcho(await rig.dial());
  });

  test('calls that are given up at once do not multiply the handlers that run', async (t) => {
    const [incomingStreams, callsInFlight] = [8, 4];
    const gate = Promise.withResolvers<void>();
    let [running, most, served] = [0, 0, 0];
    const rig = await Rig.listen(t, make, {
      limits: { incomingStreams, callsInFlight },
      onCall: async ({ requestId, payload }) => {
        running += 1;
        most = Math.max(most, running);
        await gate.promise;
        running -= 1;
        served += 1;
        return { status: 0, requestId, payload };
      },
    });
    const connection = await rig.dial();
    for (let round = 0; round < 8; round += 1) {
      const calls = Array.from({ length: callsInFlight }, async () => {
        const signal = AbortSignal.timeout(40);
        await rejectsWith(connection.call(request, { ...patient, signal }), 'cancelled');
      });
      await Promise.all(calls);
    }
    assert.ok(most <= incomingStreams, `${most} handlers at a time`);
    gate.resolve();
    // The same connection is served again when those are done with, which may take a moment to cross.
    for (let isServed = false; !isServed;) {
      isServed = await callEcho(connection).then(
        () => true,
        (error: unknown) => {
          assert.ok(
            error instanceof TransportError && error.failure === 'cancelled',
            String(error),
          );
          return false;
        },
      );
    }
    assert.ok(served > 0);
  });

  test('an address in use is refused with the system’s code', async (t) => {
    const rig = await Rig.listen(t, make);
    const options = {
      ...rig.dialOptions(),
      endpoint: rig.listener.endpoint,
      onConnection() {},
    };
    const error = await rejectsWith(rig.engine.transport.listen(options), 'internal');
    assert.ok(error.cause instanceof Error && 'code' in error.cause);
    assert.equal(error.cause.code, 'EADDRINUSE');
    await callEcho(await rig.dial());
  });

  test('dialing where nobody listens fails within the handshake time', async (t) => {
    const rig = await Rig.listen(t, make, { limits: { handshakeMs: 300 } });
    await rig.listener.close(CloseCode.Normal, 'gone');
    const started = performance.now();
    await rejectsWith(rig.dial(), 'timeout', 'unreachable');
    assert.ok(performance.now() - started < 5000);
  });

  test('a dial is cancelled by its signal', async (t) => {
    const rig = await Rig.listen(t, make);
    await rejectsWith(rig.dial({ signal: AbortSignal.abort() }), 'cancelled');
    await rig.listener.close(CloseCode.Normal, 'gone');
    const abort = new AbortController();
    const dial = rig.dial({ signal: abort.signal });
    abort.abort();
    await rejectsWith(dial, 'cancelled', 'unreachable');
  });

  test('closing a listener ends its calls within bounded time and frees the port', async (t) => {
    const entered = Promise.withResolvers<void>();
    const rig = await Rig.listen(t, make, {
      onCall: () => {
        entered.resolve();
        return new Promise(() => {});
      },
    });
    const connection = await rig.dial();
    const call = connection.call(request, patient);
    await entered.promise;
    const started = performance.now();
    const failed = rejectsWith(call, 'closed');
    await Promise.all([
      rig.listener.close(CloseCode.Draining, 'restart'),
      rig.listener.close(CloseCode.Draining, 'twice'),
    ]);
    assert.ok(performance.now() - started < 4000);
    assert.equal((await failed).closeCode, CloseCode.Draining);
    const again = await rig.engine.transport.listen({
      ...rig.dialOptions(),
      endpoint: rig.listener.endpoint,
      onConnection() {},
    });
    assert.deepEqual(again.endpoint, rig.listener.endpoint);
    await again.close(CloseCode.Normal, 'test over');
  });
}
