/** Bringing a device in while the account changes beside it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deviceIdOf,
  firstManifest,
  methods,
  nextManifest,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  ManifestSchema,
  type MessageInitShape,
  type SignedManifest,
} from '@quicprochat/proto/messages';
import { accountKeys, prepareAccount } from './account.ts';
import { enroll } from './enrolment.ts';
import { Logs } from '../kt/logs.ts';
import type { Caller } from '../dial.ts';
import { sealBundle } from './recovery-bundle.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { testRuntime } from '../test-runtime.ts';
import { TestLog } from '../test-logs.ts';

test('a change that follows at once does not make the enrolment look lost', async () => {
  const userId = 'alice@red.example';
  const red = await TestLog.make('red.example', { runtime: testRuntime });
  const accountSeed = systemRandom.bytes(32);
  const accountKey = signingKeyFromSeed(accountSeed);
  const [old, third] = [systemRandom.bytes(32), systemRandom.bytes(32)].map(
    (seed) => signingKeyFromSeed(seed).publicKey,
  );
  assert(old !== undefined && third !== undefined);
  await red.publish(userId, firstManifest(userId, accountKey, old, systemClock.now()));

  const exportKey = systemRandom.bytes(64);
  const bundle = sealBundle(
    userId,
    { seq: 1, accountSeeds: [accountSeed] },
    exportKey,
    systemRandom,
  );
  let registered = 0;
  /** The node logs the device, and then what another device of the account asks for. */
  const register = async (manifest: SignedManifest): Promise<void> => {
    registered += 1;
    await red.publish(userId, manifest);
    const { devices } = fromBinary(ManifestSchema, manifest.manifest);
    const added = { deviceId: deviceIdOf(third), identityPub: third, addedMs: 0n };
    await red.publish(
      userId,
      nextManifest(manifest, { devices: [...devices, added] }, { accountKey }),
    );
  };
  const caller: Caller = {
    call: async (method, request) => {
      let answer: unknown;
      if (method.id === methods.fetchRecoveryBundle.id) answer = { bundle };
      else if (method.id === methods.registerDevice.id) {
        const { manifest } = request as { manifest?: SignedManifest };
        assert(manifest !== undefined);
        await register(manifest);
        answer = { sessionExpiresMs: 5n };
      } else answer = await red.answer(method.id, request);
      return create(method.response, answer as MessageInitShape<typeof method.response>);
    },
  };

  const store = openMemoryStore();
  const nodeAddress = `qpc://red.example:5001#${Buffer.from(red.pin).toString('base64url')}`;
  const owner = { userId, nodeAddress, isNewAccount: false };
  const keys = accountKeys(await prepareAccount(store, owner, systemRandom));
  const own = { domain: 'red.example', pin: red.pin };
  const logs = new Logs({ store, runtime: testRuntime, own, onRefused: () => {} });
  const parts = { store, runtime: testRuntime, logs, userId, keys };
  assert.equal(await enroll(parts, exportKey, caller), 5);
  assert.equal(registered, 1);
  assert.deepEqual(store.account.get()?.accountSeed, accountSeed);
});
