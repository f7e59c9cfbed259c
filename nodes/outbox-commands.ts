/**
 * `qpcd outbox`: what waits for peers and what was given up, looked at and decided by an operator, of the running node
 * or of one that is stopped.
 */
import {
  InvalidArgumentError,
  maxAdminPage,
  TransportError,
  type Runtime,
} from '@quicprochat/proto';
import { dialAdminDoor, SilentNodeError } from './admin-door.ts';
import { RunningOutbox } from './running-outbox.ts';
import { needDatabase, openForReading } from './store/database.ts';
import type { DeadLetter, OutboxControl } from './store/outbox-control.ts';
import { deadLetterReads } from './store/queries/dead-letter-reads.ts';

/** Which dead letters: by their numbers, or all, of one peer or of every one. */
export interface DeadChoice {
  /** As typed; `qpcd outbox list` prints them. */
  readonly ids: readonly string[];
  readonly peer?: string;
  readonly all?: true;
}

/** What a command only looks at. */
export type OutboxReads = Pick<OutboxControl, 'outboxPeers' | 'deadLetters'>;

/** The outbox that lies in a database, also beside a node that has it open. Throws StoreOpenError. */
export function readOutbox(databasePath: string, key: Uint8Array): OutboxReads & AsyncDisposable {
  needDatabase(databasePath);
  const db = openForReading(databasePath, key);
  const reads = deadLetterReads(db);
  return {
    outboxPeers: async () => reads.outboxPeers(),
    deadLetters: async (after, max) => reads.deadLetters(after, max),
    [Symbol.asyncDispose]: async () => void db.close(),
  };
}

/**
 * Runs `work` on the outbox of the node that runs on the database, else on what `open` opens. Throws SetupError when
 * the node may not be asked.
 */
export async function withOutbox(
  databasePath: string,
  runtime: Runtime,
  open: () => Promise<OutboxControl & AsyncDisposable>,
  work: (outbox: OutboxControl, isRunning: boolean) => Promise<void>,
): Promise<void> {
  const connection = await dialAdminDoor(databasePath, runtime);
  if (connection !== undefined) {
    await using running = new RunningOutbox(connection);
    await work(running, true);
  } else {
    await using opened = await open();
    await work(opened, false);
  }
}

/**
 * What `look` finds in the outbox of the node that runs on the database, else in what `open` opens; there also when that
 * node does not answer, after `onSilent`. Throws as `withOutbox`.
 */
export async function lookAtOutbox<Found>(
  databasePath: string,
  runtime: Runtime,
  open: () => Promise<OutboxReads & AsyncDisposable>,
  look: (outbox: OutboxReads) => Promise<Found>,
  onSilent: () => void,
): Promise<Found> {
  try {
    const connection = await dialAdminDoor(databasePath, runtime);
    if (connection !== undefined) {
      await using running = new RunningOutbox(connection);
      return await look(running);
    }
  } catch (error) {
    if (!(error instanceof SilentNodeError || error instanceof TransportError)) throw error;
    onSilent();
  }
  await using opened = await open();
  return await look(opened);
}

/** Lines for a person: each peer with what is kept for it, then each dead letter. */
export async function* outboxLines(outbox: OutboxReads, peer?: string): AsyncGenerator<string> {
  for (const one of await outbox.outboxPeers()) {
    if (peer !== undefined && one.domain !== peer) continue;
    const away = one.awaySinceMs === 0 ? '' : `, away since ${dateOf(one.awaySinceMs)}`;
    yield (
      `${one.domain}  ${one.rows} rows wait (${one.bytes} bytes), ` +
      `${one.deadRows} dead (${one.deadBytes} bytes)${away}`
    );
  }
  for await (const letter of lettersIn(outbox, peer)) yield line(letter);
}

/** Throws InvalidArgumentError BAD_FIELD for a choice that is none. Durable when it resolves. */
export async function retryDeadLetters(
  outbox: OutboxControl,
  choice: DeadChoice,
): Promise<{ readonly retried: number; readonly expired: number }> {
  const sum = { retried: 0, expired: 0 };
  for (const ids of pagesOf(await chosen(outbox, choice))) {
    const { retried, expired } = await outbox.retryDead(ids);
    sum.retried += retried;
    sum.expired += expired;
  }
  return sum;
}

/** Returns how many there were. Throws like `retryDeadLetters`. */
export async function dropDeadLetters(outbox: OutboxControl, choice: DeadChoice): Promise<number> {
  let dropped = 0;
  for (const ids of pagesOf(await chosen(outbox, choice))) dropped += await outbox.dropDead(ids);
  return dropped;
}

/** All of them before the first is decided: what a peer refuses anew meanwhile is none of them. */
async function chosen(
  outbox: OutboxReads,
  { ids, peer, all }: DeadChoice,
): Promise<readonly number[]> {
  const ways = [ids.length > 0, peer !== undefined, all === true].filter(Boolean).length;
  if (ways !== 1) {
    throw new InvalidArgumentError('BAD_FIELD', 'need numbers of dead letters, --peer or --all');
  }
  if (ids.length > 0) return ids.map(numberOf);
  const found: number[] = [];
  for await (const { id } of lettersIn(outbox, peer)) found.push(id);
  return found;
}

function* pagesOf(ids: readonly number[]): Generator<readonly number[]> {
  for (let from = 0; from < ids.length; from += maxAdminPage) {
    yield ids.slice(from, from + maxAdminPage);
  }
}

/** Dead letters in order, of one peer or of all; the last number moves on, so each is seen once. */
async function* lettersIn(outbox: OutboxReads, peer?: string): AsyncGenerator<DeadLetter> {
  for (let after = 0; ;) {
    const letters = await outbox.deadLetters(after, maxAdminPage);
    const last = letters.at(-1);
    if (last === undefined) return;
    after = last.id;
    yield* letters.filter((one) => peer === undefined || one.peer === peer);
  }
}

function line({ id, peer, rid, reason, bytes, deadMs, expiresMs }: DeadLetter): string {
  const device = Buffer.from(rid).toString('hex').slice(0, 16);
  return (
    `#${id}  ${peer}  device ${device}  ${reason}  ${bytes} bytes  ` +
    `dead ${dateOf(deadMs)}  expires ${dateOf(expiresMs)}`
  );
}

function numberOf(text: string): number {
  const digits = /^#?(\d{1,15})$/.exec(text)?.[1];
  if (digits === undefined) {
    throw new InvalidArgumentError('BAD_FIELD', `${text}: no number of a dead letter`);
  }
  return Number(digits);
}

function dateOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16);
}
