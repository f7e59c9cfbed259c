/**
 * The devices of an account, its keys and its end, through a node's wire: every change is the next
 * version in the key-transparency log, and what left has nothing any more.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  manifestValue,
  methods,
  PushEvent,
  QpcError,
  signingKeyFromSeed,
  signPrekey,
  systemRandom,
  xwingPublicKeyBytes,
} from '@quicprochat/proto';
import type { SignedManifest } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, testRuntime } from '../cluster/local-node.ts';
import { entryOf, Person, type PersonDevice } from './account-rig.ts';
import { LogView } from './log-view.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const rates = ['auth', 'keys', 'lookup']
  .map((name) => `[rates.${name}]\nper_second = 1000\nburst = 1000\n`)
  .join('');

suite('devices of an account', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let watcher: PersonDevice;
  let view: LogView;
  const people: Person[] = [];

  const newPerson = async (name: string): Promise<[Person, PersonDevice]> => {
    const made = await Person.register(`${name}@red.example`, (key) => red.dial(key));
    people.push(made[0]);
    return made;
  };
  const logged = (person: Person) => view.manifestOf(watcher.connection, person.label);
  /** The log's greatest version is the person's manifest. */
  const agrees = async (person: Person): Promise<void> => {
    const { version, signed } = await logged(person);
    assert.equal(BigInt(version), person.content.seq);
    assert.deepEqual(manifestValue(signed), manifestValue(person.manifest));
    const { manifest } = await watcher.call(methods.resolveUser, { userId: person.userId });
    assert.deepEqual(manifest && manifestValue(manifest), manifestValue(person.manifest));
  };

  before(async () => {
    red = await LocalNode.create(network, 'red.example', rates);
    await red.start();
    [, watcher] = await newPerson('watcher');
    view = await LogView.of(watcher.connection);
  });
  after(async () => {
    await Promise.all(people.map((person) => person[Symbol.asyncDispose]()));
    await red[Symbol.asyncDispose]();
  });

  test('registration is version 0 of the label, in log and account', async () => {
    const [person] = await newPerson('zoe');
    await agrees(person);
  });

  test('a device key that is in use, and a manifest that is not version 0, register nobody', async () => {
    const [owner, device] = await newPerson('yan');
    const thief = new Person('thief@red.example', (key) => red.dial(key));
    people.push(thief);
    const tools = await thief.newDevice();
    await refused(tools.register(owner.manifest), 'BAD_FIELD');
    thief.manifest = owner.manifest;
    await refused(tools.register(thief.withDevice(tools)), 'BAD_FIELD');
    Object.assign(tools, { identityKey: device.identityKey });
    await refused(tools.register(), 'NAME_TAKEN');
    await refused(view.search(watcher.connection, thief.label), 'UNKNOWN_USER');
  });

  test('a new device is enrolled by password, and registered by the next manifest', async () => {
    const [person] = await newPerson('xia');
    const device = await person.newDevice();
    const answer = await device.login();
    assert.equal(answer.isEnrolling, true);
    assert.deepEqual(
      answer.manifest && manifestValue(answer.manifest),
      manifestValue(person.manifest),
    );
    const hello = await device.call(methods.hello, { versionMin: 1, versionMax: 1 });
    assert.equal(hello.callerClass, 'enrolling');
    assert.equal(hello.userId, person.userId);
    // It reads the log and its account, and does nothing else.
    await view.search(device.connection, person.label);
    assert.equal((await device.call(methods.listDevices, {})).devices.length, 1);
    await refused(device.call(methods.uploadHybridKey, {}), 'CALLER_CLASS');
    await refused(device.call(methods.uploadKeyPackage, {}), 'CALLER_CLASS');
    await refused(device.call(methods.fetch, { log: {}, after: 0n }), 'CALLER_CLASS');
    const manifest = person.withDevice(device);
    const { sessionExpiresMs } = await device.call(methods.registerDevice, { manifest });
    assert.ok(sessionExpiresMs > BigInt(testRuntime.clock.now()));
    person.manifest = manifest;
    await agrees(person);
    await device.call(methods.keyPackageCount, {});
    const { devices } = await device.call(methods.listDevices, {});
    assert.deepEqual(
      devices.map(({ deviceId }) => deviceId),
      person.content.devices.map(({ deviceId }) => deviceId),
    );
    assert.ok(devices.every(({ addedMs, sessionExpiresMs: until }) => addedMs > 0n && until > 0n));
    await refused(device.call(methods.registerDevice, { manifest }), 'CALLER_CLASS');
  });

  test('an enrolling session belongs to its connection and ends there', async () => {
    const [person] = await newPerson('wes');
    const device = await person.newDevice();
    await device.login();
    const again = await red.dial(device.transport);
    await refused(call(again, methods.listDevices, {}), 'NOT_LOGGED_IN');
    await again.close(0, 'done');
  });

  test('RegisterDevice adds the calling device, and only that', async () => {
    const [person] = await newPerson('vic');
    const device = await person.newDevice();
    await device.login();
    const { devices } = person.content;
    const stranger = entryOf(bytes(32));
    const bad: [SignedManifest, string][] = [
      [person.manifest, 'SEQ_CONFLICT'],
      [person.next({ devices }), 'BAD_FIELD'],
      [person.next({ devices: [...devices, stranger] }), 'BAD_FIELD'],
      [person.next({ devices: [...devices, entryOf(device.rid), stranger] }), 'BAD_FIELD'],
      [person.next({ devices: [entryOf(device.rid)] }), 'BAD_FIELD'],
      [person.closed(), 'BAD_FIELD'],
      [{ ...person.withDevice(device), signature: bytes(64) }, 'BAD_SIGNATURE'],
      [{ ...person.withDevice(device), manifest: bytes(64) }, 'BAD_FIELD'],
    ];
    for (const [manifest, reason] of bad) {
      await refused(device.call(methods.registerDevice, { manifest }), reason);
    }
    await agrees(person);
    const others = Array.from({ length: 16 }, () => entryOf(bytes(32)));
    const many = person.next({ devices: [...others, entryOf(device.rid)] });
    await refused(device.call(methods.registerDevice, { manifest: many }), 'BAD_FIELD');
  });

  test('a device key of one account never becomes one of another', async () => {
    const [, device] = await newPerson('una');
    const [thief] = await newPerson('tom');
    const tools = await thief.newDevice();
    Object.assign(tools, { identityKey: device.identityKey });
    assert.equal((await tools.login()).isEnrolling, true);
    const manifest = thief.withDevice(tools);
    await refused(tools.call(methods.registerDevice, { manifest }), 'NAME_TAKEN');
    await agrees(thief);
  });

  test('a policy of approval holds at the node', async () => {
    const [person, first] = await newPerson('sue');
    const strict = person.next({ policy: { requireCosign: true } });
    await update(first, strict);
    person.manifest = strict;
    const device = await person.newDevice();
    await device.login();
    const unapproved = person.withDevice(device);
    await refused(device.call(methods.registerDevice, { manifest: unapproved }), 'BAD_SIGNATURE');
    const approved = person.next(
      { devices: [...person.content.devices, { ...entryOf(device.rid), cosignedBy: first.rid }] },
      { approver: first.identityKey },
    );
    await device.call(methods.registerDevice, { manifest: approved });
    person.manifest = approved;
    await agrees(person);
  });

  /** 531 with one value. */
  const update = async (device: PersonDevice, manifest: SignedManifest) =>
    device.call(methods.ktUpdate, {
      request: view.update(device.person.label, Number(device.person.content.seq), manifest),
    });

  test('KtUpdate rotates the account key, and changes no device', async () => {
    const [person, device] = await newPerson('rob');
    const nextPush = await pushesTo(await person.addDevice());
    const old = person.accountKey;
    person.accountKey = signingKeyFromSeed(bytes(32));
    const rotated = person.next({}, { previousAccountKey: old });
    await update(device, rotated);
    assert.equal(await nextPush(), PushEvent.KeyChange);
    // The same once more changes nothing, and shows the version that is there.
    await update(device, rotated);
    person.manifest = rotated;
    await agrees(person);
    const other = entryOf(bytes(32));
    const bad: [SignedManifest, string][] = [
      [person.next({ devices: [...person.content.devices, other] }), 'BAD_FIELD'],
      [person.next({ revoked: [{ identityPub: bytes(32) }] }), 'BAD_FIELD'],
      [person.closed(), 'BAD_FIELD'],
      [person.next({}, { accountKey: old, previousAccountKey: old }), 'BAD_FIELD'],
    ];
    for (const [manifest, reason] of bad) await refused(update(device, manifest), reason);
    const { label } = person;
    const next = person.next({});
    const seq = Number(person.content.seq);
    const requests: [Uint8Array, string][] = [
      [view.update(watcher.person.label, seq, next), 'BAD_FIELD'],
      [view.update(label, seq, next, next), 'BAD_FIELD'],
      [view.update(label, seq - 1, next), 'SEQ_CONFLICT'],
      [view.update(label, seq + 1, next), 'SEQ_CONFLICT'],
      [view.update(label, seq), 'BAD_FIELD'],
      [bytes(40), 'BAD_FIELD'],
    ];
    for (const [request, reason] of requests) {
      await refused(device.call(methods.ktUpdate, { request }), reason);
    }
    await agrees(person);
    const enrolling = await person.newDevice();
    await enrolling.login();
    // News of the account it may read; a version it may not make.
    await enrolling.call(methods.ktUpdate, { request: view.update(label, 0) });
    const request = view.update(label, seq, next);
    await refused(enrolling.call(methods.ktUpdate, { request }), 'CALLER_CLASS');
  });

  test('a revoked device loses session, queue, keys and pushes at once', async () => {
    const [person, keeper] = await newPerson('quin');
    const lost = await person.addDevice();
    const prekey = signPrekey(
      lost.identityKey,
      new Uint8Array(xwingPublicKeyBytes).fill(9),
      testRuntime.clock.now() + 86_400_000,
    );
    await lost.call(methods.uploadHybridKey, { prekey });
    const row = { rid: lost.rid, domain: red.domain, mid: bytes(16), payload: bytes(100) };
    await keeper.call(methods.enqueue, row);
    const ended = Promise.withResolvers<void>();
    const pushed: number[] = [];
    lost.connection.onPushStream(async (frames) => {
      for await (const { eventType } of frames) pushed.push(eventType);
      ended.resolve();
    });
    const { head } = await lost.call(methods.fetch, { log: {}, after: 0n });
    const cursors = [{ log: {}, after: head }];
    await lost.call(methods.subscribe, { cursors });
    const nextPush = await pushesTo(keeper);
    const other = await person.addDevice();
    assert.equal(await nextPush(), PushEvent.DeviceChange);
    const waiting = refused(
      lost.call(methods.fetchWait, { cursors, waitMs: 20_000 }),
      'NOT_LOGGED_IN',
    );
    const manifest = person.withoutDevice(lost);
    const startedMs = testRuntime.clock.monotonic();
    await keeper.call(methods.revokeDevice, { manifest });
    // Once more, as after a lost answer.
    await keeper.call(methods.revokeDevice, { manifest });
    await waiting;
    assert.ok(testRuntime.clock.monotonic() - startedMs < 10_000);
    await ended.promise;
    assert.deepEqual(pushed, [PushEvent.DeviceChange]);
    person.manifest = manifest;
    await agrees(person);
    await refused(lost.call(methods.keyPackageCount, {}), 'NOT_LOGGED_IN');
    await refused(lost.login(), 'UNKNOWN_DEVICE');
    await refused(keeper.call(methods.enqueue, { ...row, mid: bytes(16) }), 'UNKNOWN_DEVICE');
    const { prekeys } = await watcher.call(methods.fetchHybridKey, { userId: person.userId });
    assert.deepEqual(prekeys, []);
    const { devices } = await keeper.call(methods.listDevices, {});
    assert.deepEqual(
      devices.map(({ identityPub }) => Buffer.from(identityPub)),
      [Buffer.from(keeper.rid), Buffer.from(other.rid)],
    );
    await refused(
      watcher.call(methods.resolveIdentity, { identityPub: lost.rid }),
      'UNKNOWN_DEVICE',
    );
    const { userId } = await watcher.call(methods.resolveIdentity, { identityPub: other.rid });
    assert.equal(userId, person.userId);
    // A key that was revoked never comes back, in whatever way.
    const back = person.next({ devices: [...person.content.devices, entryOf(lost.rid)] });
    await refused(keeper.call(methods.revokeKey, { manifest: back }), 'BAD_FIELD');
  });

  test('RevokeKey takes a key that is no device, and CheckRevocation shows it', async () => {
    const [person, device] = await newPerson('pam');
    const identityPub = bytes(32);
    const ask = () => watcher.call(methods.checkRevocation, { userId: person.userId, identityPub });
    assert.equal((await ask()).revoked, undefined);
    await refused(device.call(methods.revokeKey, { manifest: person.next({}) }), 'BAD_FIELD');
    await refused(
      device.call(methods.revokeDevice, {
        manifest: person.next({ revoked: [{ identityPub, atMs: 5n, reason: 'stolen' }] }),
      }),
      'BAD_FIELD',
    );
    const manifest = person.next({ revoked: [{ identityPub, atMs: 5n, reason: 'stolen' }] });
    await device.call(methods.revokeKey, { manifest });
    person.manifest = manifest;
    await agrees(person);
    assert.equal((await ask()).revoked?.reason, 'stolen');
    const request = view.request(person.label);
    const { kt, revoked } = await watcher.call(methods.checkRevocation, {
      userId: person.userId,
      identityPub,
      ktSearch: request,
    });
    assert.equal(view.found(person.label, kt).version, 1);
    assert.equal(revoked?.atMs, 5n);
  });

  test('changes of one account that come at once are one after the other, or refused', async () => {
    const [person, first] = await newPerson('olaf');
    const second = await person.addDevice();
    const changes = [first, second].map((device) =>
      device.call(methods.revokeKey, {
        manifest: person.next({ revoked: [{ identityPub: bytes(32), reason: 'race' }] }),
      }),
    );
    const outcomes = await Promise.all(
      changes.map((change) =>
        change.then(
          () => 'OK',
          (error: unknown) => (error instanceof QpcError ? error.reason : 'no answer'),
        ),
      ),
    );
    assert.deepEqual(outcomes.toSorted(), ['OK', 'SEQ_CONFLICT']);
    assert.equal((await logged(person)).version, 2);
  });

  test('a device that leaves changes nothing any more, also with a call that waits', async () => {
    const [person, keeper] = await newPerson('kim');
    const lost = await person.addDevice();
    const without = person.withoutDevice(lost);
    const revoking = keeper.call(methods.revokeDevice, { manifest: without });
    person.manifest = without;
    // Signed as it should be, sent while the device still is one: its turn comes too late.
    const manifest = person.next({
      revoked: [...person.content.revoked, { identityPub: bytes(32), reason: 'late' }],
    });
    await refused(lost.call(methods.revokeKey, { manifest }), 'NOT_LOGGED_IN');
    await revoking;
    await agrees(person);
  });

  test('the last device may leave by an identity reset, which the log shows', async () => {
    const [person, gone] = await newPerson('nell');
    const device = await person.newDevice();
    await device.login();
    person.accountKey = signingKeyFromSeed(bytes(32));
    const manifest = person.next({
      devices: [entryOf(device.rid)],
      revoked: [{ identityPub: gone.rid, reason: 'lost' }],
    });
    await device.call(methods.registerDevice, { manifest });
    person.manifest = manifest;
    await agrees(person);
    await refused(gone.call(methods.keyPackageCount, {}), 'NOT_LOGGED_IN');
  });

  test('a recovery bundle is stored, replaced, fetched while enrolling, and deleted', async () => {
    const [person, device] = await newPerson('mia');
    const fetchBundle = async (from: PersonDevice): Promise<Uint8Array> =>
      (await from.call(methods.fetchRecoveryBundle, {})).bundle;
    assert.equal((await fetchBundle(device)).length, 0);
    const bundle = bytes(4096);
    await device.call(methods.storeRecoveryBundle, { bundle: bytes(10) });
    await device.call(methods.storeRecoveryBundle, { bundle });
    const enrolling = await person.newDevice();
    await enrolling.login();
    assert.deepEqual(await fetchBundle(enrolling), bundle);
    assert.equal((await fetchBundle(watcher)).length, 0);
    await refused(enrolling.call(methods.storeRecoveryBundle, { bundle }), 'CALLER_CLASS');
    for (const length of [0, 4097]) {
      const wrong = device.call(methods.storeRecoveryBundle, { bundle: bytes(length) });
      await refused(wrong, 'BAD_FIELD');
    }
    await device.call(methods.deleteRecoveryBundle, {});
    assert.equal((await fetchBundle(device)).length, 0);
    await device.call(methods.deleteRecoveryBundle, {});
  });

  test('a deleted account is gone but for its name, which nobody gets again', async () => {
    const [person, device] = await newPerson('lars');
    const other = await person.addDevice();
    const enrolling = await person.newDevice();
    await enrolling.login();
    await device.call(methods.storeRecoveryBundle, { bundle: bytes(10) });
    await refused(device.call(methods.deleteAccount, { manifest: person.next({}) }), 'BAD_FIELD');
    const closing = person.closed();
    await device.call(methods.deleteAccount, { manifest: closing });
    for (const one of [device, other, enrolling]) {
      await refused(one.call(methods.listDevices, {}), 'NOT_LOGGED_IN');
    }
    const { userId } = person;
    await refused(watcher.call(methods.resolveUser, { userId }), 'UNKNOWN_USER');
    await refused(watcher.call(methods.fetchHybridKey, { userId }), 'UNKNOWN_USER');
    await refused(
      watcher.call(methods.fetchKeyPackage, { userId, claimId: bytes(16), suites: [1] }),
      'UNKNOWN_USER',
    );
    assert.equal(await red.store?.recoveryBundle(userId), undefined);
    // The log shows the end of it until the values are erased.
    const { version, signed } = await logged(person);
    assert.equal(BigInt(version), person.content.seq + 1n);
    assert.deepEqual(manifestValue(signed), manifestValue(closing));
    const heir = new Person(userId, (key) => red.dial(key));
    people.push(heir);
    await refused((await heir.newDevice()).register(), 'NAME_TAKEN');
  });
});

/** Collects the types of pushes to a device; each call of the result waits for the next one. */
async function pushesTo(device: PersonDevice): Promise<() => Promise<number>> {
  const types: number[] = [];
  let wake = (): void => undefined;
  device.connection.onPushStream(async (frames) => {
    for await (const { eventType } of frames) {
      types.push(eventType);
      wake();
    }
  });
  await device.call(methods.subscribe, { cursors: [{ log: {}, after: 0n }] });
  return async () => {
    for (;;) {
      const next = types.shift();
      if (next !== undefined) return next;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  };
}
