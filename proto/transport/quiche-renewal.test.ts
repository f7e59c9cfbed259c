/** A connection that had many streams ends between two calls, and its user dials another one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { callEcho, patient, rejectsWith, Rig } from './contract-rig.ts';
import { quicheEngine } from './quic-rig.ts';
import { CloseCode, defaultLimits } from './transport.ts';

const few = { streamsPerConnection: 40 };
const many = { limits: defaultLimits };

test('a dialer ends a connection that had its streams, between two calls', async (t) => {
  const rig = await Rig.listen(t, quicheEngine, { limits: few });
  const connection = await rig.dial();
  const accepted = await rig.accepted();
  await Promise.all(Array.from({ length: 39 }, (_, id) => callEcho(connection, id)));
  const isClosed = { now: false };
  void connection.closed.then(() => (isClosed.now = true));
  await rig.runtime.clock.sleep(50);
  assert.ok(!isClosed.now);
  // Those that begin before the fortieth has ended are served as well.
  await Promise.all(Array.from({ length: 5 }, (_, id) => callEcho(connection, id)));
  const [here, there] = await Promise.all([connection.closed, accepted.closed]);
  assert.deepEqual([here.code, here.local, here.reason], [CloseCode.Normal, true, 'renewed']);
  assert.deepEqual([there.code, there.local], [CloseCode.Normal, false]);
  await callEcho(await rig.dial());
});

test('a listener ends a connection whose dialer never does', async (t) => {
  const rig = await Rig.listen(t, quicheEngine, { listenerLimits: few });
  const connection = await rig.dial(many);
  const accepted = await rig.accepted();
  for (let id = 0; id < 50; id += 1) await callEcho(connection, id);
  const info = await accepted.closed;
  assert.deepEqual([info.code, info.local, info.reason], [CloseCode.Normal, true, 'renewed']);
});

test('calls that are always open do not keep a connection for ever', async (t) => {
  const rig = await Rig.listen(t, quicheEngine, {
    listenerLimits: few,
    onCall: ({ methodId, requestId, payload }) =>
      methodId === 2 ? new Promise(() => {}) : Promise.resolve({ status: 0, requestId, payload }),
  });
  const connection = await rig.dial(many);
  const waiting = { methodId: 2, requestId: 1, payload: new Uint8Array() };
  const failed = rejectsWith(connection.call(waiting, patient), 'closed');
  for (let id = 0; id < 58; id += 1) await callEcho(connection, id);
  // The sixtieth stream with the one that waits.
  await callEcho(connection, 58).catch(() => {});
  await failed;
});
