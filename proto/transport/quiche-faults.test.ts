/** Faults of quiche under our glue, and closes that get lost: one connection ends, others go on. */
import assert from 'node:assert/strict';
import { native } from '@matrixai/quic';
import { test, type TestContext } from 'node:test';
import { callEcho, echo, patient, rejectsWith, Rig } from './contract-rig.ts';
import { quicheEngine } from './quic-rig.ts';
import { CloseCode } from './transport.ts';
import { udpRelay } from './udp-relay.ts';

/** Collects what would end the process, and fails the test that caused it. */
function watchProcess(t: TestContext): void {
  const seen: unknown[] = [];
  const remember = (error: unknown): void => void seen.push(error);
  process.on('unhandledRejection', remember);
  process.on('uncaughtException', remember);
  t.after(() => {
    process.off('unhandledRejection', remember);
    process.off('uncaughtException', remember);
    assert.deepEqual(seen, []);
  });
}

/** Makes a method throw once, when armed, on a connection that had called it before `settle`. */
function plantFault(t: TestContext, method: string) {
  const { prototype } = native.quiche.Connection as unknown as { prototype: object };
  const real: unknown = Reflect.get(prototype, method);
  assert.ok(typeof real === 'function');
  let isArmed = false;
  let isSettled = false;
  const targets = new WeakSet();
  Reflect.set(prototype, method, function (this: object, ...args: unknown[]) {
    if (!isSettled) targets.add(this);
    if (isArmed && targets.has(this)) {
      isArmed = false;
      throw new Error(`planted fault in ${method}`);
    }
    const result: unknown = Reflect.apply(real, this, args);
    return result;
  });
  t.after(() => Reflect.set(prototype, method, real));
  return {
    settle: () => (isSettled = true),
    arm: () => (isArmed = true),
    isArmed: () => isArmed,
  };
}

for (const method of ['send', 'isReadable', 'timeout', 'peerStreamsLeftBidi']) {
  test(`a fault in ${method} of quiche ends one connection and nothing else`, async (t) => {
    watchProcess(t);
    const fault = plantFault(t, method);
    const rig = await Rig.listen(t, quicheEngine);
    const one = await rig.dial();
    await callEcho(one);
    fault.settle();
    const two = await rig.dial();
    await callEcho(two);
    fault.arm();
    const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };
    await one.call(request, patient).catch(() => {});
    assert.ok(!fault.isArmed());
    await callEcho(two);
    await callEcho(await rig.dial());
  });
}

test('a fault is told to both sides', async (t) => {
  watchProcess(t);
  const fault = plantFault(t, 'isReadable');
  const entered = Promise.withResolvers<void>();
  const rig = await Rig.listen(t, quicheEngine, {
    onCall: async (request, context) => {
      if (request.methodId === 1) return echo(request, context);
      entered.resolve();
      return new Promise(() => {});
    },
  });
  const connection = await rig.dial();
  const accepted = await rig.accepted();
  const waiting = { methodId: 2, requestId: 1, payload: new Uint8Array() };
  const failed = rejectsWith(connection.call(waiting, patient), 'internal', 'protocol', 'closed');
  await entered.promise;
  fault.arm();
  await connection.call({ ...waiting, methodId: 1 }, patient).catch(() => {});
  await failed;
  const ends = await Promise.all([connection.closed, accepted.closed]);
  assert.equal(ends.filter(({ local }) => local).length, 1);
  assert.ok(ends.some(({ failure, local }) => local && failure === 'internal'));
  assert.ok(rig.runtime.lines.some((line) => line.startsWith('quic.connection.fault')));
});

test('a close that got lost is told again when the peer sends', async (t) => {
  const rig = await Rig.listen(t, quicheEngine);
  const relay = await udpRelay(rig.listener.endpoint);
  t.after(() => relay.close());
  const connection = await rig.dial({}, relay.endpoint);
  const accepted = await rig.accepted();
  await callEcho(connection);
  let dropped = 0;
  relay.onDatagram = (datagram, towards) => {
    if (towards === 'listener' || dropped > 0) return [datagram];
    dropped += 1;
    return [];
  };
  await accepted.close(CloseCode.Draining, 'going down');
  const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };
  const error = await rejectsWith(connection.call(request, patient), 'closed');
  assert.equal(error.closeCode, CloseCode.Draining);
  assert.equal(dropped, 1);
});

test('a dialer that falls silent in its handshake is forgotten at the deadline', async (t) => {
  const rig = await Rig.listen(t, quicheEngine, {
    listenerLimits: { handshakeMs: 200, connections: 1 },
  });
  const relay = await udpRelay(rig.listener.endpoint);
  t.after(() => relay.close());
  let towardsListener = 0;
  relay.onDatagram = (datagram, towards) => {
    if (towards === 'listener') towardsListener += 1;
    // The first asks, the second brings the token; what completes the handshake never comes.
    return towardsListener > 2 && towards === 'listener' ? [] : [datagram];
  };
  const halfOpen = { limits: { ...rig.dialOptions().limits, handshakeMs: 400 } };
  const dial = rig.dial(halfOpen, relay.endpoint).then((connection) => connection.closed);
  await dial.catch(() => {});
  assert.ok(towardsListener > 2);
  // It never counted as a connection.
  await callEcho(await rig.dial());
});
