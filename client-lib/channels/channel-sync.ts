/**
 * Reads the channels of this device's groups at its node (docs/protocol/channels.md): one FetchWait over all of
 * them, rows into the receiver, and an ack of what is durable. Which channels there are stands in the store
 * since the transaction that entered an epoch; what becomes of a row is the receiver's business.
 */
import {
  hasReason,
  hex,
  maxWaitMs,
  methods,
  QpcError,
  sameBytes,
  type Runtime,
} from '@quicprochat/proto';
import type { FetchResponse } from '@quicprochat/proto/messages';
import type { Session } from '../session.ts';
import type { Receiver } from '../receiving/receiver.ts';
import type { FollowedChannel } from '../store/channel-rows.ts';
import type { InboxRow } from '../store/inbox-rows.ts';
import type { ClientStore } from '../store/store.ts';
import { seqOf, startOf } from '../receiving/sync.ts';

export const channelSyncLimits = {
  /** Channels of one request; with more, they take turns of so long (ms). */
  perCall: 256,
  turnMs: 2_000,
  /** First and longest rest of a channel that the node does not show us, and of all after a failure (ms). */
  restMinMs: 250,
  restMaxMs: 60_000,
  /** A channel that the group left before the node showed it is asked for this long, and so often (ms). */
  lateMs: 24 * 3600 * 1000,
  lateRestMs: 600_000,
  /** How often members are asked for what they said in a channel that the node has no room to show us (ms): at first, and in the end. */
  crowdedMinMs: 60_000,
  crowdedMaxMs: 3_600_000,
} as const;

export interface ChannelSyncParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly receiver: Pick<Receiver, 'receive' | 'passGap' | 'passLost'>;
  /** Rows may have been lost before they came here, of this group or of any; done when it is durable what is to be asked for. */
  readonly onRowsLost: (groupId?: Uint8Array) => Promise<void>;
  /** The node shows this device no such channel, although its group has it. */
  readonly onStuck: (groupId: Uint8Array, cid: Uint8Array) => void;
  /** The inbox is polled too: a device has one FetchWait at a time. */
  readonly isPolling: () => boolean;
}

interface Rest {
  readonly untilMs: number;
  readonly tries: number;
}

/** Refusals that are about one channel, which stands in their details; the second: of a device that reads too many. */
const notShown = ['UNKNOWN_CHANNEL', 'QUOTA'] as const;

export class ChannelSync {
  readonly #parts: ChannelSyncParts;
  /** Channels that the node did not show us, by cid in hex. */
  readonly #resting = new Map<string, Rest>();
  /** Channels of which the node said that it knows no later state of this store, by cid in hex. */
  readonly #checked = new Set<string>();
  /** Channels whose node may not know how far they are taken in, by cid in hex: an ack came to nothing. */
  readonly #unacked = new Set<string>();
  /** Channels that the node has no room to show us, and when members are asked again (Infinity: never), by cid in hex. */
  readonly #crowded = new Map<string, Rest>();
  #turn = 0;
  #wake: () => void = () => undefined;

  constructor(parts: ChannelSyncParts) {
    this.#parts = parts;
  }

  /** Reads over this session until it ends. Never fails. */
  async follow(session: Session): Promise<void> {
    const { clock, log } = this.#parts.runtime;
    let failures = 0;
    this.#resting.clear();
    while (!session.signal.aborted) {
      try {
        await this.#round(session);
        failures = 0;
      } catch (error) {
        if (session.signal.aborted) return;
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        log.info('reading channels', { reason, error: String(error) });
        const { restMinMs, restMaxMs } = channelSyncLimits;
        const restMs = Math.min(restMaxMs, restMinMs * 2 ** failures);
        failures = Math.min(failures + 1, 16);
        await clock.sleep(restMs, session.signal).catch(() => undefined);
      }
    }
  }

  /** A group got a channel, or its last commit said more about it. */
  wake(): void {
    this.#resting.clear();
    this.#wake();
  }

  /** One question, and what came of it. */
  async #round(session: Session): Promise<void> {
    const { store, runtime, isPolling } = this.#parts;
    const { clock } = runtime;
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    const signal = AbortSignal.any([session.signal, woken.signal]);
    const nowMs = clock.monotonic();
    const all = store.channels.all();
    const due = all.filter(({ cid }) => (this.#resting.get(hex(cid))?.untilMs ?? 0) <= nowMs);
    const nextMs = Math.min(...[...this.#resting.values()].map(({ untilMs }) => untilMs - nowMs));
    if (all.length === 0) return aborted(signal);
    if (due.length === 0) {
      await clock.sleep(Math.max(0, nextMs), signal).catch(() => undefined);
      return;
    }
    for (const { cid } of due) {
      await this.#checkCopy(session, cid);
      if (this.#unacked.has(hex(cid))) await this.#ackAgain(session, cid);
    }
    const { perCall, turnMs } = channelSyncLimits;
    const isMore = due.length > perCall;
    // Another one begins each time: an answer may have no room for what is behind a loud one.
    this.#turn = (this.#turn + (isMore ? perCall : 1)) % due.length;
    const some = [...due, ...due].slice(this.#turn, this.#turn + Math.min(perCall, due.length));
    const waitMs = isPolling() ? 0 : Math.min(maxWaitMs, isMore ? turnMs : maxWaitMs);
    const ofRest = nextMs > 0 ? nextMs : maxWaitMs;
    try {
      const { logs } = await session.call(
        methods.fetchWait,
        {
          cursors: some.map(({ cid }) => {
            const cursor = store.inbox.cursor(cid);
            return {
              log: { cid },
              after: BigInt(cursor?.seq ?? 0),
              storeId: cursor?.storeId ?? new Uint8Array(0),
            };
          }),
          waitMs: Math.max(0, Math.min(waitMs, Math.ceil(ofRest))),
        },
        { signal },
      );
      for (const channel of some) {
        const key = hex(channel.cid);
        this.#resting.delete(key);
        if (this.#crowded.has(key) || channel.isCrowded) await this.#askMembers(channel, true);
        this.#crowded.delete(key);
      }
      for (const { log, fetched } of logs) {
        if (log !== undefined && fetched !== undefined) await this.#take(session, log.cid, fetched);
      }
    } catch (error) {
      if (woken.signal.aborted && !session.signal.aborted) return;
      if (!(await this.#mend(error, some))) throw error;
    }
    if (isPolling()) await clock.sleep(turnMs, signal).catch(() => undefined);
  }

  /**
   * What this device acked is in its store, unless that is an older copy of itself: a file can be copied
   * back only while it is closed, so each channel is asked for once. What was acked since, senders have.
   */
  async #checkCopy(session: Session, cid: Uint8Array): Promise<void> {
    const { store, receiver, onRowsLost } = this.#parts;
    const key = hex(cid);
    const cursor = store.inbox.cursor(cid);
    if (cursor === undefined || this.#checked.has(key)) return;
    let fetched: FetchResponse;
    try {
      const request = { log: { cid }, after: BigInt(cursor.seq), maxRows: 1 };
      fetched = await session.call(methods.fetch, request, { signal: session.signal });
    } catch (error) {
      // The next question finds out, and what to do.
      if (hasReason(error, 'BAD_CURSOR', ...notShown)) return;
      throw error;
    }
    const acked = seqOf(fetched.acked);
    if (sameBytes(fetched.storeId, cursor.storeId) && acked > cursor.seq) {
      await onRowsLost();
      await receiver.passLost(acked, cursor.storeId, cid);
    }
    if (acked < cursor.seq) this.#unacked.add(key);
    this.#checked.add(key);
  }

  async #take(session: Session, cid: Uint8Array, fetched: FetchResponse): Promise<void> {
    const { store, receiver, onRowsLost } = this.#parts;
    const { storeId, gap, rows } = fetched;
    const before = store.inbox.cursor(cid);
    if (before === undefined) {
      // Where this device's part of the channel begins, its node knows.
      store.transaction(() => store.inbox.putCursor(cid, { storeId, seq: startOf(fetched) }));
    }
    if (gap !== undefined) {
      // First, so that a crash between the two has it told again.
      await onRowsLost();
      await receiver.passGap(seqOf(gap.from), seqOf(gap.to), storeId, cid);
    }
    const taken = rows.map(({ seq, mid, kind, payload, receivedMs }) => {
      const row: InboxRow = {
        ...{ seq: seqOf(seq), mid, kind, payload },
        receivedMs: Number(receivedMs),
      };
      return receiver.receive(row, storeId, cid);
    });
    await Promise.all(taken);
    if (rows.length === 0 && gap === undefined) return;
    this.#unacked.add(hex(cid));
    await this.#ack(session, cid, storeId);
  }

  async #ack(session: Session, cid: Uint8Array, storeId: Uint8Array): Promise<void> {
    const upTo = BigInt(this.#parts.store.inbox.cursor(cid)?.seq ?? 0);
    await session.call(methods.ack, { log: { cid }, storeId, upTo }, { signal: session.signal });
    this.#unacked.delete(hex(cid));
  }

  /** Without another row nothing else would tell the node, which keeps the rows for us. */
  async #ackAgain(session: Session, cid: Uint8Array): Promise<void> {
    const cursor = this.#parts.store.inbox.cursor(cid);
    try {
      if (cursor !== undefined) await this.#ack(session, cid, cursor.storeId);
    } catch (error) {
      // What a node refuses for good, the next question finds out, and what to do.
      if (!hasReason(error, 'STORE_CHANGED', 'BAD_CURSOR', ...notShown)) throw error;
      this.#unacked.delete(hex(cid));
    }
  }

  /** Whether the refusal is about one channel, or the node's store, and the others go on. */
  async #mend(error: unknown, asked: readonly FollowedChannel[]): Promise<boolean> {
    const { store, onRowsLost } = this.#parts;
    if (hasReason(error, 'STORE_CHANGED', 'BAD_CURSOR')) {
      // A node that refuses even the start is asked again after a rest.
      if (asked.every(({ cid }) => store.inbox.cursor(cid) === undefined)) return false;
      // First, so that a crash between the two asks again.
      await onRowsLost();
      store.transaction(() => {
        for (const { cid } of asked) store.channels.startOver(cid);
      });
      return true;
    }
    if (!hasReason(error, ...notShown)) return false;
    const { details } = error;
    const channel = asked.find(({ cid }) => details !== undefined && sameBytes(cid, details));
    if (channel === undefined) return false;
    await this.#hidden(channel, error.reason === 'QUOTA');
    return true;
  }

  /**
   * A channel that the group has left, and that was shown here, is read to its end. Of any other one the node has
   * yet to hear: also of one that the group left since, whose posts are still on their way to it.
   * `isCrowded`: it has heard, or may have, and this device reads too many.
   */
  async #hidden(channel: FollowedChannel, isCrowded: boolean): Promise<void> {
    const { store, runtime, onStuck } = this.#parts;
    const { cid, groupId } = channel;
    const key = hex(cid);
    const { restMinMs, restMaxMs, lateMs, lateRestMs } = channelSyncLimits;
    const leftMs = store.channels.get(cid)?.leftMs;
    const isLeft = leftMs !== undefined;
    const isRead = store.inbox.cursor(cid) !== undefined;
    const isOver = isLeft && (isRead || runtime.clock.now() - leftMs > lateMs);
    if (this.#crowded.has(key) || channel.isCrowded || (isCrowded && !isOver)) {
      await this.#askMembers(channel, isLeft);
    }
    if (isOver) {
      store.transaction(() => store.channels.forget(cid));
      for (const known of [this.#resting, this.#checked, this.#unacked, this.#crowded]) {
        known.delete(key);
      }
      return;
    }
    const longestMs = isLeft ? lateRestMs : restMaxMs;
    const tries = (this.#resting.get(key)?.tries ?? 0) + 1;
    const restMs = Math.min(longestMs, restMinMs * 2 ** Math.min(tries, 16));
    this.#resting.set(key, { untilMs: runtime.clock.monotonic() + restMs, tries });
    // Where there is no room, another channel would help nobody.
    if (!isLeft && !isCrowded) onStuck(groupId, cid);
  }

  /**
   * Answers come to the inbox, each sealed for this device. `isLast`: nothing more is said that it is not shown, so
   * that it asks once for what was said since it asked, in this life or an earlier one.
   */
  async #askMembers({ cid, groupId, isCrowded }: FollowedChannel, isLast: boolean): Promise<void> {
    const { store, runtime, onRowsLost } = this.#parts;
    const key = hex(cid);
    const { crowdedMinMs, crowdedMaxMs } = channelSyncLimits;
    const { untilMs, tries } = this.#crowded.get(key) ?? { untilMs: 0, tries: 0 };
    const nowMs = runtime.clock.monotonic();
    if (tries > 0 && (isLast ? untilMs === Infinity : nowMs < untilMs)) return;
    // First, so that a crash between the two asks again.
    await onRowsLost(groupId);
    if (isCrowded === isLast) store.transaction(() => store.channels.setCrowded(cid, !isLast));
    const waitMs = Math.min(crowdedMaxMs, crowdedMinMs * 2 ** Math.min(tries, 16));
    this.#crowded.set(key, { untilMs: isLast ? Infinity : nowMs + waitMs, tries: tries + 1 });
  }
}

/** Most devices have no channel: they wait without a timer. */
async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
