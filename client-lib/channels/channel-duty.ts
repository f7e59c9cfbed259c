/**
 * Sees to it that a group has the channel that its size asks for, and a fresh one where nodes lost theirs
 * (docs/protocol/channels.md, "Switching"). Every member would do it; they wait for their turn, so that
 * the first one does, and the others find it done.
 */
import {
  checkEntry,
  factsOf,
  hex,
  jitter,
  parseEntry,
  QpcError,
  sameBytes,
  type Runtime,
} from '@quicprochat/proto';
import { channelOf } from './channel.ts';
import { isDeadPost } from './dead-posts.ts';
import { encodeIntent } from '../groups/intents/group-intents.ts';
import { controlOf } from '../groups/log/group-walker.ts';
import { dueMode, type MlsGroup } from '../mls/index.ts';
import type { IntentRow, StoredHead } from '../store/group-log-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch, Writer } from '../writer.ts';

export const channelDutyLimits = {
  /** Members act one after the other, so far apart (ms), and the last ones together. */
  turnMs: 1_000,
  turnsMax: 30,
  /** How long nodes may be behind with a channel before it is replaced (ms). */
  stuckMs: 30_000,
  /** The same after so many in a row that did not help, each twice as long as before (ms). */
  stuckMaxMs: 3_600_000,
  /** How often a change waits for a fresh channel, and how long (ms). */
  replacementsMax: 3,
  afterMs: 2_000,
} as const;

export interface ChannelDutyParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
  /** Groups have new intents. */
  readonly onIntents: () => void;
  /** This device may not have heard of a commit. */
  readonly onBehind: (groupId: Uint8Array) => void;
}

interface Stuck {
  readonly cid: Uint8Array;
  readonly epoch: bigint | undefined;
  readonly sinceMs: number;
  /** Fresh channels that did not help, one after the other. */
  readonly tries: number;
}

export class ChannelDuty {
  readonly #parts: ChannelDutyParts;
  /** Since when nodes are behind with a channel (monotonic ms), and in which epoch; by group in hex. */
  readonly #stuck = new Map<string, Stuck>();
  readonly #timers = new Map<string, { cancel(): void }>();
  #isStopped = true;

  constructor(parts: ChannelDutyParts) {
    this.#parts = parts;
  }

  /** Looks at every group once. */
  start(): void {
    this.#isStopped = false;
    for (const { groupId } of this.#parts.store.groups.conversations()) this.look(groupId);
  }

  stop(): void {
    this.#isStopped = true;
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  /** The group is in another epoch. */
  look(groupId: Uint8Array): void {
    this.#later(groupId, async (batch, group) => {
      const channel = channelOf(group);
      const isUntold = channel !== undefined && isKeyUntold(this.#parts.store, group);
      if (isUntold) this.#want(batch, group, channel.cid);
      else if (dueMode(group.info, group.members().length) !== undefined) {
        this.#want(batch, group, undefined);
      }
    });
  }

  /** A node does not take or show what the group's channel should have; it may yet hear of it. */
  stuck(groupId: Uint8Array, cid: Uint8Array): void {
    const { store, runtime, onBehind } = this.#parts;
    const key = hex(groupId);
    const { stuckMs, stuckMaxMs } = channelDutyLimits;
    const sinceMs = runtime.clock.monotonic();
    const before = this.#stuck.get(key);
    // A node may refuse every channel, as for a device that has too many from strangers: the group must not pay for it.
    const isOfOne = before !== undefined && sinceMs - before.sinceMs < 2 * stuckMaxMs;
    const tries = isOfOne ? before.tries : 0;
    const now: Stuck = { cid, epoch: store.groups.epoch(groupId), sinceMs, tries };
    // What overtook the update of its epoch is refused for a moment, which says nothing of another epoch.
    if (before === undefined || before.epoch !== now.epoch || !sameBytes(before.cid, cid)) {
      this.#stuck.set(key, now);
      onBehind(groupId);
      return;
    }
    if (sinceMs - before.sinceMs < Math.min(stuckMaxMs, stuckMs * 2 ** before.tries)) return;
    this.#stuck.set(key, { ...now, tries: Math.min(before.tries + 1, 16) });
    this.#later(groupId, async (batch, group) => {
      const own = channelOf(group);
      if (own !== undefined && sameBytes(own.cid, cid)) this.#want(batch, group, cid);
    });
  }

  /** Once for each group at a time. */
  #later(groupId: Uint8Array, work: (batch: Batch, group: MlsGroup) => Promise<void>): void {
    const { runtime, writer } = this.#parts;
    const key = hex(groupId);
    if (this.#isStopped || this.#timers.has(key)) return;
    const run = (): void => {
      this.#timers.delete(key);
      const done = writer.run(async (batch) => {
        const group = batch.group(groupId);
        if (group?.isActive === true) await work(batch, group);
      });
      done.catch((error: unknown) => {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.info('looking after a channel', { reason, error: String(error) });
      });
    };
    // Not from inside of a transaction's end.
    this.#timers.set(key, runtime.clock.timer(0, run));
  }

  #want(batch: Batch, group: MlsGroup, replaces: Uint8Array | undefined): void {
    const { store, runtime, onIntents } = this.#parts;
    const { turnMs, turnsMax } = channelDutyLimits;
    const leaves = group.members().map(({ leafIndex }) => leafIndex);
    // Another one begins in each epoch: who is away holds up the others once.
    const place = leaves.indexOf(group.ownLeafIndex) + Number(group.epoch % 1_024n);
    const turn = Math.min(turnsMax, place % leaves.length);
    const waitMs = turn * turnMs + jitter(runtime.random, turnMs / 2);
    batch.write(() => addChannelIntent(store, group.groupId, replaces, batch.nowMs + waitMs));
    batch.after(onIntents);
  }
}

/** Part of a transaction. `replaces`: the channel that is to be replaced if the group still has it. */
export function addChannelIntent(
  { groupLog }: Pick<ClientStore, 'groupLog'>,
  groupId: Uint8Array,
  replaces: Uint8Array | undefined,
  dueMs: number,
): void {
  if (groupLog.openIntents(groupId).some(({ kind }) => kind === 'channel')) return;
  const wanted = { kind: 'channel', isDuty: true } as const;
  const intent = encodeIntent(
    replaces === undefined ? wanted : { ...wanted, replaces: hex(replaces) },
  );
  groupLog.addIntent({ groupId, dueMs, ...intent }, dueMs);
}

/**
 * Part of a transaction: whether a hub refused a commit for the group's channel, whose state there is another
 * one. Then a fresh channel comes first, and the intent after it; after some tries it is refused.
 */
export function waitsForChannel(
  store: Pick<ClientStore, 'groupLog' | 'channels'>,
  { id, groupId, kind, lost }: IntentRow,
  error: unknown,
  nowMs: number,
): boolean {
  const channel = store.channels
    .all()
    .find((one) => one.leftMs === undefined && sameBytes(one.groupId, groupId));
  const isOfChannel = channel !== undefined && isDeadPost(error) && kind !== 'channel';
  if (!isOfChannel || lost >= channelDutyLimits.replacementsMax) return false;
  addChannelIntent(store, groupId, channel.cid, nowMs);
  store.groupLog.addLost(id, nowMs + channelDutyLimits.afterMs);
  return true;
}

/** Whether an external commit led to the newest epoch: its committer could not tell nodes the channel's key. */
function isKeyUntold({ groupLog }: Pick<ClientStore, 'groupLog'>, { groupId, epoch }: MlsGroup) {
  const [head, parent] = [groupLog.head(groupId), groupLog.headAt(groupId, Number(epoch) - 1)];
  if (head === undefined || parent === undefined) return false;
  const entryOf = (stored: StoredHead) => parseEntry(controlOf(stored).entry?.entry);
  return checkEntry(entryOf(head), factsOf(entryOf(parent))) === 'external';
}
