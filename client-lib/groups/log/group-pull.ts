/**
 * Reads group logs to their end when a row shows that something is missing (docs/protocol/group-log.md, "At
 * a member"), and mends what keeps entries from being applied: a hub's record, somebody's manifest. One
 * reading for each group at a time, several groups at once; what cannot be reached is tried again.
 */
import {
  groupLogLimits,
  hasReason,
  hex,
  parseEntry,
  QpcError,
  sameBytes,
  type ParsedEntry,
  type Runtime,
} from '@quicprochat/proto';
import type { GroupControl } from '@quicprochat/proto/messages';
import type { Contacts } from '../../contacts/contacts.ts';
import { resolveKeys } from '../../account/fresh-keys.ts';
import type { GroupWalker } from './group-walker.ts';
import type { Freshness, LogView, Walk } from './group-log.ts';
import { UnknownHubError, type HubKeys } from './hub-keys.ts';
import type { HubLanes, Turn } from './hub-lanes.ts';
import type { HubWays } from './hub-ways.ts';
import type { HubRepair } from '../hubs/hub-repair.ts';
import { KeyedWork } from '../../keyed-work.ts';
import type { Caller } from '../../dial.ts';
import { CredentialError } from '../../mls/index.ts';
import type { ClientStore } from '../../store/store.ts';
import type { Writer } from '../../writer.ts';

export const pullLimits = {
  /** All that are wanted: each waits for its turn at its hub, and what waits holds next to nothing. */
  atOnce: Infinity,
  /** First and longest wait after a failure (ms). */
  backOffMinMs: 1_000,
  backOffMaxMs: 5 * 60_000,
  /** All groups are read once because of an unknown key, at most this often (ms). */
  allEveryMs: 30_000,
  /** From a Welcome to the look at what still waits for a key (ms): the inbox brings the rows that follow it. */
  joinedMs: 10_000,
} as const;

export interface GroupPullParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
  readonly walker: GroupWalker;
  readonly contacts: Contacts;
  readonly hubKeys: HubKeys;
  readonly caller: Caller;
  readonly ways: Pick<HubWays, 'pages'>;
  readonly lanes: HubLanes;
  /** Gives hubs back what they lost. */
  readonly repair: Pick<HubRepair, 'want'>;
}

/** The log as one hub shows it. */
interface Reading {
  /** What its last page came to. */
  readonly walk: Walk | undefined;
  /** Its last entry. */
  readonly end: ParsedEntry | undefined;
  /** Whether something of it was applied. */
  readonly hasMoved: boolean;
}

const nothing: Reading = { walk: undefined, end: undefined, hasMoved: false };

export class GroupPull {
  readonly #parts: GroupPullParts;
  readonly #reads: KeyedWork<Uint8Array>;
  #looked: Promise<unknown> = Promise.resolve();
  #allMs: number | undefined;
  #allTimer: { cancel(): void } | undefined;
  readonly #joined = new Map<string, { cancel(): void }>();

  constructor(parts: GroupPullParts) {
    this.#parts = parts;
    this.#reads = new KeyedWork({
      ...pullLimits,
      runtime: parts.runtime,
      run: (groupId, signal) => this.#read(groupId, signal),
    });
  }

  /** Something is missing of this group; undefined: as `wantAll`. */
  want(groupId: Uint8Array | undefined): void {
    if (groupId === undefined) this.wantAll();
    else this.#reads.want(hex(groupId), groupId);
  }

  /** Something is missing of a group, and it is not known of which. */
  wantAll(): void {
    const { clock } = this.#parts.runtime;
    if (this.#allTimer !== undefined || this.#reads.signal.aborted) return;
    const waitMs =
      this.#allMs === undefined ? 0 : this.#allMs + pullLimits.allEveryMs - clock.monotonic();
    if (waitMs > 0) {
      this.#allTimer = clock.timer(waitMs, () => {
        this.#allTimer = undefined;
        this.wantAll();
      });
      return;
    }
    this.#allMs = clock.monotonic();
    for (const { groupId, ended } of this.#parts.store.groups.conversations()) {
      if (ended === undefined) this.want(groupId);
    }
  }

  /**
   * A Welcome let this device in. Rows that waited for a key already may be of a later epoch than that, and
   * nothing else says so. Not at once: whoever jumps ahead cannot read what comes in between.
   */
  joined(groupId: Uint8Array): void {
    const { runtime, store } = this.#parts;
    const key = hex(groupId);
    this.#joined.get(key)?.cancel();
    if (this.#reads.signal.aborted) return;
    const look = (): void => {
      this.#joined.delete(key);
      if (store.inbox.hasParked('UNKNOWN_KEY')) this.want(groupId);
    };
    this.#joined.set(key, runtime.clock.timer(pullLimits.joinedMs, look));
  }

  /** The own node is back: what failed is read now. */
  hurry(): void {
    this.#reads.hurry();
  }

  get isIdle(): boolean {
    return this.#reads.isIdle;
  }
  /** Resolves when nothing is read. */
  idle(): Promise<void> {
    return this.#reads.idle();
  }

  async stop(): Promise<void> {
    this.#allTimer?.cancel();
    for (const timer of this.#joined.values()) timer.cancel();
    await this.#reads.stop();
  }

  /**
   * The log of a group to its end, applied; what its last page came to. Of several hubs the next one is asked as long as
   * none shows anything that is to be done: one may be behind, or withhold. Throws what the hub and look-ups
   * answer, SlowHubError, and what walkLog throws of a hub that lies, unless most of them answered.
   */
  async pull(
    groupId: Uint8Array,
    signal: AbortSignal = this.#reads.signal,
  ): Promise<Walk | undefined> {
    const { lanes } = this.#parts;
    const hubs = await this.hubsOf(groupId);
    const read: Reading[] = [];
    let failure: QpcError | undefined;
    for (const hub of hubs) {
      try {
        const reading = await lanes.run(hub, signal, (turn) =>
          this.#pullFrom(hub, groupId, signal, turn),
        );
        read.push(reading);
        if (reading.hasMoved || reading.walk === undefined) break;
      } catch (error) {
        if (!(error instanceof QpcError)) throw error;
        failure = error;
      }
    }
    const best = read.find(isTelling) ?? read.at(-1);
    const isMost = best !== undefined && (isTelling(best) || 2 * read.length > hubs.length);
    if (!isMost && failure !== undefined) throw failure;
    const { walk, end } = best ?? {};
    // All that is kept was read, and none of it goes on where this device stands.
    if (walk?.isBeyond === true && walk.steps.length === 0) await this.#lose(groupId);
    else if (end !== undefined) await this.#lookAtEnd(groupId, end);
    return walk;
  }

  /**
   * Domains that keep the log; none for a group that this device is not in. One group after the other: thousands
   * are wanted at once, and their states are neither to fill the memory nor the writer's queue.
   */
  hubsOf(groupId: Uint8Array): Promise<readonly string[]> {
    const look = async (): Promise<readonly string[]> => {
      const { group } = (await this.view(groupId)) ?? {};
      return group?.isActive === true ? group.hubs : [];
    };
    const hubs = this.#looked.then(look, look);
    this.#looked = hubs;
    return hubs;
  }

  async #pullFrom(
    hub: string,
    groupId: Uint8Array,
    signal: AbortSignal,
    turn: Turn,
  ): Promise<Reading> {
    const view = await this.view(groupId);
    if (view === undefined || !view.group.isActive) return nothing;
    const place = { hub, groupId, after: view.head.hash };
    let walk: Walk | undefined;
    // Which siblings an entry rejects may stand on the page before it.
    let carried: readonly GroupControl[] = [];
    let newest: number | undefined;
    let end: ParsedEntry | undefined;
    let hasMoved = false;
    try {
      for await (const page of this.#parts.ways.pages(place, signal)) {
        for (const { entry } of page) {
          end = parseEntry(entry?.entry);
          newest = Math.max(newest ?? 0, end.epoch);
        }
        const controls = [...carried, ...page];
        walk = await this.take(groupId, controls, signal, turn);
        carried = passedOver(controls, walk);
        hasMoved ||= (walk?.steps.length ?? 0) > 0;
        turn.check();
      }
    } catch (error) {
      if (hasReason(error, 'UNKNOWN_GROUP')) this.#giveBack(view, hub);
      throw error;
    }
    // A hub that does not know the newest entry here shows its log from the start.
    if (newest !== undefined && newest < view.head.epoch) this.#giveBack(view, hub);
    return { walk, end, hasMoved };
  }

  /**
   * Whoever comes back looks at the last entry of the log, which need not be of the newest epoch: a hub takes children of
   * old entries too. Where that is none that was applied here, somebody has to commit once more.
   */
  #lookAtEnd(groupId: Uint8Array, { epoch, hash }: ParsedEntry): Promise<void> {
    const { store, writer, walker } = this.#parts;
    return writer.run(async (batch) => {
      const ours = store.groupLog.headAt(groupId, epoch);
      const { group } = walker.view(batch, groupId) ?? {};
      if (group === undefined || ours === undefined || sameBytes(ours.hash, hash)) return;
      // No commit mends a hub that has two histories.
      const isForked = store.groupLog.forks().some((fork) => sameBytes(fork.groupId, groupId));
      if (!isForked) walker.standOver(batch, group);
    });
  }

  /** Hubs of three have it from each other. */
  #giveBack({ group: { groupId, hubs }, head }: LogView, hub: string): void {
    if (hubs.length === 1) this.#parts.repair.want({ groupId, hub, head });
  }

  #lose(groupId: Uint8Array): Promise<void> {
    const { writer, walker } = this.#parts;
    return writer.run(async (batch) => {
      const { group } = walker.view(batch, groupId) ?? {};
      if (group !== undefined) walker.lose(batch, group, 'GAP');
    });
  }

  /** Where this device stands. */
  view(groupId: Uint8Array): Promise<LogView | undefined> {
    const { writer, walker } = this.#parts;
    return writer.run(async (batch) => walker.view(batch, groupId));
  }

  /**
   * Applies entries, after looking up what that needs. Undefined for a group that this device is not in
   * any more. Throws like `pull`.
   */
  async take(
    groupId: Uint8Array,
    controls: readonly GroupControl[],
    signal: AbortSignal = this.#reads.signal,
    turn?: Turn,
  ): Promise<Walk | undefined> {
    const { writer, walker, hubKeys, caller } = this.#parts;
    let keys: Freshness = 'unasked';
    for (;;) {
      try {
        return await writer.run(async (batch) => {
          const prepared = await walker.prepare(batch, groupId, controls, keys);
          prepared?.apply();
          return prepared?.walk;
        });
      } catch (error) {
        if (error instanceof UnknownHubError && !hubKeys.isFresh(error.domain)) {
          await hubKeys.learn(error.domain, caller);
        } else if (error instanceof CredentialError && keys === 'unasked') {
          keys = (await this.#lookUp(error, signal, turn)) ? 'fresh' : 'unanswered';
        } else {
          throw error;
        }
      }
    }
  }

  /** False when a log did not answer. */
  async #lookUp(error: CredentialError, signal: AbortSignal, turn?: Turn): Promise<boolean> {
    let isAnswered = true;
    for (const userId of new Set(error.failures.map((failure) => failure.userId))) {
      // Logs can be as slow as hubs.
      turn?.check();
      try {
        if (userId !== '') await resolveKeys(this.#parts, userId, signal);
      } catch (failure) {
        signal.throwIfAborted();
        if (!(failure instanceof QpcError)) throw failure;
        isAnswered = false;
      }
    }
    return isAnswered;
  }

  /** False: the same question may have another answer later. */
  async #read(groupId: Uint8Array, signal: AbortSignal): Promise<boolean> {
    try {
      await this.pull(groupId);
      return true;
    } catch (error) {
      if (signal.aborted) return true;
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      this.#parts.runtime.log.info('reading a group log failed', { reason, error: String(error) });
      return !isWorthAnother(error);
    }
  }
}

/** Whether a log as a hub shows it has anything in it that concerns this device. */
function isTelling({ walk, hasMoved }: Reading): boolean {
  if (hasMoved || walk === undefined) return true;
  return walk.isBeyond || walk.isLeftBehind || walk.invalid.length + walk.doubts.length > 0;
}

/** Children of the head that came to nothing, at most as many as another one may reject. */
function passedOver(
  controls: readonly GroupControl[],
  walk: Walk | undefined,
): readonly GroupControl[] {
  const doubted = walk?.doubts.map(({ entry }) => entry) ?? [];
  const hashes = new Set([...(walk?.invalid ?? []), ...doubted].map(({ hash }) => hex(hash)));
  if (hashes.size === 0) return [];
  return controls
    .filter(({ entry }) => hashes.has(hex(parseEntry(entry?.entry).hash)))
    .slice(0, groupLogLimits.rejects);
}

/** Whether the same question may have another answer soon. */
function isWorthAnother(error: unknown): boolean {
  return !hasReason(error, 'UNKNOWN_GROUP', 'BAD_FIELD', 'BAD_SIGNATURE', 'PEER_DENIED');
}
