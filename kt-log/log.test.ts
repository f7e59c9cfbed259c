/** The log as a service: users, contacts and owners verify it; batches, conflicts and crashes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyAuditorUpdate, emptyAudit } from './auditor-update.ts';
import { encode } from './presentation.ts';
import * as operations from './operations.ts';
import { logEntry, keytransHasher, rfc6962Hasher, sameBytes } from './hash.ts';
import { rootOfHeads } from './log-tree.ts';
import type { KtLog } from './log.ts';
import { defaultRecency, KtLog as Log } from './log.ts';
import { nativeSuite } from './native-suite.ts';
import { keytransRoot, openCheckpoint } from './note.ts';
import type { LogBatch } from './store.ts';
import { MemoryTreeStore } from './store.ts';
import { labelOf, ManualClock, testKeys, testLog, testRandom } from './test-log.ts';
import type { LogVerifier, UserState } from './verify-response.ts';
import type { OwnerState } from './verify-owner.ts';
import {
  greatestKnown,
  ownerMonitorRequestOf,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifyUpdate,
} from './verify-owner.ts';
import type { ContactState } from './verify-search.ts';
import {
  monitorFound,
  verifyAbsence,
  verifyContactMonitor,
  verifyDistinguished,
  verifySearch,
} from './verify-search.ts';

const mode = 1;
const alice = labelOf('alice@red.example');
const valueOf = (text: string): Uint8Array => labelOf(text);

/** A user of the log who keeps state and never forgets anything. */
class User {
  readonly #log: KtLog;
  readonly #verifier: LogVerifier;
  readonly #clock: ManualClock;
  state: UserState | undefined;
  owner: OwnerState | undefined;
  contacts = new Map<string, ContactState>();

  constructor(log: KtLog, verifier: LogVerifier, clock: ManualClock) {
    this.#log = log;
    this.#verifier = verifier;
    this.#clock = clock;
  }
  get #last(): number | undefined {
    return this.state?.view.size;
  }
  async search(label: Uint8Array, version?: number) {
    const response = await this.#log.search({ last: this.#last, label, version });
    const bytes = encode(operations.searchResponse(mode, version !== undefined), response);
    const now = this.#clock.now();
    const request = { label, version };
    const { found, state } = verifySearch(this.#verifier, this.state, request, bytes, now);
    this.state = state;
    const name = label.toString();
    this.contacts.set(name, monitorFound(this.contacts.get(name), found));
    return { found, bytes };
  }
  async monitorContacts(): Promise<void> {
    for (const [name, contact] of this.contacts) {
      const { label, map: entries } = contact;
      const response = await this.#log.contactMonitor({ last: this.#last, label, entries });
      const bytes = encode(operations.contactMonitorResponse(mode), response);
      const now = this.#clock.now();
      const after = verifyContactMonitor(this.#verifier, this.state, contact, bytes, now);
      this.state = after.state;
      this.contacts.set(name, after.contact);
    }
  }
  async own(label: Uint8Array, start: number): Promise<void> {
    const response = await this.#log.ownerInit({ last: this.#last, label, start });
    const bytes = encode(operations.ownerInitResponse(mode), response);
    const request = { label, start };
    const now = this.#clock.now();
    const after = verifyOwnerInit(this.#verifier, this.state, request, bytes, now);
    this.state = after.state;
    this.owner = after.owner;
  }
  async update(...values: Uint8Array[]) {
    const { owner } = this;
    assert.ok(owner);
    const { label } = owner;
    const greatestVersion = greatestKnown(owner);
    const request = { last: this.#last, label, greatestVersion, values };
    const response = await this.#log.update(request);
    const bytes = encode(operations.updateResponse(mode), response);
    const now = this.#clock.now();
    const after = verifyUpdate(this.#verifier, this.state, owner, request, bytes, now);
    this.state = after.state;
    this.owner = after.owner;
    return { ...after, position: response.position };
  }
  async monitorOwn(): Promise<number> {
    for (let rounds = 1; ; rounds++) {
      assert.ok(this.owner);
      const request = ownerMonitorRequestOf(this.owner, this.#last);
      const response = await this.#log.ownerMonitor(request);
      const bytes = encode(operations.ownerMonitorResponse(mode), response);
      const now = this.#clock.now();
      const after = verifyOwnerMonitor(this.#verifier, this.state, this.owner, bytes, now);
      this.state = after.state;
      this.owner = after.owner;
      if (after.isCaughtUp) return rounds;
      assert.ok(after.hasProgressed);
    }
  }
  async distinguished() {
    const response = await this.#log.distinguished({ last: this.#last });
    const bytes = encode(operations.distinguishedResponse(mode), response);
    const now = this.#clock.now();
    const after = verifyDistinguished(this.#verifier, this.state, defaultRecency, bytes, now);
    this.state = after.state;
    return after.heads;
  }
}

/** Puts one version of a label into an entry of its own. */
async function put(log: KtLog, name: string, value = name): Promise<number> {
  const label = labelOf(name);
  const greatest = await greatestOf(log, label);
  const request = { label, greatestVersion: greatest, values: [valueOf(value)] };
  return (await log.update(request)).position;
}
async function greatestOf(log: KtLog, label: Uint8Array): Promise<number | undefined> {
  try {
    return (await log.search({ label })).version;
  } catch (error) {
    assert.equal((error as Error).name, 'NotFoundError');
    return undefined;
  }
}

test('users find what owners put, greatest and older, first time and later', async () => {
  const { log, verifier, clock } = await testLog();
  const user = new User(log, verifier, clock);
  await put(log, '@red.example');
  for (let version = 0; version < 6; version++) {
    await put(log, 'alice@red.example', `alice ${version}`);
    clock.advance(20_000);
    const { found } = await user.search(alice);
    assert.equal(found.version, version);
    assert.deepEqual(found.value, valueOf(`alice ${version}`));
  }
  for (let version = 0; version < 6; version++) {
    for (const who of [user, new User(log, verifier, clock)]) {
      const { found } = await who.search(alice, version);
      assert.deepEqual(found.value, valueOf(`alice ${version}`));
    }
  }
  assert.equal(user.state?.view.size, 7);
  await assert.rejects(log.search({ label: alice, version: 6 }), { name: 'NotFoundError' });
  await assert.rejects(log.search({ label: labelOf('bob@red.example') }), {
    name: 'NotFoundError',
  });
  await assert.rejects(log.search({ label: alice, last: 8 }), { name: 'InvalidArgumentError' });
});

test('an unknown label is shown to be unknown, and a known one cannot be', async () => {
  const { log, verifier, clock } = await testLog();
  for (const name of ['carol', 'alice@red.example', 'dave', 'eve']) {
    await put(log, name);
    clock.advance(30_000);
  }
  const label = labelOf('bob@red.example');
  const proof = await log.absence({ label });
  const bytes = encode(operations.absenceProof(mode), proof);
  const { state } = verifyAbsence(verifier, undefined, label, bytes, clock.now());
  assert.equal(state.view.size, 4);
  const ofAlice = (): unknown => verifyAbsence(verifier, undefined, alice, bytes, clock.now());
  assert.throws(ofAlice, { name: 'VerificationError', reason: 'BAD_VRF' });
  await assert.rejects(log.absence({ label: alice }), { name: 'InvalidArgumentError' });
});

test('an owner registers, updates, catches up on another device, and monitors', async () => {
  const { log, verifier, clock } = await testLog({ answerLimits: { ownerLadders: 3 } });
  await put(log, '@red.example');
  const phone = new User(log, verifier, clock);
  await phone.own(alice, 0);
  assert.equal(phone.owner?.versionAtStart, undefined);
  const first = await phone.update(valueOf('v0'));
  assert.equal(first.isOwnRequest, true);
  assert.deepEqual(
    first.created.map((one) => one.version),
    [0],
  );
  const laptop = new User(log, verifier, clock);
  await laptop.own(alice, 0);
  for (let i = 0; i < 14; i++) {
    clock.advance(25_000);
    await put(log, `other-${i % 3}`);
    if (i % 4 === 1) await phone.update(valueOf(`a${i}`), valueOf(`b${i}`));
  }
  // The laptop learns of each entry with new versions, one response at a time.
  const seen: number[] = [];
  while ((await greatestOf(log, alice)) !== greatestKnown(laptop.owner ?? assert.fail())) {
    const { created, isOwnRequest } = await laptop.update();
    assert.equal(isOwnRequest, false);
    seen.push(...created.map((one) => one.version));
  }
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8].slice(0, seen.length));
  await assert.rejects(laptop.update(), { name: 'InvalidArgumentError' });
  for (const device of [phone, laptop]) {
    const rounds = await device.monitorOwn();
    assert.ok(rounds > 1, `${rounds} rounds of three ladders`);
    assert.equal(await device.monitorOwn(), 1);
    // Everything up to the newest distinguished entry is settled.
    assert.ok(device.owner?.map.every((entry) => entry.position > (device.owner?.start ?? 0)));
  }
});

test('monitoring alarms an owner whose label got a version that is not hers', async () => {
  const { log, verifier, clock } = await testLog();
  await put(log, '@red.example');
  const phone = new User(log, verifier, clock);
  await phone.own(alice, 0);
  await phone.update(valueOf('mine'));
  await phone.monitorOwn();
  clock.advance(70_000);
  await put(log, 'alice@red.example', 'not mine');
  for (let i = 0; i < 4; i++) {
    clock.advance(70_000);
    await put(log, 'other');
  }
  // The log may stop where a greater version is; then the owner never catches up and asks for news.
  const request = ownerMonitorRequestOf(phone.owner ?? assert.fail(), undefined);
  const bytes = encode(operations.ownerMonitorResponse(mode), await log.ownerMonitor(request));
  const owner = phone.owner ?? assert.fail();
  const after = verifyOwnerMonitor(verifier, undefined, owner, bytes, clock.now());
  assert.equal(after.isCaughtUp, false);
  assert.equal(after.hasProgressed, false);
  const news = await phone.update();
  assert.equal(news.isOwnRequest, false);
  assert.deepEqual(
    news.created.map((one) => one.value),
    [valueOf('not mine')],
  );
});

test('contacts monitor what they looked up until a distinguished entry holds it', async () => {
  const { log, verifier, clock } = await testLog();
  const bob = new User(log, verifier, clock);
  for (let i = 0; i < 8; i++) await put(log, '@red.example');
  clock.advance(1000);
  // Entry 8 hangs in the search tree below 9, 11 and, from 16 entries on, the new root 15.
  await put(log, 'alice@red.example', 'v0');
  const { found } = await bob.search(alice);
  assert.equal(found.mustMonitor, true);
  let rounds = 0;
  const pending = (): number => bob.contacts.get(alice.toString())?.map.length ?? 0;
  for (; pending() > 0 && rounds < 20; rounds++) {
    clock.advance(6000);
    await put(log, 'other');
    await bob.monitorContacts();
  }
  assert.ok(rounds > 1 && rounds < 20, `${rounds} rounds`);
  const again = await bob.search(alice);
  assert.equal(again.found.mustMonitor, false);
  const contact = { last: undefined, label: alice, entries: [{ position: 1, version: 0 }] };
  await assert.rejects(log.contactMonitor(contact), { name: 'InvalidArgumentError' });
});

test('distinguished heads are those of the trees that ended there', async () => {
  const { log, verifier, clock, store } = await testLog();
  const user = new User(log, verifier, clock);
  for (let i = 0; i < 12; i++) {
    await put(log, `label-${i % 5}`);
    clock.advance(45_000);
    if (i % 3 === 0) await user.distinguished();
  }
  const heads = await user.distinguished();
  assert.ok(heads.length >= 5);
  for (const { position, root, view } of heads) {
    assert.deepEqual(root, (await store.head(position + 1))?.root);
    assert.equal(view.size, position + 1);
  }
});

test('updates that come together share an entry, one per label; others conflict or wait', async () => {
  const { log, clock } = await testLog({ sequencerLimits: { batchMs: 500 } });
  const update = (name: string, known: number | undefined, value: string) =>
    log.update({ label: labelOf(name), greatestVersion: known, values: [valueOf(value)] });
  const armed = clock.timerSet();
  const all = Promise.allSettled([
    update('alice', undefined, 'a'),
    update('bob', undefined, 'b'),
    update('alice', undefined, 'a too'),
  ]);
  assert.equal(log.size, 0);
  await armed;
  clock.advance(499);
  assert.equal(log.size, 0);
  const head = new Promise((resolve) => log.onHead(resolve));
  clock.advance(1);
  await head;
  clock.advance(500);
  const [one, two, three] = await all;
  assert.equal(one.status === 'fulfilled' && one.value.position, 0);
  assert.equal(two.status === 'fulfilled' && two.value.position, 0);
  // The second request for alice was for a version that exists by then.
  assert.equal(
    three.status === 'rejected' && (three.reason as { reason: string }).reason,
    'SEQ_CONFLICT',
  );
  assert.equal(log.size, 1);
  await log[Symbol.asyncDispose]();
  await assert.rejects(update('carol', undefined, 'c'), { name: 'UnavailableError' });
});

/** Fails at one commit: before it is written, or after (the answer got lost). */
class FailingStore extends MemoryTreeStore {
  #left: number;
  readonly #isWritten: boolean;
  constructor(commits: number, isWritten: boolean) {
    super();
    this.#left = commits;
    this.#isWritten = isWritten;
  }
  override async commit(batch: LogBatch): Promise<void> {
    const fails = this.#left-- === 0;
    if (!fails || this.#isWritten) await super.commit(batch);
    if (fails) throw new Error('disk');
  }
}
for (const isWritten of [false, true]) {
  test(`after a failed commit (${isWritten ? 'written' : 'lost'}) the log goes on from the store`, async () => {
    const store = new FailingStore(3, isWritten);
    const { log, clock, verifier, keys, config, identity } = await testLog({ store });
    const heads = new Map<number, Uint8Array>();
    log.onHead(({ size, root }) => {
      const before = heads.get(size);
      assert.ok(before === undefined || sameBytes(before, root), `one root for size ${size}`);
      heads.set(size, root);
    });
    for (let i = 0; i < 3; i++) await put(log, `label-${i}`);
    const failed = put(log, 'label-3');
    await assert.rejects(failed, { name: 'UnavailableError', reason: 'STORE_FULL' });
    assert.equal(log.size, isWritten ? 4 : 3);
    for (let i = 4; i < 7; i++) await put(log, `label-${i}`);
    // A process that starts with this store finds the same log and continues it.
    const again = await Log.open({
      ...{ keys, config, identity, store, clock, random: testRandom },
      suite: nativeSuite,
      sequencerLimits: { batchMs: 0 },
    });
    assert.deepEqual(again.head, log.head);
    await put(again, 'label-9');
    const user = new User(again, verifier, clock);
    for (const i of [0, 1, 2, 4, 5, 6, 9]) {
      assert.equal((await user.search(labelOf(`label-${i}`))).found.version, 0);
    }
  });
}

test('an auditor follows every entry to the roots of the checkpoint', async () => {
  const { log, clock, identity } = await testLog();
  const labels = ['a', 'b', 'c', 'd'].map((name) => labelOf(name));
  for (let round = 0; round < 5; round++) {
    await Promise.all(
      labels.map((label) =>
        log.update({
          label,
          greatestVersion: round === 0 ? undefined : 2 * round - 1,
          values: [valueOf('x'), valueOf('y')],
        }),
      ),
    );
    clock.advance(1000);
  }
  let audit = emptyAudit;
  for (const { update, prefixRoot } of await log.auditedEntries(0, log.size)) {
    const entry = logEntry(update.timestampMs, prefixRoot);
    audit = applyAuditorUpdate(nativeSuite.sha256, audit, update, entry);
  }
  const text = new TextEncoder().encode(await log.checkpoint());
  const { checkpoint } = openCheckpoint(nativeSuite, text, identity);
  const { log: keytrans, rfc6962 } = audit;
  const { sha256 } = nativeSuite;
  assert.deepEqual(
    rootOfHeads(rfc6962Hasher(sha256), rfc6962.size, rfc6962.heads),
    checkpoint.root,
  );
  assert.deepEqual(
    rootOfHeads(keytransHasher(sha256), keytrans.size, keytrans.heads),
    keytransRoot(checkpoint),
  );
  assert.equal(checkpoint.size, log.size);
  await assert.rejects(log.auditedEntries(0, log.size + 1), { name: 'InvalidArgumentError' });
});

test('no byte of a response can be changed without being noticed', async () => {
  const { log, verifier, clock } = await testLog();
  for (let i = 0; i < 5; i++) {
    await put(log, 'alice@red.example', `alice ${i}`);
    clock.advance(30_000);
    await put(log, `other-${i}`);
  }
  const user = new User(log, verifier, clock);
  const { bytes } = await user.search(alice);
  // Every 17th byte: each takes a VRF verification or more.
  let refused = 0;
  for (let at = 0; at < bytes.length; at += 17) {
    const mutant = bytes.with(at, (bytes[at] ?? 0) ^ 0x20);
    const run = (): unknown =>
      verifySearch(verifier, undefined, { label: alice }, mutant, clock.now());
    assert.throws(run, { name: 'VerificationError' }, `byte ${at}`);
    refused++;
  }
  assert.ok(refused > 50);
  for (const length of [0, 1, 10, 100, bytes.length - 1]) {
    const cut = bytes.subarray(0, length);
    const run = (): unknown =>
      verifySearch(verifier, undefined, { label: alice }, cut, clock.now());
    assert.throws(run, { reason: 'MALFORMED' });
  }
});

test('a log opens only with the keys of its configuration, and in its own mode', async () => {
  const { keys, config, identity } = testKeys(40);
  const others = testKeys(50);
  const options = {
    ...{ keys, config, identity },
    store: new MemoryTreeStore(),
    suite: nativeSuite,
    clock: new ManualClock(),
    random: testRandom,
  };
  const refused = { name: 'InvalidArgumentError' };
  await assert.rejects(Log.open({ ...options, keys: others.keys }), refused);
  const managed = { ...config, mode: 2 as const, leafPublicKey: config.signaturePublicKey };
  await assert.rejects(Log.open({ ...options, config: managed }), refused);
  const log = await Log.open(options);
  await assert.rejects(log.search({ label: alice }), { name: 'NotFoundError' });
  await assert.rejects(log.checkpoint(), { name: 'NotFoundError' });
  const tooLarge = { label: alice, values: [new Uint8Array(8193)] };
  await assert.rejects(log.update(tooLarge), refused);
});
