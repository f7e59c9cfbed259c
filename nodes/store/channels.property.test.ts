/** A channel against a model of it: cursors, joins and leaves, leases, quota, expiry, gaps, crashes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hasReason } from '@quicprochat/proto';
import type { ChannelPostRow } from './channel-store.ts';
import { TestGroup } from './contract/channel-group.ts';
import { CrashableStore } from './contract/crashable.ts';
import { addDevice, bigLimits, dayMs, hex, StoreFixture } from './contract/fixture.ts';
import type { NodeStore } from './store.ts';

const red = 'red.example';
const channelRows = 5;
const leaseMs = 30 * dayMs;
const memberCount = 3;

type Step =
  | { readonly do: 'post'; readonly ttlDays: number }
  | { readonly do: 'ack' | 'fetch' | 'toggle'; readonly who: number; readonly pick: number }
  | { readonly do: 'retry' | 'wait'; readonly pick: number }
  | { readonly do: 'crash' };

const who = fc.nat(memberCount - 1);
const pick = fc.nat(1_000);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 7,
    arbitrary: fc.record({
      do: fc.constant('post' as const),
      ttlDays: fc.constantFrom(10, 10_000),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('ack' as const), who, pick }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('fetch' as const), who, pick }) },
  // The creator stays: a channel without subscribers is a case of its own (contract/channels.ts).
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('toggle' as const), who: fc.constantFrom(1, 2), pick }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('retry' as const), pick }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), pick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
);

interface Member {
  joined: number;
  acked: number;
  leaseUntilMs: number;
  /** It was taken out: the last seq that it reads. */
  until?: number;
}

/** The log as a list: one entry for each seq ever assigned. */
class Model {
  readonly entries: {
    readonly post: ChannelPostRow;
    readonly expiresMs: number;
    isHeld: boolean;
  }[] = [];
  readonly members = new Map<number, Member>();
  /** Leases are looked at by the sweep. */
  readonly lapsed = new Set<number>();

  get head(): number {
    return this.entries.length;
  }
  get floor(): number {
    const index = this.entries.findIndex(({ isHeld }) => isHeld);
    return index < 0 ? this.head + 1 : index + 1;
  }

  join(index: number, nowMs: number): void {
    const { head } = this;
    this.lapsed.delete(index);
    this.members.set(index, { joined: head, acked: head, leaseUntilMs: nowMs + leaseMs });
  }

  leave(index: number, member: Member): void {
    const keepsNone = member.acked >= this.head || this.lapsed.has(index);
    if (keepsNone) this.members.delete(index);
    else member.until = this.head;
  }

  touch(index: number, member: Member, nowMs: number): void {
    if (member.until !== undefined) return;
    if (!this.lapsed.has(index) && member.leaseUntilMs - nowMs > leaseMs - dayMs) return;
    member.leaseUntilMs = nowMs + leaseMs;
    this.lapsed.delete(index);
  }

  post(post: ChannelPostRow, expiresMs: number): void {
    if (this.members.size === 0) return;
    const isHeld = [...this.members.keys()].some((index) => !this.lapsed.has(index));
    const held = this.entries.filter((entry) => entry.isHeld);
    if (isHeld && held.length >= channelRows && held[0] !== undefined) held[0].isHeld = false;
    this.entries.push({ post, expiresMs, isHeld });
  }

  /** What every live member has passed goes. */
  trim(): void {
    const live = [...this.members].filter(([index]) => !this.lapsed.has(index));
    const passed = Math.min(this.head, ...live.map(([, { acked }]) => acked));
    for (const entry of this.entries.slice(0, passed)) entry.isHeld = false;
  }

  sweep(nowMs: number): void {
    for (const entry of this.entries) if (entry.expiresMs <= nowMs) entry.isHeld = false;
    for (const [index, { leaseUntilMs, until }] of this.members) {
      if (leaseUntilMs > nowMs) continue;
      if (until === undefined) this.lapsed.add(index);
      else this.members.delete(index);
    }
    this.trim();
  }

  fetch({ joined, acked, until = this.head }: Member, after: number) {
    const start = Math.max(after, joined);
    let first = start + 1;
    while (first <= until && this.entries[first - 1]?.isHeld !== true) first += 1;
    const isBack = after > 0 && after < joined && acked === joined;
    const from = (isBack ? after : Math.max(start, acked)) + 1;
    const rows = [];
    for (let seq = first; seq <= until && this.entries[seq - 1]?.isHeld === true; seq += 1) {
      rows.push([seq, hex(this.entries[seq - 1]?.post.mid ?? new Uint8Array())]);
    }
    const isEmpty = this.floor > this.head;
    return {
      gap: from < first ? { from, to: first - 1 } : undefined,
      ...{ rows, floor: isEmpty ? until + 1 : this.floor, head: until },
    };
  }
}

class Run {
  readonly group = new TestGroup();
  readonly model = new Model();
  readonly fixture: StoreFixture;
  readonly stores: CrashableStore;
  readonly rids: Uint8Array[] = [];

  constructor(fixture: StoreFixture, stores: CrashableStore) {
    this.fixture = fixture;
    this.stores = stores;
  }

  get #store(): NodeStore {
    return this.stores.store;
  }
  get #nowMs(): number {
    return this.fixture.nowMs;
  }

  async begin(): Promise<void> {
    for (let index = 0; index < memberCount; index += 1) {
      this.rids.push(await addDevice(this.#store, `user-${index}`));
    }
    await this.#store.createChannel(this.#rid(0), this.group.asNew());
    this.model.join(0, this.#nowMs);
  }

  #rid(index: number): Uint8Array {
    return this.rids[index] ?? new Uint8Array(32);
  }

  async do(one: Step): Promise<void> {
    const { model, group, fixture } = this;
    const store = this.#store;
    switch (one.do) {
      case 'post': {
        const post = group.post({ ttlMs: one.ttlDays * dayMs });
        assert.equal((await store.postToChannel(post)).outcome, 'stored');
        model.post(post, this.#nowMs + post.ttlMs);
        return;
      }
      case 'retry': {
        const entry = model.entries[one.pick % Math.max(1, model.head)];
        // Its tag is known for as long as its row, and 72 hours; the model's clock runs in days.
        if (entry?.isHeld !== true) return;
        assert.equal((await store.postToChannel(entry.post)).outcome, 'duplicate');
        return;
      }
      case 'ack': {
        const upTo = one.pick % (model.head + 1);
        const member = model.members.get(one.who);
        const acking = store.ackChannel(this.#rid(one.who), group.cid, upTo);
        if (member === undefined) return assert.rejects(acking, { reason: 'UNKNOWN_CHANNEL' });
        const { until } = member;
        if (upTo > (until ?? upTo)) return assert.rejects(acking, { reason: 'BAD_CURSOR' });
        await acking;
        model.touch(one.who, member, this.#nowMs);
        if (upTo <= member.acked) return;
        member.acked = upTo;
        if (upTo === until) model.members.delete(one.who);
        model.trim();
        return;
      }
      case 'fetch':
        return this.fetch(one.who, one.pick % (model.head + 1));
      case 'toggle': {
        const rid = this.#rid(one.who);
        const member = model.members.get(one.who);
        const isMember = member !== undefined && member.until === undefined;
        const add = isMember ? [] : [{ rid, token: new Uint8Array(0) }];
        const remove = isMember ? [rid] : [];
        await store.applyChannelUpdate(red, group.advance({ add, remove, removal: isMember }));
        if (isMember) model.leave(one.who, member);
        else model.join(one.who, this.#nowMs);
        // What only the removed one waited for goes with the sweep.
        await store.sweep();
        model.sweep(this.#nowMs);
        return;
      }
      case 'wait':
        fixture.nowMs += (one.pick % 14) * dayMs;
        await store.sweep();
        model.sweep(this.#nowMs);
        return;
      case 'crash':
        await this.stores.crash();
    }
  }

  async fetch(index: number, after: number): Promise<void> {
    const { model, group } = this;
    const member = model.members.get(index);
    try {
      const position = { cid: group.cid, after };
      const read = await this.#store.fetchChannel(this.#rid(index), position, 100, 2 ** 20);
      assert.ok(member !== undefined);
      const { rows, gap, floor, head } = read;
      assert.deepEqual(
        { gap, floor, head, rows: rows.map(({ seq, mid }) => [seq, hex(mid)]) },
        model.fetch(member, after),
      );
      model.touch(index, member, this.#nowMs);
    } catch (error) {
      if (hasReason(error, 'BAD_CURSOR')) assert.ok(after > (member?.until ?? after));
      else if (hasReason(error, 'UNKNOWN_CHANNEL')) assert.equal(member, undefined);
      else throw error;
    }
  }
}

test('a channel is its model, whatever happens in which order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), async (steps) => {
      await using fixture = new StoreFixture();
      await using stores = await CrashableStore.create(fixture, { ...bigLimits, channelRows });
      const run = new Run(fixture, stores);
      await run.begin();
      for (const one of steps) await run.do(one);
      for (let index = 0; index < memberCount; index += 1) {
        for (let after = 0; after <= run.model.head; after += 1) await run.fetch(index, after);
      }
    }),
    { numRuns: 12 },
  );
});
