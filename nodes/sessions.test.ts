/** Enrolling sessions: of one connection, for ten minutes, until something else ends them. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { silentLog, systemRandom, systemClock, type Clock } from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  memoryNetwork,
  type Connection,
} from '@quicprochat/proto/transport';
import { Sessions } from './sessions.ts';
import { StoreFixture } from './store/contract/fixture.ts';
import { openNodeStoreInThread } from './store/open.ts';

const userId = 'alice@red.example';
const identityPub = new Uint8Array(32).fill(1);
const minutesMs = 60_000;

/** Two connections as a node sees them, and sessions under a clock that the test moves. */
async function scene(t: TestContext) {
  const fixture = new StoreFixture();
  await fixture.create();
  const store = await fixture.open(openNodeStoreInThread);
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const network = memoryNetwork(runtime);
  const seen: Connection[] = [];
  const limits = defaultLimits;
  const endpoint = { host: '127.0.0.1', port: 5001 };
  const maxRequestBytes = (): number => 1024;
  const own = await makeIdentity(systemRandom);
  const listener = await network.transport('red.example').listen({
    endpoint,
    identity: own,
    limits,
    maxRequestBytes,
    onConnection: (connection) => void seen.push(connection),
  });
  const identity = await makeIdentity(systemRandom);
  const dial = () =>
    network
      .transport('client')
      .dial(
        { host: 'red.example', port: 5001 },
        { identity, limits, maxRequestBytes, pins: [own.spkiSha256] },
      );
  const dialed = [await dial(), await dial()];
  t.after(async () => {
    await listener.close(CloseCode.Normal, 'done');
    await fixture[Symbol.asyncDispose]();
  });
  const time = { nowMs: 0 };
  const clock: Clock = { ...systemClock, now: () => time.nowMs };
  const sessions = new Sessions(store, clock);
  const classOf = async (which: number): Promise<string> => {
    const connection = seen[which];
    assert.ok(connection !== undefined);
    return (await sessions.identify(connection)).class;
  };
  const [first] = seen;
  assert.ok(first !== undefined);
  return { sessions, time, classOf, first, dialed };
}

test('an enrolling session lasts ten minutes, on its connection only', async (t) => {
  const { sessions, time, classOf, first } = await scene(t);
  assert.equal(sessions.bindEnrolling(first, userId, identityPub), 10 * minutesMs);
  assert.deepEqual([await classOf(0), await classOf(1)], ['enrolling', 'anyone']);
  time.nowMs = 10 * minutesMs - 1;
  assert.equal(await classOf(0), 'enrolling');
  time.nowMs += 1;
  assert.equal(await classOf(0), 'anyone');
});

test('it ends with the registration, the account and the connection', async (t) => {
  const { sessions, classOf, first, dialed } = await scene(t);
  sessions.bindEnrolling(first, userId, identityPub);
  sessions.endEnrolling(first);
  assert.equal(await classOf(0), 'anyone');
  sessions.bindEnrolling(first, userId, identityPub);
  sessions.forgetEnrolling('bob@red.example');
  assert.equal(await classOf(0), 'enrolling');
  sessions.forgetEnrolling(userId);
  assert.equal(await classOf(0), 'anyone');
  sessions.bindEnrolling(first, userId, identityPub);
  await dialed[0]?.close(CloseCode.Normal, 'done');
  await first.closed;
  assert.equal(await classOf(0), 'anyone');
});
