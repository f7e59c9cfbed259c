/**
 * Evidence against a log: what signatures of it prove to anybody who has nothing but the bytes
 * (kt-log/README.md). Here: the kinds, their contents and encoding. They are made in
 * evidence-proofs.ts and judged in evidence-check.ts. Browser-safe.
 */
import { bundleBytesMax } from './auditor.ts';
import type { Configuration } from './codec.ts';
import { configuration, maxLabelBytes, maxTimeMs, maxTreeSize } from './codec.ts';
import type { Hash, Sha256 } from './hash.ts';
import { hashBytes, logEntryBytes } from './hash.ts';
import type { NodeId } from './log-tree.ts';
import { nodeId } from './log-tree.ts';
import type { NoteKey } from './note.ts';
import { formatVkey, parseVkey, SignatureType } from './note.ts';
import type { Structure } from './presentation.ts';
import { decode, encode, maxUint16, maxUint32, maxUint8, Reader, Writer } from './presentation.ts';
import type { ReplayedState } from './replayed-state.ts';
import { ownNoteBytesMax, readHashes, replayedState, writeHashes } from './replayed-state.ts';
import { verify, VerificationError } from './verification-error.ts';

/** What a log did; programs switch on it, so a kind is never renamed. The order is the encoding. */
export const evidenceKinds = [
  'same-size',
  'note-vs-head',
  'inconsistent',
  'time',
  'bad-update',
  'bad-value',
] as const;
export type EvidenceKind = (typeof evidenceKinds)[number];

/** Most bytes of evidence: 64 KiB without an audit bundle, else what one or two bundles may have. */
export const evidenceLimits = {
  bytesMax: 65_536,
  noteBytesMax: ownNoteBytesMax,
  bundleEvidenceBytesMax: 2 * bundleBytesMax + 65_536,
} as const;

/** A TreeHead with the root that it signs: 104 bytes on the wire. */
export interface SignedHead {
  readonly size: number;
  /** KEYTRANS root at that size. */
  readonly root: Hash;
  /** Signature of the TreeHead (protocol section 11.2), 64 bytes. */
  readonly signature: Uint8Array;
}
export const signedHead: Structure<SignedHead> = {
  name: 'SignedHead',
  write(w, head) {
    w.u64(head.size, 'size').fixed(head.root, hashBytes, 'root');
    w.fixed(head.signature, 64, 'signature');
  },
  read: (r) => ({
    size: r.u64('size', maxTreeSize),
    root: r.fixed(hashBytes, 'root'),
    signature: r.fixed(64, 'signature'),
  }),
};

/** One state of the log as it signed it: a checkpoint (a C2SP note), or a TreeHead. */
export type Statement =
  | { readonly type: 'note'; readonly note: Uint8Array }
  | { readonly type: 'head'; readonly head: SignedHead };

/** A node of a log tree under a statement. */
export interface ShownNode {
  readonly statement: Statement;
  readonly value: Hash;
  readonly path: readonly Hash[];
}
/** A log entry under a head. */
export interface ShownEntry {
  readonly position: number;
  /** 40 bytes. */
  readonly entry: Uint8Array;
  readonly path: readonly Hash[];
}
/** A SearchResponse, and which version was asked for; undefined: the greatest one. */
export interface ShownVersion {
  readonly version: number | undefined;
  readonly response: Uint8Array;
}

export type EvidenceBody =
  /** Two statements of one type and size with different roots. */
  | { readonly kind: 'same-size'; readonly statements: readonly [Statement, Statement] }
  /** A checkpoint that names another KEYTRANS root than the TreeHead of its size. */
  | { readonly kind: 'note-vs-head'; readonly note: Uint8Array; readonly head: SignedHead }
  /** One node of the log tree with different values in two heads, the older one first. */
  | {
      readonly kind: 'inconsistent';
      readonly shows: 'nodes';
      readonly node: NodeId;
      readonly older: ShownNode;
      readonly newer: ShownNode;
    }
  /** A checkpoint, and a bundle from entry 0 on whose entries have another root at its size. */
  | {
      readonly kind: 'inconsistent';
      readonly shows: 'entries';
      readonly note: Uint8Array;
      readonly bundle: Uint8Array;
    }
  /** Two bundles that list different entries at one position. */
  | {
      readonly kind: 'inconsistent';
      readonly shows: 'bundles';
      readonly bundles: readonly [Uint8Array, Uint8Array];
    }
  /** Two entries under one statement whose times go back. */
  | {
      readonly kind: 'time';
      readonly statement: Statement;
      readonly entries: readonly [ShownEntry, ShownEntry];
    }
  /**
   * A bundle whose replay fails. `before` is a state that it continues; without it only what the
   * bundle says by itself is replayed, which is all of it for a bundle from entry 0 on.
   */
  | {
      readonly kind: 'bad-update';
      readonly before: ReplayedState | undefined;
      readonly bundle: Uint8Array;
    }
  /** A version that its own value, or the one before it, forbids. One or two answers to searches. */
  | {
      readonly kind: 'bad-value';
      readonly label: Uint8Array;
      /** The time at which the answers were fresh. */
      readonly seenMs: number;
      readonly versions: readonly ShownVersion[];
    };

/** Evidence as it was decoded; nothing in it is verified. */
export interface Evidence {
  readonly origin: string;
  /** Present exactly when a TreeHead of the log is part of the evidence. */
  readonly config: Configuration | undefined;
  /** The log's checkpoint key; present exactly when a note or a bundle is part of the evidence. */
  readonly key: NoteKey | undefined;
  readonly body: EvidenceBody;
}

/** The keys that evidence of this content is judged by. */
export function keysNeeded(body: EvidenceBody): {
  readonly config: boolean;
  readonly key: boolean;
} {
  const isHead = (statement: Statement): boolean => statement.type === 'head';
  switch (body.kind) {
    case 'note-vs-head':
      return { config: true, key: true };
    case 'same-size':
      return oneKey(body.statements.some(isHead));
    case 'inconsistent':
      return oneKey(body.shows === 'nodes' && isHead(body.older.statement));
    case 'time':
      return oneKey(isHead(body.statement));
    case 'bad-update':
      return oneKey(false);
    case 'bad-value':
      return oneKey(true);
  }
}
const oneKey = (config: boolean) => ({ config, key: !config });

const statement: Structure<Statement> = {
  name: 'Statement',
  write(w, one) {
    w.u8(one.type === 'note' ? 1 : 2, 'type');
    if (one.type === 'note') w.opaque(one.note, maxUint16, 'note');
    else signedHead.write(w, one.head);
  },
  read(r) {
    const type = r.u8('type');
    if (type === 1) return { type: 'note', note: readNote(r) };
    if (type === 2) return { type: 'head', head: signedHead.read(r) };
    throw r.malformed('type', 'note (1) or head (2)');
  },
};
const readNote = (r: Reader): Uint8Array => r.opaque(maxUint16, 'note', ownNoteBytesMax);
const readBundle = (r: Reader): Uint8Array => r.opaque(maxUint32, 'bundle', bundleBytesMax);

const shownNode: Structure<ShownNode> = {
  name: 'ShownNode',
  write(w, shown) {
    statement.write(w, shown.statement);
    w.fixed(shown.value, hashBytes, 'value');
    writeHashes(w, shown.path, 'path');
  },
  read: (r) => ({
    statement: statement.read(r),
    value: r.fixed(hashBytes, 'value'),
    path: readHashes(r, 'path'),
  }),
};
const shownEntry: Structure<ShownEntry> = {
  name: 'ShownEntry',
  write(w, shown) {
    w.u64(shown.position, 'position').fixed(shown.entry, logEntryBytes, 'entry');
    writeHashes(w, shown.path, 'path');
  },
  read: (r) => ({
    position: r.u64('position', maxTreeSize),
    entry: r.fixed(logEntryBytes, 'entry'),
    path: readHashes(r, 'path'),
  }),
};
function writeBody(w: Writer, body: EvidenceBody): void {
  switch (body.kind) {
    case 'same-size':
      for (const one of body.statements) statement.write(w, one);
      break;
    case 'note-vs-head':
      w.opaque(body.note, maxUint16, 'note');
      signedHead.write(w, body.head);
      break;
    case 'inconsistent':
      writeInconsistent(w, body);
      break;
    case 'time':
      statement.write(w, body.statement);
      for (const one of body.entries) shownEntry.write(w, one);
      break;
    case 'bad-update':
      w.optional(body.before, (before) => replayedState.write(w, before));
      w.opaque(body.bundle, maxUint32, 'bundle');
      break;
    case 'bad-value':
      w.opaque(body.label, maxUint8, 'label').u64(body.seenMs, 'seen');
      w.vector(body.versions, maxUint8, 'versions', ({ version, response }) => {
        w.optional(version, (asked) => w.u32(asked, 'version'));
        w.opaque(response, maxUint32, 'response');
      });
      break;
  }
}

function writeInconsistent(w: Writer, body: EvidenceBody & { kind: 'inconsistent' }): void {
  switch (body.shows) {
    case 'nodes':
      w.u8(1, 'shows').u64(body.node, 'node');
      for (const one of [body.older, body.newer]) shownNode.write(w, one);
      break;
    case 'entries':
      w.u8(2, 'shows')
        .opaque(body.note, maxUint16, 'note')
        .opaque(body.bundle, maxUint32, 'bundle');
      break;
    case 'bundles':
      w.u8(3, 'shows');
      for (const one of body.bundles) w.opaque(one, maxUint32, 'bundle');
      break;
  }
}

function readInconsistent(r: Reader): EvidenceBody {
  const kind = 'inconsistent';
  switch (r.u8('shows')) {
    case 1: {
      const node = r.u64('node', nodeId(maxTreeSize, 1));
      return { kind, shows: 'nodes', node, older: shownNode.read(r), newer: shownNode.read(r) };
    }
    case 2:
      return { kind, shows: 'entries', note: readNote(r), bundle: readBundle(r) };
    case 3:
      return { kind, shows: 'bundles', bundles: [readBundle(r), readBundle(r)] };
    default:
      throw r.malformed('shows', 'nodes (1), entries (2) or bundles (3)');
  }
}

function readBody(r: Reader, kind: EvidenceKind): EvidenceBody {
  switch (kind) {
    case 'same-size':
      return { kind, statements: [statement.read(r), statement.read(r)] };
    case 'note-vs-head':
      return { kind, note: readNote(r), head: signedHead.read(r) };
    case 'inconsistent':
      return readInconsistent(r);
    case 'time': {
      const under = statement.read(r);
      return { kind, statement: under, entries: [shownEntry.read(r), shownEntry.read(r)] };
    }
    case 'bad-update':
      return {
        kind,
        before: r.optional('before', () => replayedState.read(r)),
        bundle: readBundle(r),
      };
    case 'bad-value':
      return {
        kind,
        label: r.opaque(maxLabelBytes, 'label'),
        seenMs: r.u64('seen', maxTimeMs),
        versions: r.vector(
          maxUint8,
          5,
          'versions',
          () => ({
            version: r.optional('version', () => r.u32('version')),
            response: r.opaque(maxUint32, 'response'),
          }),
          2,
        ),
      };
  }
}

const magic = new TextEncoder().encode('qpc/kt-evidence/1\0');
const fatalUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const utf8 = new TextEncoder();

/** Whether these bytes start as evidence does. */
export function isEvidence(bytes: Uint8Array): boolean {
  return magic.every((byte, i) => bytes[i] === byte);
}

/** The bytes of evidence; its keys are left out unless the content needs them. */
export function encodeEvidence(evidence: Evidence): Uint8Array {
  const { origin, body } = evidence;
  const needed = keysNeeded(body);
  const w = new Writer().raw(magic).u8(evidenceKinds.indexOf(body.kind) + 1, 'kind');
  w.opaque(utf8.encode(origin), maxUint8, 'origin');
  w.optional(needed.config ? evidence.config : undefined, (config) =>
    w.opaque(encode(configuration, config), maxUint16, 'config'),
  );
  w.optional(needed.key ? evidence.key : undefined, (key) =>
    w.opaque(utf8.encode(formatVkey(key)), maxUint16, 'vkey'),
  );
  writeBody(w, body);
  return w.finish();
}

function readText(r: Reader, max: number, field: string): string {
  try {
    return fatalUtf8.decode(r.opaque(max, field));
  } catch (error) {
    throw error instanceof VerificationError ? error : r.malformed(field, 'valid UTF-8');
  }
}

/** Throws VerificationError MALFORMED; nothing is verified yet. */
export function decodeEvidence(sha256: Sha256, bytes: Uint8Array): Evidence {
  const { bundleEvidenceBytesMax, bytesMax } = evidenceLimits;
  verify(bytes.length <= bundleEvidenceBytesMax, 'MALFORMED', 'evidence', 'fewer bytes');
  verify(isEvidence(bytes), 'MALFORMED', 'evidence', 'its first bytes');
  const r = new Reader(bytes.subarray(magic.length), 'Evidence');
  const kind = evidenceKinds[r.u8('kind') - 1];
  if (kind === undefined) throw r.malformed('kind', `1 to ${evidenceKinds.length}`);
  const origin = readText(r, maxUint8, 'origin');
  const config = r.optional('config', () => decode(configuration, r.opaque(maxUint16, 'config')));
  const key = r.optional('vkey', () => parseVkey(sha256, readText(r, maxUint16, 'vkey')));
  const body = readBody(r, kind);
  r.end();
  const needed = keysNeeded(body);
  const isExact = needed.config === (config !== undefined) && needed.key === (key !== undefined);
  verify(isExact, 'MALFORMED', 'evidence keys', 'those that its content needs, no others');
  const isNoteKey = key === undefined || key.type === SignatureType.ed25519;
  verify(isNoteKey, 'MALFORMED', 'evidence vkey', 'an Ed25519 key of a log');
  const hasBundle = 'bundle' in body || 'bundles' in body;
  verify(hasBundle || bytes.length <= bytesMax, 'MALFORMED', 'evidence', `${bytesMax} bytes`);
  return { origin, config, key, body };
}
