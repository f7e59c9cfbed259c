/**
 * The client's rule (docs/protocol/delivery.md): what becomes of one row. Skip if seen; open the
 * envelope; decrypt on a copy of the MLS state; message, marks, new state and cursor in one
 * transaction. What cannot be opened yet is parked in that same transaction, what can never be
 * opened is recorded. Where rows come from and when they are acked is sync's business.
 */
import {
  DataLossError,
  hasReason,
  InvalidArgumentError,
  messageTag,
  ResourceExhaustedError,
  RowKind,
  sameBytes,
} from '@quicprochat/proto';
import { Contents, type ContentsParts } from './contents.ts';
import type { ControlRows } from '../groups/log/control-rows.ts';
import { isOfPast } from '../groups/welcomes/overtaken-welcome.ts';
import {
  openChannel,
  openHybrid,
  parseEnvelope,
  type SealedContent,
  type SealedEnvelope,
} from '../crypto/envelope.ts';
import type { Standings } from '../groups/standings/standings.ts';
import type { ForkWatch } from '../groups/hubs/fork-watch.ts';
import type { Holes } from './holes.ts';
import type { ClientEvent } from '../events.ts';
import { inspectMessage, MlsError, type Mls, type Processed } from '../mls/index.ts';
import { takeNotice } from '../sending/notices.ts';
import { makeParkingRoom } from './parked-room.ts';
import type { Resender } from '../sending/resender.ts';
import { markOf, never, park, Unopened, verdictOf, type Verdict } from './row-verdict.ts';
import { inboxLog, type InboxRow, type ParkedRow, type ParkReason } from '../store/inbox-rows.ts';
import type { OtherPath, PeerPath } from '../store/paths.ts';
import { writerLimits, type Batch, type Writer } from '../writer.ts';

export const receiverLimits = {
  /** Rows and payload bytes that may wait of what no node brought, and for what lay in mailboxes; beyond, it is refused. */
  peerRows: 512,
  peerBytes: 8 * 1024 * 1024,
  /** How long a row may wait (ms): a Welcome lives 30 days at a node. */
  parkedMs: 31 * 24 * 3600 * 1000,
} as const;

/** Makes the changes, told the parked row that this was, if it was one. */
type Settle = (parked: ParkedRow | undefined) => void;

export interface ReceiverParts extends ContentsParts {
  readonly writer: Writer;
  readonly mls: Mls;
  readonly rid: Uint8Array;
  /** Takes rows of hubs. */
  readonly controls: Pick<ControlRows, 'prepare' | 'prepareWelcome'>;
  readonly resender: Resender;
  readonly forks: Pick<ForkWatch, 'take' | 'heard'>;
  readonly standings: Pick<Standings, 'take'>;
  readonly holes: Pick<Holes, 'wake' | 'takeGone'>;
  /** A row waits for something that can be asked for. */
  readonly onWaits: (reason: ParkReason, waitsFor: string) => void;
  /** Copies are due: posts that came back, or what a restored node may have lost. */
  readonly onDue: () => void;
  /** A channel refused a post though its group stands where it was sealed. */
  readonly onStuckPost: (groupId: Uint8Array, cid: Uint8Array) => void;
}

export class Receiver {
  readonly #parts: ReceiverParts;
  readonly #contents: Contents;

  constructor(parts: ReceiverParts) {
    this.#parts = parts;
    this.#contents = new Contents(parts, (row, reason, batch) => this.#never(row, reason, batch));
  }

  /**
   * Takes in the row that follows the cursor of its log, the inbox unless told. Resolves when it is durable, whatever became of it;
   * a row at or below the cursor is nothing new. Throws DataLossError STREAM_GAP when rows between
   * are missing and STORE_CHANGED when the cursor is of another store: then nothing was written,
   * so no failure of one row can let a later one pass it.
   */
  receive(row: InboxRow, storeId: Uint8Array, log: Uint8Array = inboxLog): Promise<void> {
    return this.#parts.writer.run(async (batch) => {
      if (!isNext(batch, log, storeId, row.seq)) return;
      const tag = messageTag(row.mid, row.payload);
      if (batch.hasSeen(tag)) {
        this.#contents.again(tag, batch);
      } else {
        if (row.kind === RowKind.Notice) {
          const { store, tokens } = this.#parts;
          const emit = (event: ClientEvent): void => this.#emit(event);
          const { onDue, onStuckPost } = this.#parts;
          const onWaits = (): void => tokens.changed();
          takeNotice({ store, emit, onWaits, onDue, onStuckPost }, row, batch);
          batch.addSeen(tag);
        } else {
          const settle = await this.#attempt(row, batch);
          batch.addSeen(tag);
          settle(undefined);
        }
      }
      batch.moveCursor(log, { storeId, seq: row.seq });
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
    return this.#parts.writer.run((batch) => this.#takeAside({ mid, payload, via }, batch));
  }

  /**
   * Takes in a row of a mailbox, and moves that log's cursor to it; a row at or below the cursor is nothing
   * new, and rows between may be missing: it is a copy. What `receivePeer` would refuse is passed by.
   * Throws DataLossError STORE_CHANGED when the cursor is of another mailbox.
   */
  receiveMailbox(
    { seq, mid, payload, kind }: Pick<InboxRow, 'seq' | 'mid' | 'payload' | 'kind'>,
    storeId: Uint8Array,
    log: Uint8Array,
  ): Promise<void> {
    return this.#parts.writer.run(async (batch) => {
      const cursor = batch.cursor(log);
      if (cursor === undefined || !sameBytes(cursor.storeId, storeId)) {
        throw new DataLossError('STORE_CHANGED', 'mailbox: the cursor is of another one');
      }
      if (seq <= cursor.seq) return;
      // Notices and commits are the own node's word, and no other's.
      if (kind === RowKind.Envelope) {
        await this.#takeAside({ mid, payload, via: 'mailbox' }, batch).catch((error: unknown) => {
          if (!hasReason(error, 'BAD_FIELD', 'QUEUE_FULL')) throw error;
        });
      }
      batch.moveCursor(log, { storeId, seq });
    });
  }

  /** What did not come by the own node. Writes nothing when it throws. */
  async #takeAside(
    { mid, payload, via }: Pick<InboxRow, 'mid' | 'payload'> & { readonly via: OtherPath },
    batch: Batch,
  ): Promise<'stored' | 'duplicate'> {
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
    if (verdict?.kind === 'park') {
      this.#requirePlace(payload.length, via === 'mailbox' ? via : 'peers');
    }
    batch.addSeen(tag);
    settle(undefined);
    return 'stored';
  }

  /** What did not come by the own node is parked in places of its own, so that it takes none from other rows. */
  #requirePlace(length: number, of: 'peers' | 'mailbox'): void {
    const { rows, bytes } = this.#parts.store.inbox.parkedSize(of);
    const { peerRows, peerBytes } = receiverLimits;
    if (rows < peerRows && bytes + length <= peerBytes) return;
    throw new ResourceExhaustedError('QUEUE_FULL', `${rows} messages wait for what they need`);
  }

  /** Rows that the node no longer holds: recorded and passed. Throws like `receive`. */
  passGap(
    from: number,
    to: number,
    storeId: Uint8Array,
    log: Uint8Array = inboxLog,
  ): Promise<void> {
    const { store, writer } = this.#parts;
    return writer.run(async (batch) => {
      const next = (batch.cursor(log)?.seq ?? 0) + 1;
      if (to < next || !isNext(batch, log, storeId, Math.max(from, next))) return;
      batch.write(() => store.inbox.addGap(storeId, Math.max(from, next), to, batch.nowMs));
      batch.moveCursor(log, { storeId, seq: to });
      batch.after(() => this.#emit({ type: 'gap', from: Math.max(from, next), to }));
    });
  }

  /**
   * Rows up to `to` were acknowledged in the name of this device, and are not here: this store is an
   * older copy of itself. Recorded and passed; nothing is sealed with its keys any more. Throws like
   * `receive`.
   */
  passLost(to: number, storeId: Uint8Array, log: Uint8Array = inboxLog): Promise<void> {
    const { store, writer } = this.#parts;
    return writer.run(async (batch) => {
      const next = (batch.cursor(log)?.seq ?? 0) + 1;
      if (to < next || !isNext(batch, log, storeId, next)) return;
      batch.write(() => {
        store.inbox.addGap(storeId, next, to, batch.nowMs);
        store.groups.markStale(batch.nowMs);
        for (const { groupId, ended } of store.groups.conversations()) {
          const isIn = ended === undefined || ended === 'BEHIND';
          if (isIn) store.resync.want(groupId, 'STALE', batch.nowMs);
        }
      });
      batch.moveCursor(log, { storeId, seq: to });
      batch.after(() => this.#emit({ type: 'storeRestored', from: next, to }));
    });
  }

  /** Tries parked rows again: those that `matches`, or all. What cannot be judged or written stays for the next time. */
  async retryParked(matches: (row: ParkedRow) => boolean = () => true): Promise<void> {
    const { store, writer, runtime } = this.#parts;
    const rows = store.inbox.parked().filter(matches);
    for (let from = 0; from < rows.length; from += writerLimits.jobsPerBatch) {
      await Promise.all(
        rows.slice(from, from + writerLimits.jobsPerBatch).map((row) =>
          writer
            .run(async (batch) => {
              if (!batch.isParked(row.id)) return;
              const settle = await this.#attempt(row, batch);
              settle(row);
            })
            .catch((error: unknown) => {
              runtime.log.error('parked row', { error: String(error) });
            }),
        ),
      );
    }
  }

  /** At a session: records of hubs can be asked for again, and what waited too long goes. */
  retryDue(): Promise<void> {
    const nowMs = this.#parts.runtime.clock.now();
    return this.retryParked((row) => row.reason === 'UNKNOWN_HUB' || isOver(row, nowMs));
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
      if (row.kind === RowKind.GroupControl) {
        const take = await this.#parts.controls.prepare(row, batch);
        const settle: Settle = (parked) => {
          take();
          if (parked !== undefined) batch.unpark(parked.id);
        };
        return { verdict: undefined, settle };
      }
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
    // Of an epoch that this device keeps no keys of, or was not in: nothing brings them.
    if (isGone(store, envelope.keyId)) throw never('EPOCH_GONE');
    throw park('UNKNOWN_KEY', envelope.keyId);
  }

  /** What can fail of a content; the result makes the changes. */
  async #prepare(content: SealedContent, row: InboxRow, batch: Batch): Promise<() => void> {
    const { holes, resender } = this.#parts;
    const { kind, bytes } = content;
    switch (kind) {
      case 'welcome':
        return this.#parts.controls.prepareWelcome(content, batch);
      case 'mlsMessage':
        return this.#process(bytes, row, batch);
      case 'resendRequest':
        return resender.take(bytes, batch);
      case 'gone':
        return holes.takeGone(bytes, batch);
      case 'groupHead':
        return this.#parts.forks.take(bytes, batch);
      case 'groupStanding':
        return this.#parts.standings.take(bytes, batch);
      case 'joinState':
      case 'welcomeKey':
        // The one lies at hubs, the other stands beside a Welcome: nobody sends them alone.
        throw never('MALFORMED');
    }
  }

  async #process(bytes: Uint8Array, row: InboxRow, batch: Batch): Promise<() => void> {
    const { mls } = this.#parts;
    const { groupId, epoch, authenticatedData } = inspectMessage(bytes);
    const group = batch.group(groupId);
    const conversation = batch.conversationOfGroup(groupId);
    if (group === undefined || conversation === undefined) throw park('UNKNOWN_GROUP', groupId);
    let processed: Processed;
    try {
      processed = await mls.process(group, bytes);
    } catch (error) {
      const isAhead = error instanceof MlsError && error.reason === 'EPOCH_AHEAD';
      if (isAhead) throw park('FUTURE_EPOCH', groupId);
      if (error instanceof MlsError && error.reason === 'DECRYPT_FAILED') {
        this.#parts.forks.heard(groupId, epoch, authenticatedData);
      }
      throw error;
    }
    // A commit comes beside its entry, or not at all.
    if (processed.kind !== 'application') throw never('UNCERTIFIED');
    return () => this.#contents.take({ processed, bytes, row }, batch);
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
    } else if (isOver(parked, runtime.clock.now())) {
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
    let gaveWay: readonly ParkedRow[] = [];
    // Judged where it is written: earlier rows of this transaction count too.
    batch.write(() => {
      const { nowMs } = batch;
      const room = makeParkingRoom(store.inbox, reason, row.payload.length, nowMs);
      ({ isRoom: isParked, gaveWay } = room);
      for (const old of gaveWay) this.#record(old, `EXPIRED_${old.reason}`, nowMs);
      if (isParked) store.inbox.park(row, reason, waitsFor, nowMs);
      else this.#record(row, 'TOO_MANY_PARKED', nowMs);
    });
    batch.after(() => {
      const { mid } = row;
      for (const old of gaveWay) {
        this.#emit({ type: 'undecryptable', reason: `EXPIRED_${old.reason}`, mid: old.mid });
      }
      if (isParked) this.#emit({ type: 'parked', reason, mid });
      else this.#emit({ type: 'undecryptable', reason: 'TOO_MANY_PARKED', mid });
      if (isParked) this.#parts.onWaits(reason, waitsFor);
    });
  }

  #afterPark(reason: ParkReason, waitsFor: string, batch: Batch): void {
    batch.after(() => this.#parts.onWaits(reason, waitsFor));
  }

  #never(row: InboxRow, reason: string, batch: Batch): void {
    batch.write(() => this.#record(row, reason, batch.nowMs));
    batch.after(() => this.#emit({ type: 'undecryptable', reason, mid: row.mid }));
  }

  #record({ mid, seq, payload }: InboxRow, reason: string, atMs: number): void {
    const { store } = this.#parts;
    store.inbox.addUndecryptable({ mid, seq, reason, bytes: payload.length, atMs });
  }

  /** After a change of epoch: any row of that group, or with a key unknown until now, may open. */
  retryGroup(groupId: Uint8Array): void {
    const group = Buffer.from(groupId).toString('hex');
    const { store } = this.#parts;
    const { groups, groupLog } = store;
    const at = groupLog.head(groupId)?.epoch ?? 0;
    const isKnown = (keyId: Uint8Array): boolean =>
      groups.envelopeKeys(keyId).length > 0 || isGone(store, keyId);
    void this.retryParked((row) =>
      row.reason === 'UNKNOWN_KEY'
        ? isKnown(Buffer.from(row.waitsFor, 'hex'))
        : row.waitsFor === group || isOfPast(row, groupId, at),
    ).catch((error: unknown) => {
      // They stay parked, and the next start or change of state tries them again.
      this.#parts.runtime.log.error('parked rows', { error: String(error) });
    });
  }

  #emit(event: ClientEvent): void {
    this.#parts.events.emit(event);
  }
}

function isGone({ groups, closed }: ReceiverParts['store'], keyId: Uint8Array): boolean {
  return groups.isPassedKey(keyId) || closed.isClosedKey(keyId);
}

function isOver({ parkedMs }: ParkedRow, nowMs: number): boolean {
  return nowMs - parkedMs > receiverLimits.parkedMs;
}

/** True for the row after the cursor, false for an older one. */
function isNext(batch: Batch, log: Uint8Array, storeId: Uint8Array, seq: number): boolean {
  const cursor = batch.cursor(log);
  if (cursor === undefined || !sameBytes(cursor.storeId, storeId)) {
    throw new DataLossError('STORE_CHANGED', 'log: the cursor is of another store');
  }
  if (seq > cursor.seq + 1) {
    throw new DataLossError('STREAM_GAP', `log: row ${seq} after ${cursor.seq}`);
  }
  return seq === cursor.seq + 1;
}
