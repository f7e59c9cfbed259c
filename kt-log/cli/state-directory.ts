/**
 * An AuditStore in a directory: one folder per log with its state in one JSON file, which is replaced
 * as a whole, the heads as 104-byte records behind one another, and evidence file by file. For one
 * process at a time. Not for nodes: they have a database.
 */
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ConflictError, DataLossError } from '@quicprochat/proto/status';
import type { AuditStore, EvidenceRecord, FollowedLog, LogStatus } from '../audit-store.ts';
import { checkAdvance, logStatuses } from '../audit-store.ts';
import { fromBase64, toBase64 } from '../base64.ts';
import type { EvidenceKind, SignedHead } from '../evidence.ts';
import { evidenceKinds, signedHead } from '../evidence.ts';
import { sameBytes } from '../hash.ts';
import { decode, encode } from '../presentation.ts';
import { makeDirectory, readIfThere, writeDurably } from './durable-file.ts';

const headBytes = 104;

interface KnownEvidence {
  readonly kind: EvidenceKind;
  readonly foundMs: number;
  /** Hex; the name of its file. */
  readonly hash: string;
  /** How many records of all logs came before it. */
  readonly sequence: number;
}
interface LogState {
  readonly status: LogStatus | undefined;
  readonly followed: FollowedLog | undefined;
  readonly evidence: readonly KnownEvidence[];
  /** Entries before it were taken from the log's word. */
  readonly startSize: number;
}
const nothing: LogState = { status: undefined, followed: undefined, evidence: [], startSize: 0 };
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class DirectoryAuditStore implements AuditStore {
  readonly #root: string;
  /** Reads and changes come one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(root: string) {
    this.#root = root;
  }
  /** Makes the directory where there is none. */
  static async open(root: string): Promise<DirectoryAuditStore> {
    await makeDirectory(root);
    return new DirectoryAuditStore(root);
  }

  /** The folder of a log; its name is the origin with everything unusual escaped. */
  folder(origin: string): string {
    return join(this.#root, encodeURIComponent(origin).replace(/^\./, '%2E'));
  }

  followed(origin: string): Promise<FollowedLog | undefined> {
    return this.#alone(async () => (await this.#read(origin)).followed);
  }
  advance(log: FollowedLog): Promise<void> {
    return this.#alone(async () => {
      const state = await this.#read(log.origin);
      checkAdvance(state.followed, state.status, log);
      if (state.followed?.size !== log.size) {
        await this.#write(log.origin, { ...state, followed: log });
      }
    });
  }

  status(origin: string): Promise<LogStatus | undefined> {
    return this.#alone(async () => (await this.#read(origin)).status);
  }
  setStatus(origin: string, status: LogStatus): Promise<void> {
    return this.#alone(async () => {
      await this.#write(origin, { ...(await this.#read(origin)), status });
    });
  }

  /** Entries of what is followed that were taken from the log's word, and never replayed. */
  startSize(origin: string): Promise<number> {
    return this.#alone(async () => (await this.#read(origin)).startSize);
  }
  setStartSize(origin: string, startSize: number): Promise<void> {
    return this.#alone(async () => {
      await this.#write(origin, { ...(await this.#read(origin)), startSize });
    });
  }

  heads(origin: string, fromSize: number, max: number): Promise<readonly SignedHead[]> {
    return this.#alone(async () => {
      const held = [...(await this.#heads(origin)).values()];
      const wanted = held.filter((head) => head.size >= fromSize);
      return wanted.toSorted((a, b) => a.size - b.size).slice(0, max);
    });
  }
  putHeads(origin: string, heads: readonly SignedHead[]): Promise<void> {
    return this.#alone(async () => {
      const held = await this.#heads(origin);
      const added: SignedHead[] = [];
      for (const head of heads) {
        const known = held.get(head.size);
        if (known !== undefined && !sameBytes(known.root, head.root)) {
          throw new ConflictError('SEQ_CONFLICT', `audit store: another head of size ${head.size}`);
        }
        if (known === undefined) added.push(head);
        held.set(head.size, known ?? head);
      }
      if (added.length === 0) return;
      await makeDirectory(this.folder(origin));
      await using file = await open(join(this.folder(origin), 'heads'), 'a', 0o600);
      // A record that a crash cut is overwritten by the next one.
      const { size } = await file.stat();
      await file.truncate(size - (size % headBytes));
      await file.writeFile(Buffer.concat(added.map((head) => encode(signedHead, head))));
      await file.sync();
    });
  }

  putEvidence(record: EvidenceRecord, status: LogStatus): Promise<void> {
    return this.#alone(async () => {
      const { origin, kind, foundMs } = record;
      const hash = hex(record.hash);
      const state = await this.#read(origin);
      const isKnown = state.evidence.some((one) => one.hash === hash);
      const sequence = (await this.#allEvidence()).length;
      const added = isKnown ? [] : [{ kind, foundMs, hash, sequence }];
      await makeDirectory(this.folder(origin));
      // The file is there before anything names it.
      if (!isKnown) await writeDurably(join(this.folder(origin), hash), record.bytes);
      await this.#write(origin, { ...state, status, evidence: [...state.evidence, ...added] });
    });
  }
  evidence(origin?: string): Promise<readonly EvidenceRecord[]> {
    return this.#alone(async () => {
      const all: EvidenceRecord[] = [];
      for (const { origin: one, kind, hash, foundMs } of await this.#allEvidence()) {
        if (origin !== undefined && one !== origin) continue;
        const bytes = await readIfThere(join(this.folder(one), hash));
        if (bytes === undefined) throw damaged(`${one}: evidence ${hash} is missing`);
        const named = new Uint8Array(Buffer.from(hash, 'hex'));
        all.push({ origin: one, kind, hash: named, bytes, foundMs });
      }
      return all;
    });
  }

  async #allEvidence(): Promise<(KnownEvidence & { readonly origin: string })[]> {
    const all: (KnownEvidence & { readonly origin: string })[] = [];
    for (const origin of await this.#origins()) {
      all.push(...(await this.#read(origin)).evidence.map((one) => ({ ...one, origin })));
    }
    return all.toSorted((a, b) => a.sequence - b.sequence);
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    try {
      await before;
      return await work();
    } finally {
      resolve();
    }
  }

  async #origins(): Promise<string[]> {
    const names = await readdir(this.#root, { withFileTypes: true });
    return names.filter((one) => one.isDirectory()).flatMap(({ name }) => this.#originOf(name));
  }

  /** The origin of a folder's name; none for a name that `folder` never gives. */
  #originOf(name: string): string[] {
    try {
      const origin = decodeURIComponent(name);
      return this.folder(origin) === join(this.#root, name) ? [origin] : [];
    } catch {
      return [];
    }
  }

  async #heads(origin: string): Promise<Map<number, SignedHead>> {
    const bytes = (await readIfThere(join(this.folder(origin), 'heads'))) ?? new Uint8Array();
    const heads = new Map<number, SignedHead>();
    for (let at = 0; at + headBytes <= bytes.length; at += headBytes) {
      const head = decode(signedHead, bytes.subarray(at, at + headBytes));
      heads.set(head.size, head);
    }
    return heads;
  }

  async #read(origin: string): Promise<LogState> {
    const path = join(this.folder(origin), 'state.json');
    const bytes = await readIfThere(path);
    if (bytes === undefined) return nothing;
    try {
      return parseState(origin, JSON.parse(new TextDecoder().decode(bytes)));
    } catch (error) {
      throw damaged(`${path}: ${error instanceof Error ? error.message : 'unreadable'}`, error);
    }
  }

  async #write(origin: string, { status, followed, evidence, startSize }: LogState): Promise<void> {
    const log = followed && {
      size: followed.size,
      rfc6962Root: toBase64(followed.rfc6962Root),
      state: toBase64(followed.state),
      checkpoint: toBase64(followed.checkpoint),
    };
    await makeDirectory(this.folder(origin));
    const text = JSON.stringify(
      { origin, status, startSize, followed: log, evidence },
      undefined,
      2,
    );
    await writeDurably(join(this.folder(origin), 'state.json'), `${text}\n`);
  }
}

function damaged(message: string, cause?: unknown): DataLossError {
  const advice = 'remove that folder to replay the log from its start';
  return new DataLossError('STORE_CHANGED', `damaged: ${message}; ${advice}`, { cause });
}

/** Reads what #write wrote. Throws for anything else. */
function parseState(origin: string, json: unknown): LogState {
  const state = recordOf(json);
  const status = logStatuses.find((one) => one === state['status']);
  // Not in states of before it was written down.
  const { followed, startSize = 0 } = state;
  if (!isSize(startSize)) throw new Error('startSize: malformed');
  const evidence = Array.isArray(state['evidence']) ? state['evidence'].map(recordOf) : [];
  return {
    status,
    startSize,
    followed: followed === undefined ? undefined : followedOf(origin, recordOf(followed)),
    evidence: evidence.map(({ kind, foundMs, hash, sequence }) => {
      const known = evidenceKinds.find((one) => one === kind);
      const isCounted = typeof foundMs === 'number' && typeof sequence === 'number';
      if (known === undefined || !isCounted) throw new Error('evidence: malformed');
      if (typeof hash !== 'string' || !/^[0-9a-f]{64}$/.test(hash))
        throw new Error('hash: malformed');
      return { kind: known, foundMs, hash, sequence };
    }),
  };
}
function followedOf(origin: string, log: Readonly<Record<string, unknown>>): FollowedLog {
  const bytesOf = (name: string): Uint8Array => {
    const value = log[name];
    const bytes = typeof value === 'string' ? fromBase64(value) : undefined;
    if (bytes === undefined) throw new Error(`${name}: not base64`);
    return bytes;
  };
  const { size } = log;
  if (!isSize(size)) throw new Error('size: malformed');
  return {
    origin,
    size,
    rfc6962Root: bytesOf('rfc6962Root'),
    state: bytesOf('state'),
    checkpoint: bytesOf('checkpoint'),
  };
}
function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) throw new Error('not an object');
  return value as Record<string, unknown>;
}
