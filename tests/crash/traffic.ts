/**
 * Load for the crash tests: lanes that enqueue messages of known bytes, each one in flight per
 * lane and repeated until answered, and readers that fetch, read again and acknowledge a part.
 */
import assert from 'node:assert/strict';
import { methods } from '@quicprochat/proto';
import { Outcome, type FetchResponse } from '@quicprochat/proto/messages';
import type { RawDevice } from '../cluster/crashing-node.ts';
import type { Dice } from '../cluster/dice.ts';
import { tagOf, type LogRow, type SentMessage } from '../cluster/inbox-check.ts';

/** What a lane went through; shared by all lanes of a test. */
export interface TrafficCounts {
  /** Answers that a kill took away. */
  lostAnswers: number;
  /** Repeats that the node had on disk already: the kill fell between its commit and its answer. */
  repeatsStored: number;
  /** Repeats of what the node never had. */
  repeatsNew: number;
  /** Messages given up after a lost answer. */
  abandoned: number;
}

export interface LaneOptions {
  readonly lane: number;
  readonly from: RawDevice;
  readonly to: RawDevice;
  readonly dice: Dice;
  readonly counts: TrafficCounts;
  readonly stop: AbortSignal;
  /** Runs at each OK. */
  readonly onOk: (message: TimedMessage) => void;
}

export interface TimedMessage extends SentMessage {
  /** Wall clock when the node's OK was here; 0 = never. */
  okMs: number;
}

/** Share of the messages that are given up after a lost answer, and of those that are large. */
const shares = { abandoned: 0.05, large: 0.02 };
const payloadBytes = { usual: 2_000, large: 60_000 };

/** Sends until `stop`; resolves with everything that was sent. */
export async function runLane(options: LaneOptions): Promise<TimedMessage[]> {
  const { lane, from, to, dice, counts, stop, onOk } = options;
  const sent: TimedMessage[] = [];
  for (let n = 1; !stop.aborted; n += 1) {
    const mid = dice.bytes(16);
    const isLarge = dice.chance(shares.large);
    const payload = dice.bytes(1 + dice.int(isLarge ? payloadBytes.large : payloadBytes.usual));
    const message = { tag: tagOf(mid, payload), lane, n, isAcknowledged: false, okMs: 0 };
    sent.push(message);
    let lost = 0;
    const isGivenUp = dice.chance(shares.abandoned);
    const request = { rid: to.rid, domain: to.node.process.domain, mid, payload, ttlS: 0 };
    const answer = await from.call(methods.enqueue, request, () => {
      lost += 1;
      counts.lostAnswers += 1;
      return !isGivenUp;
    });
    if (answer === undefined) {
      counts.abandoned += 1;
      continue;
    }
    assert.equal(Buffer.from(answer.tag).toString('hex'), message.tag);
    const isRepeat = answer.outcome === Outcome.DUPLICATE;
    // Nothing but a lost answer can have brought the same bytes there before.
    if (isRepeat) assert.notEqual(lost, 0, 'a first try was answered DUPLICATE');
    if (isRepeat) counts.repeatsStored += 1;
    else if (lost > 0) counts.repeatsNew += 1;
    message.isAcknowledged = true;
    message.okMs = Date.now();
    onOk(message);
  }
  return sent;
}

/** A row as its reader saw it. */
export interface TimedRow extends LogRow {
  /** Wall clock of the node when it wrote the row. */
  readonly receivedMs: number;
}

export class InboxReader {
  readonly device: RawDevice;
  /** Every row that was received, by seq. */
  readonly rows = new Map<number, TimedRow>();
  /** Rows that came again because they were not acknowledged. */
  redelivered = 0;
  acks = 0;
  /** Called when rows came. */
  onRows: (() => void) | undefined;
  readonly #dice: Dice;
  #storeId: Uint8Array | undefined;
  #cursor = 0;
  /** Acknowledged for certain, and perhaps. */
  #acked = 0;
  #ackTried = 0;

  constructor(device: RawDevice, dice: Dice) {
    this.device = device;
    this.#dice = dice;
  }

  /** Reads until `stop`, acknowledges at random what it has, and starts over at random. */
  async run(stop: AbortSignal): Promise<void> {
    let isIdle = false;
    while (!stop.aborted) {
      if (this.#dice.chance(0.1)) this.#cursor = this.#acked;
      const fetched: FetchResponse =
        isIdle || this.#dice.chance(0.2)
          ? await this.#wait(this.#cursor)
          : await this.#fetch(this.#cursor, 1 + this.#dice.int(256));
      this.#take(fetched);
      isIdle = fetched.rows.length === 0;
      if (!isIdle) this.onRows?.();
      if (this.#dice.chance(0.5)) await this.#ackSome();
    }
  }

  /** Reads what the node still holds; returns the newest seq that it ever assigned. */
  async drain(): Promise<number> {
    this.#cursor = 0;
    for (;;) {
      const fetched = await this.#fetch(this.#cursor, 0);
      this.#take(fetched);
      const head = Number(fetched.head);
      if (fetched.rows.length === 0) assert.ok(Math.max(this.#cursor, this.#ackTried) >= head);
      if (this.#cursor >= head || fetched.rows.length === 0) return head;
    }
  }

  async #wait(after: number): Promise<FetchResponse> {
    const cursor = { log: {}, after: BigInt(after), storeId: this.#storeId ?? noStore };
    const waited = await this.device.call(methods.fetchWait, { cursors: [cursor], waitMs: 200 });
    const fetched = waited?.logs[0]?.fetched;
    assert.ok(fetched !== undefined);
    return fetched;
  }

  async #fetch(after: number, maxRows: number): Promise<FetchResponse> {
    const request = { log: {}, after: BigInt(after), maxRows, maxBytes: 0 };
    const fetched = await this.device.call(methods.fetch, request);
    assert.ok(fetched !== undefined);
    return fetched;
  }

  #take({ storeId, gap, rows }: FetchResponse): void {
    // A crash is no rewind: the log is the same one.
    this.#storeId ??= storeId;
    assert.deepEqual(storeId, this.#storeId, 'the store id changed');
    assert.equal(gap, undefined, 'rows are gone that nobody acknowledged');
    let isFirst = true;
    for (const row of rows) {
      const seq = Number(row.seq);
      assert.ok(seq > this.#acked, 'an acknowledged row came again');
      // The answer to an ack may be lost: then rows up to the last try may be gone.
      const latest = Math.max(this.#cursor, isFirst ? this.#ackTried : 0) + 1;
      assert.ok(seq > this.#cursor && seq <= latest, `row ${seq} follows ${this.#cursor}`);
      isFirst = false;
      const tag = tagOf(row.mid, row.payload);
      const known = this.rows.get(seq);
      if (known !== undefined) {
        assert.equal(known.tag, tag, `row ${seq} changed its bytes`);
        this.redelivered += 1;
      }
      this.rows.set(seq, { seq, tag, receivedMs: Number(row.receivedMs) });
      this.#cursor = seq;
    }
  }

  async #ackSome(): Promise<void> {
    const upTo = this.#acked + this.#dice.int(this.#cursor - this.#acked + 1);
    if (upTo <= this.#acked || this.#storeId === undefined) return;
    this.#ackTried = Math.max(this.#ackTried, upTo);
    await this.device.call(methods.ack, { log: {}, storeId: this.#storeId, upTo: BigInt(upTo) });
    this.#acked = upTo;
    this.acks += 1;
  }
}

const noStore = new Uint8Array(0);
