/**
 * Coming back into groups (docs/protocol/group-log.md, "Coming back"): a device that lost its place finds where
 * it may come back (join-place.ts) and commits itself in again in place of its old leaf. The commit is on disk
 * before its first byte leaves, and is sent as the same bytes until the hub said what became of it.
 */
import {
  hasReason,
  hex,
  jitter,
  parseEntry,
  QpcError,
  sameBytes,
  TransportError,
  type ParsedEntry,
  type Runtime,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  SubmitCommitRequestSchema,
  type CertifiedEntry,
  type GroupControl,
} from '@quicprochat/proto/messages';
import type { Contacts } from '../../contacts/contacts.ts';
import type { DeliveryTokens } from '../../sending/delivery-tokens.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { EventBus } from '../../events.ts';
import { resolveKeys } from '../../account/fresh-keys.ts';
import { passBy } from '../log/closed-epochs.ts';
import { groupEvents } from '../group-events.ts';
import type { GroupPull } from '../log/group-pull.ts';
import { headOf, type GroupWalker } from '../log/group-walker.ts';
import { callSubmit, type SubmitAnswer } from '../log/hub-calls.ts';
import { HubLanes, laneLimits } from '../log/hub-lanes.ts';
import {
  atEnd,
  findJoinPlace,
  forged,
  ResyncError,
  verifiedEntry,
  type JoinPlace,
  type JoinPlaceParts,
} from './join-place.ts';
import { askAgain } from '../intents/leave-again.ts';
import { ClosedError } from '../../link.ts';
import {
  acceptReturn,
  continuityBroken,
  CredentialError,
  MlsError,
  notRevoked,
  restoreGroup,
  type Identity,
  type Mls,
  type MlsGroup,
  type Return,
  type SignatureKey,
} from '../../mls/index.ts';
import { firstRekey } from '../intents/rekeys.ts';
import { returnRequest } from './resync-request.ts';
import type { Standings } from '../standings/standings.ts';
import { isDue, waitMsOf } from '../../store/due.ts';
import type { ResyncRow, SentReturn } from '../../store/resync-rows.ts';
import type { Writer } from '../../writer.ts';

const hourMs = 3_600_000;

export const resyncLimits = {
  /** One device comes back into one group once in so long (ms): each time costs all members a commit. */
  everyMs: hourMs,
  /** First and longest wait after a try that came to nothing (ms). */
  backOffMinMs: 2_000,
  backOffMaxMs: hourMs,
  /** Longest wait while nobody answers (ms). */
  unreachedMs: 30_000,
  /** A new entry lets it try again so soon after the last try (ms). */
  newsMs: 30_000,
  /** Groups that are tried at once, and those whose hub takes long beside them. */
  lanes: { ...laneLimits, atOnce: 4, perHub: 1 },
} as const;

export interface ResyncsParts extends JoinPlaceParts {
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly tokens: Pick<DeliveryTokens, 'grew' | 'wake'>;
  readonly walker: GroupWalker;
  readonly pull: GroupPull;
  readonly standings: Pick<Standings, 'cameBack'>;
  readonly identity: Identity;
  readonly signatureKey: SignatureKey;
  readonly onMoved: (groupId: Uint8Array) => void;
  /** The log ends with what is of no use to this device. */
  readonly onUselessEnd: (groupId: Uint8Array, end: CertifiedEntry) => void;
}

export class Resyncs {
  readonly #parts: ResyncsParts;
  #listening: Disposable | undefined;
  #timer: { cancel(): void } | undefined;
  /** Of whole tries; within one each call has its turn among the readings of others. */
  readonly #tries: HubLanes;
  /** Groups that are being tried, by id in hex. */
  readonly #running = new Map<string, Promise<void>>();
  /** When such groups were tried last, by id in hex (ms). */
  readonly #triedMs = new Map<string, number>();
  #stop = new AbortController();
  #isStarted = false;

  constructor(parts: ResyncsParts) {
    this.#parts = parts;
    this.#tries = new HubLanes(parts.runtime.clock, resyncLimits.lanes);
  }

  /** What was left over goes on. */
  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#stop = new AbortController();
    this.#listening = this.#parts.events.listen(({ type }) => {
      if (type === 'storeRestored') this.wake();
    });
    this.wake();
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    this.#listening?.[Symbol.dispose]();
    this.#timer?.cancel();
    this.#stop.abort(new ClosedError());
    await this.idle();
  }

  get isIdle(): boolean {
    return this.#running.size === 0;
  }
  /** Resolves when nothing is being tried; groups may wait for their time. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  /** There is another group. */
  wake(): void {
    this.#timer?.cancel();
    if (!this.#isStarted) return;
    const first = this.#parts.store.resync
      .open()
      .find(({ groupId }) => !this.#running.has(hex(groupId)));
    if (first === undefined) return;
    const { clock } = this.#parts.runtime;
    const waitMs = waitMsOf(first.dueMs, clock.now());
    this.#timer = clock.timer(waitMs, () => {
      this.#startDue();
      this.wake();
    });
  }

  /** A row shows an entry that this device cannot follow: the log may end with one that it can use. */
  news(groupId: Uint8Array): void {
    const { store, runtime } = this.#parts;
    const row = store.resync.get(groupId);
    if (row === undefined || row.isDone || row.sent !== undefined) return;
    const nowMs = runtime.clock.now();
    const triedMs = this.#triedMs.get(hex(groupId)) ?? nowMs;
    const { backOffMinMs, newsMs } = resyncLimits;
    const restMs = jitter(runtime.random, backOffMinMs);
    const dueMs = Math.max(nowMs, triedMs + newsMs) + restMs;
    if (dueMs >= row.dueMs) return;
    store.transaction(() => store.resync.put({ ...row, dueMs }));
    this.wake();
  }

  /** Tries with each group that is due, until that came to nothing or is done. */
  async run(): Promise<void> {
    this.#startDue();
    await this.idle();
  }

  #startDue(): void {
    const { store, runtime } = this.#parts;
    for (const { groupId, dueMs } of store.resync.open()) {
      const key = hex(groupId);
      if (!isDue(dueMs, runtime.clock.now()) || this.#running.has(key)) continue;
      const running = this.#tryAll(groupId)
        .catch((error: unknown) => {
          // Nothing can be written: what does not mend itself, the next start tries again.
          if (!this.#stop.signal.aborted) {
            runtime.log.error('coming back', { error: String(error) });
          }
        })
        .finally(() => {
          this.#running.delete(key);
          if (store.resync.get(groupId)?.isDone !== false) this.#triedMs.delete(key);
          this.wake();
        });
      this.#running.set(key, running);
    }
  }

  /** Once more as long as something came of it: what is written down is sent. */
  async #tryAll(groupId: Uint8Array): Promise<void> {
    const { store, runtime, pull } = this.#parts;
    const [hub = ''] = await pull.hubsOf(groupId);
    await this.#tries.run(hub, this.#stop.signal, async () => {
      for (;;) {
        const row = store.resync.get(groupId);
        if (row === undefined || row.isDone || this.#stop.signal.aborted) return;
        if (!isDue(row.dueMs, runtime.clock.now())) return;
        await this.#try(row);
      }
    });
  }

  async #try(row: ResyncRow): Promise<void> {
    const { store, events, runtime, onUselessEnd } = this.#parts;
    const { groupId } = row;
    this.#triedMs.set(hex(groupId), runtime.clock.now());
    try {
      await (row.sent === undefined ? this.#make(row) : this.#submit(row, row.sent));
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      if (!(error instanceof QpcError)) throw error;
      const { reason } = error;
      runtime.log.info('coming back waits', { reason, error: String(error) });
      // The log was read to its end before anything else can be wrong.
      const isTried = error instanceof ResyncError;
      const { backOffMinMs, backOffMaxMs, unreachedMs } = resyncLimits;
      const grown = Math.min(backOffMaxMs, backOffMinMs * 2 ** Math.min(row.tries, 16));
      const boundMs = isTried ? grown : unreachedMs;
      const dueMs = runtime.clock.now() + boundMs / 2 + jitter(runtime.random, boundMs / 2);
      const conversation = store.groups.conversationOfGroup(groupId);
      store.transaction(() => {
        const now = store.resync.get(groupId);
        if (now === undefined || now.isDone) return;
        if (isTried && error.keyId !== undefined) store.resync.putLackedKey(groupId, error.keyId);
        // The outcome of what was sent stays open until the hub knows it.
        const sent = isFinal(error) ? undefined : now.sent;
        store.resync.put({ ...now, sent, reason, tries: now.tries + (isTried ? 1 : 0), dueMs });
      });
      // Whoever put it there may have told nobody, and those who see it commit over it.
      if (isTried && error.end !== undefined && row.tries > 0) onUselessEnd(groupId, error.end);
      const isNews = isTried && reason !== row.reason;
      if (!isNews || conversation === undefined) return;
      events.emit({ type: 'stillBehind', conversationId: conversation.id, reason });
    }
  }

  /** The external commit, written down; or the end of it, if this device follows again. */
  async #make({ groupId, tries }: ResyncRow): Promise<void> {
    const { store, writer, walker, mls, runtime, pull } = this.#parts;
    const { signal } = this.#stop;
    await pull.pull(groupId, signal);
    const view = await pull.view(groupId);
    const conversation = store.groups.conversationOfGroup(groupId);
    const isOver = conversation?.ended !== undefined && conversation.ended !== 'BEHIND';
    if (view === undefined || conversation === undefined || !view.group.isActive || isOver) {
      store.transaction(() => store.resync.drop(groupId));
      return;
    }
    if (store.resync.get(groupId) === undefined) return;
    this.#requireNoWelcome(groupId);
    const place = await findJoinPlace(this.#parts, view, signal);
    const back = await atEnd(place.certified, () => this.#believed(place, view.group));
    const sent = await returnRequest({ store, mls, random: runtime.random }, place, back);
    await writer.run(async (batch) => {
      const now = walker.view(batch, groupId);
      const row = store.resync.get(groupId);
      if (now === undefined || row === undefined || row.isDone) return;
      // What was read meanwhile may have made it needless.
      if (!sameBytes(now.head.hash, view.head.hash)) return;
      batch.write(() => {
        store.resync.put({ ...row, sent, tries: tries + 1, dueMs: batch.nowMs });
      });
    });
  }

  /** Throws ResyncError for what this device does not take the word of its signer for. */
  async #believed({ groupInfo, tip }: JoinPlace, lost: MlsGroup): Promise<Return> {
    const { identity, contacts } = this.#parts;
    const back = await this.#comeBack(groupInfo, lost);
    if (back.pending.epoch !== BigInt(tip.epoch) + 1n) throw forged('of another epoch');
    const { signer, pending } = back;
    const lookup = (userId: string) => contacts.lookup(userId);
    const broken = continuityBroken(
      ...([lost, pending, signer.userId, identity.userId] as const),
      (member) => notRevoked(lookup, [member]).length === 0,
    );
    if (broken !== undefined) throw new ResyncError('UNVOUCHED', `${signer.userId}: ${broken}`);
    return back;
  }

  /** Two ways back at once would make two epochs: who was invited anew takes that one. */
  #requireNoWelcome(groupId: Uint8Array): void {
    const { store, onMoved } = this.#parts;
    const isInvited = store.inbox
      .parked()
      .some(
        ({ waitsFor, reason, payload }) =>
          reason === 'FUTURE_EPOCH' && waitsFor === hex(groupId) && isWelcome(payload),
      );
    if (!isInvited) return;
    onMoved(groupId);
    throw new ResyncError('WELCOME_WAITS', 'an invitation is here');
  }

  /** Looks up who is not known here, once. */
  async #comeBack(groupInfo: Uint8Array, lost: MlsGroup): Promise<Return> {
    const { mls, identity, signatureKey } = this.#parts;
    const own = { identity, signatureKey };
    try {
      return await mls.comeBack(groupInfo, lost, own);
    } catch (error) {
      if (error instanceof MlsError && !(error instanceof CredentialError)) {
        throw new ResyncError(error.reason, error.message, { cause: error });
      }
      if (!(error instanceof CredentialError)) throw error;
      return this.#again(error, () => mls.comeBack(groupInfo, lost, own));
    }
  }

  /** Whom a GroupInfo names, its signer chose: nobody is looked up every few seconds for it. */
  async #again({ failures }: CredentialError, make: () => Promise<Return>): Promise<Return> {
    try {
      for (const userId of new Set(failures.map((failure) => failure.userId))) {
        if (userId !== '') await resolveKeys(this.#parts, userId, this.#stop.signal);
      }
      return await make();
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      throw new ResyncError('UNVOUCHED', `a member: ${error.message}`, { cause: error });
    }
  }

  /** Asks the hubs, with the same bytes as ever. */
  async #submit(row: ResyncRow, sent: SentReturn): Promise<void> {
    const { store, pull } = this.#parts;
    const { groupId } = row;
    const view = await pull.view(groupId);
    if (view === undefined) {
      store.transaction(() => store.resync.drop(groupId));
      return;
    }
    const answer = await this.#ask(sent, view.group.hubs);
    if (!answer.isAccepted) {
      // Somebody else's commit won: the next try begins where the log ends then.
      const { runtime } = this.#parts;
      const { backOffMinMs } = resyncLimits;
      const restMs = jitter(runtime.random, backOffMinMs * 2 ** Math.min(row.tries, 5));
      const dueMs = runtime.clock.now() + restMs;
      store.transaction(() => store.resync.put({ ...row, sent: undefined, dueMs }));
      return;
    }
    const [control] = answer.controls;
    const { entry } = await verifiedEntry(this.#parts, control?.entry, view.group);
    const request = fromBinary(SubmitCommitRequestSchema, sent.request);
    if (control === undefined || !sameBytes(entry.hash, parseEntry(request.entry).hash)) {
      throw new TransportError('protocol', 'the certificate is of another entry');
    }
    await this.#enter(row, sent, entry, control);
  }

  async #ask({ request }: SentReturn, hubs: readonly string[]): Promise<SubmitAnswer> {
    const { caller } = this.#parts;
    let failure: unknown;
    for (const hub of hubs) {
      try {
        return await callSubmit(caller, request, this.#stop.signal, { hub });
      } catch (error) {
        if (!(error instanceof QpcError) || isFinal(error)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** It was accepted: the device is in, and everything that follows is one transaction. */
  async #enter(
    row: ResyncRow,
    sent: SentReturn,
    entry: ParsedEntry,
    control: GroupControl,
  ): Promise<void> {
    const { store, writer, mls, runtime, events, tokens, standings, onMoved } = this.#parts;
    const { groupId, cause } = row;
    await writer.run(async (batch) => {
      const lost = batch.group(groupId);
      const conversation = batch.conversationOfGroup(groupId);
      const now = store.resync.get(groupId)?.sent;
      // Meanwhile this store may have turned out to be an older copy, which may not use these keys.
      if (now === undefined || !sameBytes(now.request, sent.request)) return;
      if (lost === undefined || conversation === undefined) return;
      const { next, wipe } = acceptReturn(lost, restoreGroup({ ...sent, past: [] }));
      const key = await envelopeKeyOf(mls, next);
      const { id: conversationId, sentCount } = conversation;
      const { name } = next.info;
      batch.enterEpoch(next, key, []);
      batch.useKeys(next, lost.epoch, wipe);
      standings.cameBack(batch, next, entry);
      batch.write(() => {
        store.groups.rejoin({ id: conversationId, suite: next.suite, name });
        passBy(store, groupId, entry.hash, batch.nowMs);
        store.groupLog.putHead(groupId, headOf(entry, control));
        // Made on an epoch that is over: their intents are looked at again.
        store.groupLog.deletePendings(groupId);
        askAgain(store, groupId, batch.nowMs);
        store.groupLog.putRekey(firstRekey(groupId, sentCount, batch.nowMs, runtime.random));
        tokens.grew(conversationId);
        const dueMs = batch.nowMs + resyncLimits.everyMs;
        const done = { ...row, isDone: true, sent: undefined, reason: undefined, tries: 0, dueMs };
        store.resync.put(done);
      });
      batch.after(() => {
        events.emit({ type: 'cameBack', conversationId, epoch: entry.epoch, cause });
        for (const event of groupEvents(lost, next, '')) events.emit(event);
        tokens.wake();
        onMoved(groupId);
      });
    });
  }
}

function isWelcome(payload: Uint8Array): boolean {
  try {
    return fromBinary(GroupControlSchema, payload).welcome.length > 0;
  } catch {
    return false;
  }
}

/** Whether these bytes are of no use any more: no hub takes them, or this device is further on. */
function isFinal(error: unknown): boolean {
  return hasReason(error, 'BAD_STATE', 'BAD_FIELD', 'BAD_SIGNATURE', 'PEER_DENIED', 'TOO_LARGE');
}
