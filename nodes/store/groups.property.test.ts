/**
 * A hub against a model of its log, with crashes between any two steps: one child for each parent
 * unless a later one rejects all before it, Welcomes and rows if and only if their commit was
 * accepted, and the same answer to the same bytes for ever.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { groupLogLimits, hasReason, systemRandom, type ParsedEntry } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { CrashableStore } from './contract/crashable.ts';
import { addDevice, bigLimits, hex, StoreFixture } from './contract/fixture.ts';
import { TestCommitter } from './contract/group-committer.ts';
import type { OfferedCommit } from './group-store.ts';

type Step =
  /** A commit behind any entry, which rejects none, all or some of the entries behind that. */
  | { readonly do: 'submit'; readonly on: number; readonly rejects: 'none' | 'all' | 'some' }
  | { readonly do: 'again'; readonly pick: number }
  | { readonly do: 'crash' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('submit' as const),
      on: fc.nat(3),
      rejects: fc.constantFrom('none' as const, 'none' as const, 'all' as const, 'some' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('again' as const), pick: fc.nat(1_000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
);

interface Offered {
  readonly offer: OfferedCommit;
  isAccepted: boolean;
}

class Run {
  readonly group: TestCommitter;
  readonly stores: CrashableStore;
  readonly joiner: Uint8Array;
  readonly entries: ParsedEntry[];
  readonly offers: Offered[] = [];
  readonly welcomed: string[] = [];

  constructor(
    group: TestCommitter,
    stores: CrashableStore,
    joiner: Uint8Array,
    first: ParsedEntry,
  ) {
    this.group = group;
    this.stores = stores;
    this.joiner = joiner;
    this.entries = [first];
  }

  #children(parent: ParsedEntry): ParsedEntry[] {
    return this.entries.filter(({ entry }) => Buffer.compare(entry.parent, parent.hash) === 0);
  }

  async do(one: Step): Promise<void> {
    switch (one.do) {
      case 'submit': {
        // Mostly on the newest entries, as members do.
        const parent = this.entries[Math.max(0, this.entries.length - 1 - one.on)];
        assert.ok(parent !== undefined);
        const children = this.#children(parent).map(({ hash }) => hash);
        const some = children.slice(0, Math.max(0, children.length - 1));
        const rejects = { none: [], all: children, some }[one.rejects].slice(
          0,
          groupLogLimits.rejects,
        );
        const isRoom = rejects.length === children.length;
        const welcome = systemRandom.bytes(40);
        const target = { rid: this.joiner, token: new Uint8Array(0) };
        const welcomes = [{ target, mid: systemRandom.bytes(16), welcome }];
        const offer = this.group.offer(parent, { welcomes }, { rejects });
        const isAccepted = await this.#submit(offer);
        assert.equal(isAccepted, isRoom, 'one child, or one that rejects all others');
        this.offers.push({ offer, isAccepted });
        if (!isAccepted) return;
        this.entries.push(offer.parsed);
        this.welcomed.push(hex(welcome));
        return;
      }
      case 'again': {
        const offered = this.offers[one.pick % Math.max(1, this.offers.length)];
        if (offered === undefined) return;
        assert.equal(await this.#submit(offered.offer), offered.isAccepted);
        return;
      }
      case 'crash':
        await this.stores.crash();
    }
  }

  /** Whether it stands in the log after it, now or from before. */
  async #submit(offer: OfferedCommit): Promise<boolean> {
    try {
      const { control } = await this.stores.store.submitCommit(offer);
      const { commit } = fromBinary(GroupControlSchema, control);
      assert.deepEqual(commit, offer.commit);
      return true;
    } catch (error) {
      if (!hasReason(error, 'EPOCH_CONFLICT')) throw error;
      return false;
    }
  }

  async check(): Promise<void> {
    const { store } = this.stores;
    const { controls } = await store.groupLog(this.group.groupId, new Uint8Array(0), 64);
    assert.deepEqual(
      controls.map((control) => fromBinary(GroupControlSchema, control).entry?.entry?.entry),
      this.entries.map(({ signedBytes }) => signedBytes),
    );
    const { rows } = await store.fetch(this.joiner, 0, 999, 2 ** 20);
    assert.deepEqual(
      rows.map(({ payload }) => hex(fromBinary(GroupControlSchema, payload).welcome)),
      this.welcomed,
    );
  }
}

test('a hub keeps one history, and tells nobody of what is not in it', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), async (steps) => {
      await using fixture = new StoreFixture();
      await using stores = await CrashableStore.create(fixture, bigLimits);
      const maker = await addDevice(stores.store, 'maker');
      const joiner = await addDevice(stores.store, 'joiner');
      const committer = new TestCommitter();
      const made = committer.newGroup(maker);
      await stores.store.createGroup(made);
      const run = new Run(committer, stores, joiner, made.parsed);
      for (const one of steps) await run.do(one);
      await run.check();
    }),
    { numRuns: 10 },
  );
});
