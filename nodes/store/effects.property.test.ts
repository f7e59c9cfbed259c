/**
 * Random account changes through the log, with rows, packages, claims and crashes between them,
 * against a model: the same changes are refused, and no table keeps anything of what is gone.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { QpcError, systemRandom } from '@quicprochat/proto';
import { CrashableStore } from './contract/crashable.ts';
import { bigLimits, newManifest, newRow, StoreFixture } from './contract/fixture.ts';
import { labelOf, logBatch } from './contract/log-batch.ts';
import { openDatabase } from './database.ts';
import type { AccountEffect } from './account-store.ts';

const users = ['alice@red.example', 'bob@red.example', 'carol@red.example'] as const;
const keyCount = 5;

interface Change {
  readonly kind: AccountEffect['kind'];
  readonly user: number;
  /** Of the device that comes in; none with `manifest` when it is `keyCount`. */
  readonly key: number;
  readonly dropped: readonly number[];
  /** Added to the right seq. */
  readonly seqError: number;
  /** Taken as it is; otherwise the numbers pick among what would be in order. */
  readonly isBlind: boolean;
}

type Step =
  | { readonly do: 'commit'; readonly changes: readonly Change[] }
  | { readonly do: 'enqueue' | 'ack' | 'packages'; readonly key: number }
  | { readonly do: 'relay'; readonly keys: readonly number[] }
  | { readonly do: 'claim' | 'erase'; readonly user: number }
  | { readonly do: 'crash' };

const user = fc.nat(users.length - 1);
const key = fc.nat(keyCount - 1);
const change: fc.Arbitrary<Change> = fc
  .record({
    kind: fc.constantFrom('register', 'register', 'manifest', 'manifest', 'manifest', 'close'),
    user,
    key: fc.nat(keyCount),
    dropped: fc.array(key, { maxLength: 2 }),
    seqError: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1),
    isBlind: fc.constantFrom(false, false, false, false, true),
  })
  .map((one) => (one.kind === 'register' ? { ...one, key: one.key % keyCount } : one));
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('commit' as const),
      changes: fc.array(change, { minLength: 1, maxLength: 3 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constantFrom('enqueue', 'enqueue', 'ack', 'packages'), key }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('relay' as const),
      keys: fc.uniqueArray(key, { minLength: 1, maxLength: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('claim', 'claim', 'erase'), user }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
);

class World {
  readonly #disk: CrashableStore;
  readonly #fixture: StoreFixture;
  readonly #keys = Array.from({ length: keyCount }, () => systemRandom.bytes(32));
  /** Manifest seq of each open account. */
  readonly #seqs = new Map<string, number>();
  /** User of each device key. */
  readonly #owners = new Map<number, string>();
  /** Versions of each label that is not erased. */
  readonly #versions = new Map<string, number>();
  readonly #closed = new Set<string>();
  /** Rows that each device has, and how many it ever got. */
  readonly #rows = new Map<number, { held: number; head: number }>();
  #size = 0;
  #relayed = 0;

  constructor(disk: CrashableStore, fixture: StoreFixture) {
    this.#disk = disk;
    this.#fixture = fixture;
  }

  async run(one: Step): Promise<void> {
    const { store } = this.#disk;
    switch (one.do) {
      case 'commit':
        return this.#commit(one.changes);
      case 'enqueue': {
        const at = this.#likelyKey(one.key);
        const isOwned = this.#owners.has(at);
        const stored = await succeeds(store.enqueue(newRow(this.#key(at))), ['UNKNOWN_DEVICE']);
        assert.equal(stored, isOwned);
        if (isOwned) this.#received(at);
        return;
      }
      case 'relay':
        return this.#relay(one.keys);
      case 'ack': {
        const waiting = [...this.#rows].filter(([, rows]) => rows.held > 0);
        const [at, rows] = waiting[one.key % Math.max(1, waiting.length)] ?? [];
        if (at === undefined || rows === undefined) return;
        rows.held -= 1;
        return store.ack(this.#key(at), rows.head - rows.held);
      }
      case 'packages':
        return this.#packages(this.#likelyKey(one.key));
      case 'claim': {
        const userId = userAt(one.user);
        const limits = { singleUsePerRequesterPerHour: 9, singleUsePerTargetPerHour: 9 };
        const claim = { userId, claimId: systemRandom.bytes(16), suites: [1], ...limits };
        const answer = await store.claimKeyPackages({ ...claim, scope: 'local', requester: 'x' });
        assert.equal(answer !== undefined, this.#seqs.has(userId));
        return;
      }
      case 'erase': {
        const userId = userAt(one.user);
        // As the log does: only what is closed.
        if (!this.#closed.delete(userId)) return;
        this.#versions.delete(userId);
        return store.keyLog.erase(labelOf(userId));
      }
      case 'crash':
        return this.#disk.crash();
    }
  }

  /** Mostly that of a device there is. */
  #likelyKey(drawn: number): number {
    const owned = [...this.#owners.keys()];
    return drawn === 0 ? drawn : (owned[drawn % Math.max(1, owned.length)] ?? drawn);
  }

  async #relay(keys: readonly number[]): Promise<void> {
    this.#relayed += 1;
    const rids = keys.map((one) => this.#key(one));
    const item = { kind: 1, mid: systemRandom.bytes(16), payload: systemRandom.bytes(40), rids };
    const { rejects } = await this.#disk.store.applyRelay('blue.example', {
      lane: 'bulk',
      streamId: new Uint8Array(16),
      acked: this.#relayed - 1,
      firstSeq: this.#relayed,
      items: [{ ...item, ttlMs: 1_000_000 }],
    });
    const unknown = keys.filter((one) => !this.#owners.has(one));
    assert.equal(rejects.length, unknown.length);
    for (const one of keys) if (this.#owners.has(one)) this.#received(one);
  }

  async #packages(at: number): Promise<void> {
    const { store } = this.#disk;
    const identityPub = this.#key(at);
    const keyPackage = { suite: 1, notBeforeMs: 0, notAfterMs: Number.MAX_SAFE_INTEGER };
    const packages = [false, true].map((lastResort) => ({
      ...keyPackage,
      ref: systemRandom.bytes(32),
      bytes: systemRandom.bytes(20),
      lastResort,
    }));
    const prekey = { prekey: systemRandom.bytes(9), signature: systemRandom.bytes(64) };
    const isAdded = await succeeds(store.addKeyPackages(identityPub, packages), ['UNKNOWN_DEVICE']);
    assert.equal(isAdded, this.#owners.has(at));
    if (isAdded) await store.putPrekey(identityPub, prekey, Number.MAX_SAFE_INTEGER);
  }

  async #commit(drawn: readonly Change[]): Promise<void> {
    const changes: Change[] = [];
    for (const one of drawn) changes.push(one.isBlind ? one : this.#inOrder(one, changes));
    const batch = logBatch(
      this.#size,
      changes.map((one) => this.#effect(one)),
    );
    const refusals = ['NAME_TAKEN', 'SEQ_CONFLICT', 'UNKNOWN_USER', 'UNKNOWN_DEVICE', 'BAD_FIELD'];
    const isDone = await succeeds(this.#disk.store.keyLog.commit(batch), refusals);
    assert.equal(isDone, this.#mayCommit(changes), JSON.stringify(changes));
    if (!isDone) return;
    this.#size += 1;
    for (const one of changes) this.#apply(one);
  }

  /** A change like the one drawn that may be written beside `others`, as far as there is one. */
  #inOrder(drawn: Change, others: readonly Change[]): Change {
    const isTouched = (at: number): boolean => others.some((one) => one.user === at);
    const free = users.flatMap((_user, at) => (isTouched(at) ? [] : [at]));
    const open = free.filter((at) => this.#seqs.has(userAt(at)));
    const fresh = free.filter((at) => !this.#versions.has(userAt(at)));
    const isNew = fresh.length > 0 && (drawn.kind === 'register' || open.length === 0);
    const kind = isNew ? 'register' : drawn.kind === 'register' ? 'manifest' : drawn.kind;
    const from = isNew ? fresh : open;
    const at = from[drawn.user % Math.max(1, from.length)] ?? drawn.user;
    const spare = [...this.#keys.keys()].filter(
      (one) => !this.#owners.has(one) && others.every((other) => other.key !== one),
    );
    const own = [...this.#owners.keys()].filter((one) => this.#owners.get(one) === userAt(at));
    const dropped = drawn.dropped.flatMap((one) => own[one % Math.max(1, own.length)] ?? []);
    const wantsKey = kind === 'register' || drawn.key < keyCount;
    const key = wantsKey ? (spare[drawn.key % Math.max(1, spare.length)] ?? keyCount) : keyCount;
    return { ...drawn, kind, user: at, key, dropped: [...new Set(dropped)] };
  }

  #effect({ kind, user: at, key: added, dropped, seqError }: Change): AccountEffect {
    const userId = userAt(at);
    const manifest = newManifest();
    const manifestSeq = this.#seqOf(userId) + seqError;
    const device = {
      deviceId: `device-${added}`,
      identityPub: this.#keys[added] ?? new Uint8Array(),
      transportSpki: systemRandom.bytes(32),
    };
    if (kind === 'close') return { kind, userId, manifest, manifestSeq };
    if (kind === 'manifest') {
      return {
        kind,
        userId,
        manifest,
        manifestSeq,
        dropped: dropped.map((one) => this.#key(one)),
        ...(added < keyCount && { added: { device, sessionExpiresMs: 1 } }),
      };
    }
    const opaqueRecord = systemRandom.bytes(20);
    const account = { userId, setupId: 1, opaqueRecord, manifest, manifestSeq, device };
    return { kind, account: { ...account, sessionExpiresMs: 1 } };
  }

  /** The next version: of an account, or of a label that has none. */
  #seqOf(userId: string): number {
    return this.#versions.get(userId) ?? 0;
  }

  #mayCommit(changes: readonly Change[]): boolean {
    const names = changes.flatMap(({ kind, user: at, key: added, dropped }) => [
      userAt(at),
      ...(kind === 'close' || added === keyCount ? [] : [added]),
      ...(kind === 'manifest' ? dropped : []),
    ]);
    if (new Set(names).size !== names.length) return false;
    return changes.every(({ kind, user: at, key: added, dropped, seqError }) => {
      const userId = userAt(at);
      const isFree = added === keyCount || !this.#owners.has(added);
      if (seqError !== 0) return false;
      if (kind === 'register') {
        return !this.#versions.has(userId) && isFree && added < keyCount;
      }
      if (!this.#seqs.has(userId)) return false;
      if (kind === 'close') return true;
      return isFree && dropped.every((one) => (this.#owners.get(one) ?? userId) === userId);
    });
  }

  #apply({ kind, user: at, key: added, dropped }: Change): void {
    const userId = userAt(at);
    this.#versions.set(userId, this.#seqOf(userId) + 1);
    if (kind === 'close') {
      for (const [one, owner] of this.#owners) if (owner === userId) this.#drop(one);
      this.#seqs.delete(userId);
      this.#closed.add(userId);
      return;
    }
    this.#seqs.set(userId, this.#seqOf(userId) - 1);
    if (kind === 'manifest') for (const one of dropped) this.#drop(one);
    if (added === keyCount) return;
    this.#owners.set(added, userId);
    this.#rows.set(added, { held: 0, head: 0 });
  }

  #drop(at: number): void {
    this.#owners.delete(at);
    this.#rows.delete(at);
  }

  #received(at: number): void {
    const rows = this.#rows.get(at) ?? assert.fail();
    rows.held += 1;
    rows.head += 1;
  }

  async check(): Promise<void> {
    const { store } = this.#disk;
    assert.equal((await store.keyLog.newestHead())?.size ?? 0, this.#size);
    for (const userId of users) {
      const account = await store.account(userId);
      assert.equal(account?.manifestSeq, this.#seqs.get(userId));
      const versions = this.#versions.get(userId) ?? 0;
      assert.equal((await store.keyLog.positions(labelOf(userId))).length, versions);
      if (account !== undefined) assert.equal(account.manifestSeq, versions - 1);
    }
    const closed = (await store.closedLabels()).map(({ label }) => Buffer.from(label).toString());
    assert.deepEqual(closed.toSorted(), [...this.#closed].toSorted());
    for (const [at, identityPub] of this.#keys.entries()) {
      const owner = await store.accountByIdentity(identityPub);
      assert.equal(owner?.userId, this.#owners.get(at));
      const rows = this.#rows.get(at);
      if (rows === undefined) continue;
      const { head, rows: held } = await store.fetch(identityPub, 0, 1_000, 1e6);
      assert.deepEqual({ head, held: held.length }, rows);
    }
    await store[Symbol.asyncDispose]();
    this.#checkTables();
  }

  /** Nothing of a device or an account that is gone is left in any table. */
  #checkTables(): void {
    const db = openDatabase(this.#disk.path, this.#fixture.key, {});
    const first = (sql: string): unknown => db.prepare(sql).pluck().get();
    try {
      assert.deepEqual(db.pragma('foreign_key_check'), []);
      assert.equal(db.pragma('integrity_check', { simple: true }), 'ok');
      assert.equal(first('SELECT count(*) FROM account'), this.#seqs.size);
      assert.equal(first('SELECT count(*) FROM device'), this.#owners.size);
      for (const orphans of [
        'log WHERE key NOT IN (SELECT identity_pub FROM device)',
        'entry WHERE log NOT IN (SELECT id FROM log)',
        'tomb WHERE log NOT IN (SELECT id FROM log)',
        'log WHERE row_count <> (SELECT count(*) FROM entry WHERE entry.log = log.id)',
        'payload WHERE refs <> (SELECT count(*) FROM entry WHERE payload = payload.id)',
        'kt_version WHERE label NOT IN (SELECT id FROM kt_label)',
        `kt_version WHERE unhex(printf('%016x', id)) <> (SELECT substr(version_rows, 8 * version + 1, 8)
           FROM kt_label WHERE kt_label.id = kt_version.label)`,
        `kt_label WHERE length(version_rows) <> 8 * (SELECT count(*) FROM kt_version
           WHERE kt_version.label = kt_label.id)`,
        'kt_vrf WHERE label NOT IN (SELECT id FROM kt_label)',
      ]) {
        assert.equal(first(`SELECT count(*) FROM ${orphans}`), 0, orphans);
      }
    } finally {
      db.close();
    }
  }

  #key(at: number): Uint8Array {
    return this.#keys[at] ?? assert.fail('no such key');
  }
}

function userAt(at: number): string {
  return users[at] ?? assert.fail('no such user');
}

/** False when it was refused for one of these reasons. */
async function succeeds(call: Promise<unknown>, refusals: readonly string[]): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (error instanceof QpcError && refusals.includes(error.reason)) return false;
    throw error;
  }
}

test('accounts, devices and all that is theirs follow the log', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }),
      async (steps) => {
        await using fixture = new StoreFixture();
        await using disk = await CrashableStore.create(fixture, bigLimits);
        const world = new World(disk, fixture);
        for (const one of steps) await world.run(one);
        await world.check();
      },
    ),
    { numRuns: 25 },
  );
});
