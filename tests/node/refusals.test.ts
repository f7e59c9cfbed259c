/**
 * What every row of the method table refuses before its handler runs, row by row: whom it is not for, what is no
 * request, what comes too often, and everything while the node is busy or stops. Strangers are in services.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { methods, systemRandom, type Method, type RateClass } from '@quicprochat/proto';
import { ErrorSchema, fromBinary } from '@quicprochat/proto/messages';
import { makeIdentity, memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';
import { Person } from './account-rig.ts';
import { CallersScene } from './callers-scene.ts';

const rows: readonly Method[] = Object.values(methods);
const noProtobuf = new Uint8Array(64).fill(0xff);

/** The reason of a refusal; '' of an answer. */
async function reasonOf(connection: Connection, { id }: Method, payload = noProtobuf) {
  const response = await connection.call(
    { methodId: id, requestId: 1, payload },
    { deadlineMs: 20_000, maxResponseBytes: 64 * 1024 },
  );
  return response.status === 0 ? '' : fromBinary(ErrorSchema, response.payload).reason;
}

test('every row refuses callers that it does not name, and what is no request of it', async () => {
  const network = memoryNetwork(testRuntime);
  await using scene = new CallersScene(await LocalNode.create(network, 'blue.example'));
  await scene.start();
  for (const row of rows) {
    for (const [caller, connection] of scene.callers) {
      if (caller === 'anyone' || row.callers.includes(caller)) continue;
      assert.equal(await reasonOf(connection, row), 'CALLER_CLASS', `${row.name} by ${caller}`);
    }
    assert.equal(await reasonOf(scene.callerOf(row), row), 'BAD_FIELD', row.name);
    const { maxAnonymousBytes, maxRequestBytes: bytesMax } = row;
    const known = row.callers.filter((one) => one !== 'anyone' && scene.callers.has(one));
    const isKnown = known.length > 0;
    const sender = scene.callerOf(isKnown ? { ...row, callers: known } : row);
    const limit = isKnown ? bytesMax : maxAnonymousBytes;
    const largest = new Uint8Array(limit).fill(0xff);
    assert.equal(await reasonOf(sender, row, largest), 'BAD_FIELD', row.name);
    const tooLarge = new Uint8Array(limit + 1);
    assert.equal(await reasonOf(sender, row, tooLarge), 'TOO_LARGE', row.name);
    if (maxAnonymousBytes === bytesMax) continue;
    const large = new Uint8Array(maxAnonymousBytes + 1);
    const stranger = scene.callers.get('anyone');
    assert.ok(stranger !== undefined);
    assert.equal(await reasonOf(stranger, row, large), 'TOO_LARGE', row.name);
  }
});

test('every row has a rate, but for the operator', async () => {
  const network = memoryNetwork(testRuntime);
  const burst = 8;
  const classes: readonly RateClass[] = rows.map(({ rate }) => rate);
  // Nothing comes back within a test, however slow the machine.
  const rates = [...new Set(classes), 'sendAnonymous']
    .map((name) => name.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`))
    .map((name) => `[rates.${name}]\nper_second = 0.01\nburst = ${burst}\n`);
  await using scene = new CallersScene(
    await LocalNode.create(network, 'blue.example', rates.join('')),
  );
  await scene.start();
  for (const row of rows) {
    const caller = scene.callerOf(row);
    let reason = '';
    for (let asked = 0; asked <= burst && reason !== 'RATE_LIMITED'; asked += 1) {
      reason = await reasonOf(caller, row);
    }
    const isRated = row.callers.some((one) => one !== 'admin');
    assert.equal(reason, isRated ? 'RATE_LIMITED' : 'BAD_FIELD', row.name);
  }
});

test('a busy node and one that stops refuse every row before they look who asks', async () => {
  const network = memoryNetwork(testRuntime);
  // A change of keys waits so long for its entry: the one call in flight.
  const limits = '[limits]\ncalls_in_flight = 1\n[kt]\nbatch_ms = 1000\nvrf_threads = 0\n';
  await using node = await LocalNode.create(network, 'blue.example', limits);
  await node.start();
  await using person = new Person('alice@blue.example', (identity) => node.dial(identity));
  const device = await person.newDevice();
  await device.register();
  const { revoked } = person.content;
  const identityPub = systemRandom.bytes(32);
  const manifest = person.next({
    revoked: [...revoked, { identityPub, atMs: 1n, reason: 'lost' }],
  });
  const held = device.call(methods.revokeKey, { manifest });
  const connection = await node.dial(await makeIdentity(systemRandom), 'somewhere');
  while ((await reasonOf(connection, methods.health, new Uint8Array(0))) !== 'OVERLOADED');
  for (const row of rows) assert.equal(await reasonOf(connection, row), 'OVERLOADED', row.name);
  const stopped = node.node?.stop();
  for (const row of rows) {
    const isServed = row.name === 'Hello' || row.name === 'Health';
    assert.equal(await reasonOf(connection, row), isServed ? 'OVERLOADED' : 'DRAINING', row.name);
  }
  await held;
  await stopped;
});
