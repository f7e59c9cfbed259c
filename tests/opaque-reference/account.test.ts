/**
 * Registration and login of client-lib at a real node in this process, over a connection that the
 * test may tamper with or cut: what is bound to what, which failures look alike, and that a lost
 * answer costs nothing.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  accountKeys,
  AccountError,
  login,
  prepareAccount,
  recordSession,
  register,
  type Credentials,
} from '@quicprochat/client-lib/account';
import { openMemoryStore } from '@quicprochat/client-lib/store';
import {
  call,
  methods,
  QpcError,
  systemClock,
  systemRandom,
  TransportError,
  UnauthenticatedError,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  OpaqueLoginFinishRequestSchema,
  OpaqueLoginStartRequestSchema,
  OpaqueLoginStartResponseSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { makeIdentity, memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { LocalNode, TestDevice, testRuntime } from '../cluster/local-node.ts';

/** Rates far above what a test needs: limits are tested with the node's services. */
const generous = [
  '[rates.auth]\nper_second = 10000\nburst = 10000',
  '[rates.auth_per_user]\nper_second = 10000\nburst = 10000',
].join('\n');

type Payload = Uint8Array;
interface Meddler {
  /** Changes a request on its way, by method id. */
  readonly request?: (methodId: number, payload: Payload) => Payload;
  /** Changes a response on its way; throwing loses it after the node has acted. */
  readonly response?: (methodId: number, payload: Payload) => Payload;
}

/** The same connection with somebody in the middle, or with another node at its end. */
function meddled(
  connection: Connection,
  meddler: Meddler,
  peer: Connection['peer'] = connection.peer,
): Connection {
  return {
    peer,
    closed: connection.closed,
    onCall: (handler) => connection.onCall(handler),
    openPushStream: () => connection.openPushStream(),
    onPushStream: (handler) => connection.onPushStream(handler),
    close: (code, reason) => connection.close(code, reason),
    async call(frame, options) {
      const { methodId, payload } = frame;
      const sent = { ...frame, payload: meddler.request?.(methodId, payload) ?? payload };
      const response = await connection.call(sent, options);
      if (response.status !== 0) return response;
      const received = meddler.response?.(methodId, response.payload) ?? response.payload;
      return { ...response, payload: received };
    },
  };
}

async function errorOf(run: Promise<unknown>): Promise<QpcError> {
  const error = await run.then(
    () => assert.fail('was accepted'),
    (thrown: unknown) => thrown,
  );
  assert(error instanceof QpcError, String(error));
  return error;
}

suite('accounts', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let alice: TestDevice;
  const open: TestDevice[] = [];

  before(async () => {
    red = await LocalNode.create(network, 'red.example', generous);
    await red.start();
    alice = await TestDevice.register(red, 'alice@red.example');
    open.push(alice);
  });
  after(async () => {
    await Promise.all(open.map((device) => device[Symbol.asyncDispose]()));
    await red[Symbol.asyncDispose]();
  });

  const dial = async (userId: string): Promise<TestDevice> => {
    const device = await TestDevice.dial(red, userId);
    open.push(device);
    return device;
  };
  const callerClass = async (connection: Connection): Promise<string> =>
    (await call(connection, methods.hello, { versionMin: 1, versionMax: 1 })).callerClass;

  test('register and login give a session, the manifest and one server key', async () => {
    const bob = await dial('bob@red.example');
    const registered = await bob.register();
    assert.equal(await callerClass(bob.connection), 'device');
    assert.equal(registered.serverKey.length, 32);
    assert.deepEqual(
      registered.manifest.devices.map(({ identityPub }) => identityPub),
      [bob.rid],
    );
    const loggedIn = await login(bob.connection, {
      ...bob.credentials(),
      pinnedServerKey: registered.serverKey,
    });
    assert.deepEqual(loggedIn.serverKey, registered.serverKey);
    assert.deepEqual(loggedIn.manifest, registered.manifest);
    assert(loggedIn.sessionExpiresMs >= registered.sessionExpiresMs);
  });

  test('wrong password and unknown user are one error at the client', async () => {
    const nobody = await dial('nobody@red.example');
    const wrong = await errorOf(alice.login(new TextEncoder().encode('wrong')));
    const unknown = await errorOf(nobody.login());
    for (const error of [wrong, unknown]) {
      assert(error instanceof UnauthenticatedError);
      assert.equal(error.reason, 'AUTH_FAILED');
      assert.equal(error.message, wrong.message);
    }
  });

  test('wrong password and unknown user are one answer of the node, in size and time', async () => {
    const { connection } = await dial('stranger@red.example');
    // A well-formed KE1, as a guesser sends it; KE3 can only be made up.
    let ke1: Uint8Array = new Uint8Array(0);
    const watched = meddled(alice.connection, {
      request: (id, payload) => {
        if (id === methods.opaqueLoginStart.id) {
          ({ ke1 } = fromBinary(OpaqueLoginStartRequestSchema, payload));
        }
        return payload;
      },
    });
    await login(watched, alice.credentials());
    const attempt = async (userId: string) => {
      const { ke2, ksf, handle } = await call(connection, methods.opaqueLoginStart, {
        userId,
        ke1,
      });
      const finish = await errorOf(
        call(connection, methods.opaqueLoginFinish, {
          handle,
          ke3: new Uint8Array(64),
          identityPub: alice.rid,
          deviceProof: new Uint8Array(64),
          sessionMac: new Uint8Array(32),
        }),
      );
      const { status, reason, message, retryAfterMs, details } = finish;
      return {
        sizes: [ke2.length, ksf, handle.length],
        status,
        reason,
        message,
        retryAfterMs,
        details,
      };
    };
    assert.deepEqual(await attempt('nobody@red.example'), await attempt('alice@red.example'));
    const times = { known: [] as number[], unknown: [] as number[] };
    const timed = async (userId: string): Promise<number> => {
      const startMs = performance.now();
      await call(connection, methods.opaqueLoginStart, { userId, ke1 });
      return performance.now() - startMs;
    };
    for (let round = 0; round < 25; round += 1) {
      times.known.push(await timed('alice@red.example'));
      times.unknown.push(await timed('nobody@red.example'));
    }
    // Interleaved medians; the bound only catches a path that skips the work.
    const ratio = median(times.unknown) / median(times.known);
    assert(ratio > 0.4 && ratio < 2.5, `unknown takes ${ratio.toFixed(2)} times as long as known`);
  });

  test('an answer that is lost after the node registered costs nothing', async () => {
    const carol = await dial('carol@red.example');
    const lossy = meddled(carol.connection, {
      response: (id, payload) => {
        if (id !== methods.opaqueRegisterFinish.id) return payload;
        throw new TransportError('closed', 'the answer is lost');
      },
    });
    const credentials = carol.credentials();
    await assert.rejects(register(lossy, credentials, systemClock), { reason: 'DISCONNECTED' });
    const again = await red.dial(carol.transport);
    const { manifest } = await register(again, credentials, systemClock);
    assert.deepEqual(manifest.devices[0]?.identityPub, carol.rid);
    assert.equal(await callerClass(again), 'device');
    await again.close(0, 'done');
  });

  test('a name that is taken by other keys or with another password stays taken', async () => {
    const samePassword = await dial('alice@red.example');
    assert.equal((await errorOf(samePassword.register())).reason, 'NAME_TAKEN');
    const password = new TextEncoder().encode('another');
    const otherPassword = register(alice.connection, alice.credentials(password), systemClock);
    assert.equal((await errorOf(otherPassword)).reason, 'NAME_TAKEN');
    assert.notEqual(await callerClass(samePassword.connection), 'device');
  });

  test('another OPAQUE key than the pinned one ends the login before anything is proven', async () => {
    const seen: number[] = [];
    const watched = meddled(alice.connection, {
      request: (id, payload) => {
        seen.push(id);
        return payload;
      },
    });
    const pinned = { ...alice.credentials(), pinnedServerKey: systemRandom.bytes(32) };
    const error = await errorOf(login(watched, pinned));
    assert(error instanceof AccountError && error.reason === 'SERVER_KEY_CHANGED');
    assert.deepEqual(seen, [methods.opaqueLoginStart.id]);
  });

  test('a proof for another connection, or of another node, binds nothing', async () => {
    const device = await dial('alice@red.example');
    const wrongClient: Credentials = {
      ...alice.credentials(),
      keys: { ...alice.credentials().keys, transport: await makeIdentity(systemRandom) },
    };
    assert.match((await errorOf(login(device.connection, wrongClient))).reason, /AUTH|SIGNATURE/);
    const peer = { ...device.connection.peer, spkiSha256: new Uint8Array(32) };
    const wrongNode = meddled(device.connection, {}, peer);
    const keys = { ...alice.credentials().keys, transport: device.transport };
    const error = await errorOf(login(wrongNode, { ...alice.credentials(), keys }));
    assert.match(error.reason, /AUTH|SIGNATURE/);
    assert.notEqual(await callerClass(device.connection), 'device');
  });

  test('every part of a login is authenticated: changed on the way, it gives no session', async () => {
    type Change = (part: Uint8Array) => void;
    const first: Change = (part) => void (part[0] = (part[0] ?? 0) ^ 1);
    const last: Change = (part) => void (part[part.length - 1] = (part.at(-1) ?? 0) ^ 0x80);
    const startRequest = (change: Change): Meddler => ({
      request: (id, payload) => {
        if (id !== methods.opaqueLoginStart.id) return payload;
        const message = fromBinary(OpaqueLoginStartRequestSchema, Uint8Array.from(payload));
        change(message.ke1);
        return toBinary(OpaqueLoginStartRequestSchema, message);
      },
    });
    const startResponse = (part: 'ke2' | 'handle', change: Change): Meddler => ({
      response: (id, payload) => {
        if (id !== methods.opaqueLoginStart.id) return payload;
        const message = fromBinary(OpaqueLoginStartResponseSchema, Uint8Array.from(payload));
        change(message[part]);
        return toBinary(OpaqueLoginStartResponseSchema, message);
      },
    });
    const finishRequest = (
      part: 'ke3' | 'identityPub' | 'deviceProof' | 'sessionMac',
      change: Change,
    ): Meddler => ({
      request: (id, payload) => {
        if (id !== methods.opaqueLoginFinish.id) return payload;
        const message = fromBinary(OpaqueLoginFinishRequestSchema, Uint8Array.from(payload));
        change(message[part]);
        return toBinary(OpaqueLoginFinishRequestSchema, message);
      },
    });
    const mallory = await dial('alice@red.example');
    const keys = { ...alice.credentials().keys, transport: mallory.transport };
    const credentials = { ...alice.credentials(), keys };
    for (const change of [first, last]) {
      for (const meddler of [
        startRequest(change),
        startResponse('ke2', change),
        startResponse('handle', change),
        finishRequest('ke3', change),
        finishRequest('identityPub', change),
        finishRequest('deviceProof', change),
        finishRequest('sessionMac', change),
      ]) {
        const error = await errorOf(login(meddled(mallory.connection, meddler), credentials));
        assert.match(error.reason, /^(AUTH_FAILED|BAD_SIGNATURE|BAD_FIELD)$/);
        assert.notEqual(await callerClass(mallory.connection), 'device');
      }
    }
    await login(mallory.connection, credentials);
    assert.equal(await callerClass(mallory.connection), 'device');
  });

  test('a manifest of somebody else in the answer is refused', async () => {
    const device = await dial('dora@red.example');
    await device.register();
    const meddler: Meddler = {
      response: (id, payload) => {
        if (id !== methods.opaqueLoginFinish.id) return payload;
        const { response } = methods.opaqueLoginFinish;
        const manifest = { manifest: Uint8Array.of(0x0a, 0x01, 0x61) };
        return toBinary(response, create(response, { manifest }));
      },
    };
    const error = await errorOf(login(meddled(device.connection, meddler), device.credentials()));
    assert(error instanceof AccountError && error.reason === 'BAD_MANIFEST');
  });

  test('keys are in the store before the node hears of them, and stay the same', async () => {
    using store = openMemoryStore();
    const owner = { userId: 'eve@red.example', nodeAddress: red.address };
    const prepared = await prepareAccount(store, owner, systemRandom);
    assert.equal(prepared.isRegistered, false);
    assert.deepEqual(await prepareAccount(store, owner, systemRandom), prepared);
    // Another name before registration gets keys of its own.
    const renamed = await prepareAccount(
      store,
      { ...owner, userId: 'eva@red.example' },
      systemRandom,
    );
    assert.notDeepEqual(renamed.identitySeed, prepared.identitySeed);
    const keys = accountKeys(renamed);
    const connection = await red.dial(keys.transport);
    const session = await register(
      connection,
      {
        userId: renamed.userId,
        password: new TextEncoder().encode('x'),
        keys,
        pinnedServerKey: undefined,
      },
      systemClock,
    );
    recordSession(store, renamed, session);
    assert.equal(store.account.get()?.isRegistered, true);
    assert.deepEqual(store.account.get()?.opaqueServerKey, session.serverKey);
    await assert.rejects(prepareAccount(store, owner, systemRandom), { reason: 'OTHER_ACCOUNT' });
    await connection.close(0, 'done');
  });
});

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
