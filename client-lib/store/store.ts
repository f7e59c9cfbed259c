/**
 * The device store as an interface: one file, one process, synchronous. A transaction is durable
 * (WAL, synchronous=FULL) when `transaction` returns. Each area is a small interface of rows, beside the
 * SQL of its tables; what a row means and which rows belong into one transaction is the callers' business
 * (sync, outbox, conversation).
 */
import type { AccountRows } from './account-rows.ts';
import type { CardRows } from './card-rows.ts';
import type { ChannelRows } from './channel-rows.ts';
import type { ClosedRows } from './closed-rows.ts';
import type { ContactRows } from './contact-rows.ts';
import type { EndpointRows } from './endpoint-rows.ts';
import type { GroupLogRows } from './group-log-rows.ts';
import type { GroupRows } from './group-rows.ts';
import type { InboxRows } from './inbox-rows.ts';
import type { KeyRows } from './key-rows.ts';
import type { LogRows } from './log-rows.ts';
import type { MailboxRows } from './mailbox-rows.ts';
import type { MessageRows } from './message-rows.ts';
import type { OutboxRows } from './outbox-copies.ts';
import type { ReceiptRows } from './receipt-rows.ts';
import type { ResendRows } from './resend-rows.ts';
import type { ResyncRows } from './resync-rows.ts';
import type { SkippedRows } from './skipped-rows.ts';
import type { StandingRows } from './standing-rows.ts';
import type { TokenRows } from './token-rows.ts';

/** The whole store. Only one process can have it open. */
export interface ClientStore extends Disposable {
  /**
   * Runs `work` in one transaction: all of its writes or none. Synchronous, so nothing else of
   * this process comes between. Durable on return. An inner call joins the outer transaction.
   */
  transaction<T>(work: () => T): T;
  /** Empties the write-ahead log, so that overwritten secrets leave the disk. */
  checkpoint(): void;
  /** Checkpoints and closes. Idempotent. */
  close(): void;
  readonly account: AccountRows;
  readonly keys: KeyRows;
  readonly contacts: ContactRows;
  readonly logs: LogRows;
  readonly groups: GroupRows;
  readonly groupLog: GroupLogRows;
  readonly standings: StandingRows;
  readonly messages: MessageRows;
  readonly inbox: InboxRows;
  readonly outbox: OutboxRows;
  readonly channels: ChannelRows;
  readonly receipts: ReceiptRows;
  readonly resend: ResendRows;
  readonly skipped: SkippedRows;
  readonly tokens: TokenRows;
  readonly endpoints: EndpointRows;
  readonly mailboxes: MailboxRows;
  readonly cards: CardRows;
  readonly resync: ResyncRows;
  readonly closed: ClosedRows;
}
