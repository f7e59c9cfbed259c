/**
 * Test support: devices with real keys, stores, MLS and the parts that receive and converse, and how rows go
 * from one to another. Nothing in it stands in for a part of the client.
 */
import assert from 'node:assert/strict';
import {
  checkPrekey,
  deviceIdOf,
  firstManifest,
  nextManifest,
  RowKind,
  signingKeyFromSeed,
  signPrekey,
  type Clock,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import type { SignedManifest, SignedPrekey } from '@quicprochat/proto/messages';
import type { Cards } from './cards/cards.ts';
import type { Contacts } from './contacts/contacts.ts';
import { hybridKeyId } from './crypto/envelope.ts';
import { xwingGenerateKeyPair } from './crypto/xwing.ts';
import { EventBus, type ClientEvent } from './events.ts';
import type { Conversations } from './groups/conversation.ts';
import type { Groups } from './groups/groups.ts';
import type { EvidenceExchange } from './kt/evidence-exchange.ts';
import type { Logs } from './kt/logs.ts';
import {
  isMlsSuite,
  mandatorySuite,
  xwingSuite,
  type Mls,
  type MlsSuite,
  type SignatureKey,
} from './mls/index.ts';
import type { Holes } from './receiving/holes.ts';
import type { Receipts } from './receiving/receipts.ts';
import type { Receiver } from './receiving/receiver.ts';
import type { Resender } from './sending/resender.ts';
import { inboxLog, type InboxRow } from './store/inbox-rows.ts';
import type { MessageRecord } from './store/message-rows.ts';
import { openMemoryStore } from './store/sqlite-store.ts';
import type { ClientStore } from './store/store.ts';
import { buildParts, type DeviceTestParts } from './test-device-parts.ts';
import type { Published, TestDirectory } from './test-directory.ts';
import { testRuntime } from './test-runtime.ts';
import type { Writer } from './writer.ts';

export const testStoreId = new Uint8Array(8).fill(1);
const weekMs = 7 * 24 * 3600 * 1000;

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
  #parts: DeviceTestParts;
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

  #build(): DeviceTestParts {
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

/** A newer prekey that a device signs: a sound one, or whatever it is given. */
export function prekeyOf(
  { identityKey }: TestDevice,
  publicKey: Uint8Array = xwingGenerateKeyPair(testRuntime.random).publicKey,
): SignedPrekey {
  return signPrekey(identityKey, publicKey, testRuntime.clock.now() + 1.5 * weekMs);
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
