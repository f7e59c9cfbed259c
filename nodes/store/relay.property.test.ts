/**
 * Two stores and a link that loses, repeats, delays and reorders, while both sides crash and streams
 * restart: in the end each row is in its inbox exactly once, or a dead letter exactly once.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hasReason, systemRandom } from '@quicprochat/proto';
import type { LaneName, OutboundStream, RelayApplied, RelayBatch } from '@quicprochat/federation';
import { CrashableStore } from './contract/crashable.ts';
import { addDevice, bigLimits, hex, minuteMs, newRow, StoreFixture } from './contract/fixture.ts';
import { openDatabase } from './database.ts';
import type { EnqueueRow } from './message-store.ts';

const red = 'red.example';
const blue = 'blue.example';
const lanes: readonly LaneName[] = ['control', 'bulk'];

type Fate = 'arrives' | 'requestLost' | 'replyLost' | 'requestLate' | 'replyLate' | 'twice';

type Step =
  | { readonly do: 'enqueue'; readonly device: number; readonly kind: number }
  | { readonly do: 'retry'; readonly pick: number }
  | {
      readonly do: 'relay';
      readonly lane: LaneName;
      readonly items: number;
      readonly back: number;
      readonly fate: Fate;
    }
  | { readonly do: 'late'; readonly pick: number }
  | { readonly do: 'read'; readonly device: number }
  | { readonly do: 'wait'; readonly minutes: number }
  | { readonly do: 'crashSender' | 'crashReceiver' }
  | { readonly do: 'restart'; readonly lane: LaneName };

const lane = fc.constantFrom(...lanes);
const pick = fc.nat(1_000);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('enqueue' as const),
      device: fc.nat(2),
      kind: fc.constantFrom(1, 1, 1, 4),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('retry' as const), pick }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('relay' as const),
      lane: fc.constantFrom<LaneName>('bulk', 'bulk', 'control'),
      items: fc.integer({ min: 1, max: 5 }),
      back: fc.nat(2),
      fate: fc.constantFrom<Fate>(
        'arrives',
        'arrives',
        'requestLost',
        'replyLost',
        'requestLate',
        'replyLate',
        'twice',
      ),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('late' as const), pick }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('read' as const), device: fc.nat(1) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      minutes: fc.integer({ min: 1, max: 9 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom('crashSender' as const, 'crashReceiver' as const) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const), lane }) },
);

/** What is on the way: a request to the receiver, or a reply to the sender. */
type Late =
  | { readonly request: RelayBatch }
  | { readonly lane: LaneName; readonly streamId: Uint8Array; readonly reply: RelayApplied };

class World {
  readonly #sender: CrashableStore;
  readonly #receiver: CrashableStore;
  readonly #fixtures: readonly StoreFixture[];
  /** Two devices of the receiver and one that it does not know. */
  readonly #devices: readonly Uint8Array[];
  readonly #sent: EnqueueRow[] = [];
  readonly #read = new Map<string, string[]>();
  readonly #late: Late[] = [];

  constructor(
    sender: CrashableStore,
    receiver: CrashableStore,
    fixtures: readonly StoreFixture[],
    devices: readonly Uint8Array[],
  ) {
    this.#sender = sender;
    this.#receiver = receiver;
    this.#fixtures = fixtures;
    this.#devices = devices;
  }

  async run(one: Step): Promise<void> {
    switch (one.do) {
      case 'enqueue': {
        const row = newRow(this.#device(one.device), {
          kind: one.kind,
          payload: systemRandom.bytes(20),
        });
        assert.equal((await this.#sender.store.enqueueRemote(blue, row)).outcome, 'stored');
        this.#sent.push(row);
        return;
      }
      case 'retry': {
        const row = this.#sent[one.pick % this.#sent.length];
        // A device that is unknown is no duplicate once it is a dead letter: a retry is new there.
        if (row === undefined || row.rid === this.#devices[2]) return;
        assert.equal((await this.#sender.store.enqueueRemote(blue, row)).outcome, 'duplicate');
        return;
      }
      case 'relay':
        return this.relay(one.lane, one.items, one.back, one.fate);
      case 'late': {
        const [late] = this.#late.splice(one.pick % Math.max(1, this.#late.length), 1);
        if (late === undefined) return;
        if ('request' in late) await this.#apply(late.request);
        else await this.#settle(late.lane, late.streamId, late.reply);
        return;
      }
      case 'read':
        return this.#readInbox(one.device);
      case 'wait':
        for (const fixture of this.#fixtures) fixture.nowMs += one.minutes * minuteMs;
        await this.#sender.store.requeueDue();
        await this.#sender.store.sweep();
        await this.#receiver.store.sweep();
        return;
      case 'crashSender':
        return this.#sender.crash();
      case 'crashReceiver':
        return this.#receiver.crash();
      case 'restart':
        await this.#sender.store.restartOutbound(blue, one.lane);
    }
  }

  /** One batch from a little before where the receiver is said to stand. */
  async relay(lane: LaneName, items: number, back: number, fate: Fate): Promise<void> {
    const stream = await this.#reconciled(lane);
    // A cursor ahead of what is settled: a reply was lost. Its last row, sent again, brings it back.
    const after = Math.max(stream.acked, stream.cursor - Math.max(1, back));
    const rows = await this.#sender.store.readOutbox(blue, lane, after, items, 10_000);
    const [first] = rows;
    if (first === undefined) return;
    const { streamId, acked } = stream;
    const request: RelayBatch = {
      lane,
      streamId,
      acked,
      firstSeq: first.seq,
      items: rows.map(({ ttlLeftMs, ...row }) => ({ ...row, ttlMs: ttlLeftMs })),
    };
    if (fate === 'requestLate') this.#late.push({ request });
    if (fate === 'requestLost' || fate === 'requestLate') return;
    if (fate === 'twice') await this.#apply(request);
    const reply = await this.#apply(request);
    if (reply === undefined || fate === 'replyLost') return;
    if (fate === 'replyLate') this.#late.push({ lane, streamId, reply });
    else await this.#settle(lane, streamId, reply);
  }

  /** What a hello does: compares both ends, and restarts the stream unless they agree. */
  async #reconciled(lane: LaneName): Promise<OutboundStream & { readonly cursor: number }> {
    const stream = await this.#sender.store.outboundStream(blue, lane);
    const told = (await this.#receiver.store.inboundStreams(red)).find(
      (one) => one.lane === lane && hex(one.streamId) === hex(stream.streamId),
    );
    const cursor = told?.cursor ?? 0;
    const chain = await this.#sender.store.outboxChainAt(blue, lane, cursor);
    const isSame = chain !== undefined && hex(chain) === hex(told?.chain ?? new Uint8Array(16));
    if (cursor >= stream.acked && cursor < stream.nextSeq && isSame) return { ...stream, cursor };
    return { ...(await this.#sender.store.restartOutbound(blue, lane)), cursor: 0 };
  }

  async #apply(request: RelayBatch): Promise<RelayApplied | undefined> {
    try {
      return await this.#receiver.store.applyRelay(red, request);
    } catch (error) {
      if (hasReason(error, 'STREAM_GAP')) return undefined;
      throw error;
    }
  }

  async #settle(lane: LaneName, streamId: Uint8Array, reply: RelayApplied): Promise<void> {
    const { cursor, rejects } = reply;
    await this.#sender.store.settleOutbox(blue, lane, streamId, cursor, rejects);
  }

  async #readInbox(index: number): Promise<void> {
    const rid = this.#device(index);
    const mids = this.#read.get(hex(rid)) ?? [];
    const { rows, gap, head } = await this.#receiver.store.fetch(rid, mids.length, 256, 2 ** 20);
    assert.equal(gap, undefined);
    for (const { seq, mid } of rows) assert.equal(seq, mids.push(hex(mid)));
    assert.equal(head, mids.length);
    await this.#receiver.store.ack(rid, head);
    this.#read.set(hex(rid), mids);
  }

  /** Without faults everything drains in a few rounds. */
  async drain(): Promise<void> {
    // Longer than a row that was refused for now ever waits: such a row is not among the peers' rows.
    const due = { do: 'wait', minutes: (10 * bigLimits.deferredRetryMs) / minuteMs + 1 } as const;
    for (let round = 0; round < 60; round += 1) {
      for (const lane of lanes) await this.relay(lane, 50, 0, 'arrives');
      await this.#readInbox(0);
      await this.#readInbox(1);
      await this.run(due);
      if (round > 2 && (await this.#sender.store.peersWithRows()).length === 0) return;
    }
    assert.fail('rows are left');
  }

  async check(): Promise<void> {
    const expected = (device: number): string[] =>
      this.#sent.filter(({ rid }) => rid === this.#device(device)).map(({ mid }) => hex(mid));
    for (const device of [0, 1]) {
      const got = this.#read.get(hex(this.#device(device))) ?? [];
      assert.deepEqual(got.toSorted(), expected(device).toSorted());
    }
    await this.#sender[Symbol.asyncDispose]();
    await this.#receiver[Symbol.asyncDispose]();
    const dead = query(this.#fixtures[0], this.#sender.path, 'SELECT hex(mid) FROM dead_letter');
    assert.deepEqual(
      dead.map((mid) => String(mid).toLowerCase()).toSorted(),
      expected(2).toSorted(),
    );
    assert.deepEqual(query(this.#fixtures[0], this.#sender.path, 'SELECT id FROM outbox'), []);
    const counts = 'SELECT sum(row_count) + sum(byte_count) FROM ';
    assert.deepEqual(query(this.#fixtures[0], this.#sender.path, `${counts} peer`), [0]);
    assert.deepEqual(query(this.#fixtures[1], this.#receiver.path, `${counts} log`), [0]);
    // Payloads are gone with the last row that points at them.
    const held = 'SELECT id FROM payload WHERE id NOT IN (SELECT payload FROM dead_letter)';
    assert.deepEqual(query(this.#fixtures[0], this.#sender.path, held), []);
    assert.deepEqual(query(this.#fixtures[1], this.#receiver.path, held), []);
  }

  #device(index: number): Uint8Array {
    return this.#devices[index] ?? assert.fail('no such device');
  }
}

function query(fixture: StoreFixture | undefined, path: string, sql: string): unknown[] {
  assert.ok(fixture);
  const db = openDatabase(path, fixture.key, {});
  try {
    return db.prepare(sql).pluck().all();
  } finally {
    db.close();
  }
}

test('each row arrives once or is a dead letter once, whatever the link and the nodes do', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }),
      async (steps) => {
        await using redSide = new StoreFixture();
        await using blueSide = new StoreFixture();
        await using sender = await CrashableStore.create(redSide, bigLimits);
        // A small inbox, so that rows are refused for now and come back.
        await using receiver = await CrashableStore.create(blueSide, {
          ...bigLimits,
          inboxRows: 3,
        });
        const devices = [
          await addDevice(receiver.store, 'alice'),
          await addDevice(receiver.store, 'bob'),
          systemRandom.bytes(32),
        ];
        const world = new World(sender, receiver, [redSide, blueSide], devices);
        for (const one of steps) await world.run(one);
        await world.drain();
        await world.check();
      },
    ),
    {
      numRuns: 40,
      // Refused late, a row waits as long again: it is nobody's row meanwhile.
      examples: [
        [
          [
            ...Array.from({ length: 7 }, () => ({ do: 'enqueue', device: 1, kind: 1 }) as const),
            { do: 'wait', minutes: 6 },
            { do: 'wait', minutes: 6 },
          ],
        ],
      ],
    },
  );
});
