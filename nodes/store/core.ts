/**
 * The store itself, synchronous: operations in, one transaction for all of them, results out after
 * its COMMIT (docs/decisions/0003-group-commit-in-a-worker.md). It owns no thread, no clock and no
 * randomness of its own, so that a simulation can call it directly.
 */
import { InternalError, QpcError, UnavailableError, type Random } from '@quicprochat/proto';
import { storeBounds } from './bounds.ts';
import { needDatabase, openDatabase } from './database.ts';
import { describeError, isFatal, storeFailed, type StoreFailedError } from './failure.ts';
import { FileLock } from './file-lock.ts';
import {
  readOperations,
  type OperationRequest,
  type Operations,
  type QueryContext,
} from './operations.ts';
import { accountQueries } from './queries/accounts.ts';
import { auditQueries } from './queries/audits.ts';
import { tokenQueries } from './queries/delivery-tokens.ts';
import { enqueueBatchQueries } from './queries/enqueue-batch.ts';
import { channelQueries } from './queries/channels.ts';
import { groupDeliveryQueries } from './queries/groups-delivery.ts';
import { groupLogQueries } from './queries/groups-log.ts';
import { groupSetQueries } from './queries/groups-set.ts';
import { groupQueries } from './queries/groups.ts';
import { inboxQueries } from './queries/inbox.ts';
import { keyLogQueries } from './queries/key-log.ts';
import { keyQueries } from './queries/keys.ts';
import { logAppendQueries } from './queries/log-append.ts';
import { mailboxQueries } from './queries/mailboxes.ts';
import { markQueries, metaQueries, type MetaQueries } from './queries/meta.ts';
import { noticeQueries } from './queries/notices.ts';
import { outboxQueries } from './queries/outbox.ts';
import { payloadQueries } from './queries/payloads.ts';
import { peerQueries } from './queries/peers.ts';
import { relayInboxQueries } from './queries/relay-inbox.ts';
import { returnSlips, welcomeSlips } from './queries/return-slips.ts';
import { relayStatusQueries } from './queries/relay-status.ts';
import { recoveryQueries } from './queries/recovery.ts';
import { secretQueries } from './queries/secrets.ts';
import { unloggedQueries } from './queries/unlogged.ts';
import { storeReads, type StoreReads } from './reads.ts';
import { RewindGuard } from './rewind-guard.ts';
import { SpaceWatch } from './space.ts';
import { sqliteCode, type SqlDatabase } from './sqlite.ts';
import type { StoreLimits } from './store-limits.ts';

/** WAL pages that are left to the next checkpoint. */
const walPagesMax = 1_000;
/** A request writes a few pages; so many of them are too few to look how long the log has become. */
const requestsPerLook = 32;

export interface CoreOptions {
  readonly path: string;
  /** 32 bytes. The caller may wipe them afterwards. */
  readonly key: Uint8Array;
  readonly limits: StoreLimits;
  readonly random: Random;
}

export type OperationOutcome =
  | { readonly isOk: true; readonly value: unknown }
  | { readonly isOk: false; readonly error: QpcError };

export interface BatchOutcome {
  /** In the order of the requests. */
  readonly outcomes: readonly OperationOutcome[];
  /** Devices (hex) whose inbox got rows. */
  readonly woken: readonly string[];
}

export class StoreCore implements Disposable {
  readonly #lock: FileLock;
  readonly #db: SqlDatabase;
  readonly #guard: RewindGuard;
  readonly #meta: MetaQueries;
  readonly #space: SpaceWatch;
  readonly #operations: Operations;
  readonly #reads: StoreReads;
  readonly #begin;
  readonly #commit;
  readonly #rollback;
  readonly #totalChanges;
  readonly #walPages;
  readonly #woken = new Set<string>();
  #storeId: Uint8Array;
  #commits: number;
  #failure: StoreFailedError | undefined;
  /** WAL pages at which the next checkpoint is tried. */
  #checkpointAtPages = walPagesMax;
  /** Requests that wrote since the log's length was looked at. */
  #requestsSinceLook = 0;

  /** Opens an existing file. Throws StoreOpenError. */
  constructor({ path, key, limits, random }: CoreOptions) {
    needDatabase(path);
    this.#lock = new FileLock(path);
    let db: SqlDatabase | undefined;
    try {
      db = openDatabase(path, key, limits);
      this.#db = db;
      this.#guard = new RewindGuard(path);
    } catch (error) {
      db?.close();
      this.#lock[Symbol.dispose]();
      throw error;
    }
    this.#begin = db.prepare('BEGIN');
    this.#commit = db.prepare('COMMIT');
    this.#rollback = db.prepare('ROLLBACK');
    this.#totalChanges = db.prepare<[], number>('SELECT total_changes()').pluck();
    this.#walPages = db.prepare<[], { readonly log: number; readonly checkpointed: number }>(
      'PRAGMA wal_checkpoint(NOOP)',
    );
    this.#meta = metaQueries(db);
    this.#space = new SpaceWatch(db, path, limits.disk);
    this.#storeId = this.#meta.storeId();
    this.#commits = this.#meta.commits();
    this.#operations = makeOperations({
      db,
      limits,
      random,
      needRoom: () => this.#space.need(),
      needLastRoom: () => this.#space.needLast(),
      diskState: () => this.#space.state,
      wake: (rid) => this.#woken.add(Buffer.from(rid).toString('hex')),
    });
    this.#reads = storeReads(db);
    if (this.#guard.isRewound(this.#storeId, this.#commits)) this.#renew(random);
    this.#guard.remember(this.#storeId, this.#commits);
  }

  /** 8 bytes; new when the database was made, or found to be an older copy of itself. */
  get storeId(): Uint8Array {
    return this.#storeId;
  }

  /** Committed transactions that wrote something, since the database was made. */
  get commits(): number {
    return this.#commits;
  }

  /**
   * Runs the requests in order in one transaction; what it returns is on disk. When one of them
   * fails unexpectedly, all roll back and run again in halves, each in a transaction of its own,
   * until the one that fails is alone.
   * Throws StoreFailedError when the disk or the file fails; then and ever after.
   */
  run(nowMs: number, requests: readonly OperationRequest[]): BatchOutcome {
    if (this.#failure !== undefined) throw this.#failure;
    const isReading = requests.every(({ name }) => readOperations.has(name));
    try {
      return isReading ? this.#reading(nowMs, requests) : this.#transaction(nowMs, requests);
    } catch (error) {
      this.#throwIfFatal(error);
      if (requests.length <= 1) {
        return { outcomes: requests.map(() => failedOutcome(error)), woken: [] };
      }
    }
    // Halves, so that one bad request in 1 000 costs 10 more commits and not 1 000.
    const middle = requests.length >> 1;
    const first = this.run(nowMs, requests.slice(0, middle));
    const second = this.run(nowMs, requests.slice(middle));
    return {
      outcomes: [...first.outcomes, ...second.outcomes],
      woken: [...new Set([...first.woken, ...second.woken])],
    };
  }

  /** A read outside of any transaction. Throws what it throws, or StoreFailedError as `run`. */
  read<T>(query: (reads: StoreReads) => T): T {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return query(this.#reads);
    } catch (error) {
      this.#throwIfFatal(error);
      throw error;
    }
  }

  /** Requests that only read: nobody else writes, so they see one state without a transaction. */
  #reading(nowMs: number, requests: readonly OperationRequest[]): BatchOutcome {
    this.#space.changed();
    const before = this.#changes();
    const outcomes = requests.map((request) => this.#operate(nowMs, request, before));
    if (this.#changes() !== before) throw new InternalError('store: an operation that reads wrote');
    return { outcomes, woken: [] };
  }

  #transaction(nowMs: number, requests: readonly OperationRequest[]): BatchOutcome {
    this.#woken.clear();
    this.#space.changed();
    this.#begin.run();
    try {
      const before = this.#changes();
      let after = before;
      const outcomes = requests.map((request) => {
        const outcome = this.#operate(nowMs, request, after);
        after = this.#changes();
        return outcome;
      });
      const hasWritten = after !== before;
      if (hasWritten) this.#meta.countCommit();
      this.#commit.run();
      if (hasWritten) {
        this.#requestsSinceLook += requests.length;
        this.#commits += 1;
        if (requests.some(({ name }) => name === 'renewIfBehind')) {
          this.#storeId = this.#meta.storeId();
        }
        this.#guard.remember(this.#storeId, this.#commits);
      }
      return { outcomes, woken: [...this.#woken] };
    } catch (error) {
      // SQLite rolls back by itself after some errors.
      if (this.#db.inTransaction && !isFatal(error)) this.#rollback.run();
      throw error;
    }
  }

  /** `before`: the changes so far. */
  #operate(nowMs: number, { name, args }: OperationRequest, before: number): OperationOutcome {
    try {
      // OperationRequest pairs the name with its arguments.
      const operation = this.#operations[name] as (
        nowMs: number,
        ...args: readonly unknown[]
      ) => unknown;
      return { isOk: true, value: operation(nowMs, ...args) };
    } catch (error) {
      // A refusal comes before any write; anything else must not be committed with the others.
      if (error instanceof QpcError && this.#changes() === before) return { isOk: false, error };
      throw error;
    }
  }

  #changes(): number {
    return this.#totalChanges.get() ?? 0;
  }

  #renew(random: Random): void {
    const storeId = random.bytes(storeBounds.storeIdBytes);
    this.#meta.renewStoreId(storeId);
    this.#storeId = storeId;
  }

  /**
   * Moves the WAL into the database file once it is long enough. Called between batches, after the
   * replies. Throws StoreFailedError; a full disk only postpones it.
   */
  checkpointIfDue(): void {
    if (this.#requestsSinceLook < requestsPerLook) return;
    this.#requestsSinceLook = 0;
    const { log, checkpointed } = this.#walPages.get() ?? { log: 0, checkpointed: 0 };
    const pages = log - checkpointed;
    if (pages < this.#checkpointAtPages) return;
    try {
      this.#db.pragma('wal_checkpoint(PASSIVE)');
      this.#checkpointAtPages = walPagesMax;
    } catch (error) {
      this.#throwIfFatal(error);
      this.#checkpointAtPages = pages + walPagesMax;
    }
  }

  /** Checkpoints and frees the file. After a failure it leaves the file alone: no further sync. */
  [Symbol.dispose](): void {
    if (this.#failure !== undefined || !this.#db.open) return;
    try {
      this.#db.pragma('wal_checkpoint(TRUNCATE)');
    } catch (error) {
      // Everything acknowledged is in the WAL, which the next start reads.
      this.#throwIfFatal(error);
    }
    this.#db.close();
    this.#guard[Symbol.dispose]();
    this.#lock[Symbol.dispose]();
  }

  #throwIfFatal(error: unknown): void {
    if (!isFatal(error)) return;
    this.#failure ??= storeFailed(error);
    throw this.#failure;
  }
}

function makeOperations(context: QueryContext): Operations {
  const payloads = payloadQueries(context.db);
  const peers = peerQueries(context);
  const keys = keyQueries(context);
  const logs = logAppendQueries(context, payloads);
  const notices = noticeQueries(context, logs, peers);
  const tokens = tokenQueries(context, logs);
  const slips = returnSlips(context, logs);
  const { reports, ...outbox } = outboxQueries(context, payloads, peers, logs, notices, slips);
  const meta = metaQueries(context.db);
  const { logOf, ...mailboxes } = mailboxQueries(context, logs, tokens, () => meta.storeId());
  const inbox = inboxQueries(context, payloads, logs, notices, tokens, reports, mailboxes);
  const channels = channelQueries(context, { logs, inbox, outbox, notices, tokens });
  const deliverGroup = groupDeliveryQueries({
    ...{ logs, inbox, outbox, channels, notices },
    ...{ slips, reports },
  });
  const groupLog = groupLogQueries(context, payloads);
  const { begin, ...groups } = groupQueries(context, groupLog, deliverGroup);
  const hubSet = groupSetQueries(context, groupLog, begin, deliverGroup);
  return {
    ...secretQueries(context),
    ...markQueries(context),
    ...accountQueries(context),
    ...recoveryQueries(context),
    ...unloggedQueries(context),
    ...keys,
    ...mailboxes,
    ...inbox,
    ...peers,
    ...outbox,
    ...enqueueBatchQueries(context, inbox, outbox, logs, tokens, { logOf }),
    setDeliveryTokens: tokens.setDeliveryTokens,
    tokenRenewals: tokens.tokenRenewals,
    opensInbox: tokens.opensInbox,
    ...relayStatusQueries(context, logs, peers),
    ...channels,
    ...groups,
    ...hubSet,
    welcomeSlips: (_nowMs, sender, welcomes) => welcomeSlips(slips, logs, sender, welcomes),
    ...relayInboxQueries(context, inbox, channels, reports, peers),
    ...keyLogQueries(context),
    ...auditQueries(context),
    diskState: () => context.diskState(),
    sweep(nowMs) {
      keys.sweep(nowMs);
      inbox.sweep(nowMs);
      mailboxes.sweep(nowMs);
      outbox.sweep(nowMs);
      channels.sweep(nowMs);
      groupLog.sweep(nowMs);
    },
  };
}

function failedOutcome(error: unknown): OperationOutcome {
  if (error instanceof QpcError) return { isOk: false, error };
  if (sqliteCode(error) === 'SQLITE_FULL') {
    return {
      isOk: false,
      error: new UnavailableError('STORE_FULL', 'the disk is full', { cause: error }),
    };
  }
  return {
    isOk: false,
    error: new InternalError(`store: ${describeError(error)}`, { cause: error }),
  };
}
