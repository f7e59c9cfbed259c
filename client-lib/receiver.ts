/**
 * The client's rule (docs/protocol/delivery.md): what becomes of one row. Skip if seen; open the
 * envelope; decrypt on a copy of the MLS state; message, marks, new state and cursor in one
 * transaction. What cannot be opened yet is parked in that same transaction, what can never be
 * opened is recorded. Where rows come from and when they are acked is sync's business.
 */
import { createHash } from 'node:crypto';
import {
  DataLossError,
  InvalidArgumentError,
  messageTag,
  QpcError,
  ResourceExhaustedError,
  RowKind,
  sameBytes,
} from '@quicprochat/proto';
import type { HandedToken } from './content.ts';
import { Contents, type ContentsParts } from './contents.ts';
import {
  EnvelopeError,
  openChannel,
  openHybrid,
  parseEnvelope,
  type SealedContent,
  type SealedEnvelope,
} from './crypto/envelope.ts';
import type { DeliveryTokens } from './delivery-tokens.ts';
import { envelopeKeyOf } from './envelope-key.ts';
import type { Holes } from './holes.ts';
import type { ClientEvent } from './events.ts';
import {
  CredentialError,
  inspectMessage,
  inspectWelcome,
  MlsError,
  type Joined,
  type Mls,
  type Processed,
  type SignatureKey,
} from './mls/index.ts';
import { takeNotice } from './notices.ts';
import { ResendError } from './resend-request.ts';
import type { Resender } from './resender.ts';
import type { InboxRow, ParkedRow, ParkReason, PeerPath } from './store/store.ts';
import { writerLimits, type Batch, type Writer } from './writer.ts';

export const receiverLimits = {
  /** Rows and payload bytes that may wait; what goes beyond is recorded as undecryptable. */
  parkedRows: 4096,
  parkedBytes: 64 * 1024 * 1024,
  /** The same for what no node brought; beyond, it is refused. */
  peerRows: 512,
  peerBytes: 8 * 1024 * 1024,
  /** How long a row may wait (ms): a Welcome lives 30 days at a node. */
  parkedMs: 31 * 24 * 3600 * 1000,
} as const;

/** A row that has to wait, or that nothing will ever open. */
type Verdict =
  | { readonly kind: 'park'; readonly reason: ParkReason; readonly waitsFor: string }
  | { readonly kind: 'never'; readonly reason: string }
  /** Ours, or here already: nothing to show. */
  | { readonly kind: 'known' };

/** Makes the changes, told the parked row that this was, if it was one. */
type Settle = (parked: ParkedRow | undefined) => void;

export interface ReceiverParts extends ContentsParts {
  readonly writer: Writer;
  readonly mls: Mls;
  readonly rid: Uint8Array;
  readonly signatureKey: SignatureKey;
  readonly tokens: Pick<DeliveryTokens, 'take' | 'changed' | 'takeAtJoin' | 'wake'>;
  readonly resender: Resender;
  readonly holes: Pick<Holes, 'wake' | 'takeGone'>;
  /** Rows wait for the manifests of these users. */
  readonly onUnknownUsers: (userIds: readonly string[]) => void;
}

export class Receiver {
  readonly #parts: ReceiverParts;
  readonly #contents: Contents;

  constructor(parts: ReceiverParts) {
    this.#parts = parts;
    this.#contents = new Contents(parts, (row, reason, batch) => this.#never(row, reason, batch));
  }

  /**
   * Takes in the row that follows the cursor. Resolves when it is durable, whatever became of it;
   * a row at or below the cursor is nothing new. Throws DataLossError STREAM_GAP when rows between
   * are missing and STORE_CHANGED when the cursor is of another store: then nothing was written,
   * so no failure of one row can let a later one pass it.
   */
  receive(row: InboxRow, storeId: Uint8Array): Promise<void> {
    return this.#parts.writer.run(async (batch) => {
      if (!isNext(batch, storeId, row.seq)) return;
      const tag = messageTag(row.mid, row.payload);
      if (batch.hasSeen(tag)) {
        this.#contents.again(tag, batch);
      } else {
        if (row.kind === RowKind.Notice) {
          const { store, tokens } = this.#parts;
          const emit = (event: ClientEvent): void => this.#emit(event);
          takeNotice({ store, emit, onWaits: () => tokens.changed() }, row, batch);
          batch.addSeen(tag);
        } else {
          const settle = await this.#attempt(row, batch);
          batch.addSeen(tag);
          settle(undefined);
        }
      }
      batch.moveInboxCursor({ storeId, seq: row.seq });
    });
  }

  /**
   * Takes in a message that no node brought; only what authenticates itself is written down. Resolves
   * when it is durable, and says whether it was here already. Throws InvalidArgumentError BAD_FIELD for
   * what can never be opened, ResourceExhaustedError QUEUE_FULL when too much of that kind waits: then
   * nothing has changed, and a node's copy of it is judged by itself.
   */
  receivePeer({
    mid,
    payload,
    via,
  }: Pick<InboxRow, 'mid' | 'payload'> & { readonly via: PeerPath }): Promise<
    'stored' | 'duplicate'
  > {
    return this.#parts.writer.run(async (batch) => {
      const { nowMs } = batch;
      const row = { mid, payload, via, seq: 0, kind: RowKind.Envelope, receivedMs: nowMs };
      const tag = messageTag(mid, payload);
      if (batch.hasSeen(tag)) {
        this.#contents.again(tag, batch);
        return 'duplicate';
      }
      const { verdict, settle } = await this.#judge(row, batch);
      if (verdict?.kind === 'known') return 'duplicate';
      if (verdict?.kind === 'never') {
        throw new InvalidArgumentError('BAD_FIELD', `nobody can open this: ${verdict.reason}`);
      }
      if (verdict?.kind === 'park') this.#requirePlace(payload.length);
      batch.addSeen(tag);
      settle(undefined);
      return 'stored';
    });
  }

  /** What no node brought is parked in a place of its own, so that it takes none from other rows. */
  #requirePlace(length: number): void {
    const { rows, bytes } = this.#parts.store.inbox.parkedSize('peers');
    const { peerRows, peerBytes } = receiverLimits;
    if (rows < peerRows && bytes + length <= peerBytes) return;
    throw new ResourceExhaustedError('QUEUE_FULL', `${rows} messages wait for what they need`);
  }

  /** Rows that the node no longer holds: recorded and passed. Throws like `receive`. */
  passGap(from: number, to: number, storeId: Uint8Array): Promise<void> {
    const { store, writer } = this.#parts;
    return writer.run(async (batch) => {
      const next = (batch.inboxCursor()?.seq ?? 0) + 1;
      if (to < next || !isNext(batch, storeId, Math.max(from, next))) return;
      batch.write(() => store.inbox.addGap(storeId, Math.max(from, next), to, batch.nowMs));
      batch.moveInboxCursor({ storeId, seq: to });
      batch.after(() => this.#emit({ type: 'gap', from: Math.max(from, next), to }));
    });
  }

  /**
   * Rows up to `to` were acknowledged in the name of this device, and are not here: this store is an
   * older copy of itself. Recorded and passed; nothing is sealed with its keys any more. Throws like
   * `receive`.
   */
  passLost(to: number, storeId: Uint8Array): Promise<void> {
    const { store, writer } = this.#parts;
    return writer.run(async (batch) => {
      const next = (batch.inboxCursor()?.seq ?? 0) + 1;
      if (to < next || !isNext(batch, storeId, next)) return;
      batch.write(() => {
        store.inbox.addGap(storeId, next, to, batch.nowMs);
        store.groups.markStale(batch.nowMs);
      });
      batch.moveInboxCursor({ storeId, seq: to });
      batch.after(() => this.#emit({ type: 'storeRestored', from: next, to }));
    });
  }

  /** Tries parked rows again: those that `matches`, or all. */
  async retryParked(matches: (row: ParkedRow) => boolean = () => true): Promise<void> {
    const { store, writer } = this.#parts;
    const rows = store.inbox.parked().filter(matches);
    for (let from = 0; from < rows.length; from += writerLimits.jobsPerBatch) {
      await Promise.all(
        rows.slice(from, from + writerLimits.jobsPerBatch).map((row) =>
          writer.run(async (batch) => {
            if (!batch.isParked(row.id)) return;
            const settle = await this.#attempt(row, batch);
            settle(row);
          }),
        ),
      );
    }
  }

  /** Gives up on rows that wait for these users. */
  async refuseUsers(userIds: readonly string[], reason: string): Promise<void> {
    const { store, writer } = this.#parts;
    const waiting = store.inbox
      .parked()
      .filter(
        (row) =>
          row.reason === 'UNKNOWN_USER' &&
          row.waitsFor.split(' ').some((userId) => userIds.includes(userId)),
      );
    await Promise.all(
      waiting.map((row) =>
        writer.run(async (batch) => {
          if (batch.isParked(row.id)) this.#settle({ kind: 'never', reason }, row, batch, row);
        }),
      ),
    );
  }

  /**
   * Everything about a row that can fail or wait; the result makes the changes, told the parked
   * row that this is, if it is one.
   */
  async #attempt(row: InboxRow, batch: Batch): Promise<Settle> {
    return (await this.#judge(row, batch)).settle;
  }

  /** The same, with what is wrong with the row, if something is. */
  async #judge(
    row: InboxRow,
    batch: Batch,
  ): Promise<{ readonly verdict: Verdict | undefined; readonly settle: Settle }> {
    try {
      if (row.kind !== RowKind.Envelope) throw never(`ROW_KIND_${row.kind}`);
      const content = this.#open(row);
      const mark = markOf(content.bytes);
      if (batch.hasSeen(mark)) throw new Unopened({ kind: 'known' });
      if (content.evidence !== undefined) await this.#parts.onEvidence(content.evidence);
      const apply = await this.#prepare(content, row, batch);
      const settle: Settle = (parked) => {
        batch.addSeen(mark);
        apply();
        if (parked !== undefined) batch.unpark(parked.id);
      };
      return { verdict: undefined, settle };
    } catch (error) {
      const verdict = verdictOf(error);
      if (verdict === undefined) throw error;
      return { verdict, settle: (parked) => this.#settle(verdict, row, batch, parked) };
    }
  }

  #open(row: InboxRow): SealedContent {
    const { store, rid } = this.#parts;
    const envelope: SealedEnvelope = parseEnvelope(row.payload);
    if (envelope.mode === 'hybrid') {
      return openHybrid(envelope, (keyId) => store.keys.hybridKey(keyId)?.seed, rid, row.mid);
    }
    // Key ids are 8 bytes: two epochs may share one, so each key that has it is tried.
    const keys = store.groups.envelopeKeys(envelope.keyId);
    for (const [index, { key }] of keys.entries()) {
      try {
        return openChannel(envelope, () => key);
      } catch (error) {
        if (index === keys.length - 1) throw error;
      }
    }
    throw new Unopened({
      kind: 'park',
      reason: 'UNKNOWN_KEY',
      waitsFor: Buffer.from(envelope.keyId).toString('hex'),
    });
  }

  /** What can fail of a content; the result makes the changes. */
  async #prepare(content: SealedContent, row: InboxRow, batch: Batch): Promise<() => void> {
    const { holes, resender } = this.#parts;
    const { kind, bytes, tokens = [] } = content;
    switch (kind) {
      case 'welcome':
        return this.#join(bytes, tokens, batch);
      case 'mlsMessage':
        return this.#process(bytes, row, batch);
      case 'resendRequest':
        return resender.take(bytes, batch);
      case 'gone':
        return holes.takeGone(bytes, batch);
    }
  }

  async #join(
    welcome: Uint8Array,
    tokens: readonly HandedToken[],
    batch: Batch,
  ): Promise<() => void> {
    const { store, mls, signatureKey } = this.#parts;
    const { refs } = inspectWelcome(welcome);
    const rows = refs.flatMap((ref) => store.keys.keyPackage(ref) ?? []);
    if (rows.length === 0) {
      throw never(
        refs.some((ref) => store.keys.wasKeyPackageConsumed(ref))
          ? 'KEY_PACKAGE_USED'
          : 'NO_KEY_PACKAGE',
      );
    }
    const joined = await mls.joinFromWelcome(welcome, rows, signatureKey);
    if (!isStorable(joined)) throw never('INVALID_WELCOME');
    if (batch.group(joined.group.groupId) !== undefined) throw never('ALREADY_MEMBER');
    const envelopeKey = await envelopeKeyOf(mls, joined.group);
    return () => {
      batch.enterEpoch(joined.group, envelopeKey, []);
      batch.write(() => {
        this.#storeJoined(joined, batch.nowMs);
        this.#parts.tokens.takeAtJoin(tokens, joined.group, batch.nowMs);
      });
      batch.after(() => {
        this.#joined(joined);
        this.#parts.tokens.changed();
        this.#parts.tokens.wake();
      });
    };
  }

  #storeJoined({ group, ref, isLastResort, inviter }: Joined, nowMs: number): void {
    const { store } = this.#parts;
    if (!isLastResort) store.keys.consumeKeyPackage(ref, nowMs);
    store.groups.addConversation({
      id: group.info.conversationId,
      groupId: group.groupId,
      suite: group.suite,
      name: group.info.name,
      creator: inviter.userId,
      joinedMs: nowMs,
      sentCount: 0,
      lamport: 0,
    });
  }

  #joined({ group, inviter }: Joined): void {
    const { name, conversationId } = group.info;
    this.#emit({ type: 'joined', conversationId, name, creator: inviter.userId });
    this.#retryFor(group.groupId);
  }

  async #process(bytes: Uint8Array, row: InboxRow, batch: Batch): Promise<() => void> {
    const { mls } = this.#parts;
    const { groupId } = inspectMessage(bytes);
    const group = batch.group(groupId);
    const conversation = batch.conversationOfGroup(groupId);
    if (group === undefined || conversation === undefined) {
      throw new Unopened({
        kind: 'park',
        reason: 'UNKNOWN_GROUP',
        waitsFor: Buffer.from(groupId).toString('hex'),
      });
    }
    let processed: Processed;
    try {
      processed = await mls.process(group, bytes);
    } catch (error) {
      if (error instanceof MlsError && error.reason === 'EPOCH_AHEAD') {
        throw new Unopened({
          kind: 'park',
          reason: 'FUTURE_EPOCH',
          waitsFor: Buffer.from(groupId).toString('hex'),
        });
      }
      throw error;
    }
    if (processed.kind === 'application') {
      return () => this.#contents.take({ processed, bytes, row }, batch);
    }
    if (processed.isSelfRemoved) {
      return () => {
        batch.useKeys(processed.next, processed.next.epoch, processed.wipe);
        batch.after(() => this.#membersChanged(processed));
      };
    }
    const envelopeKey = await envelopeKeyOf(mls, processed.next);
    return () => {
      batch.enterEpoch(processed.next, envelopeKey, [processed.wipe]);
      // Its keys are new to this device, whatever a lost copy of this store used before.
      batch.write(() => this.#parts.store.groups.clearStale(groupId));
      batch.after(() => {
        this.#membersChanged(processed);
        this.#retryFor(groupId);
      });
    };
  }

  #settle(verdict: Verdict, row: InboxRow, batch: Batch, parked: ParkedRow | undefined): void {
    const { store, runtime } = this.#parts;
    const unpark = (): void => {
      if (parked !== undefined) batch.unpark(parked.id);
    };
    if (verdict.kind === 'known') {
      unpark();
    } else if (verdict.kind === 'never') {
      unpark();
      this.#never(row, verdict.reason, batch);
    } else if (parked === undefined) {
      this.#park(row, verdict.reason, verdict.waitsFor, batch);
    } else if (runtime.clock.now() - parked.parkedMs > receiverLimits.parkedMs) {
      unpark();
      this.#never(row, `EXPIRED_${verdict.reason}`, batch);
    } else {
      batch.write(() => store.inbox.setParkReason(parked.id, verdict.reason, verdict.waitsFor));
      this.#afterPark(verdict.reason, verdict.waitsFor, batch);
    }
  }

  #park(row: InboxRow, reason: ParkReason, waitsFor: string, batch: Batch): void {
    const { store } = this.#parts;
    let isParked = false;
    // Judged where it is written: earlier rows of this transaction count too.
    batch.write(() => {
      const { rows, bytes } = store.inbox.parkedSize('all');
      isParked =
        rows < receiverLimits.parkedRows &&
        bytes + row.payload.length <= receiverLimits.parkedBytes;
      if (isParked) store.inbox.park(row, reason, waitsFor, batch.nowMs);
      else this.#record(row, 'TOO_MANY_PARKED', batch.nowMs);
    });
    batch.after(() => {
      const { mid } = row;
      if (isParked) this.#emit({ type: 'parked', reason, mid });
      else this.#emit({ type: 'undecryptable', reason: 'TOO_MANY_PARKED', mid });
      if (isParked && reason === 'UNKNOWN_USER') {
        this.#parts.onUnknownUsers(waitsFor.split(' '));
      }
    });
  }

  #afterPark(reason: ParkReason, waitsFor: string, batch: Batch): void {
    if (reason !== 'UNKNOWN_USER') return;
    batch.after(() => this.#parts.onUnknownUsers(waitsFor.split(' ')));
  }

  #never(row: InboxRow, reason: string, batch: Batch): void {
    batch.write(() => this.#record(row, reason, batch.nowMs));
    batch.after(() => this.#emit({ type: 'undecryptable', reason, mid: row.mid }));
  }

  #record({ mid, seq, payload }: InboxRow, reason: string, atMs: number): void {
    const { store } = this.#parts;
    store.inbox.addUndecryptable({ mid, seq, reason, bytes: payload.length, atMs });
  }

  #membersChanged({ next }: { readonly next: Joined['group'] }): void {
    const members = [...new Set(next.members().map(({ userId }) => userId))];
    this.#emit({ type: 'membersChanged', conversationId: next.info.conversationId, members });
  }

  /** After a change of epoch: any row of that group, or with a key unknown until now, may open. */
  #retryFor(groupId: Uint8Array): void {
    const group = Buffer.from(groupId).toString('hex');
    void this.retryParked((row) =>
      row.reason === 'UNKNOWN_KEY'
        ? this.#parts.store.groups.envelopeKeys(Buffer.from(row.waitsFor, 'hex')).length > 0
        : row.waitsFor === group,
    ).catch((error: unknown) => {
      // They stay parked, and the next start or change of state tries them again.
      this.#parts.runtime.log.error('parked rows', { error: String(error) });
    });
  }

  #emit(event: ClientEvent): void {
    this.#parts.events.emit(event);
  }
}

/** Carries a verdict out of the nested steps. */
class Unopened extends Error {
  readonly verdict: Verdict;
  constructor(verdict: Verdict) {
    super(verdict.kind);
    this.verdict = verdict;
  }
}

function never(reason: string): Unopened {
  return new Unopened({ kind: 'never', reason });
}

/** What an error says about a row; undefined for an error that is not the row's fault. */
function verdictOf(error: unknown): Verdict | undefined {
  if (error instanceof Unopened) return error.verdict;
  if (error instanceof CredentialError && error.reason === 'UNKNOWN_CREDENTIAL') {
    const users = [...new Set(error.failures.map(({ userId }) => userId))];
    return { kind: 'park', reason: 'UNKNOWN_USER', waitsFor: users.join(' ') };
  }
  if (error instanceof MlsError) {
    switch (error.reason) {
      case 'BAD_STATE':
        return undefined;
      case 'DUPLICATE':
      case 'OWN_MESSAGE':
        return { kind: 'known' };
      default:
        return { kind: 'never', reason: error.reason };
    }
  }
  if (error instanceof EnvelopeError) return { kind: 'never', reason: error.reason };
  // Nobody's message: nothing is missing without it.
  if (error instanceof ResendError) return { kind: 'known' };
  if (error instanceof QpcError && error.reason === 'BAD_FIELD') {
    return { kind: 'never', reason: 'MALFORMED' };
  }
  return undefined;
}

/**
 * Whether the store takes the group: its inviter chose every value of it, and one that the store
 * refuses would come back for ever, with all rows behind it. A conversation has one group as long as
 * there are no reboots, so a second group cannot pass for it.
 */
function isStorable({ group: { groupId, epoch, info } }: Joined): boolean {
  return sameBytes(groupId, info.conversationId) && epoch < BigInt(Number.MAX_SAFE_INTEGER);
}

/** True for the row after the cursor, false for an older one. */
function isNext(batch: Batch, storeId: Uint8Array, seq: number): boolean {
  const cursor = batch.inboxCursor();
  if (cursor === undefined || !sameBytes(cursor.storeId, storeId)) {
    throw new DataLossError('STORE_CHANGED', 'inbox: the cursor is of another store');
  }
  if (seq > cursor.seq + 1) {
    throw new DataLossError('STREAM_GAP', `inbox: row ${seq} after ${cursor.seq}`);
  }
  return seq === cursor.seq + 1;
}

/** 16 bytes of SHA-256 of the MLS bytes: the same message in another envelope has the same mark. */
function markOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest().subarray(0, 16));
}
