/** Contact cards: known by one while no log answers, refused when anything in it is not so, checked later. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hasReason, hex, QpcError, TransportError } from '@quicprochat/proto';
import { fetchInvitees } from '../contacts/invitation.ts';
import type { Session } from '../session.ts';
import { mandatorySuite, xwingSuite } from '../mls/index.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { LaterClock, testRuntime } from '../test-runtime.ts';
import { cardLimits, makeCard, openCard } from './card.ts';
import { cardsOf, cardTimes, follow, pass, ready } from './test-cards.ts';

const dayMs = 24 * 3_600_000;

/** No node answers. */
const dark = { call: () => Promise.reject(new TransportError('closed', 'gone')) };
const sessionOf = (caller: Pick<Session, 'call'>, signal = new AbortController().signal): Session =>
  Object.assign(Object.create(null) as Session, { call: caller.call.bind(caller), signal });

async function pair() {
  const directory = new TestDirectory(cardTimes);
  const alice = new TestDevice('alice@red.example', directory);
  const bob = new TestDevice('bob@red.example', directory);
  await ready(alice);
  await follow(bob, 'red.example');
  return { directory, alice, bob };
}

describe('a contact card', () => {
  test('is somebody known and invited while no node answers', async () => {
    const { alice, bob } = await pair();
    const token = testRuntime.random.bytes(16);
    alice.store.tokens.putOwn(token, testRuntime.clock.now());
    alice.store.tokens.markAtNode(alice.store.tokens.own()?.id ?? 0);
    const card = cardsOf(alice).export();
    assert(card.length < 24_000, `${card.length} bytes`);
    const heard: Uint8Array[] = [];
    const cards = cardsOf(bob, heard);
    const contact = await cards.import(card);
    assert.deepEqual([contact.userId, contact.verification], [alice.userId, 'credential']);
    assert.deepEqual(
      contact.devices.map(({ deviceId }) => deviceId),
      [alice.deviceId],
    );
    assert.deepEqual(heard, [alice.rid]);
    assert.deepEqual(bob.store.tokens.of(alice.rid), token);
    assert.equal(cards.holder(Buffer.from(alice.rid).toString('hex')), alice.userId);
    const { store, contacts, mls } = bob;
    const parts = { store, contacts, mls, runtime: testRuntime, cards };
    const suites = [mandatorySuite, xwingSuite];
    const [invitee, second] = await fetchInvitees(parts, dark, alice.userId, suites, {});
    assert.deepEqual(
      [invitee?.identityPub, invitee?.suite, second],
      [alice.rid, mandatorySuite, undefined],
    );
    // Somebody without a card is as unreachable as before.
    const nobody = fetchInvitees(parts, dark, 'carol@red.example', suites, {});
    await assert.rejects(nobody, TransportError);
  });

  test('is refused when anything in it is changed, and after its time', async () => {
    const { alice, bob } = await pair();
    const card = cardsOf(alice).export();
    const cards = cardsOf(bob);
    const nowMs = testRuntime.clock.now();
    // The device's signature is over all of it but the frame of two fields.
    const frame = [0, card.length - 66];
    for (let at = 0; at < card.length; at += 13) {
      const changed = Uint8Array.from(card, (byte, i) => (i === at ? byte ^ 1 : byte));
      if (frame.includes(at)) continue;
      assert.throws(() => openCard(changed, nowMs), QpcError, `byte ${at}`);
    }
    const changed = Uint8Array.from(card, (byte, i) => (i === 300 ? byte ^ 1 : byte));
    await assert.rejects(cards.import(changed), { reason: 'BAD_CREDENTIAL' });
    await assert.rejects(cards.import(card.subarray(1)), { reason: 'BAD_FIELD' });
    await assert.rejects(cards.import(new Uint8Array(cardLimits.bytes + 1)), {
      reason: 'BAD_FIELD',
    });
    assert.equal(bob.contacts.get(alice.userId), undefined);
    assert.deepEqual(bob.store.cards.all(), []);
    assert.throws(() => openCard(card, nowMs + 11 * dayMs), { reason: 'BAD_FIELD' });
    assert.throws(() => openCard(card, nowMs - 2 * dayMs), { reason: 'BAD_FIELD' });
    await assert.rejects(cardsOf(alice).import(card), { reason: 'BAD_FIELD' });
  });

  test('speaks for no device that the log does not show, and for no log that is unknown or convicted', async () => {
    const { directory, alice, bob } = await pair();
    const mallory = new TestDevice('mallory@red.example', directory);
    await ready(mallory);
    const nowMs = testRuntime.clock.now();
    const { credential, devices } = openCard(cardsOf(alice).export(), nowMs);
    const [device] = devices;
    const own = openCard(cardsOf(mallory).export(), nowMs).devices[0];
    assert(device !== undefined && own !== undefined);
    const about = { userId: alice.userId, credential, issuedMs: nowMs, expiresMs: nowMs + dayMs };
    // Mallory's device under Alice's name, and Alice's packages under Mallory's device.
    const forged = makeCard(about, own, mallory.identityKey);
    const cards = cardsOf(bob);
    await assert.rejects(cards.import(forged), { reason: 'BLOCKED' });
    const mixed = { ...own, keyPackages: device.keyPackages };
    await assert.rejects(cards.import(makeCard(about, mixed, mallory.identityKey)), {
      reason: 'BLOCKED',
    });
    const renamed = makeCard({ ...about, userId: mallory.userId }, own, mallory.identityKey);
    await assert.rejects(cards.import(renamed), { reason: 'CHAIN' });
    assert.equal(bob.contacts.get(mallory.userId), undefined);

    const far = new TestDevice('far@blue.example', directory);
    const card = cardsOf(alice).export();
    await assert.rejects(cardsOf(far).import(card), { reason: 'NO_LOG' });
    const log = bob.logs.known('red.example');
    assert(log !== undefined);
    Object.defineProperty(bob.logs, 'isConvicted', { value: () => true });
    await assert.rejects(cards.import(card), { reason: 'LOG_CONVICTED' });
  });

  test('lets its device knock for as long as it is good, and no device that is not the person’s by now', async () => {
    const { alice, bob } = await pair();
    const clock = new LaterClock();
    const cards = cardsOf(bob, [], clock);
    const [rid, other] = [alice.rid, testRuntime.random.bytes(32)].map((one) => hex(one));
    assert(rid !== undefined && other !== undefined);
    assert.equal(cards.holder(rid), undefined);
    await cards.import(cardsOf(alice).export());
    assert.deepEqual([cards.holder(rid), cards.holder(other)], [alice.userId, undefined]);
    // Her keys are others: the card is the same.
    const get = bob.contacts.get.bind(bob.contacts);
    bob.contacts.get = (userId) => {
      const contact = get(userId);
      const devices = contact?.devices.map((one) => ({
        ...one,
        identityPub: Buffer.from(other, 'hex'),
      }));
      return contact && { ...contact, devices: devices ?? [] };
    };
    clock.advance(61_000);
    assert.deepEqual([cards.holder(rid), cards.holder(other)], [undefined, alice.userId]);
    clock.advance(cardLimits.lifetimeMs);
    assert.deepEqual([cards.holder(rid), cards.holder(other)], [undefined, undefined]);
  });

  test('that is shown again after a newer one brings nothing back', async () => {
    const { alice, bob } = await pair();
    const told = (): Uint8Array => {
      const token = testRuntime.random.bytes(16);
      alice.store.tokens.putOwn(token, testRuntime.clock.now());
      alice.store.tokens.markAtNode(alice.store.tokens.own()?.id ?? 0);
      return token;
    };
    told();
    const first = cardsOf(alice).export();
    await testRuntime.clock.sleep(2);
    const token = told();
    const second = cardsOf(alice).export();
    const cards = cardsOf(bob);
    await cards.import(first);
    await cards.import(second);
    await assert.rejects(cards.import(first), { reason: 'BAD_FIELD' });
    await cards.import(second);
    assert.deepEqual(bob.store.tokens.of(alice.rid), token);
  });

  test('is confirmed by the log afterwards, and a log that shows something else is an alarm', async () => {
    const { directory, alice, bob } = await pair();
    const cards = cardsOf(bob);
    await cards.import(cardsOf(alice).export());
    await cards.recheck(sessionOf(directory));
    assert.notEqual(bob.store.cards.get(alice.userId)?.checkedMs, undefined);
    assert.equal(bob.contacts.get(alice.userId)?.source, 'log');

    const carol = new TestDevice('carol@red.example', directory);
    await follow(carol, 'red.example');
    const hers = cardsOf(carol);
    await hers.import(cardsOf(alice).export());
    // The same log with another history: nobody may merge the two.
    const other = new TestDirectory(cardTimes);
    const double = new TestDevice(alice.userId, other);
    await pass(other, 'red.example');
    for (let i = 0; i < 6; i += 1) await pass(other, 'red.example');
    const ended = new AbortController();
    const checking = hers.recheck(sessionOf(other, ended.signal));
    const { clock } = testRuntime;
    const deadlineMs = clock.monotonic() + 10_000;
    while (carol.lies.length === 0 && clock.monotonic() < deadlineMs) {
      await testRuntime.clock.sleep(10);
    }
    ended.abort(new TransportError('closed', 'over'));
    await checking;
    assert(carol.lies.length > 0, 'no alarm');
    assert.equal(carol.store.cards.get(alice.userId)?.checkedMs, undefined);
    assert.deepEqual(
      carol.contacts.get(alice.userId)?.devices.map(({ deviceId }) => deviceId),
      [alice.deviceId],
    );
    assert.notEqual(double.deviceId, alice.deviceId);
  });

  test('that is older than what is known of its log is asked about, or said to be, and never just believed', async () => {
    const directory = new TestDirectory(cardTimes);
    const alice = new TestDevice('alice@red.example', directory);
    await ready(alice);
    const card = cardsOf(alice).export();
    // The log goes on; bob meets it when ten later entries are the newest ones that clients keep.
    for (let i = 0; i < 12; i += 1) await pass(directory, 'red.example');
    const bob = new TestDevice('bob@red.example', directory);
    await follow(bob, 'red.example');
    const cards = cardsOf(bob);
    await assert.rejects(cards.import(card), { name: 'LogError', reason: 'UNKNOWN_HEAD' });
    assert.deepEqual([bob.contacts.get(alice.userId), bob.store.cards.all()], [undefined, []]);
    const contact = await cards.import(card, sessionOf(directory));
    assert.deepEqual([contact.userId, contact.source], [alice.userId, 'log']);
    assert.notEqual(bob.store.cards.get(alice.userId)?.checkedMs, undefined);
    // By now her keys are known here, and nobody has to be asked.
    await cards.import(card);
    await cards.import(card, sessionOf(dark));

    // What is known of her does not speak for a device that is not hers.
    const mallory = new TestDevice('mallory@red.example', directory);
    await ready(mallory);
    const nowMs = testRuntime.clock.now();
    const own = openCard(cardsOf(mallory).export(), nowMs).devices[0];
    const { credential } = openCard(card, nowMs);
    assert(own !== undefined);
    const about = { userId: alice.userId, credential, issuedMs: nowMs, expiresMs: nowMs + dayMs };
    const forged = makeCard(about, own, mallory.identityKey);
    await assert.rejects(cards.import(forged), { reason: 'BLOCKED' });
    const carol = new TestDevice('carol@red.example', directory);
    await follow(carol, 'red.example');
    await assert.rejects(cardsOf(carol).import(forged, sessionOf(directory)), {
      reason: 'BLOCKED',
    });
    assert.deepEqual(carol.store.cards.all(), []);
  });

  test('cannot be made before there is a credential', async () => {
    const directory = new TestDirectory(cardTimes);
    const alice = new TestDevice('alice@red.example', directory);
    assert.throws(
      () => cardsOf(alice).export(),
      (error) => hasReason(error, 'BAD_CURSOR'),
    );
  });
});
