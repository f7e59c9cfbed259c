/**
 * A log as files (C2SP tlog-tiles, kt-log/README.md): the paths below a node's HTTP door, which are
 * those of a mirrored directory too; what stands in each; and the source that reads them, over
 * whatever reads a path. Bundles of audits are whole at 256 entries and partial at the end.
 */
import { fromBinary, NodeRecordSchema, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import { auditBundle, bundleBytesMax, bundleEntriesMax } from './auditor.ts';
import type { AuditedEntry } from './log.ts';
import { configuration } from './codec.ts';
import type { SignedHead } from './evidence.ts';
import type { Sha256 } from './hash.ts';
import { logEntry } from './hash.ts';
import type { PublishedLog, StatedKeys } from './log-source.ts';
import { noteLimits, parseVkey, SignatureType } from './note.ts';
import { decode, encode } from './presentation.ts';
import { entryBundle, parseTilePath, tilePath, tileWidth, tileWidthAt } from './tiles.ts';
import { verify, VerificationError } from './verification-error.ts';

/** Paths from the root of the door, without a leading slash. */
export const mirrorPaths = {
  /** A SignedNodeRecord, which names the log's keys. */
  record: '.well-known/qpc',
  checkpoint: 'kt/checkpoint',
  tile: (level: number | undefined, index: number, width?: number): string =>
    `kt/${tilePath(level, index, width)}`,
  /** Bundle n holds entries 256n and up: 256 of them, or the first `width`. */
  audit: (index: number, width?: number): string =>
    `kt/audit/${index}${width === undefined ? '' : `.p/${width}`}`,
} as const;

/** Most bytes that a mirror's file may have. */
const bytesMax = {
  record: 65_536,
  checkpoint: noteLimits.bytesMax,
  bundle: bundleBytesMax,
} as const;

/** What names one file below `kt/` other than the checkpoint. */
export interface MirrorFile {
  readonly kind: 'tile' | 'entries' | 'audit';
  readonly level: number;
  readonly index: number;
  /** Hashes or entries in it, 1 to 256. */
  readonly width: number;
}

/** Reads a path below `kt/` that `mirrorPaths` could have written; undefined for any other. */
export function parseMirrorPath(path: string): MirrorFile | undefined {
  const audit = /^audit\/(0|[1-9]\d{0,12})(?:\.p\/([1-9]\d{0,2}))?$/.exec(path);
  if (audit !== null) {
    const width = audit[2] === undefined ? bundleEntriesMax : Number(audit[2]);
    const isPartial = audit[2] === undefined || width < bundleEntriesMax;
    return isPartial ? { kind: 'audit', level: 0, index: Number(audit[1]), width } : undefined;
  }
  const tile = parseTilePath(path);
  if (tile === undefined) return undefined;
  const { level, index, width = tileWidth } = tile;
  return { kind: level === undefined ? 'entries' : 'tile', level: level ?? 0, index, width };
}

/** The parts of a KtLog that files are made of. */
export interface MirroredLog {
  readonly size: number;
  checkpoint(size?: number): Promise<string>;
  auditedEntries(from: number, to: number): Promise<readonly AuditedEntry[]>;
  auditBundle(from: number, to: number): Promise<Parameters<typeof auditBundle.write>[1]>;
  tile(level: number, index: number, width?: number): Promise<Uint8Array | undefined>;
}

/** The bytes of a file; undefined if the log has no such file (yet). They never change. */
export async function mirrorFile(
  log: MirroredLog,
  { kind, level, index, width }: MirrorFile,
): Promise<Uint8Array | undefined> {
  if (kind === 'tile') {
    return log.tile(level, index, width === tileWidth ? undefined : width);
  }
  const from = index * tileWidth;
  const to = from + width;
  if (to > log.size) return undefined;
  if (kind === 'audit') return encode(auditBundle, await log.auditBundle(from, to));
  const audited = await log.auditedEntries(from, to);
  return entryBundle(
    audited.map(({ update, prefixRoot }) => logEntry(update.timestampMs, prefixRoot)),
  );
}

/** Every file of the log as it is now, the checkpoint last: with it the others are complete. */
export async function* mirrorFiles(
  log: MirroredLog,
): AsyncGenerator<{ readonly path: string; readonly bytes: Uint8Array }> {
  const { size } = log;
  const files: MirrorFile[] = [];
  const add = (kind: MirrorFile['kind'], level: number, count: number): void => {
    for (let index = 0; index * tileWidth < count; index++) {
      files.push({ kind, level, index, width: tileWidthAt(count, 0, index) });
    }
  };
  add('audit', 0, size);
  add('entries', 0, size);
  for (let level = 0; tileWidthAt(size, level, 0) > 0; level++) {
    add('tile', level, Math.floor(size / tileWidth ** level));
  }
  for (const file of files) {
    const bytes = await mirrorFile(log, file);
    if (bytes !== undefined) yield { path: pathOf(file), bytes };
  }
  if (size > 0) {
    const bytes = new TextEncoder().encode(await log.checkpoint(size));
    yield { path: mirrorPaths.checkpoint, bytes };
  }
}

function pathOf({ kind, level, index, width }: MirrorFile): string {
  const partial = width === tileWidth ? undefined : width;
  return kind === 'audit'
    ? mirrorPaths.audit(index, partial)
    : mirrorPaths.tile(kind === 'entries' ? undefined : level, index, partial);
}

/**
 * Reads one file of a mirror; undefined when there is none. Throws QpcError when it cannot be read
 * or has more than `bytesMax` bytes.
 */
export interface MirrorReader {
  read(path: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array | undefined>;
}

/** A mirrored log as a source. */
export class Mirror implements PublishedLog {
  readonly #reader: MirrorReader;
  readonly #sha256: Sha256;

  constructor(reader: MirrorReader, sha256: Sha256) {
    this.#reader = reader;
    this.#sha256 = sha256;
  }

  async keys(signal?: AbortSignal): Promise<StatedKeys> {
    const bytes = await this.#need(mirrorPaths.record, bytesMax.record, signal);
    return keysOfRecord(this.#sha256, bytes);
  }

  checkpoint(signal?: AbortSignal): Promise<Uint8Array> {
    return this.#need(mirrorPaths.checkpoint, bytesMax.checkpoint, signal);
  }

  /** The whole bundle where there is one, else the partial one that ends where `max` does. */
  async bundle(from: number, max: number, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const index = Math.floor(from / bundleEntriesMax);
    const width = from + max - index * bundleEntriesMax;
    const read = (path: string) => this.#reader.read(path, bytesMax.bundle, signal);
    // At the end of the log the partial one is what there is; elsewhere the whole one.
    const exact =
      width < bundleEntriesMax ? await read(mirrorPaths.audit(index, width)) : undefined;
    return exact ?? read(mirrorPaths.audit(index));
  }

  /** Files hold checkpoints, no TreeHeads. */
  async heads(): Promise<readonly SignedHead[]> {
    return [];
  }

  async #need(path: string, max: number, signal?: AbortSignal): Promise<Uint8Array> {
    const bytes = await this.#reader.read(path, max, signal);
    verify(bytes !== undefined, 'NOT_FOUND', `mirror file ${path}`, 'to be there');
    return bytes;
  }
}

/** The newest log that an encoded SignedNodeRecord names. Says nothing about who signed it. */
export function keysOfRecord(sha256: Sha256, bytes: Uint8Array): StatedKeys {
  try {
    const record = fromBinary(NodeRecordSchema, fromBinary(SignedNodeRecordSchema, bytes).record);
    return keysOf(sha256, record);
  } catch (error) {
    if (error instanceof VerificationError) throw error;
    throw new VerificationError('MALFORMED', 'node record', 'an encoded one', error);
  }
}

/** The newest log of a node's record. */
export function keysOf(
  sha256: Sha256,
  record: {
    readonly kt: readonly { readonly config: Uint8Array; readonly vkey: string }[];
    readonly cosigners: readonly string[];
  },
): StatedKeys {
  const log = record.kt.at(-1);
  verify(log !== undefined, 'NOT_FOUND', 'node record', 'a key-transparency log in it');
  const key = parseVkey(sha256, log.vkey);
  verify(key.type === SignatureType.ed25519, 'MALFORMED', 'vkey of the log', 'an Ed25519 key');
  const cosigners = record.cosigners.map((vkey) => parseVkey(sha256, vkey));
  return { origin: key.name, key, config: decode(configuration, log.config), cosigners };
}
