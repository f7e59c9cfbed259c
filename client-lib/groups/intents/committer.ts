/**
 * Carries out what this device wants changed in its groups (docs/protocol/group-log.md, "At a member"): one
 * intent at a time in each group. The commit with the state after it is on disk before its first byte leaves;
 * it is merged when it comes back certified, by whatever way, and made anew when another one won its
 * epoch. What cannot be reached waits, also over restarts.
 */
import {
  hex,
  jitter,
  parseEntry,
  PayloadTooLargeError,
  QpcError,
  sameBytes,
  TransportError,
} from '@quicprochat/proto';
import { fromBinary, SubmitCommitRequestSchema, toBinary } from '@quicprochat/proto/messages';
import { waitsForChannel } from '../../channels/channel-duty.ts';
import type { Contacts } from '../../contacts/contacts.ts';
import type { DeliveryTokens } from '../../sending/delivery-tokens.ts';
import {
  certifyFirst,
  registerGroup,
  isRefusedGroup,
  requireCertified,
  type FirstCommitParts,
} from '../../contacts/first-contact.ts';
import {
  decodeIntent,
  encodeIntent,
  GroupChangeError,
  isWish,
  planOf,
  UndecidedError,
  type GroupIntent,
} from './group-intents.ts';
import { rejectingEntry, type Walk } from '../log/group-log.ts';
import type { GroupPull } from '../log/group-pull.ts';
import type { GroupWalker } from '../log/group-walker.ts';
import { byHub, isOfEpoch, isTemporary } from './commit-refusals.ts';
import { ForgottenHubs } from '../hubs/forgotten-hubs.ts';
import { GatheredInvitees } from './gathered-invitees.ts';
import { HubChoice } from './hub-choice.ts';
import { IntentEnds } from './intent-ends.ts';
import { commitLimits, HubLanes } from '../log/hub-lanes.ts';
import type { HubWays } from '../log/hub-ways.ts';
import type { HubRepair } from '../hubs/hub-repair.ts';
import type { InvitationParts, Invitee } from '../../contacts/invitation.ts';
import type { EvidenceExchange } from '../../kt/evidence-exchange.ts';
import { refreshKeys } from '../../account/fresh-keys.ts';
import { isOut } from './leave-again.ts';
import type { Leaves } from './leaves.ts';
import { ClosedError } from '../../link.ts';
import type { Mls } from '../../mls/index.ts';
import { pendingCommit } from './pending-commit.ts';
import { requireFresh } from '../../sending/sealing.ts';
import { isDue, waitMsOf } from '../../store/due.ts';
import type { IntentRow, PendingRow } from '../../store/group-log-rows.ts';
import type { Batch } from '../../writer.ts';

export const committerLimits = {
  /** First and longest wait after a failure that may pass (ms). */
  backOffMinMs: 500,
  backOffMaxMs: 60_000,
  /** Answers of a hub that decide nothing before it is asked at rest only: honest ones need as many. */
  rounds: 8,
  /** A hub that asks for more rest is asked again after so much (ms). */
  askedRestMaxMs: 5 * 60_000,
  /** Adds in one commit, before its size is looked at. */
  addsPerCommit: 64,
} as const;

export interface CommitterParts extends FirstCommitParts {
  readonly cards?: InvitationParts['cards'];
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly evidence: Pick<EvidenceExchange, 'own'>;
  readonly tokens: Pick<DeliveryTokens, 'forInvitees'>;
  readonly walker: GroupWalker;
  readonly pull: GroupPull;
  readonly ways: Pick<HubWays, 'submit'>;
  readonly repair: Pick<HubRepair, 'giveBack'>;
  readonly leaves: Leaves;
  readonly userId: string;
  /** A hub takes no change before members brought back what it lost. */
  readonly onRestored: (groupId: Uint8Array) => void;
}

/** What a commit is made with. */
interface Attempt {
  readonly invitees: readonly Invitee[];
  /** Most Adds. */
  readonly addsMax: number;
  /** The log was read to its end just now. */
  readonly isCurrent: boolean;
}

/** What became of one attempt: what to do next, or how long to rest (ms). */
type Outcome = 'again' | 'idle' | number;

export class Committer {
  readonly #parts: CommitterParts;
  readonly #places: HubLanes;
  readonly #invitees: GatheredInvitees;
  readonly #hubs: HubChoice;
  readonly #forgotten: ForgottenHubs;
  /** Groups that are worked at, wait for a place, or rest, by id in hex. */
  readonly #working = new Map<string, Promise<void>>();
  readonly #resting = new Map<string, { cancel(): void }>();
  /** Woken while they were worked at: what was looked at may be old by the time they rest. */
  readonly #woken = new Set<string>();
  readonly #failures = new Map<string, number>();
  /** Answers in a row after which a commit was neither accepted nor lost. */
  readonly #fruitless = new Map<string, number>();
  readonly #ends: IntentEnds;
  #stop = new AbortController();
  #isStarted = false;

  constructor(parts: CommitterParts) {
    this.#parts = parts;
    this.#places = new HubLanes(parts.runtime.clock, commitLimits);
    this.#invitees = new GatheredInvitees(parts);
    this.#hubs = new HubChoice(parts.ways, parts.runtime.clock);
    this.#ends = new IntentEnds(parts);
    this.#forgotten = new ForgottenHubs(parts.runtime.clock);
  }

  /** What was left over goes on. */
  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#stop = new AbortController();
    this.kick();
  }

  /** There are new intents, or the network is back. */
  kick(): void {
    if (!this.#isStarted) return;
    for (const [key, timer] of this.#resting) {
      timer.cancel();
      this.#resting.delete(key);
    }
    this.#failures.clear();
    for (const groupId of this.#parts.store.groupLog.busyGroups()) this.#work(groupId);
  }

  /** What this group waited for may be there. */
  wake(groupId: Uint8Array): void {
    if (this.#parts.store.groupLog.openIntents(groupId).length > 0) this.#work(groupId);
  }

  get isIdle(): boolean {
    return this.#working.size === 0;
  }
  /** Resolves when nothing is being committed; intents may rest. */
  async idle(): Promise<void> {
    while (this.#working.size > 0) await Promise.all(this.#working.values());
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    this.#stop.abort(new ClosedError());
    for (const timer of this.#resting.values()) timer.cancel();
    this.#resting.clear();
    this.#ends.stop();
    await this.idle();
  }

  /** Part of a batch: the id of the row. `fetched`: KeyPackages that are at hand. */
  addIn(
    batch: Batch,
    groupId: Uint8Array,
    intent: GroupIntent,
    fetched?: readonly Invitee[],
  ): { readonly id: () => number } {
    const { groupLog } = this.#parts.store;
    let id = 0;
    batch.write(() => {
      const row = { groupId, dueMs: batch.nowMs, ...encodeIntent(intent) };
      id = groupLog.addIntent(row, batch.nowMs);
    });
    batch.after(() => {
      if (fetched !== undefined) this.#invitees.put(id, fetched);
      this.#work(groupId);
    });
    return { id: () => id };
  }

  /** Durable on return: the id of the intent. */
  async add(groupId: Uint8Array, intent: GroupIntent): Promise<number> {
    const { writer } = this.#parts;
    const { id } = await writer.run(async (batch) => this.addIn(batch, groupId, intent));
    return id();
  }

  /**
   * Resolves when the intent is done, by this device or another one. Throws why it was refused, the
   * signal's reason, or ClosedError; in the last two cases it goes on, now or at the next start.
   */
  ended(id: number, signal?: AbortSignal): Promise<void> {
    return this.#ends.of(id, () => this.#stop.signal.aborted, signal);
  }

  #work(groupId: Uint8Array): void {
    const key = hex(groupId);
    if (!this.#isStarted) return;
    if (this.#working.has(key)) {
      this.#woken.add(key);
      return;
    }
    this.#resting.get(key)?.cancel();
    this.#resting.delete(key);
    const working = this.#run(groupId, key)
      .catch((error: unknown) => {
        if (!this.#isStarted) return;
        // Nothing can be written: what does not mend itself, the next start tries again.
        this.#parts.runtime.log.error('committing', { error: String(error) });
        this.#restFor(committerLimits.backOffMaxMs, groupId, key);
      })
      .finally(() => {
        this.#working.delete(key);
        const isWoken = this.#woken.delete(key);
        // It may have got an intent at the last moment.
        if (this.#isStarted && (isWoken || !this.#resting.has(key))) this.wake(groupId);
      });
    this.#working.set(key, working);
  }

  async #run(groupId: Uint8Array, key: string): Promise<void> {
    let hub: string | undefined;
    for (;;) {
      // Asked for inside of a transaction's end: whoever did that goes on first.
      await Promise.resolve();
      if (!this.#isStarted) return;
      this.#woken.delete(key);
      // Once: it loads the group.
      hub ??= (await this.#parts.pull.hubsOf(groupId))[0] ?? '';
      const { signal } = this.#stop;
      const outcome = await this.#places.run(hub, signal, () => this.#step(groupId, key));
      if (!this.#isStarted) return;
      if (outcome === 'again' || this.#woken.has(key)) continue;
      if (outcome === 'idle') return;
      this.#restFor(outcome, groupId, key);
      return;
    }
  }

  #restFor(restMs: number, groupId: Uint8Array, key: string): void {
    if (!this.#isStarted) return;
    const timer = this.#parts.runtime.clock.timer(restMs, () => {
      this.#resting.delete(key);
      this.#work(groupId);
    });
    this.#resting.set(key, timer);
  }

  /** One attempt at the oldest intent that is due. Fails only where nothing can be written. */
  async #step(groupId: Uint8Array, key: string): Promise<Outcome> {
    const { store, runtime } = this.#parts;
    const pending = store.groupLog.pendings(groupId).find(({ isRefused }) => !isRefused);
    const nowMs = runtime.clock.now();
    const open = store.groupLog.openIntents(groupId);
    const intent =
      pending === undefined
        ? open.find(({ dueMs }) => isDue(dueMs, nowMs))
        : store.groupLog.intent(pending.intentId);
    if (intent === undefined) {
      this.#invitees.forgetEnded((id) => store.groupLog.intent(id)?.state === 'OPEN');
      if (open.length === 0) return 'idle';
      return Math.min(...open.map(({ dueMs }) => waitMsOf(dueMs, nowMs)));
    }
    try {
      const outcome =
        pending === undefined ? await this.#begin(intent) : await this.#submit(pending);
      this.#failures.delete(key);
      this.#forgotten.isBack(key);
      return outcome;
    } catch (error) {
      if (!this.#isStarted) return 'idle';
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      runtime.log.info('a change of a group waits', { reason, error: String(error) });
      const mayComeBack = this.#forgotten.mayComeBack(key, error);
      if (!mayComeBack && !isTemporary(error)) return this.#refuse(intent, pending, error);
      if (mayComeBack || reason === 'HUB_RESTORED') this.#parts.onRestored(intent.groupId);
      return this.#rest(key, error);
    }
  }

  #rest(key: string, error: unknown): number {
    const { random } = this.#parts.runtime;
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, Math.min(failures + 1, 16));
    const { backOffMinMs, backOffMaxMs } = committerLimits;
    const boundMs = Math.min(backOffMaxMs, backOffMinMs * 2 ** failures);
    const { retryAfterMs = 0 } = error instanceof QpcError ? error : {};
    const askedMs = Math.min(retryAfterMs, committerLimits.askedRestMaxMs);
    // Half of the bound at least: without a connection each try fails at once.
    return askedMs + boundMs / 2 + jitter(random, boundMs / 2);
  }

  async #refuse(
    intent: IntentRow,
    pending: PendingRow | undefined,
    error: unknown,
  ): Promise<Outcome> {
    const { store, writer, walker, events } = this.#parts;
    const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
    // Nobody waits for a duty.
    const isWaitedFor = isWish(decodeIntent(intent));
    if (error instanceof QpcError && isWaitedFor) this.#ends.refused(intent.id, error);
    this.#invitees.forget(intent.id);
    await writer.run(async (batch) => {
      if (pending !== undefined) await this.#drop(batch, pending);
      batch.write(() => {
        if (waitsForChannel(store, intent, error, batch.nowMs)) return;
        const told = walker.end(intent.id, 'REFUSED', reason, batch.nowMs);
        const isGroup = pending !== undefined && isRefusedGroup(store, intent.groupId);
        batch.after(() => {
          for (const event of told) events.emit(event);
          if (isGroup) {
            events.emit({ type: 'hubRefused', conversationId: intent.groupId, reason });
          }
        });
      });
    });
    return 'again';
  }

  async #begin(intent: IntentRow): Promise<Outcome> {
    const { leaves, pull } = this.#parts;
    const wanted = decodeIntent(intent);
    const { groupId } = intent;
    const { signal } = this.#stop;
    if (wanted.kind === 'leave') {
      if (await isOut(this.#parts, intent, signal)) return 'again';
      try {
        await leaves.ask(intent);
      } catch (error) {
        if (!isOfEpoch(error)) throw error;
        await pull.pull(groupId, signal);
        await leaves.ask(intent);
      }
      return 'again';
    }
    const view = await pull.view(groupId);
    if (view === undefined) throw new GroupChangeError('UNKNOWN_GROUP');
    await registerGroup(this.#parts, groupId, signal);
    requireCertified(this.#parts.store, groupId);
    const invitees = await this.#invitees.of(intent.id, wanted, view.group, signal);
    // MLS judges every leaf that comes, and the own one.
    await refreshKeys(this.#parts, [this.#parts.userId], signal);
    let addsMax: number = committerLimits.addsPerCommit;
    // What this device knows may be old: that nothing is to be done, or allowed, the whole log says.
    let isCurrent = false;
    for (;;) {
      try {
        if (await this.#make(intent, wanted, { invitees, addsMax, isCurrent })) return 'again';
      } catch (error) {
        if (error instanceof PayloadTooLargeError && addsMax > 1) {
          addsMax = Math.ceil(addsMax / 2);
          continue;
        }
        if (isCurrent || !isOfEpoch(error)) throw error;
      }
      await byHub(pull.pull(groupId, signal));
      isCurrent = true;
    }
  }

  /**
   * The commit, written down; or the intent's end, if the group is that way already. False: it may not be
   * any more, for the log was not read to its end.
   */
  async #make(
    { id, groupId }: IntentRow,
    wanted: GroupIntent,
    { invitees, addsMax, isCurrent }: Attempt,
  ): Promise<boolean> {
    const { store, writer, walker, mls, events, userId, runtime } = this.#parts;
    return writer.run(async (batch) => {
      const row = store.groupLog.intent(id);
      if (row?.state !== 'OPEN') return true;
      const view = walker.view(batch, groupId);
      if (view === undefined || !view.group.isActive) throw new GroupChangeError('REMOVED');
      requireFresh(store, groupId);
      const plan = planOf(wanted, view.group, {
        ...{ invitees, addsMax, ownUserId: userId },
        channelNonce: runtime.random.bytes(32),
      });
      if (plan === undefined) {
        if (!isCurrent) return false;
        batch.write(() => {
          const state = row.commits > 0 ? 'DONE' : 'SUPERSEDED';
          const told = walker.end(id, state, undefined, batch.nowMs);
          batch.after(() => {
            for (const event of told) events.emit(event);
          });
        });
        return true;
      }
      const made = await mls.commit(view.group, plan.change);
      const pending = await pendingCommit(this.#parts, view, plan, made, id);
      batch.write(() => store.groupLog.putPending(pending));
      return true;
    });
  }

  /** Asks the hub once, with the same bytes as ever, and applies what it answers. */
  async #submit(pending: PendingRow): Promise<Outcome> {
    const { pull, repair } = this.#parts;
    const { groupId } = pending;
    const { signal } = this.#stop;
    await registerGroup(this.#parts, groupId, signal);
    const { hubs } = (await pull.view(groupId))?.group ?? { hubs: [] };
    const answer = await this.#hubs.submit(groupId, hubs, pending.request, signal);
    if (await byHub(certifyFirst(this.#parts, pending, answer))) return 'again';
    const key = hex(groupId);
    let walk = await byHub(pull.take(groupId, answer.controls, signal));
    if (walk !== undefined && (answer.hasMore || walk.isBeyond)) {
      // What stands before or behind these decides about them.
      const hasMoved = walk.steps.length > 0;
      const { head } = walk;
      const whole = await byHub(pull.pull(groupId, signal));
      const now = await pull.view(groupId);
      if (hasMoved || now === undefined || Buffer.compare(now.head.hash, head.hash) !== 0) {
        this.#fruitless.delete(key);
        return 'again';
      }
      walk = whole ?? walk;
    }
    if (walk === undefined || walk.steps.length > 0) {
      this.#fruitless.delete(key);
      return 'again';
    }
    // A row or the log said what became of it before the hub's answer was here.
    if (this.#parts.store.groupLog.pending(pending.commitHash) === undefined) {
      this.#fruitless.delete(key);
      return 'again';
    }
    if (walk.doubts.length > 0) throw new UndecidedError();
    if (answer.isAccepted && walk.invalid.length === 0)
      throw new TransportError('protocol', 'the certificate is of another entry');
    if (walk.invalid.length > 0) await this.#reject(pending, walk);
    else {
      const { hub } = fromBinary(SubmitCommitRequestSchema, pending.request);
      await repair.giveBack({ groupId, hub, head: walk.head }, signal);
    }
    const rounds = (this.#fruitless.get(key) ?? 0) + 1;
    this.#fruitless.set(key, rounds);
    if (rounds > committerLimits.rounds) {
      this.#hubs.moveOn(groupId);
      throw new TransportError('protocol', `the hub decided nothing in ${rounds} answers`);
    }
    return 'again';
  }

  /** Entries stand in the way that nobody applies: the same commit, in an entry that says so. */
  async #reject(pending: PendingRow, walk: Walk): Promise<void> {
    const { store, writer, mls, walker } = this.#parts;
    const rejects = walk.invalid.map(({ hash }) => hash);
    const isSpoilt = walk.invalid.some(({ entry }) =>
      sameBytes(entry.commitHash, pending.commitHash),
    );
    await writer.run(async (batch) => {
      const view = walker.view(batch, pending.groupId);
      if (view === undefined || !sameBytes(view.head.hash, pending.parent)) return;
      // It stands there beside an entry that is none: only another commit has a place in the log.
      if (isSpoilt) return this.#drop(batch, pending);
      const request = fromBinary(SubmitCommitRequestSchema, pending.request);
      const entry = await rejectingEntry(mls, view.group, parseEntry(request.entry), rejects);
      const bytes = toBinary(SubmitCommitRequestSchema, { ...request, entry });
      batch.write(() => store.groupLog.putPending({ ...pending, request: bytes }));
    });
  }

  /** Part of a batch. A commit that is given up used a key: the next one of this epoch takes another. */
  async #drop(batch: Batch, { groupId, commitHash }: PendingRow): Promise<void> {
    const { store, mls } = this.#parts;
    const group = batch.group(groupId);
    const spent = group?.isActive === true ? await mls.spendHandshakeKey(group) : undefined;
    if (spent !== undefined) batch.useKeys(spent.next, spent.next.epoch, spent.wipe);
    batch.write(() => store.groupLog.refusePending(commitHash));
  }
}
