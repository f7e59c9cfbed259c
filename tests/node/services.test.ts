/** The services of a node through its wire: what each method grants, refuses and bounds. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { login } from '@quicprochat/client-lib/account';
import {
  call,
  messageTag,
  methods,
  PushEvent,
  QpcError,
  systemRandom,
  type MethodName,
} from '@quicprochat/proto';
import { fromBinary, MessageEventSchema, Outcome } from '@quicprochat/proto/messages';
import {
  CloseCode,
  makeIdentity,
  memoryNetwork,
  type PushHandler,
} from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

suite('a node', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let alice: TestDevice;
  let carol: TestDevice;
  const devices: TestDevice[] = [];

  before(async () => {
    red = await LocalNode.create(
      network,
      'red.example',
      '[rates.auth]\nper_second = 1000\nburst = 1000\n',
    );
    await red.start();
    alice = await TestDevice.register(red, 'alice@red.example');
    carol = await TestDevice.register(red, 'carol@red.example');
    devices.push(alice, carol);
  });
  after(async () => {
    await Promise.all(devices.map((device) => device[Symbol.asyncDispose]()));
    await red[Symbol.asyncDispose]();
  });

  const enqueue = (from: TestDevice, to: TestDevice, payload = bytes(300), mid = bytes(16)) =>
    call(from.connection, methods.enqueue, { rid: to.rid, domain: red.domain, mid, payload });
  const fetchAll = async (device: TestDevice) =>
    call(device.connection, methods.fetch, { log: {}, after: 0n });
  const ackAll = async (device: TestDevice) => {
    const { head, storeId } = await fetchAll(device);
    await call(device.connection, methods.ack, { log: {}, storeId, upTo: head });
  };

  test('Hello tells the caller who it is and which version both speak', async () => {
    const hello = await call(alice.connection, methods.hello, { versionMin: 1, versionMax: 3 });
    assert.equal(hello.version, 1);
    assert.equal(hello.callerClass, 'device');
    assert.equal(hello.userId, alice.userId);
    await refused(
      call(alice.connection, methods.hello, { versionMin: 2, versionMax: 3 }),
      'VERSION',
    );
  });

  test('a stranger gets nothing that needs a session, and is not even read', async () => {
    await using stranger = await TestDevice.dial(red, 'nobody@red.example');
    for (const name of Object.keys(methods) as MethodName[]) {
      const { id, callers } = methods[name];
      if ((callers as readonly string[]).includes('anyone')) continue;
      // 1 MiB of protobuf may decode to 100 times its bytes: only for those who may call.
      for (const payload of [new Uint8Array(0), new Uint8Array(64).fill(0xff)]) {
        const response = await stranger.connection.call(
          { methodId: id, requestId: 1, payload },
          { deadlineMs: 5_000, maxResponseBytes: 1024 },
        );
        const isForUsers = callers[0] !== 'peer' && callers[0] !== 'admin';
        assert.equal(response.status, isForUsers ? 2 : 3, name);
      }
    }
  });

  test('an unknown method is Unimplemented, also a huge id', async () => {
    for (const methodId of [0, 299, 999, 65_535]) {
      const response = await alice.connection.call(
        { methodId, requestId: 7, payload: bytes(10) },
        { deadlineMs: 5_000, maxResponseBytes: 1024 },
      );
      assert.equal(response.status, 11);
      assert.equal(response.requestId, 7);
    }
  });

  test('bytes that are no protobuf are refused by every method that one may call, and the node lives on', async () => {
    for (const name of Object.keys(methods) as MethodName[]) {
      const response = await alice.connection.call(
        { methodId: methods[name].id, requestId: 1, payload: new Uint8Array(64).fill(0xff) },
        { deadlineMs: 5_000, maxResponseBytes: 1024 },
      );
      const mayCall = (methods[name].callers as readonly string[]).includes('device');
      assert.equal(response.status, mayCall ? 1 : 3, name);
    }
    await call(alice.connection, methods.health, {});
  });

  test('a name is taken once; the loser learns it', async () => {
    await using rival = await TestDevice.dial(red, alice.userId);
    // The client library tries to log in after NAME_TAKEN, in case the name is its own.
    const error = await rival.register().catch((thrown: unknown) => thrown);
    assert.ok(error instanceof QpcError);
    assert.equal(error.reason, 'NAME_TAKEN');
  });

  test('a user of another domain cannot register here', async () => {
    await using stray = await TestDevice.dial(red, 'alice@blue.example');
    await refused(stray.register(), 'BAD_FIELD');
  });

  test('wrong password and unknown user are the same answer', async () => {
    await using known = await TestDevice.dial(red, carol.userId);
    await using unknown = await TestDevice.dial(red, 'nobody@red.example');
    const wrong = new Uint8Array(Buffer.from('wrong'));
    const first = await refused(known.login(wrong), 'AUTH_FAILED');
    const second = await refused(unknown.login(wrong), 'AUTH_FAILED');
    assert.equal(first.message, second.message);
    assert.equal(first.status, second.status);
  });

  test('a login exchange serves one connection, once', async () => {
    const start = await call(alice.connection, methods.opaqueRegisterStart, {
      userId: 'dora@red.example',
      registrationRequest: bytes(32).fill(0),
    }).catch((error: unknown) => error);
    // All-zero bytes are no group element the library takes: a typed refusal, not a crash.
    assert.ok(start instanceof QpcError || 'handle' in (start as object));
    await refused(
      call(alice.connection, methods.opaqueLoginFinish, {
        handle: bytes(16),
        ke3: bytes(64),
        identityPub: alice.rid,
        deviceProof: bytes(64),
        sessionMac: bytes(32),
      }),
      'AUTH_FAILED',
    );
  });

  test('logout ends the session of this key at once, login brings it back', async () => {
    await using dora = await TestDevice.register(red, 'dora@red.example');
    await call(dora.connection, methods.keyPackageCount, {});
    await call(dora.connection, methods.logout, {});
    await refused(call(dora.connection, methods.keyPackageCount, {}), 'NOT_LOGGED_IN');
    await dora.login();
    await call(dora.connection, methods.keyPackageCount, {});
  });

  test('a login with a new transport key leaves nothing to the old one, waiting or subscribed', async () => {
    await using fay = await TestDevice.register(red, 'fay@red.example');
    const old = fay.connection;
    const pushed: number[] = [];
    const ended = Promise.withResolvers<void>();
    old.onPushStream(async (frames) => {
      for await (const frame of frames) pushed.push(frame.eventType);
      ended.resolve();
    });
    const cursors = [{ log: {}, after: 0n }];
    await call(old, methods.subscribe, { cursors });
    const waiting = refused(
      call(old, methods.fetchWait, { cursors, waitMs: 20_000 }),
      'NOT_LOGGED_IN',
    );
    const transport = await makeIdentity(systemRandom);
    const moved = await red.dial(transport);
    const credentials = fay.credentials();
    await login(moved, { ...credentials, keys: { ...credentials.keys, transport } });
    await enqueue(alice, fay);
    await waiting;
    await ended.promise;
    assert.deepEqual(pushed, []);
    const { rows } = await call(moved, methods.fetch, { log: {}, after: 0n });
    assert.equal(rows.length, 1);
    await moved.close(CloseCode.Normal, 'done');
  });

  test('a message is fetched until it is acked, with its bytes, id and tag', async () => {
    await ackAll(carol);
    const mid = bytes(16);
    const payload = bytes(1000);
    const stored = await enqueue(alice, carol, payload, mid);
    assert.equal(stored.outcome, Outcome.STORED);
    assert.deepEqual(stored.tag, messageTag(mid, payload));
    const again = await enqueue(alice, carol, payload, mid);
    assert.equal(again.outcome, Outcome.DUPLICATE);
    for (let repeat = 0; repeat < 2; repeat += 1) {
      const { rows, head } = await fetchAll(carol);
      assert.equal(rows.length, 1);
      assert.deepEqual(rows[0]?.payload, payload);
      assert.deepEqual(rows[0]?.mid, mid);
      assert.equal(rows[0]?.seq, head);
    }
    await ackAll(carol);
    assert.equal((await fetchAll(carol)).rows.length, 0);
    // A retry after the ack is a duplicate too: the tag is remembered.
    assert.equal((await enqueue(alice, carol, payload, mid)).outcome, Outcome.DUPLICATE);
    assert.equal((await fetchAll(carol)).rows.length, 0);
  });

  test('the same id with other bytes is another message', async () => {
    await ackAll(carol);
    const mid = bytes(16);
    await enqueue(alice, carol, bytes(10), mid);
    assert.equal((await enqueue(alice, carol, bytes(10), mid)).outcome, Outcome.STORED);
    await ackAll(carol);
  });

  test('Enqueue refuses what it must before it writes anything', async () => {
    const { head } = await fetchAll(carol);
    const good = {
      rid: carol.rid,
      domain: red.domain,
      mid: bytes(16),
      payload: bytes(10),
      ttlS: 60,
    };
    const bad: [object, string][] = [
      [{ rid: bytes(31) }, 'BAD_FIELD'],
      [{ rid: bytes(33) }, 'BAD_FIELD'],
      [{ rid: bytes(32) }, 'UNKNOWN_DEVICE'],
      [{ domain: 'blue.example' }, 'PEER_DENIED'],
      [{ domain: 'Red.Example' }, 'BAD_FIELD'],
      [{ domain: '' }, 'BAD_FIELD'],
      [{ mid: bytes(15) }, 'BAD_FIELD'],
      [{ payload: new Uint8Array(0) }, 'BAD_FIELD'],
      [{ payload: bytes(512 * 1024 + 1) }, 'BAD_FIELD'],
      [{ ttlS: 31 * 24 * 3600 }, 'BAD_FIELD'],
    ];
    for (const [change, reason] of bad) {
      await refused(call(alice.connection, methods.enqueue, { ...good, ...change }), reason);
    }
    assert.equal((await fetchAll(carol)).head, head);
  });

  test('cursors above the head, of another store and of channels are refused', async () => {
    const { head, storeId } = await fetchAll(alice);
    const log = {};
    await refused(call(alice.connection, methods.fetch, { log, after: head + 1n }), 'BAD_CURSOR');
    await refused(call(alice.connection, methods.fetch, { log, after: 2n ** 60n }), 'BAD_FIELD');
    await refused(
      call(alice.connection, methods.ack, { log, storeId, upTo: head + 1n }),
      'BAD_CURSOR',
    );
    const changed = await refused(
      call(alice.connection, methods.ack, { log, storeId: bytes(8), upTo: head }),
      'STORE_CHANGED',
    );
    assert.deepEqual(changed.details, storeId);
    await refused(
      call(alice.connection, methods.subscribe, { cursors: [{ log, after: head + 1n, storeId }] }),
      'BAD_CURSOR',
    );
    await refused(
      call(alice.connection, methods.fetch, { log: { cid: bytes(32) }, after: 0n }),
      'UNKNOWN_CHANNEL',
    );
    await refused(call(alice.connection, methods.subscribe, { cursors: [] }), 'BAD_FIELD');
  });

  test('FetchWait returns at once with rows, when one comes, and empty after its time', async () => {
    await ackAll(carol);
    const { head } = await fetchAll(carol);
    const cursors = [{ log: {}, after: head }];
    const wait = (waitMs: number) => call(carol.connection, methods.fetchWait, { cursors, waitMs });
    assert.equal((await wait(20)).logs[0]?.fetched?.rows.length, 0);
    const waiting = wait(20_000);
    await enqueue(alice, carol);
    assert.equal((await waiting).logs[0]?.fetched?.rows.length, 1);
    assert.equal((await wait(20_000)).logs[0]?.fetched?.rows.length, 1);
    await ackAll(carol);
    const after1 = (await fetchAll(carol)).head;
    const older = call(carol.connection, methods.fetchWait, {
      cursors: [{ log: {}, after: after1 }],
      waitMs: 20_000,
    });
    // Make sure the older one waits before the newer one comes: it was sent first and both are read.
    await call(carol.connection, methods.health, {});
    const newer = call(carol.connection, methods.fetchWait, {
      cursors: [{ log: {}, after: after1 }],
      waitMs: 50,
    });
    assert.equal((await older).logs[0]?.fetched?.rows.length, 0);
    await newer;
  });

  test('pushes come in order from the cursor, stop at the window and go on after acks', async () => {
    await using dave = await TestDevice.register(red, 'dave@red.example');
    const count = 300;
    for (let sent = 0; sent < count; sent += 50) {
      await Promise.all(
        Array.from({ length: 50 }, (_, index) => {
          // Two senders, so that neither reaches its rate limit.
          return enqueue(index % 2 === 0 ? alice : carol, dave, bytes(50));
        }),
      );
    }
    const seqs: bigint[] = [];
    let wake = (): void => undefined;
    const until = async (length: number): Promise<void> => {
      while (seqs.length < length) await new Promise<void>((resolve) => (wake = resolve));
    };
    const handler: PushHandler = async (frames) => {
      for await (const frame of frames) {
        assert.equal(frame.eventType, PushEvent.Message);
        seqs.push(fromBinary(MessageEventSchema, frame.payload).row?.seq ?? 0n);
        wake();
      }
    };
    dave.connection.onPushStream(handler);
    const { storeId } = await call(dave.connection, methods.subscribe, {
      cursors: [{ log: {}, after: 0n }],
    });
    await until(256);
    // The window is full: a call that the node answers now proves that nothing more was written.
    await call(dave.connection, methods.health, {});
    await call(dave.connection, methods.health, {});
    assert.equal(seqs.length, 256);
    await call(dave.connection, methods.ack, { log: {}, storeId, upTo: 256n });
    await until(count);
    assert.deepEqual(
      seqs,
      Array.from({ length: count }, (_, index) => BigInt(index + 1)),
    );
  });

  test('a newer subscription ends the older one with Superseded', async () => {
    await using erin = await TestDevice.register(red, 'erin@red.example');
    const superseded = Promise.withResolvers<number>();
    erin.connection.onPushStream(async (frames) => {
      for await (const frame of frames) superseded.resolve(frame.eventType);
    });
    const subscribe = { cursors: [{ log: {}, after: 0n }] };
    await call(erin.connection, methods.subscribe, subscribe);
    const second = await red.dial(erin.transport);
    second.onPushStream(async (frames) => {
      for await (const _frame of frames);
    });
    await call(second, methods.subscribe, subscribe);
    assert.equal(await superseded.promise, PushEvent.Superseded);
    await second.close(0, 'done');
  });

  test('a sender above its rate is told when to come back, others are not touched', async () => {
    const burst = 20;
    await using slow = await LocalNode.create(
      network,
      'slow.example',
      // Nothing comes back within a test, however slow the machine.
      `[rates.send]\nper_second = 0.01\nburst = ${burst}\n`,
    );
    await slow.start();
    await using ivan = await TestDevice.register(slow, 'ivan@slow.example');
    await using judy = await TestDevice.register(slow, 'judy@slow.example');
    const send = (from: TestDevice) =>
      call(from.connection, methods.enqueue, {
        rid: judy.rid,
        domain: slow.domain,
        mid: bytes(16),
        payload: bytes(10),
      });
    const results = await Promise.allSettled(Array.from({ length: 2 * burst }, () => send(ivan)));
    const limited = results.flatMap((result) =>
      result.status === 'rejected' ? [result.reason as QpcError] : [],
    );
    assert.equal(limited.length, burst);
    for (const error of limited) {
      assert.equal(error.reason, 'RATE_LIMITED');
      assert.ok((error.retryAfterMs ?? 0) > 0);
    }
    await send(judy);
  });

  test('a full inbox refuses and keeps what it has', async () => {
    await using small = await LocalNode.create(
      network,
      'small.example',
      '[limits]\ninbox_rows = 5\n',
    );
    await small.start();
    await using bob = await TestDevice.register(small, 'bob@small.example');
    const send = () =>
      call(bob.connection, methods.enqueue, {
        rid: bob.rid,
        domain: small.domain,
        mid: bytes(16),
        payload: bytes(20),
      });
    for (let sent = 0; sent < 5; sent += 1) await send();
    await refused(send(), 'QUEUE_FULL');
    const { rows, storeId } = await fetchAll(bob);
    assert.equal(rows.length, 5);
    await call(bob.connection, methods.ack, { log: {}, storeId, upTo: 2n });
    assert.equal((await send()).outcome, Outcome.STORED);
  });
});
