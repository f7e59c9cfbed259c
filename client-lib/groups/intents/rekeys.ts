/**
 * When a device gives itself and its group new keys (docs/protocol/group-log.md, "At a member"): within a
 * day after it joined, then weekly while it writes there, and after 1 000 own messages in one epoch. Every
 * other commit of this device does it as well. In a large group with many commits it waits.
 */
import { jitter, type Random, type Runtime } from '@quicprochat/proto';
import { encodeIntent } from './group-intents.ts';
import { restoreGroup } from '../../mls/index.ts';
import type { RekeyRow } from '../../store/group-log-rows.ts';
import type { ClientStore } from '../../store/store.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

export const rekeyLimits = {
  /** The first one comes within this time after joining (ms). */
  firstMs: dayMs,
  /** The next ones follow after this, and a random part of a day more (ms). */
  everyMs: 7 * dayMs,
  spreadMs: dayMs,
  /** Own messages in one epoch. */
  messages: 1_000,
  /** Groups of more devices than this are large, */
  largeDevices: 256,
  /** busy while their last so many epochs (as many as any device keeps) ended within so many minutes (ms), */
  busyEpochs: 8,
  busyMs: 8 * (hourMs / 60),
  /** and then looked at again after this, and a random part of it more (ms). */
  laterMs: hourMs,
} as const;

/** For a device that just joined a group or made it. */
export function firstRekey(
  groupId: Uint8Array,
  sentCount: number,
  nowMs: number,
  random: Random,
): RekeyRow {
  return { groupId, dueMs: nowMs + jitter(random, rekeyLimits.firstMs), sentCount, isFirst: true };
}

/** For a device that just committed. */
export function nextRekey(
  groupId: Uint8Array,
  sentCount: number,
  nowMs: number,
  random: Random,
): RekeyRow {
  const dueMs = nowMs + rekeyLimits.everyMs + jitter(random, rekeyLimits.spreadMs);
  return { groupId, dueMs, sentCount, isFirst: false };
}

/** The row for a group in which the time is bad: nothing else changes. */
function laterRekey(row: RekeyRow, nowMs: number, random: Random): RekeyRow {
  const { laterMs } = rekeyLimits;
  return { ...row, dueMs: nowMs + laterMs + jitter(random, laterMs) };
}

export interface RekeysParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  /** Groups have new intents. */
  readonly onIntents: () => void;
  /** Default: `rekeyLimits.largeDevices`. */
  readonly largeDevices?: number;
}

/** Turns the schedule into intents. */
export class Rekeys {
  readonly #parts: RekeysParts;
  #timer: { cancel(): void } | undefined;
  #isStopped = true;

  constructor(parts: RekeysParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#wake();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #wake(): void {
    const { clock } = this.#parts.runtime;
    if (this.#isStopped) return;
    this.#timer?.cancel();
    // Looked at hourly: joining a group sets a time without a word to us.
    this.#timer = clock.timer(hourMs, () => {
      this.run();
      this.#wake();
    });
  }

  /** One look at the schedule. Durable on return. */
  run(): void {
    const { store, runtime, onIntents } = this.#parts;
    const nowMs = runtime.clock.now();
    const made = store.transaction(() => {
      let count = 0;
      for (const row of store.groupLog.dueRekeys(nowMs)) {
        const conversation = store.groups.conversationOfGroup(row.groupId);
        if (conversation === undefined || conversation.ended !== undefined) {
          store.groupLog.deleteRekey(row.groupId);
          continue;
        }
        if (this.#isCrowded(row.groupId, nowMs)) {
          store.groupLog.putRekey(laterRekey(row, nowMs, runtime.random));
          continue;
        }
        const { sentCount } = conversation;
        store.groupLog.putRekey(nextRekey(row.groupId, sentCount, nowMs, runtime.random));
        if (!row.isFirst && sentCount <= row.sentCount) continue;
        count += this.#add(row.groupId, nowMs) ? 1 : 0;
      }
      return count;
    });
    if (made > 0) onIntents();
  }

  /** Part of a transaction: an own message used this generation of its epoch. True: an intent was made. */
  noteMessage(groupId: Uint8Array, generation: number, nowMs: number): boolean {
    if (generation < rekeyLimits.messages || generation % rekeyLimits.messages !== 0) return false;
    return this.#add(groupId, nowMs);
  }

  /**
   * More than one commit a minute in a large group: conflicts grow with its members, and fresh keys may wait, what
   * people want may not. A device that has just caught up counts what it read as made now, and waits once more.
   */
  #isCrowded(groupId: Uint8Array, nowMs: number): boolean {
    const { groups } = this.#parts.store;
    const { busyEpochs, busyMs } = rekeyLimits;
    const first = groups.pastEpochs(groupId).at(-busyEpochs);
    if (first === undefined || nowMs - first.endedMs >= busyMs) return false;
    const state = groups.state(groupId);
    const devices = state === undefined ? 0 : restoreGroup({ ...state, past: [] }).members().length;
    return devices > (this.#parts.largeDevices ?? rekeyLimits.largeDevices);
  }

  #add(groupId: Uint8Array, nowMs: number): boolean {
    const { groupLog } = this.#parts.store;
    if (groupLog.openIntents(groupId).some(({ kind }) => kind === 'rekey')) return false;
    const intent = encodeIntent({ kind: 'rekey', isDuty: true });
    groupLog.addIntent({ groupId, dueMs: nowMs, ...intent }, nowMs);
    return true;
  }
}
