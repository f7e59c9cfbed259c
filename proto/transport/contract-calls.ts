/** Contract cases of calls between two well-behaved peers: sizes, numbers, deadlines, cancelling. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { callEcho, echo, fourMiB, patient, rejectsWith, Rig } from './contract-rig.ts';
import type { MakeEngine } from './contract-rig.ts';
import { CloseCode, type CallHandler } from './transport.ts';

const request = { methodId: 1, requestId: 9, payload: Uint8Array.of(1, 2, 3) };

/** A handler that waits until it is let go or aborted, and tells of each. */
function holding() {
  const entered = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  let waiting = 0;
  const handler: CallHandler = async (incoming, { signal }) => {
    waiting += 1;
    signal.addEventListener('abort', () => aborted.resolve(), { once: true });
    entered.resolve();
    await released.promise;
    return echo(incoming, { signal });
  };
  return {
    handler,
    entered: entered.promise,
    aborted: aborted.promise,
    release: () => released.resolve(),
    waiting: () => waiting,
  };
}

export function callCases(make: MakeEngine): void {
  test('256 calls at once are each answered with their own payload', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    await Promise.all(Array.from({ length: 256 }, (_, id) => callEcho(connection, id, 100 + id)));
  });

  test('payloads from nothing to 4 MiB arrive whole in both directions', async (t) => {
    const sizes = [0, 1, 1200, 64 * 1024, 1024 * 1024, fourMiB];
    const rig = await Rig.listen(t, make, {
      // Method 2 answers with as many bytes as the request says; every other with their count.
      onCall: async ({ methodId, requestId, payload }) => {
        if (methodId === 2) {
          const bytes = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
          return { status: 0, requestId, payload: new Uint8Array(bytes).fill(7) };
        }
        return { status: 0, requestId, payload: Buffer.from(String(payload.length)) };
      },
    });
    const connection = await rig.dial();
    for (const [requestId, bytes] of sizes.entries()) {
      const up = { methodId: 1, requestId, payload: new Uint8Array(bytes) };
      const counted = await connection.call(up, patient);
      assert.equal(Buffer.from(counted.payload).toString(), String(bytes));
      const asked = new Uint8Array(4);
      new DataView(asked.buffer).setUint32(0, bytes);
      const down = await connection.call({ methodId: 2, requestId, payload: asked }, patient);
      assert.equal(down.payload.length, bytes);
      assert.ok(down.payload.every((byte) => byte === 7));
    }
  });

  test('the listener calls the dialer over the same connection', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    connection.onCall(echo);
    const accepted = await rig.accepted();
    await Promise.all([callEcho(accepted, 1), callEcho(connection, 1), callEcho(accepted, 2)]);
  });

  test('a call that comes before the handler is set waits for it', async (t) => {
    const rig = await Rig.listen(t, make, { onConnection: () => {} });
    const connection = await rig.dial();
    const answered = callEcho(connection);
    (await rig.accepted()).onCall(echo);
    await answered;
  });

  test('a call fails at its deadline, its handler is told, and the next call works', async (t) => {
    const hold = holding();
    const rig = await Rig.listen(t, make, {
      onCall: (incoming, context) =>
        incoming.methodId === 1 ? hold.handler(incoming, context) : echo(incoming, context),
    });
    const connection = await rig.dial();
    const late = connection.call(request, { ...patient, deadlineMs: 150 });
    await rejectsWith(late, 'timeout');
    await hold.aborted;
    await connection.call({ ...request, methodId: 2 }, patient);
    hold.release();
  });

  test('a cancelled call fails at once and aborts its handler', async (t) => {
    const hold = holding();
    const rig = await Rig.listen(t, make, { onCall: hold.handler });
    const connection = await rig.dial();
    const abort = new AbortController();
    const call = connection.call(request, { ...patient, signal: abort.signal });
    await hold.entered;
    abort.abort(new Error('changed my mind'));
    const error = await rejectsWith(call, 'cancelled');
    assert.equal(String(error.cause), 'Error: changed my mind');
    await hold.aborted;
    const dead = connection.call(request, { ...patient, signal: AbortSignal.abort() });
    await rejectsWith(dead, 'cancelled');
    hold.release();
    await callEcho(connection);
  });

  test('a call cancelled while its request is being written gives its stream back', async (t) => {
    const rig = await Rig.listen(t, make);
    const connection = await rig.dial();
    for (let round = 0; round < 20; round += 1) {
      const abort = new AbortController();
      const big = { ...request, payload: new Uint8Array(2 * 1024 * 1024) };
      const call = connection.call(big, { ...patient, signal: abort.signal });
      abort.abort();
      await rejectsWith(call, 'cancelled');
    }
    await Promise.all(Array.from({ length: 100 }, (_, id) => callEcho(connection, id)));
  });

  test('a handler that throws is answered Internal, tells nothing, and harms nothing', async (t) => {
    const rig = await Rig.listen(t, make, {
      onCall: async (incoming, context) => {
        if (incoming.methodId === 1) throw new Error('planted secret');
        return echo(incoming, context);
      },
    });
    const connection = await rig.dial();
    const response = await connection.call(request, patient);
    assert.equal(response.status, 10);
    assert.equal(response.requestId, request.requestId);
    assert.equal(Buffer.from(response.payload).toString('latin1'), '\n\bINTERNAL');
    await connection.call({ ...request, methodId: 2 }, patient);
    assert.ok(rig.runtime.lines.some((line) => line.startsWith('transport.call.threw')));
    assert.ok(!rig.runtime.lines.some((line) => line.includes('planted secret')));
  });

  test('calls above the cap wait in order; one above the queue fails with limit', async (t) => {
    const hold = holding();
    const rig = await Rig.listen(t, make, {
      limits: { callsInFlight: 2, callsQueued: 3 },
      onCall: hold.handler,
    });
    const connection = await rig.dial();
    const call = (requestId: number) => connection.call({ ...request, requestId }, patient);
    const order: number[] = [];
    const calls = [1, 2, 3, 4, 5].map(async (id) => {
      await call(id);
      order.push(id);
    });
    await rejectsWith(call(6), 'limit');
    await hold.entered;
    assert.ok(hold.waiting() <= 2);
    hold.release();
    await Promise.all(calls);
    assert.deepEqual(
      order.toSorted((a, b) => a - b),
      [1, 2, 3, 4, 5],
    );
    assert.ok(order.indexOf(5) > 1, `the last one overtook: ${order.join()}`);
  });

  test('calls that still wait for a stream fail with their connection', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { incomingStreams: 0 } });
    const connection = await rig.dial();
    const calls = [1, 2, 3].map((requestId) =>
      rejectsWith(connection.call({ ...request, requestId }, patient), 'closed'),
    );
    await (await rig.accepted()).close(CloseCode.Draining, 'bye');
    for (const { closeCode } of await Promise.all(calls)) assert.equal(closeCode, 0x10);
  });

  test('more calls than the peer allows streams wait for its credit', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { incomingStreams: 4 } });
    const connection = await rig.dial();
    await Promise.all(Array.from({ length: 120 }, (_, id) => callEcho(connection, id)));
  });

  test('a request above its method’s bound is refused by its header', async (t) => {
    const bounds = new Map([
      [1, 100],
      [2, 1000],
    ]);
    const rig = await Rig.listen(t, make, { maxRequestBytes: (id) => bounds.get(id) ?? 0 });
    const connection = await rig.dial();
    const call = (methodId: number, bytes: number) =>
      connection.call({ methodId, requestId: bytes, payload: new Uint8Array(bytes) }, patient);
    for (const [methodId, bytes, status] of [
      [1, 100, 0],
      [1, 101, 7],
      [2, 1000, 0],
      [2, 1001, 7],
      [3, 0, 0],
      [3, 1, 7],
      [1, fourMiB, 7],
    ] as const) {
      const response = await call(methodId, bytes);
      assert.equal(response.status, status, `method ${methodId}, ${bytes} bytes`);
      assert.equal(response.requestId, bytes);
      if (status === 7) {
        assert.equal(Buffer.from(response.payload).toString('latin1'), '\n\tTOO_LARGE');
      }
    }
  });

  test('a response above the caller’s bound or of another request breaks its call only', async (t) => {
    const rig = await Rig.listen(t, make, {
      onCall: async (incoming, context) =>
        incoming.methodId === 2
          ? { status: 0, requestId: incoming.requestId + 1, payload: new Uint8Array() }
          : echo(incoming, context),
    });
    const connection = await rig.dial();
    const payload = new Uint8Array(101);
    const bounded = { ...patient, maxResponseBytes: 100 };
    await rejectsWith(connection.call({ ...request, payload }, bounded), 'protocol');
    await rejectsWith(connection.call({ ...request, methodId: 2 }, patient), 'protocol');
    await callEcho(connection);
  });

  test('close codes travel both ways and end the calls in flight', async (t) => {
    const rig = await Rig.listen(t, make, { onCall: holding().handler });
    const one = await rig.dial();
    const oneAccepted = await rig.accepted();
    const call = one.call(request, patient);
    const back = oneAccepted.call(request, patient);
    await Promise.all([
      rejectsWith(call, 'closed').then((error) => assert.equal(error.closeCode, undefined)),
      rejectsWith(back, 'closed').then((error) => assert.equal(error.closeCode, 0x10)),
      one.close(CloseCode.Draining, 'going down'),
    ]);
    const here = { failure: 'closed', code: 0x10, reason: 'going down', local: true };
    assert.deepEqual(await one.closed, here);
    assert.deepEqual(await oneAccepted.closed, { ...here, local: false });
    await rejectsWith(one.call(request, patient), 'closed');
    await rejectsWith(one.openPushStream(), 'closed');
    await one.close(CloseCode.Normal, 'again');

    const two = await rig.dial();
    const twoCall = rejectsWith(two.call(request, patient), 'refusedIdentity');
    await (await rig.accepted()).close(CloseCode.RefusedIdentity, 'who are you');
    const error = await twoCall;
    assert.equal(error.closeCode, CloseCode.RefusedIdentity);
    const { failure, code, reason, local } = await two.closed;
    assert.deepEqual([failure, code, local], ['refusedIdentity', CloseCode.RefusedIdentity, false]);
    assert.equal(reason, 'who are you');
  });
}
