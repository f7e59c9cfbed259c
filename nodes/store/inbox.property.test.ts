/** An inbox against a model of it: seq, floor, gaps, duplicates, quota, over acks, expiry, crashes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hasReason, systemRandom } from '@quicprochat/proto';
import { CrashableStore } from './contract/crashable.ts';
import { addDevice, bigLimits, hex, minuteMs, newRow, StoreFixture } from './contract/fixture.ts';
import type { EnqueueRow } from './message-store.ts';

const inboxRows = 6;

type Step =
  | { readonly do: 'enqueue'; readonly ttlMinutes: number }
  | { readonly do: 'retry' | 'ack' | 'fetch'; readonly pick: number }
  | { readonly do: 'wait' }
  | { readonly do: 'crash' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('enqueue' as const),
      ttlMinutes: fc.constantFrom(1, 3, 10_000),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('retry' as const, 'ack' as const, 'fetch' as const, 'fetch' as const),
      pick: fc.nat(1_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
);

/** The inbox as a list: one entry for each seq ever assigned. */
class Model {
  readonly entries: { readonly row: EnqueueRow; readonly expiresMs: number; isHeld: boolean }[] =
    [];
  acked = 0;

  get head(): number {
    return this.entries.length;
  }
  get held(): number {
    return this.entries.filter(({ isHeld }) => isHeld).length;
  }
  get floor(): number {
    const index = this.entries.findIndex(({ isHeld }) => isHeld);
    return index < 0 ? this.head + 1 : index + 1;
  }

  ack(upTo: number): void {
    this.acked = Math.max(this.acked, upTo);
    for (const entry of this.entries.slice(0, upTo)) entry.isHeld = false;
  }
  expire(nowMs: number): void {
    for (const entry of this.entries) if (entry.expiresMs <= nowMs) entry.isHeld = false;
  }

  /** The next run of rows without a hole, and the hole before it that no ack explains. */
  fetch(after: number): { readonly gap: unknown; readonly rows: unknown } {
    let first = after + 1;
    while (first <= this.head && this.entries[first - 1]?.isHeld !== true) first += 1;
    const from = Math.max(after, this.acked) + 1;
    const rows = [];
    for (let seq = first; this.entries[seq - 1]?.isHeld === true; seq += 1) {
      rows.push([seq, hex(this.entries[seq - 1]?.row.mid ?? new Uint8Array())]);
    }
    return { gap: from < first ? { from, to: first - 1 } : undefined, rows };
  }
}

async function run(
  one: Step,
  {
    model,
    inbox,
    fixture,
    rid,
  }: {
    readonly model: Model;
    readonly inbox: CrashableStore;
    readonly fixture: StoreFixture;
    readonly rid: Uint8Array;
  },
): Promise<void> {
  const { store } = inbox;
  switch (one.do) {
    case 'enqueue': {
      const ttlMs = one.ttlMinutes * minuteMs;
      const row = newRow(rid, { ttlMs, payload: systemRandom.bytes(20) });
      try {
        assert.equal((await store.enqueue(row)).outcome, 'stored');
        model.entries.push({ row, expiresMs: fixture.nowMs + ttlMs, isHeld: true });
      } catch (error) {
        assert.ok(hasReason(error, 'QUEUE_FULL'));
        assert.equal(model.held, inboxRows);
      }
      return;
    }
    case 'retry': {
      const entry = model.entries[one.pick % Math.max(1, model.head)];
      if (entry !== undefined) {
        assert.equal((await store.enqueue(entry.row)).outcome, 'duplicate');
      }
      return;
    }
    case 'ack': {
      const upTo = one.pick % (model.head + 1);
      await store.ack(rid, upTo);
      model.ack(upTo);
      return;
    }
    case 'fetch': {
      const after = one.pick % (model.head + 1);
      const { rows, gap, floor, head } = await store.fetch(rid, after, 100, 2 ** 20);
      assert.deepEqual(
        { gap, floor, head, rows: rows.map(({ seq, mid }) => [seq, hex(mid)]) },
        { ...model.fetch(after), floor: model.floor, head: model.head },
      );
      return;
    }
    case 'wait':
      fixture.nowMs += 2 * minuteMs;
      await store.sweep();
      model.expire(fixture.nowMs);
      return;
    case 'crash':
      await inbox.crash();
  }
}

test('an inbox is its model, whatever happens in which order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 50, size: 'max' }), async (steps) => {
      await using fixture = new StoreFixture();
      await using inbox = await CrashableStore.create(fixture, { ...bigLimits, inboxRows });
      const rid = await addDevice(inbox.store, 'alice');
      const model = new Model();
      for (const one of steps) await run(one, { model, inbox, fixture, rid });
      for (let after = 0; after <= model.head; after += 1) {
        await run({ do: 'fetch', pick: after }, { model, inbox, fixture, rid });
      }
    }),
    { numRuns: 40 },
  );
});
