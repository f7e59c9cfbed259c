/**
 * What a hub of one that was restored from an older copy of its disk gets back from a member: the entries that
 * it certified once, so that it certifies the same ones again. Any member that reads a log which ends before the
 * place where it stands brings them; nobody has to want a change first. One hub of three gets entries with the word of two
 * where it says that it forgot (restored-hub-set.ts).
 */
import {
  hasReason,
  hex,
  jitter,
  parseEntry,
  QpcError,
  TransportError,
  type ParsedEntry,
  type Runtime,
} from '@quicprochat/proto';
import {
  create,
  SubmitCommitRequestSchema,
  toBinary,
  type GroupControl,
} from '@quicprochat/proto/messages';
import { sealJoinState } from '../returning/group-info.ts';
import { controlOf } from '../log/group-walker.ts';
import { callCreateGroup, callSubmit, callWantsEntries, logBehind } from '../log/hub-calls.ts';
import type { HubLanes, Turn } from '../log/hub-lanes.ts';
import { KeyedWork } from '../../keyed-work.ts';
import type { Caller } from '../../dial.ts';
import type { Mls } from '../../mls/index.ts';
import type { ClientStore } from '../../store/store.ts';
import type { Writer } from '../../writer.ts';

export const repairLimits = {
  /** All that are wanted: each waits for its turn at its hub. */
  atOnce: Infinity,
  /** First and longest wait after a failure (ms). */
  backOffMinMs: 2_000,
  backOffMaxMs: 10 * 60_000,
  /** Members that see it together bring it one after the other: the later ones find it done (ms). */
  spreadMs: 500,
  /** A hub that forgets again what it has just got back gets it again after so long (ms); each time twice as long, */
  againMs: 60_000,
  /** to this (ms); one that kept it for a day has done nothing. */
  longestMs: 6 * 3_600_000,
  forgetMs: 24 * 3_600_000,
} as const;

/** Refusals that pass. */
const temporary = ['HUB_UNAVAILABLE', 'HUB_RESTORED', 'QUOTA', 'OVERLOADED'] as const;

export interface HubRepairParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly caller: Caller;
  readonly lanes: HubLanes;
  /** Domain of the own node: no other takes a group's beginning from this device. */
  readonly domain: string;
}

/** Hubs that are behind, by the groups in which that was seen. */
export class HubRepair {
  readonly #parts: HubRepairParts;
  readonly #work: KeyedWork<LostPlace>;
  /** Groups whose hub got something back lately, by their ids in hex. */
  readonly #done = new Map<string, { readonly doneMs: number; readonly waitMs: number }>();

  constructor(parts: HubRepairParts) {
    this.#parts = parts;
    this.#work = new KeyedWork({
      ...repairLimits,
      runtime: parts.runtime,
      run: (lost, signal) => this.#run(lost, signal),
    });
  }

  /** The log of a hub of one ends before where this device stands, or is not there. */
  want(lost: LostPlace): void {
    const key = keyOf(lost);
    if (!this.#isSoon(key)) this.#work.want(key, lost);
  }

  /** At once, for who wants a change; does nothing where that was done just now. Throws like `giveBack`. */
  async giveBack(lost: LostPlace, signal: AbortSignal): Promise<void> {
    const key = keyOf(lost);
    if (this.#isSoon(key)) return;
    await giveBack(this.#parts, lost, signal);
    this.#mark(key);
  }

  #isSoon(key: string): boolean {
    const nowMs = this.#parts.runtime.clock.monotonic();
    for (const [other, { doneMs, waitMs }] of this.#done) {
      if (nowMs - doneMs >= waitMs + repairLimits.forgetMs) this.#done.delete(other);
    }
    const { doneMs, waitMs } = this.#done.get(key) ?? { doneMs: -Infinity, waitMs: 0 };
    return nowMs - doneMs < waitMs;
  }

  #mark(key: string): void {
    const { againMs, longestMs } = repairLimits;
    const before = this.#done.get(key);
    const waitMs = before === undefined ? againMs : Math.min(longestMs, 2 * before.waitMs);
    this.#done.set(key, { doneMs: this.#parts.runtime.clock.monotonic(), waitMs });
  }

  get isIdle(): boolean {
    return this.#work.isIdle;
  }
  idle(): Promise<void> {
    return this.#work.idle();
  }
  stop(): Promise<void> {
    return this.#work.stop();
  }

  /** False: to be tried again. */
  async #run(lost: LostPlace, signal: AbortSignal): Promise<boolean> {
    const { runtime, lanes } = this.#parts;
    let isDone = true;
    // A hub of three that wants nothing, or not yet, is asked again when somebody hears of it.
    let isAsked = false;
    try {
      await runtime.clock.sleep(jitter(runtime.random, repairLimits.spreadMs), signal);
      await lanes.run(lost.hub, signal, async (turn) => {
        isAsked = await giveBack(this.#parts, lost, signal, turn);
      });
    } catch (error) {
      if (signal.aborted) return true;
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      runtime.log.info('a hub that is behind gets nothing back', { reason, error: String(error) });
      // What it lost and this device lacks too, only another member can bring.
      const isUnreached = error instanceof TransportError && error.failure !== 'protocol';
      isDone = !isUnreached && !hasReason(error, ...temporary);
      isAsked = true;
    }
    if (isDone && isAsked) this.#mark(keyOf(lost));
    return isDone;
  }
}

/** Each of three hubs may have lost something else. */
const keyOf = ({ groupId, hub, isOfThree }: LostPlace): string =>
  isOfThree === true ? `${hex(groupId)} ${hub}` : hex(groupId);

export interface LostPlace {
  readonly groupId: Uint8Array;
  /** Domain. */
  readonly hub: string;
  /** The newest entry here, which the hub does not know. */
  readonly head: ParsedEntry;
  /** There are two more, and it may have nothing to ask for. */
  readonly isOfThree?: boolean;
}

/**
 * The hub gets back what is kept here, oldest first, and the state of the newest epoch for members that lost
 * their place. Does nothing where it is not behind; false: one of three that wants nothing. Throws what it answers, TransportError where it lost more
 * than is kept here.
 */
async function giveBack(
  parts: HubRepairParts,
  lost: LostPlace,
  signal: AbortSignal,
  turn?: Turn,
): Promise<boolean> {
  const { groupId, hub, head, isOfThree = false } = lost;
  const { store, caller, runtime } = parts;
  const place = { hub, groupId, after: head.hash };
  if (isOfThree && !(await callWantsEntries(caller, place, signal))) return false;
  const known = await newestOf(parts, lost, signal);
  // It went on meanwhile: then its next answer is a conflict like any other.
  if (known >= head.epoch) return true;
  for (let epoch = known + 1; epoch <= head.epoch; epoch += 1) {
    const kept = store.groupLog.headAt(groupId, epoch);
    const control = kept && controlOf(kept);
    if (control?.entry?.entry === undefined || !isCertified(control)) {
      throw new TransportError('protocol', `the hub lost entry ${epoch}, which is not here either`);
    }
    // Its own word for it: one that was restored takes nothing else for a while.
    const { entry, signatures, term } = control.entry;
    const { commit } = control;
    const groupInfo = epoch === head.epoch ? await stateAt(parts, head) : new Uint8Array(0);
    const mid = runtime.random.bytes(16);
    const request = { hub, entry, commit, groupInfo, mid, signatures, term };
    const bytes = toBinary(SubmitCommitRequestSchema, create(SubmitCommitRequestSchema, request));
    const { isAccepted } = await callSubmit(caller, bytes, signal);
    if (!isAccepted) return true;
    turn?.check();
  }
  runtime.log.warn('a hub got entries back', { hub, from: known + 1, to: head.epoch });
  return true;
}

/** Epoch of the newest entry that the hub has; it gets the first one back where it does not know the group. */
async function newestOf(
  { store, caller, domain }: HubRepairParts,
  { groupId, hub, head, isOfThree = false }: LostPlace,
  signal: AbortSignal,
): Promise<number> {
  let known = -1;
  try {
    let isHere = true;
    for await (const page of logBehind(caller, { hub, groupId, after: head.hash }, signal)) {
      isHere = page.length > 0;
      for (const { entry } of page) known = Math.max(known, parseEntry(entry?.entry).epoch);
    }
    // Nothing behind it: this is where its log ends.
    return known === -1 && !isHere ? head.epoch : known;
  } catch (error) {
    const first = store.groupLog.headAt(groupId, 0);
    const control = first && controlOf(first);
    const isOurs = !isOfThree && hub === domain && control !== undefined && isCertified(control);
    if (!hasReason(error, 'UNKNOWN_GROUP') || !isOurs) throw error;
    await callCreateGroup(caller, control.entry ?? {}, [hub], signal);
    return 0;
  }
}

/** The group's state at its newest entry, under the join key; empty where this device is elsewhere by now. */
function stateAt(
  { writer, store, mls, runtime }: HubRepairParts,
  { epoch, entry: { group: groupId } }: ParsedEntry,
): Promise<Uint8Array> {
  return writer.run(async (batch) => {
    const group = batch.group(groupId);
    if (group?.isActive !== true || Number(group.epoch) !== epoch) return new Uint8Array(0);
    return sealJoinState(mls, group, store.resync.joinKey(groupId), runtime.random);
  });
}

/** What the hub said once. A group that was begun with all nodes down has entries that none has seen yet. */
function isCertified({ entry, commit }: GroupControl): boolean {
  const isFirst = entry?.entry !== undefined && parseEntry(entry.entry).epoch === 0;
  return (entry?.signatures ?? []).length > 0 && (isFirst || commit.length > 0);
}
