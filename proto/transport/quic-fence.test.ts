/** Faults inside the stock QUIC glue stay inside: one connection ends, the process and others go on. */
import assert from 'node:assert/strict';
import { QUICConnection } from '@matrixai/quic';
import { test, type TestContext } from 'node:test';
import { callEcho, patient, rejectsWith, Rig } from './contract-rig.ts';
import { quicEngine } from './quic-rig.ts';
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

/** Makes a method of the glue throw once, for the server connection of one peer address. */
function plantFault(t: TestContext, method: string) {
  let armedFor = '';
  const real: unknown = Reflect.get(QUICConnection.prototype, method);
  assert.ok(typeof real === 'function');
  Reflect.set(
    QUICConnection.prototype,
    method,
    function (this: QUICConnection, ...args: unknown[]) {
      if (armedFor === `${this.remoteHost}:${this.remotePort}`) {
        armedFor = '';
        throw new Error(`planted fault in ${method}`);
      }
      const result: unknown = Reflect.apply(real, this, args);
      return result;
    },
  );
  t.after(() => Reflect.set(QUICConnection.prototype, method, real));
  return { arm: (address: string) => (armedFor = address), isArmed: () => armedFor !== '' };
}

for (const method of ['recv', 'send', 'processStreams']) {
  test(`a fault in ${method} of the glue ends its connection and nothing else`, async (t) => {
    watchProcess(t);
    const fault = plantFault(t, method);
    const rig = await Rig.listen(t, quicEngine);
    const [one, two] = [await rig.dial(), await rig.dial()];
    await callEcho(one);
    const accepted = await rig.accepted();
    fault.arm(accepted.peer.address);
    const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };
    await rejectsWith(one.call(request, patient), 'protocol', 'internal', 'closed');
    const { failure, local } = await accepted.closed;
    assert.deepEqual([failure, local], ['internal', true]);
    assert.equal((await one.closed).local, false);
    assert.ok(!fault.isArmed());
    await callEcho(two);
    await callEcho(await rig.dial());
    assert.ok(rig.runtime.lines.some((line) => line.startsWith('quic.connection.fault')));
  });
}

test('a fault in a listener of the glue, at the end of a connection, ends nothing else', async (t) => {
  watchProcess(t);
  const fault = plantFault(t, 'stop');
  const rig = await Rig.listen(t, quicEngine);
  const [one, two] = [await rig.dial(), await rig.dial()];
  await callEcho(one);
  const accepted = await rig.accepted();
  fault.arm(accepted.peer.address);
  await one.close(0, 'bye');
  assert.equal((await accepted.closed).reason, 'bye');
  assert.ok(!fault.isArmed());
  await callEcho(two);
});

test('no stream of a finished call stays behind in the native engine', async (t) => {
  const seen: unknown[] = [];
  const start: unknown = Reflect.get(QUICConnection.prototype, 'start');
  assert.ok(typeof start === 'function');
  Reflect.set(QUICConnection.prototype, 'start', function (this: object, ...args: unknown[]) {
    seen.push(Reflect.get(this, 'conn'));
    const result: unknown = Reflect.apply(start, this, args);
    return result;
  });
  t.after(() => Reflect.set(QUICConnection.prototype, 'start', start));
  const rig = await Rig.listen(t, quicEngine);
  const relay = await udpRelay(rig.listener.endpoint);
  t.after(() => relay.close());
  const connection = await rig.dial({}, relay.endpoint);
  // Every tenth datagram is lost: a lost end of a stream must be sent again.
  let datagrams = 0;
  relay.onDatagram = (datagram) => {
    datagrams += 1;
    return datagrams % 10 === 0 ? [] : [datagram];
  };
  const calls = 200;
  await Promise.all(Array.from({ length: calls }, (_, id) => callEcho(connection, id, 256)));
  assert.equal(seen.length, 2);
  const alive = (): number => {
    let count = 0;
    for (const conn of seen) {
      assert.ok(typeof conn === 'object' && conn !== null);
      const capacity: unknown = Reflect.get(conn, 'streamCapacity');
      assert.ok(typeof capacity === 'function');
      for (let id = 0; id < 4 * calls; id += 4) {
        try {
          Reflect.apply(capacity, conn, [id]);
          count += 1;
        } catch {
          // InvalidStreamState: it is gone.
        }
      }
    }
    return count;
  };
  relay.onDatagram = (datagram) => [datagram];
  // The last acknowledgements come with the traffic of two more calls.
  await callEcho(connection);
  await callEcho(connection);
  assert.ok(alive() <= 4, `${alive()} streams`);
});
