/**
 * `qpcd peers`: how it stands with each peer, read beside a running node or without one, and the
 * signal by which the running node reads its peers file again.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fromBinary, NodeRecordSchema, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import type { PeersFile } from '@quicprochat/federation';
import { SetupError } from './setup-error.ts';
import { FileLock, pidFileOf } from './store/file-lock.ts';
import { StoreOpenError } from './store/open-error.ts';
import { readPeerRows, type PeerView } from './store/peer-view.ts';

/** Lines for a person: each peer of the file or of the database. Throws StoreOpenError. */
export function* peerLines(
  databasePath: string,
  key: Uint8Array,
  file: PeersFile,
  nowMs: number,
): Generator<string> {
  const listed = new Set(file.peers.map(({ domain }) => domain));
  const rows = new Map(readPeerRows(databasePath, key).map((row) => [row.domain, row]));
  for (const domain of [...new Set([...listed, ...rows.keys()])].sort()) {
    const row = rows.get(domain);
    const from = listed.has(domain) ? 'listed' : row?.isFound === true ? 'found' : 'not a peer';
    if (row === undefined) yield `${domain}  ${from}  never heard`;
    else yield* linesOf(row, from, nowMs);
  }
}

function* linesOf(row: PeerView, from: string, nowMs: number): Generator<string> {
  const heard = row.seenMs === 0 ? 'never heard' : `heard ${ago(nowMs - row.seenMs)} ago`;
  const error = row.lastError === '' ? '' : `, last error ${row.lastError}`;
  const away = row.awaySinceMs === 0 ? '' : `, away for ${ago(nowMs - row.awaySinceMs)}`;
  yield `${row.domain}  ${from}  ${row.linkState}  ${heard}${away}${error}`;
  const oldest = row.oldestMs === 0 ? '' : `, oldest ${ago(nowMs - row.oldestMs)}`;
  yield (
    `  ${row.rows} rows wait (${row.bytes} bytes${oldest}), ${row.deadRows} dead, ` +
    `credit ${row.creditItems}`
  );
  if (row.record !== undefined) yield `  ${recordText(row.record)}`;
  if (row.candidateSinceMs > 0) {
    yield `  its site shows unknown keys for ${ago(nowMs - row.candidateSinceMs)}`;
  }
}

function recordText(bytes: Uint8Array): string {
  const { seq, keys } = fromBinary(
    NodeRecordSchema,
    fromBinary(SignedNodeRecordSchema, bytes).record,
  );
  const ends = keys.map(({ toMs }) => Number(toMs)).filter((ms) => ms > 0);
  const pins = keys.map(({ spkiSha256 }) => Buffer.from(spkiSha256).toString('base64url'));
  const until = ends.length === 0 ? 'without end' : `one until ${dateOf(Math.min(...ends))}`;
  return `record ${seq}, keys ${pins.join(' ')} (${until})`;
}

function ago(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 72 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

function dateOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

/** A running node leaves its process id beside its database, which it has locked. Returns the file's name. */
export function writePidFile(databasePath: string): string {
  const file = pidFileOf(databasePath);
  writeFileSync(file, `${process.pid}\n`, { mode: 0o600 });
  return file;
}

/** Sends SIGHUP to the node that has the database open. Throws SetupError when none does, or none yet. */
export function signalReload(databasePath: string): number {
  const notRunning = `${databasePath}: no node runs on it; it reads the peers file when it starts`;
  if (!isLocked(databasePath)) throw new SetupError(notRunning);
  const file = pidFileOf(databasePath);
  if (!existsSync(file)) {
    const who = 'a node that is starting, or another command, has it open';
    throw new SetupError(`${databasePath}: ${who}; try again when the node says "ready"`);
  }
  try {
    const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
    if (!(pid > 1)) throw new Error(`${file}: holds no process id`);
    process.kill(pid, 'SIGHUP');
    return pid;
  } catch (cause) {
    throw new SetupError(`${file}: the node could not be told; send it SIGHUP yourself`, cause);
  }
}

function isLocked(databasePath: string): boolean {
  try {
    new FileLock(databasePath)[Symbol.dispose]();
    return false;
  } catch (error) {
    if (error instanceof StoreOpenError && error.reason === 'STORE_LOCKED') return true;
    throw error;
  }
}
