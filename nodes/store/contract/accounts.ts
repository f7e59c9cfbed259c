/** Contract of a NodeStore: secrets, accounts, devices and sessions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConflictError, NotFoundError, systemRandom } from '@quicprochat/proto';
import { addDevice, newAccount, newRow, storeFixture, type OpenStore } from './fixture.ts';
import { registerAccount } from './log-batch.ts';

export function accountContract(open: OpenStore): void {
  test('a secret is kept, may be put again, and is never replaced', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    assert.equal(await store.secret('opaque'), undefined);
    const value = systemRandom.bytes(40);
    await store.putSecret('opaque', value);
    await store.putSecret('opaque', value);
    assert.deepEqual(await store.secret('opaque'), value);
    await assert.rejects(store.putSecret('opaque', systemRandom.bytes(40)), ConflictError);
    assert.deepEqual(await store.secret('opaque'), value);
  });

  test('an account comes back as it was made, with a session and an inbox', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const made = newAccount('alice');
    await registerAccount(store, made);
    const { userId, setupId, opaqueRecord, manifest, manifestSeq, device } = made;
    assert.deepEqual(await store.account('alice'), {
      userId,
      setupId,
      opaqueRecord,
      manifest,
      manifestSeq,
    });
    assert.equal(await store.account('bob'), undefined);
    assert.deepEqual(await store.sessionByTransportKey(device.transportSpki), {
      userId,
      deviceId: device.deviceId,
      identityPub: device.identityPub,
      sessionExpiresMs: made.sessionExpiresMs,
    });
    assert.equal((await store.fetch(device.identityPub, 0, 1, 1)).head, 0);
  });

  test('a taken name or device key is refused as a whole', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const first = newAccount('alice');
    await registerAccount(store, first);
    const sameName = newAccount('alice');
    await assert.rejects(registerAccount(store, sameName), { reason: 'NAME_TAKEN' });
    assert.equal(await store.sessionByTransportKey(sameName.device.transportSpki), undefined);
    await assert.rejects(
      store.enqueue(newRow(sameName.device.identityPub)),
      NotFoundError,
      'no inbox was left behind',
    );
    const sameDevice = { ...newAccount('bob'), device: first.device };
    await assert.rejects(registerAccount(store, sameDevice), ConflictError);
    assert.equal(await store.account('bob'), undefined);
  });

  test('a login replaces the transport key of the device', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { device } = await account();
    const spki = systemRandom.bytes(32);
    await store.bindSession('alice', device.identityPub, spki, 5_000);
    assert.equal(await store.sessionByTransportKey(device.transportSpki), undefined);
    assert.equal((await store.sessionByTransportKey(spki))?.sessionExpiresMs, 5_000);
    await store.endSession(spki);
    await store.endSession(spki);
    assert.equal(await store.sessionByTransportKey(spki), undefined);

    async function account(): Promise<ReturnType<typeof newAccount>> {
      const made = newAccount('alice');
      await registerAccount(store, made);
      return made;
    }
  });

  test('a transport key speaks for the device that used it last', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const bob = await addDevice(store, 'bob');
    const spki = systemRandom.bytes(32);
    await store.bindSession('alice', alice, spki, 1);
    await store.bindSession('bob', bob, spki, 2);
    assert.equal((await store.sessionByTransportKey(spki))?.userId, 'bob');
  });

  test("a device cannot log in to somebody else's account", async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    await addDevice(store, 'alice');
    const bob = await addDevice(store, 'bob');
    const bound = store.bindSession('alice', bob, systemRandom.bytes(32), 1);
    await assert.rejects(bound, { name: 'NotFoundError', reason: 'UNKNOWN_DEVICE' });
  });
}
