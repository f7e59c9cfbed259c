/**
 * `qpcd outbox`: what waits for peers and what was given up, looked at beside the running node, and decided
 * by an operator while it is stopped.
 */
import { InvalidArgumentError } from '@quicprochat/proto';
import { needDatabase, openForReading } from './store/database.ts';
import { deadLetterReads, type DeadLetterReads } from './store/queries/dead-letter-reads.ts';
import type { DeadLetter } from './store/outbox-control.ts';
import type { NodeStore } from './store/store.ts';

/** Dead letters that one operation of the store takes. */
const pageRows = 500;

/** Which dead letters: by their numbers, or all, of one peer or of every one. */
export interface DeadChoice {
  /** As typed; `qpcd outbox list` prints them. */
  readonly ids: readonly string[];
  readonly peer?: string;
  readonly all?: true;
}

/** Lines for a person: each peer with what is kept for it, then each dead letter. Throws StoreOpenError. */
export function* outboxLines(
  databasePath: string,
  key: Uint8Array,
  peer?: string,
): Generator<string> {
  needDatabase(databasePath);
  const db = openForReading(databasePath, key);
  try {
    yield* linesOf(deadLetterReads(db), peer);
  } finally {
    db.close();
  }
}

function* linesOf(reads: DeadLetterReads, peer?: string): Generator<string> {
  for (const one of reads.outboxPeers()) {
    if (peer !== undefined && one.domain !== peer) continue;
    const away = one.awaySinceMs === 0 ? '' : `, away since ${dateOf(one.awaySinceMs)}`;
    yield (
      `${one.domain}  ${one.rows} rows wait (${one.bytes} bytes), ` +
      `${one.deadRows} dead (${one.deadBytes} bytes)${away}`
    );
  }
  for (let after = 0; ;) {
    const letters = reads.deadLetters(after, pageRows);
    const last = letters.at(-1);
    if (last === undefined) return;
    after = last.id;
    for (const letter of letters)
      if (peer === undefined || letter.peer === peer) yield line(letter);
  }
}

/** Throws InvalidArgumentError BAD_FIELD for a choice that is none. Durable when it resolves. */
export async function retryDeadLetters(
  store: NodeStore,
  choice: DeadChoice,
): Promise<{ readonly retried: number; readonly expired: number }> {
  const sum = { retried: 0, expired: 0 };
  for await (const ids of chosen(store, choice)) {
    const { retried, expired } = await store.retryDead(ids);
    sum.retried += retried;
    sum.expired += expired;
  }
  return sum;
}

/** Returns how many there were. Throws like `retryDeadLetters`. */
export async function dropDeadLetters(store: NodeStore, choice: DeadChoice): Promise<number> {
  let dropped = 0;
  for await (const ids of chosen(store, choice)) dropped += await store.dropDead(ids);
  return dropped;
}

async function* chosen(
  store: NodeStore,
  { ids, peer, all }: DeadChoice,
): AsyncGenerator<readonly number[]> {
  const ways = [ids.length > 0, peer !== undefined, all === true].filter(Boolean).length;
  if (ways !== 1) {
    throw new InvalidArgumentError('BAD_FIELD', 'need numbers of dead letters, --peer or --all');
  }
  if (ids.length > 0) {
    yield ids.map(numberOf);
    return;
  }
  for await (const letters of pages(store)) {
    yield letters.filter((one) => all === true || one.peer === peer).map(({ id }) => id);
  }
}

/** All dead letters in order; the last number moves on, so each is seen once. */
async function* pages(store: NodeStore): AsyncGenerator<readonly DeadLetter[]> {
  for (let after = 0; ;) {
    const letters = await store.deadLetters(after, pageRows);
    const last = letters.at(-1);
    if (last === undefined) return;
    after = last.id;
    yield letters;
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
