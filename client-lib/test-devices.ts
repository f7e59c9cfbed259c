/**
 * Test support: devices with real keys, stores, MLS and the parts that receive and converse, and a
 * directory that answers what nodes would about their public keys, with a real key-transparency log
 * for each domain. Nothing in it stands in for a part of the client.
 */
import assert from 'node:assert/strict';
import {
  checkPrekey,
  deviceIdOf,
  firstManifest,
  methods,
  nextManifest,
  NotFoundError,
  parseUserId,
  RowKind,
  signingKeyFromSeed,
  signPrekey,
  silentLog,
  systemClock,
  systemRandom,
  TransportError,
  UnimplementedError,
  type Clock,
  type Method,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  type DeviceKeyPackage,
  type MessageInitShape,
  type MessageShape,
  type SignedManifest,
  type SignedPrekey,
} from '@quicprochat/proto/messages';
import type { Cards } from './cards/cards.ts';
import { Contacts } from './contacts/contacts.ts';
import { Conversations } from './groups/conversation.ts';
import { hybridKeyId } from './crypto/envelope.ts';
import { xwingGenerateKeyPair } from './crypto/xwing.ts';
import { EventBus, type ClientEvent } from './events.ts';
import type { Caller } from './dial.ts';
import {
  createMls,
  isMlsSuite,
  mandatorySuite,
  xwingSuite,
  type Mls,
  type MlsSuite,
  type SignatureKey,
} from './mls/index.ts';
import { Groups } from './groups/groups.ts';
import { Holes } from './receiving/holes.ts';
import { DeliveryTokens } from './sending/delivery-tokens.ts';
import { Extras } from './sending/extras.ts';
import { EvidenceExchange } from './kt/evidence-exchange.ts';
import { Logs } from './kt/logs.ts';
import { TestLog, type TestLogOptions } from './test-logs.ts';
import { Receipts } from './receiving/receipts.ts';
import { Receiver } from './receiving/receiver.ts';
import { Resender } from './sending/resender.ts';
import { openMemoryStore } from './store/sqlite-store.ts';
import { inboxLog, type InboxRow } from './store/inbox-rows.ts';
import type { MessageRecord } from './store/message-rows.ts';
import type { ClientStore } from './store/store.ts';
import { TestHub } from './test-hub.ts';
import { UserLookup } from './contacts/user-lookup.ts';
import { Writer } from './writer.ts';

export const testRuntime: Runtime = { clock: systemClock, random: systemRandom, log: silentLog };
export const testStoreId = new Uint8Array(8).fill(1);
const weekMs = 7 * 24 * 3600 * 1000;

type AnyMethod = Method;

/** The public half of a device, as its node would serve it. */
interface Published {
  readonly userId: string;
  readonly identityPub: Uint8Array;
  readonly manifest: SignedManifest;
  readonly prekey: SignedPrekey;
  takeKeyPackage(suites: readonly number[]): Promise<DeviceKeyPackage | undefined>;
}

/** Answers look-ups about published devices; every package is handed out once. */
export class TestDirectory implements Caller {
  readonly #published = new Map<string, Published>();
  /** Names of the methods called, in order. */
  readonly calls: string[] = [];
  /** Serves every package again and again, as a bad node would. */
  isRepeating = false;
  /** No node answers. */
  isDown = false;
  readonly #served = new Map<string, DeviceKeyPackage | undefined>();
  readonly #logs = new Map<string, Promise<TestLog>>();
  readonly #times: NonNullable<TestLogOptions['times']>;
  readonly hub = new TestHub((domain) =>
    signingKeyFromSeed(new Uint8Array(32).fill(seedOfDomain(domain) + 4)),
  );
  /** What is on its way into the logs, in order. */
  #logged: Promise<void> = Promise.resolve();

  constructor(times: NonNullable<TestLogOptions['times']> = {}) {
    this.#times = times;
  }

  publish(device: Published): void {
    this.#published.set(device.userId, device);
    this.logVersion(device.userId, device.manifest);
  }

  /** Makes a manifest the next version of its user's label. */
  logVersion(userId: string, manifest: SignedManifest): void {
    const { domain } = parseUserId(userId);
    this.#logged = this.#logged.then(async () => {
      const log = await this.log(domain);
      await log.publish(userId, manifest);
    });
  }

  /** The log of a domain; every domain has one. */
  log(domain: string): Promise<TestLog> {
    const known = this.#logs.get(domain);
    if (known !== undefined) return known;
    const seed = seedOfDomain(domain);
    const made = TestLog.make(domain, { runtime: testRuntime, seed, times: this.#times });
    this.#logs.set(domain, made);
    return made;
  }

  /** Calls of one device: a hub has to know whose they are. */
  callerOf(rid: Uint8Array): Caller {
    return {
      call: async (method, request) => {
        if (this.isDown) throw new TransportError('unreachable', 'the nodes are down');
        const message = create(method.request, request);
        const answer = await this.hub.answer(rid, method.id, message);
        return answer === undefined
          ? this.call(method, request)
          : create(method.response, answer as MessageInitShape<typeof method.response>);
      },
    };
  }

  async call<I extends AnyMethod['request'], O extends AnyMethod['response']>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    this.calls.push(method.name);
    const answer = await this.#answer(method.id, request);
    return create(method.response, answer as MessageInitShape<O>);
  }

  #prekeysOf(userId: string): readonly unknown[] {
    const found = this.#published.get(userId);
    if (found === undefined) return [];
    const { manifest, identityPub, prekey } = found;
    return [{ userId, keys: { manifest, prekeys: [{ identityPub, prekey }] } }];
  }

  async #answer(methodId: number, request: unknown): Promise<unknown> {
    await this.#logged;
    const asked = request as {
      userId?: string;
      userIds?: string[];
      suites?: number[];
      domain?: string;
    };
    const { userId = '', userIds = [], suites = [], domain } = asked;
    if (methodId === methods.fetchHybridKeys.id) {
      return { users: userIds.flatMap((one) => this.#prekeysOf(one)) };
    }
    if (domain !== undefined) {
      const log = await this.log(domain === '' ? ownDomain : domain);
      return log.answer(methodId, request);
    }
    const found = this.#published.get(userId);
    if (found === undefined) throw new NotFoundError('UNKNOWN_USER', 'no such user');
    const { manifest } = found;
    switch (methodId) {
      case methods.fetchKeyPackage.id: {
        const isServed = this.isRepeating && this.#served.has(userId);
        const one = isServed ? this.#served.get(userId) : await found.takeKeyPackage(suites);
        this.#served.set(userId, one);
        return { manifest, packages: one === undefined ? [] : [one] };
      }
      default:
        throw new UnimplementedError(`method ${methodId}`);
    }
  }
}

/** All test devices are of this domain's node; those of others are asked through it. */
const ownDomain = 'red.example';
/** Keys of the logs, the same in every directory: a second one is another face of the same log. */
const seedOfDomain = (domain: string): number => domain.length * 8;

/** As it is in an inbox; of kind 1 unless told. */
export type TestRow = Pick<InboxRow, 'mid' | 'payload'> & { readonly kind?: number };

export interface TestDeviceOptions {
  /** Suites that the device has packages of; both unless told otherwise. */
  readonly suites?: readonly MlsSuite[];
  /** Its own idea of the time. */
  readonly clock?: Clock;
}

export class TestDevice {
  readonly userId: string;
  readonly deviceId: string;
  readonly identityKey: SigningKey;
  readonly signatureKey: SignatureKey;
  readonly directory: TestDirectory;
  readonly events: ClientEvent[] = [];
  /** Reasons for which answers of logs were refused, in order. */
  readonly lies: string[] = [];
  readonly #manifest: SignedManifest;
  readonly #accountKey: SigningKey = signingKeyFromSeed(testRuntime.random.bytes(32));
  readonly #suites: readonly MlsSuite[];
  readonly runtime: Runtime;
  /** People whose card this device has. */
  cards: Cards | undefined;
  #store: ClientStore;
  #parts: Parts;
  #seq = 0;

  constructor(userId: string, directory: TestDirectory, options: TestDeviceOptions = {}) {
    const seed = testRuntime.random.bytes(32);
    this.userId = userId;
    this.identityKey = signingKeyFromSeed(seed);
    this.signatureKey = { publicKey: this.identityKey.publicKey, seed };
    this.deviceId = deviceIdOf(this.identityKey.publicKey);
    this.directory = directory;
    this.runtime = { ...testRuntime, clock: options.clock ?? testRuntime.clock };
    this.#suites = options.suites ?? [xwingSuite, mandatorySuite];
    this.#manifest = firstManifest(userId, this.#accountKey, this.identityKey.publicKey, 0);
    this.#store = openMemoryStore();
    this.#parts = this.#build();
    directory.publish(this.#publication());
  }

  get rid(): Uint8Array {
    return this.identityKey.publicKey;
  }
  get store(): ClientStore {
    return this.#store;
  }
  get receiver(): Receiver {
    return this.#parts.receiver;
  }
  get writer(): Writer {
    return this.#parts.writer;
  }
  get mls(): Mls {
    return this.#parts.mls;
  }
  get logs(): Logs {
    return this.#parts.logs;
  }
  get evidence(): EvidenceExchange {
    return this.#parts.evidence;
  }
  get contacts(): Contacts {
    return this.#parts.contacts;
  }
  get conversations(): Conversations {
    return this.#parts.conversations;
  }
  get groups(): Groups {
    return this.#parts.groups;
  }
  /** These do nothing by themselves: a test calls `flush`, `askDue`, `answerDue`. */
  get receipts(): Receipts {
    return this.#parts.receipts;
  }
  get holes(): Holes {
    return this.#parts.holes;
  }
  get resender(): Resender {
    return this.#parts.resender;
  }

  /** Its account gives up its key for another one, and the log says so. */
  revoke(): void {
    const revoked = [{ identityPub: this.rid, atMs: 0n, reason: 'lost' }];
    const { publicKey } = signingKeyFromSeed(testRuntime.random.bytes(32));
    const device = { deviceId: deviceIdOf(publicKey), identityPub: publicKey, addedMs: 0n };
    const changes = { devices: [device], revoked };
    const next = nextManifest(this.#manifest, changes, { accountKey: this.#accountKey });
    this.directory.logVersion(this.userId, next);
  }

  /** Everything in memory is gone; the store stays. */
  restart(): void {
    void this.#parts.groups.stop();
    this.#parts = this.#build();
  }

  /** The same device with the keys it has now and no history. */
  fresh(): void {
    void this.#parts.groups.stop();
    const old = this.#store;
    this.#store = openMemoryStore();
    this.#seq = 0;
    this.events.length = 0;
    this.#parts = this.#build();
    const key = old.keys.newestHybridKey();
    if (key !== undefined) this.#store.keys.putHybridKey(key);
    this.#store.keys.addKeyPackages(this.#madeKeyPackages);
    old.close();
  }
  readonly #madeKeyPackages: Parameters<ClientStore['keys']['addKeyPackages']>[0][number][] = [];

  /** Looks its own keys up, as a device does at its start. */
  async knowItself(): Promise<void> {
    if (this.contacts.get(this.userId) === undefined) {
      await this.contacts.resolve(this.userId, this.directory);
    }
  }

  /** Takes in the next row of its inbox, and then whatever that sets in motion. */
  async receive(row: TestRow, kind = row.kind ?? RowKind.Envelope): Promise<void> {
    if (this.#store.inbox.cursor(inboxLog) === undefined) {
      this.#store.inbox.putCursor(inboxLog, { storeId: testStoreId, seq: 0 });
    }
    await this.knowItself();
    this.#seq += 1;
    await this.receiver.receive({ ...row, seq: this.#seq, kind, receivedMs: 0 }, testStoreId);
    await this.settle();
  }

  /** Until no look-up and no retry is under way. */
  async settle(): Promise<void> {
    const { writer, lookup, groups } = this.#parts;
    // A row may start a look-up, and a look-up lets rows be tried again, which may start another.
    do {
      await writer.idle();
      await lookup.idle();
      await groups.idle();
    } while (!(writer.isIdle && lookup.isIdle && groups.isIdle));
  }

  /** What this device has for another one: what came with its commits, then what it sent, in order. */
  rowsFor(other: TestDevice): readonly TestRow[] {
    const rows: TestRow[] = [...this.directory.hub.rowsOf(this.rid, other.rid)];
    const target = Buffer.from(other.rid).toString('hex');
    for (let after = 0; ;) {
      const next = this.#store.outbox.next(target, after);
      if (next === undefined) return rows;
      after = next.id;
      rows.push({ mid: next.mid, payload: next.payload });
    }
  }

  history(conversationId: Uint8Array): readonly MessageRecord[] {
    return this.#store.messages.history(conversationId, 10_000);
  }

  #build(): Parts {
    const bus = new EventBus();
    bus.listen((event) => this.events.push(event));
    return buildParts(this, bus);
  }

  #publication(): Published {
    const { userId } = this;
    const { publicKey, secretSeed } = xwingGenerateKeyPair(testRuntime.random);
    const notAfterMs = testRuntime.clock.now() + weekMs;
    const prekey = signPrekey(this.identityKey, publicKey, notAfterMs);
    checkPrekey(prekey, this.rid, testRuntime.clock.now());
    this.#store.keys.putHybridKey({
      keyId: hybridKeyId(publicKey),
      seed: secretSeed,
      publicKey,
      notAfterMs,
      isPublished: true,
    });
    return {
      userId,
      identityPub: this.rid,
      manifest: this.#manifest,
      prekey,
      takeKeyPackage: async (suites) => {
        const suite = suites.filter(isMlsSuite).find((one) => this.#suites.includes(one));
        if (suite === undefined) return undefined;
        const made = await this.mls.makeKeyPackage({
          suite,
          identity: { userId, deviceId: this.deviceId },
          signatureKey: this.signatureKey,
        });
        const stored = { ...made, suite, isLastResort: false, isPublished: true };
        this.#store.keys.addKeyPackages([stored]);
        this.#madeKeyPackages.push(stored);
        return {
          $typeName: 'qpc.v1.DeviceKeyPackage',
          identityPub: this.rid,
          suite,
          keyPackage: made.publicBytes,
          lastResort: false,
          prekey,
        };
      },
    };
  }
}

interface Parts {
  readonly groups: Groups;
  readonly logs: Logs;
  readonly evidence: EvidenceExchange;
  readonly contacts: Contacts;
  readonly mls: Mls;
  readonly writer: Writer;
  readonly receipts: Receipts;
  readonly holes: Holes;
  readonly resender: Resender;
  readonly receiver: Receiver;
  readonly lookup: UserLookup;
  readonly conversations: Conversations;
}

function buildParts(device: TestDevice, events: EventBus): Parts {
  const { store, directory, signatureKey, userId, deviceId } = device;
  const { runtime } = device;
  const logs = new Logs({
    store,
    runtime,
    own: { domain: ownDomain, pin: new Uint8Array(32).fill(seedOfDomain(ownDomain) + 3) },
    onRefused: () => undefined,
  });
  const contacts = new Contacts({
    store,
    runtime,
    events,
    logs,
    ownUserId: userId,
    onLie: (_domain, error) => device.lies.push(error.reason),
    checkOwn: () => undefined,
    onOwnRefused: () => undefined,
  });
  const evidence = new EvidenceExchange({
    store,
    runtime,
    logs,
    contacts,
    userId,
    onFork: (_domain, error) => device.lies.push(error.reason),
    onKnown: () => undefined,
  });
  const mls = createMls({ ...runtime, manifests: contacts.lookup });
  const writer = new Writer(store, runtime);
  const identity = { userId, deviceId };
  const caller = directory.callerOf(device.rid);
  const sending = {
    store,
    runtime,
    writer,
    mls,
    contacts,
    caller,
    onOutbox: () => undefined,
    cards: {
      invitees: async (...asked: Parameters<Cards['invitees']>) =>
        (await device.cards?.invitees(...asked)) ?? [],
      holder: (of: string) => device.cards?.holder(of),
    },
  };
  const { identityKey } = device;
  const receipts = new Receipts(sending);
  const tokens = new DeliveryTokens({ ...sending, rid: device.rid, onDue: () => undefined });
  const extras = new Extras(sending, [tokens]);
  const holes = new Holes({ ...sending, events, identityKey });
  const resender = new Resender({ ...sending, identity, identityKey });
  const groups: Groups = new Groups({
    ...{ ...sending, events, logs, evidence, tokens, rid: device.rid, signatureKey, userId },
    onEvidence: (taken) => evidence.take(taken),
    onMoved: (groupId) => receiver.retryGroup(groupId),
    onMendable: (reason, waitsFor) =>
      receiver.retryParked((row) => row.reason === reason && row.waitsFor === waitsFor),
  });
  // The schedule of keys is a test's to run.
  groups.committer.start();
  const receiver: Receiver = new Receiver({
    store,
    runtime,
    events,
    writer,
    mls,
    identity,
    rid: device.rid,
    tokens,
    controls: groups.rows,
    leaves: groups.leaves,
    forks: groups.forks,
    standings: groups.standings,
    onWaits: (reason, waitsFor) => {
      if (reason === 'UNKNOWN_USER') lookup.want(waitsFor.split(' '));
      else groups.waits(reason, waitsFor);
    },
    onEvidence: (taken) => evidence.take(taken),
    onEndpoint: () => undefined,
    onConvictions: () => undefined,
    onMessages: () => undefined,
    holes,
    resender,
    onReceiptsDue: () => undefined,
    onReposts: () => undefined,
  });
  const lookup: UserLookup = new UserLookup({
    runtime,
    contacts,
    caller,
    onFound: () =>
      receiver.retryParked(
        (row) => row.reason === 'UNKNOWN_USER' && lookup.isThrough(row.waitsFor),
      ),
    onRefused: (userIds, reason) => receiver.refuseUsers(userIds, reason),
  });
  const conversations = new Conversations({
    store,
    runtime,
    contacts,
    evidence,
    committer: groups.committer,
    rekeys: groups.rekeys,
    extras,
    tokens,
    cards: sending.cards,
    isDark: async () => directory.isDown,
    writer,
    mls,
    caller,
    identity,
    signatureKey,
    onOutbox: () => undefined,
    onTimed: () => undefined,
  });
  return {
    groups,
    logs,
    evidence,
    contacts,
    mls,
    writer,
    receipts,
    holes,
    resender,
    receiver,
    lookup,
    conversations,
  };
}

/** Hands on what these devices have for each other, until nobody has anything to say any more. */
export async function exchange(...devices: readonly TestDevice[]): Promise<void> {
  let count: number;
  do {
    count = 0;
    for (const from of devices) {
      for (const to of devices) if (from !== to) count += await handOver(from, to);
    }
  } while (count > 0);
}

/** Hands on what a device has for another one; returns how many rows that were. */
export async function handOver(from: TestDevice, to: TestDevice): Promise<number> {
  const rows = takeRows(from, to);
  for (const row of rows) await to.receive(row);
  return rows.length;
}

/** What came with a device's commits for another one, then what it sent since the last time; the node has it now. */
export function takeRows(from: TestDevice, to: TestDevice): readonly TestRow[] {
  const rows: TestRow[] = [...from.directory.hub.takeRows(from.rid, to.rid)];
  const target = Buffer.from(to.rid).toString('hex');
  for (;;) {
    const entry = from.store.outbox.next(target, 0);
    if (entry === undefined) return rows;
    from.store.outbox.markAccepted(entry.id, testStoreId, from.runtime.clock.now());
    rows.push({ mid: entry.mid, payload: entry.payload });
  }
}

/** Every text exactly once, and nothing left over. */
export function assertHas(
  device: TestDevice,
  conversationId: Uint8Array,
  texts: readonly string[],
): void {
  const received = device
    .history(conversationId)
    .filter(({ receivedMs }) => receivedMs !== undefined)
    .map(({ text }) => text)
    .sort();
  assert.deepEqual(received, [...texts].sort());
  assert.deepEqual(device.store.inbox.undecryptable(), []);
  assert.deepEqual(device.store.inbox.parked(), []);
}
