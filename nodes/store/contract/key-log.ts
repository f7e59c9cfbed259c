/**
 * Contract of a NodeStore: its key log and audits keep what the log's package demands, and account
 * rows come, change and go with the entries that say so.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { auditStoreContract } from '@quicprochat/kt-log/audit-store/contract';
import { treeStoreContract } from '@quicprochat/kt-log/store/contract';
import { systemRandom } from '@quicprochat/proto';
import type { TreeStore } from '@quicprochat/kt-log';
import type { AccountEffect } from '../account-store.ts';
import type { NodeStore } from '../store.ts';
import {
  addDevice,
  newAccount,
  newDevice,
  newManifest,
  newRow,
  storeFixture,
  type OpenStore,
  type StoreFixture,
} from './fixture.ts';
import { commitEffects, labelOf, logBatch, registerAccount } from './log-batch.ts';

export function keyLogContract(open: OpenStore): void {
  const fixtures: StoreFixture[] = [];
  const stores = new Map<TreeStore, NodeStore>();
  const openStore = async (): Promise<NodeStore> => {
    const { fixture, store } = await storeFixture(open);
    fixtures.push(fixture);
    stores.set(store.keyLog, store);
    return store;
  };
  after(async () => {
    for (const fixture of fixtures) await fixture[Symbol.asyncDispose]();
  });

  const alice = 'alice@red.example';
  treeStoreContract('key log', async () => (await openStore()).keyLog, {
    once: { kind: 'register', account: newAccount(alice) } satisfies AccountEffect,
    isThere: async (store) => (await stores.get(store)?.account(alice)) !== undefined,
  });
  auditStoreContract('audits', async () => (await openStore()).audits);

  describe('effects', () => effectContract(openStore, alice));

  test('a cosignature of a size that was never signed is refused', async () => {
    const { keyLog } = await openStore();
    const cosignature = { name: 'blue.example', keyId: 1, signature: new Uint8Array(72) };
    await assert.rejects(keyLog.addCosignatures(1, [cosignature]), { reason: 'BAD_FIELD' });
    assert.deepEqual(await keyLog.cosignatures(1), []);
  });

  test('reads of a closed store are refused', async () => {
    const store = await openStore();
    await store[Symbol.asyncDispose]();
    await assert.rejects(store.keyLog.newestHead(), { reason: 'DRAINING' });
    await assert.rejects(store.audits.evidence(), { reason: 'DRAINING' });
  });

  test('a label keeps hundreds of versions in hundreds of entries', async () => {
    const { keyLog } = await openStore();
    const label = labelOf('@red.example/heads');
    const positions: number[] = [];
    for (let position = 0; position < 300; position += 1) {
      const versions = position % 3 === 0 ? [] : [versionOf(label, positions.length)];
      await keyLog.commit({ ...logBatch(position, []), versions });
      if (versions.length > 0) positions.push(position);
    }
    assert.deepEqual(await keyLog.positions(label), positions);
    const [stored] = await keyLog.versions(label, [150]);
    assert.equal(stored?.position, positions[150]);
  });
}

function versionOf(label: Uint8Array, version: number) {
  const value = Uint8Array.of(version & 255);
  return { label, version, commitment: new Uint8Array(32), opening: new Uint8Array(16), value };
}

function effectContract(openStore: () => Promise<NodeStore>, alice: string): void {
  test('an account knows its user by device key, and its devices', async () => {
    const store = await openStore();
    const account = newAccount(alice);
    await registerAccount(store, account);
    const { device, sessionExpiresMs } = account;
    assert.deepEqual(await store.accountByIdentity(device.identityPub), { userId: alice });
    assert.equal(await store.accountByIdentity(systemRandom.bytes(32)), undefined);
    const [first, ...others] = await store.devices(alice);
    assert.ok(first?.addedMs);
    assert.deepEqual(first, { ...device, sessionExpiresMs, addedMs: first.addedMs });
    assert.deepEqual(others, []);
    assert.deepEqual(await store.devices('nobody'), []);
    await store.endSession(device.transportSpki);
    assert.equal((await store.devices(alice))[0]?.transportSpki, undefined);
  });

  test('a manifest comes back with all of its signatures', async () => {
    const store = await openStore();
    await registerAccount(store, newAccount(alice));
    const manifest = {
      ...newManifest(),
      akPrevSignature: systemRandom.bytes(64),
      approval: systemRandom.bytes(64),
    };
    await commitEffects(store, {
      kind: 'manifest',
      userId: alice,
      manifest,
      manifestSeq: 1,
      dropped: [],
    });
    assert.partialDeepStrictEqual(await store.account(alice), { manifest, manifestSeq: 1 });
    assert.deepEqual((await store.prekeys(alice))?.manifest, manifest);
  });

  test('a device more: it has an inbox and a session, and its transport key is its own', async () => {
    const store = await openStore();
    const account = newAccount(alice);
    await registerAccount(store, account);
    const device = { ...newDevice('phone'), transportSpki: account.device.transportSpki };
    await commitEffects(store, {
      ...nextManifest(alice, 1),
      added: { device, sessionExpiresMs: 77 },
    });
    assert.deepEqual(
      (await store.devices(alice)).map(({ deviceId }) => deviceId),
      ['laptop', 'phone'],
    );
    assert.equal((await store.enqueue(newRow(device.identityPub))).outcome, 'stored');
    assert.deepEqual(await store.sessionByTransportKey(device.transportSpki), {
      userId: alice,
      deviceId: 'phone',
      identityPub: device.identityPub,
      sessionExpiresMs: 77,
    });
  });

  test('a dropped device leaves nothing; another one takes its id', async () => {
    const store = await openStore();
    const { device } = await fullAccount(store, alice);
    const bob = await addDevice(store, 'bob@red.example');
    const row = newRow(bob);
    await store.enqueue(row);
    const successor = newDevice('laptop');
    await commitEffects(store, {
      ...nextManifest(alice, 1),
      dropped: [device.identityPub, systemRandom.bytes(32)],
      added: { device: successor, sessionExpiresMs: 5 },
    });
    await isGone(store, device);
    assert.deepEqual(
      (await store.devices(alice)).map(({ identityPub }) => identityPub),
      [successor.identityPub],
    );
    assert.deepEqual((await claim(store, alice))?.packages, []);
    const { rows } = await store.fetch(bob, 0, 9, 9_000);
    assert.deepEqual(rows[0]?.payload, row.payload, 'others keep theirs');
    // The same key again, which a node would not take: a new inbox all the same.
    await commitEffects(store, {
      ...nextManifest(alice, 2),
      added: { device: { ...device, deviceId: 'again' }, sessionExpiresMs: 5 },
    });
    assert.equal((await store.fetch(device.identityPub, 0, 9, 9)).head, 0);
    assert.deepEqual(await store.keyPackageCounts(device.identityPub), []);
  });

  test('a closed account leaves its label, until that is erased too', async () => {
    const store = await openStore();
    const { device } = await fullAccount(store, alice);
    await store.claimKeyPackages(newClaim(alice));
    await commitEffects(store, {
      kind: 'close',
      userId: alice,
      manifest: newManifest(),
      manifestSeq: 1,
    });
    await isGone(store, device);
    assert.equal(await store.account(alice), undefined);
    assert.equal(await store.prekeys(alice), undefined);
    assert.equal(await claim(store, alice), undefined);
    assert.deepEqual(await store.closedLabels(), [{ label: labelOf(alice), position: 1 }]);
    assert.deepEqual(await store.keyLog.positions(labelOf(alice)), [0, 1]);
    const again = commitEffects(store, { kind: 'register', account: newAccount(alice) });
    await assert.rejects(again, { reason: 'SEQ_CONFLICT' });
    await store.keyLog.erase(labelOf(alice));
    assert.deepEqual(await store.closedLabels(), []);
    assert.deepEqual(await store.keyLog.positions(labelOf(alice)), []);
  });

  test('a refused effect takes the whole entry back, and says why', async () => {
    const store = await openStore();
    const bob = newAccount('bob@red.example');
    await registerAccount(store, newAccount(alice));
    await registerAccount(store, bob);
    const { identityPub } = bob.device;
    const carol = newAccount('carol@red.example');
    const refusals: readonly (readonly [reason: string, ...effects: AccountEffect[]])[] = [
      ['NAME_TAKEN', { kind: 'register', account: newAccount(alice) }],
      ['NAME_TAKEN', { kind: 'register', account: { ...carol, device: bob.device } }],
      ['BAD_FIELD', { kind: 'register', account: { ...carol, manifestSeq: 1 } }],
      ['SEQ_CONFLICT', nextManifest(alice, 2)],
      ['SEQ_CONFLICT', nextManifest(alice, 0)],
      ['UNKNOWN_USER', nextManifest('nobody@red.example', 1)],
      ['UNKNOWN_DEVICE', { ...nextManifest(alice, 1), dropped: [identityPub] }],
      ['BAD_FIELD', { ...nextManifest(alice, 1), dropped: [identityPub.subarray(1)] }],
      [
        'NAME_TAKEN',
        { ...nextManifest(alice, 1), added: { device: bob.device, sessionExpiresMs: 1 } },
      ],
      [
        'NAME_TAKEN',
        { ...nextManifest(alice, 1), added: { device: newDevice('laptop'), sessionExpiresMs: 1 } },
      ],
      ['SEQ_CONFLICT', { kind: 'close', userId: alice, manifest: newManifest(), manifestSeq: 2 }],
      ['SEQ_CONFLICT', nextManifest(alice, 1), nextManifest(alice, 1)],
      [
        'SEQ_CONFLICT',
        { kind: 'register', account: carol },
        { kind: 'register', account: { ...newAccount('dan@red.example'), device: carol.device } },
      ],
    ];
    const before = await everything(store, [alice, bob.userId]);
    for (const [reason, ...effects] of refusals) {
      const good = newAccount('eve@red.example');
      const batch = logBatch(2, [{ kind: 'register', account: good }, ...effects]);
      await assert.rejects(store.keyLog.commit(batch), { reason }, reason);
      assert.equal(await store.account(good.userId), undefined);
    }
    // A version that its entry does not add.
    const batch = { ...logBatch(2, [nextManifest(alice, 1)]), versions: [] };
    await assert.rejects(store.keyLog.commit(batch), { reason: 'BAD_FIELD' });
    assert.deepEqual(await everything(store, [alice, bob.userId]), before);
  });
}

function nextManifest(
  userId: string,
  manifestSeq: number,
): Extract<AccountEffect, { kind: 'manifest' }> {
  return { kind: 'manifest', userId, manifest: newManifest(), manifestSeq, dropped: [] };
}

/** An account whose device has rows, packages of both kinds and a prekey. */
async function fullAccount(store: NodeStore, userId: string) {
  const account = newAccount(userId);
  await registerAccount(store, account);
  const { identityPub } = account.device;
  for (const kind of [1, 4]) await store.enqueue(newRow(identityPub, { kind }));
  await store.ack(identityPub, 1);
  const keyPackage = (lastResort: boolean) => ({
    ref: systemRandom.bytes(32),
    suite: 1,
    bytes: systemRandom.bytes(100),
    notBeforeMs: 0,
    notAfterMs: Number.MAX_SAFE_INTEGER,
    lastResort,
  });
  await store.addKeyPackages(identityPub, [keyPackage(false), keyPackage(false), keyPackage(true)]);
  const prekey = { prekey: systemRandom.bytes(10), signature: systemRandom.bytes(64) };
  await store.putPrekey(identityPub, prekey, Number.MAX_SAFE_INTEGER);
  assert.equal((await claim(store, userId))?.packages.length, 1);
  return account;
}

function newClaim(userId: string): Parameters<NodeStore['claimKeyPackages']>[0] {
  return {
    userId,
    claimId: new Uint8Array(16),
    scope: 'local',
    requester: 'device 00',
    suites: [1],
    singleUsePerRequesterPerHour: 9,
    singleUsePerTargetPerHour: 9,
  };
}

/** The same claim each time: a repeated one answers as before, for as long as it is known. */
function claim(store: NodeStore, userId: string): ReturnType<NodeStore['claimKeyPackages']> {
  return store.claimKeyPackages(newClaim(userId));
}

async function isGone(
  store: NodeStore,
  { identityPub, transportSpki }: { identityPub: Uint8Array; transportSpki: Uint8Array },
): Promise<void> {
  const unknown = { reason: 'UNKNOWN_DEVICE' };
  assert.equal(await store.accountByIdentity(identityPub), undefined);
  assert.equal(await store.sessionByTransportKey(transportSpki), undefined);
  await assert.rejects(store.fetch(identityPub, 0, 1, 1), unknown);
  await assert.rejects(store.enqueue(newRow(identityPub)), unknown);
  await assert.rejects(store.keyPackageCounts(identityPub), unknown);
}

/** What the store shows of accounts and log. */
async function everything(store: NodeStore, users: readonly string[]): Promise<unknown> {
  return {
    head: await store.keyLog.newestHead(),
    closed: await store.closedLabels(),
    users: await Promise.all(
      users.map(async (userId) => ({
        account: await store.account(userId),
        devices: await store.devices(userId),
        positions: await store.keyLog.positions(labelOf(userId)),
      })),
    ),
  };
}
