/**
 * Encodings of what a log client keeps (client-storage.ts), one structure per concern, with bounds.
 * These are this project's own layouts, not the protocol's. Browser-safe.
 */
import type { AuditorTreeHead } from './codec.ts';
import { auditorTreeHead, maxLabelBytes, maxTimeMs, maxTreeSize, maxValueBytes } from './codec.ts';
import { treeHead, writeLabel } from './codec.ts';
import { evidenceLimits } from './evidence.ts';
import type { Hash } from './hash.ts';
import { hashBytes, openingBytes } from './hash.ts';
import { frontier } from './ladder.ts';
import { fullSubtrees } from './log-tree.ts';
import type { MonitorMapEntry } from './operations.ts';
import { monitorMapEntry } from './operations.ts';
import type { Reader, Structure, Writer } from './presentation.ts';
import { maxUint16, maxUint32, maxUint8 } from './presentation.ts';
import type { KnownVersion, KnownVersions, LogView } from './replayer.ts';
import type { OwnerState, OwnUpdate } from './verify-owner.ts';
import type { UserState } from './verify-response.ts';
import type { ContactState, DistinguishedView } from './verify-search.ts';

/** Bounds of a client's state. */
export const clientLimits = {
  /** One checkpoint with the cosignatures that count. */
  noteBytesMax: 16_384,
  /** Map entries of one label: a log refuses more. */
  mapEntriesMax: 64,
  /** Values that the owner announced and that the log has not shown yet. */
  announcedMax: 16,
  /** Versions of one's label that others made. */
  alarmsMax: 16,
  /** Pieces of evidence against the log. */
  evidenceMax: 8,
  distinguishedMax: 10,
  /** Labels that are monitored, and labels that are one's own. */
  watchedMax: 65_535,
  ownersMax: 16,
} as const;

const writeTime = (w: Writer, ms: number, field: string): void => void w.u64(ms, field);
const readTime = (r: Reader, field: string): number => r.u64(field, maxTimeMs);

const view: Structure<LogView> = {
  name: 'LogView',
  write(w, { size, heads, frontier: entries }) {
    w.u64(size, 'size');
    w.vector(heads, maxUint8, 'heads', (head) => w.fixed(head, hashBytes, 'head'));
    w.vector(entries, maxUint8, 'frontier', (entry) => {
      w.u64(entry.position, 'position').u64(entry.timestampMs, 'timestamp');
      w.fixed(entry.prefixRoot, hashBytes, 'prefix_root');
    });
  },
  read(r) {
    const size = r.u64('size', maxTreeSize);
    const heads = r.vector(maxUint8, hashBytes, 'heads', () => r.fixed(hashBytes, 'head'));
    const entries = r.vector(maxUint8, 48, 'frontier', () => ({
      position: r.u64('position', maxTreeSize),
      timestampMs: readTime(r, 'timestamp'),
      prefixRoot: r.fixed(hashBytes, 'prefix_root'),
    }));
    const positions = size === 0 ? [] : frontier(size);
    const fits =
      size > 0 &&
      heads.length === fullSubtrees(size).length &&
      entries.length === positions.length &&
      entries.every((entry, i) => entry.position === positions[i]);
    if (!fits) throw r.malformed('size', 'the heads and the frontier of that size');
    return { size, heads, frontier: entries };
  },
};

const userState: Structure<UserState> = {
  name: 'UserState',
  write(w, state) {
    treeHead.write(w, state.heads.treeHead);
    w.optional<AuditorTreeHead>(state.heads.auditorTreeHead, (head) =>
      auditorTreeHead.write(w, head),
    );
    view.write(w, state.view);
  },
  read(r) {
    const head = treeHead.read(r);
    const auditor = r.optional('auditor_tree_head', () => auditorTreeHead.read(r));
    const shown = view.read(r);
    if (shown.size !== head.treeSize) throw r.malformed('tree_size', 'that of the view');
    return { heads: { treeHead: head, auditorTreeHead: auditor }, view: shown };
  },
};

/** The newest head of the log that was verified. */
export interface LogRecord {
  readonly user: UserState;
  /** KEYTRANS root of that head. */
  readonly root: Hash;
  /** Its checkpoint with the signatures of known keys. */
  readonly note: Uint8Array;
  /** When the log answered last. */
  readonly answeredMs: number;
  /** Largest size that had the quorum; 0 before the first. It covers all smaller ones. */
  readonly witnessedSize: number;
  /** Since when heads above that size are used; undefined: there are none, or no quorum is asked. */
  readonly unwitnessedSinceMs: number | undefined;
}
export const logRecord: Structure<LogRecord> = {
  name: 'LogRecord',
  write(w, record) {
    userState.write(w, record.user);
    w.fixed(record.root, hashBytes, 'root').opaque(record.note, maxUint16, 'note');
    writeTime(w, record.answeredMs, 'answered');
    w.u64(record.witnessedSize, 'witnessed_size');
    w.optional(record.unwitnessedSinceMs, (ms) => writeTime(w, ms, 'unwitnessed_since'));
  },
  read: (r) => ({
    user: userState.read(r),
    root: r.fixed(hashBytes, 'root'),
    note: r.opaque(maxUint16, 'note', clientLimits.noteBytesMax),
    answeredMs: readTime(r, 'answered'),
    witnessedSize: r.u64('witnessed_size', maxTreeSize),
    unwitnessedSinceMs: r.optional('unwitnessed_since', () => readTime(r, 'unwitnessed_since')),
  }),
};

function writeVersions(w: Writer, versions: KnownVersions): void {
  w.vector([...versions], maxUint16, 'versions', ([version, known]) => {
    w.u32(version, 'version').fixed(known.vrfOutput, hashBytes, 'vrf_output');
    w.optional(known.commitment, (hash) => w.fixed(hash, hashBytes, 'commitment'));
  });
}
function readVersions(r: Reader): Map<number, KnownVersion> {
  const list = r.vector(maxUint16, 37, 'versions', (): [number, KnownVersion] => [
    r.u32('version'),
    {
      vrfOutput: r.fixed(hashBytes, 'vrf_output'),
      commitment: r.optional('commitment', () => r.fixed(hashBytes, 'commitment')),
    },
  ]);
  return new Map(list);
}
function writeMap(w: Writer, map: readonly MonitorMapEntry[]): void {
  w.vector(map, maxUint8, 'map', (entry) => monitorMapEntry.write(w, entry));
}
function readMap(r: Reader): MonitorMapEntry[] {
  const map = r.vector(maxUint8, 12, 'map', () => monitorMapEntry.read(r));
  const ascends = map.every((entry, i) => entry.position > (map[i - 1]?.position ?? -1));
  if (!ascends) throw r.malformed('map', 'ascending positions');
  return map;
}

/** A version whose value was verified. */
export interface StoredValue {
  readonly version: number;
  readonly value: Uint8Array;
  readonly opening: Uint8Array;
}
const storedValue: Structure<StoredValue> = {
  name: 'StoredValue',
  write: (w, one) =>
    void w
      .u32(one.version, 'version')
      .opaque(one.value, maxUint32, 'value')
      .fixed(one.opening, openingBytes, 'opening'),
  read: (r) => ({
    version: r.u32('version'),
    value: r.opaque(maxUint32, 'value', maxValueBytes),
    opening: r.fixed(openingBytes, 'opening'),
  }),
};

/** What is known of one label: its greatest version, and what has to be monitored of it. */
export interface LabelRecord extends ContactState {
  readonly greatest: StoredValue | undefined;
}
export const labelRecord: Structure<LabelRecord> = {
  name: 'LabelRecord',
  write(w, record) {
    writeLabel(w, record.label);
    w.optional(record.greatest, (greatest) => storedValue.write(w, greatest));
    writeMap(w, record.map);
    writeVersions(w, record.versions);
  },
  read: (r) => ({
    label: r.opaque(maxLabelBytes, 'label'),
    greatest: r.optional('greatest', () => storedValue.read(r)),
    map: readMap(r),
    versions: readVersions(r),
  }),
};

/** A label with a duty that is due at a time. */
export interface Duty {
  readonly label: Uint8Array;
  readonly dueMs: number;
}
export const dutyList: Structure<readonly Duty[]> = {
  name: 'DutyList',
  write(w, duties) {
    w.vector(duties, maxUint16, 'duties', (duty) => {
      writeLabel(w, duty.label);
      writeTime(w, duty.dueMs, 'due');
    });
  },
  read: (r) =>
    r.vector(maxUint16, 9, 'duties', () => ({
      label: r.opaque(maxLabelBytes, 'label'),
      dueMs: readTime(r, 'due'),
    })),
};

/** What the owner of a label keeps. */
export interface OwnerRecord {
  readonly owner: OwnerState;
  /** SHA-256 of values that this owner was about to have logged. */
  readonly announced: readonly Hash[];
  /** Versions made by others that nobody has acknowledged; the first ones when there are many. */
  readonly alarms: readonly StoredValue[];
}
export const ownerRecord: Structure<OwnerRecord> = {
  name: 'OwnerRecord',
  write(w, { owner, announced, alarms }) {
    writeLabel(w, owner.label);
    w.u64(owner.start, 'start');
    w.optional(owner.versionAtStart, (version) => w.u32(version, 'version_at_start'));
    w.vector(owner.updates, maxUint16, 'updates', (update) => {
      w.u64(update.position, 'position').u32(update.greatestVersion, 'greatest_version');
    });
    writeMap(w, owner.map);
    writeVersions(w, owner.versions);
    w.vector(announced, maxUint8, 'announced', (hash) => w.fixed(hash, hashBytes, 'hash'));
    w.vector(alarms, maxUint8, 'alarms', (one) => storedValue.write(w, one));
  },
  read(r) {
    const label = r.opaque(maxLabelBytes, 'label');
    const start = r.u64('start', maxTreeSize);
    const versionAtStart = r.optional('version_at_start', () => r.u32('version_at_start'));
    const updates = r.vector(maxUint16, 12, 'updates', (): OwnUpdate => ({
      position: r.u64('position', maxTreeSize),
      greatestVersion: r.u32('greatest_version'),
    }));
    const map = readMap(r);
    const versions = readVersions(r);
    const hashes = r.vector(maxUint8, hashBytes, 'announced', () => r.fixed(hashBytes, 'hash'));
    const alarms = r.vector(maxUint8, 24, 'alarms', () => storedValue.read(r));
    const owner = { label, start, versionAtStart, updates, map, versions };
    return { owner, announced: hashes, alarms };
  },
};

/** A distinguished entry that was verified, with the signed checkpoint of the tree it ends. */
export interface DistinguishedRecord extends DistinguishedView {
  readonly note: Uint8Array;
}
/** Ascending by position, without gaps between the first and the last. */
export const distinguishedRecords: Structure<readonly DistinguishedRecord[]> = {
  name: 'DistinguishedRecords',
  write(w, records) {
    w.vector(records, maxUint8, 'records', (record) => {
      view.write(w, record.view);
      w.fixed(record.root, hashBytes, 'root').opaque(record.note, maxUint16, 'note');
    });
  },
  read: (r) =>
    r.vector(maxUint8, 42, 'records', () => {
      const shown = view.read(r);
      const position = shown.size - 1;
      return {
        position,
        timestampMs: shown.frontier.at(-1)?.timestampMs ?? 0,
        view: shown,
        root: r.fixed(hashBytes, 'root'),
        note: r.opaque(maxUint16, 'note', clientLimits.noteBytesMax),
      };
    }),
};

/** What is done once a day, and is not done anew because a program was restarted. */
export interface DailyRecord {
  /** When distinguished entries are to be looked for again. */
  readonly distinguishedMs: number;
  /** By label of one's own: the version that the newest credential is of, and when it is to be refreshed. */
  readonly credentials: readonly CredentialDuty[];
}
export interface CredentialDuty extends Duty {
  readonly version: number;
}
export const dailyRecord: Structure<DailyRecord> = {
  name: 'DailyRecord',
  write(w, { distinguishedMs, credentials }) {
    writeTime(w, distinguishedMs, 'distinguished');
    w.vector(credentials, maxUint8, 'credentials', ({ label, version, dueMs }) => {
      writeLabel(w, label);
      w.u32(version, 'version');
      writeTime(w, dueMs, 'due');
    });
  },
  read: (r) => ({
    distinguishedMs: readTime(r, 'distinguished'),
    credentials: r.vector(maxUint8, 13, 'credentials', () => ({
      label: r.opaque(maxLabelBytes, 'label'),
      version: r.u32('version'),
      dueMs: readTime(r, 'due'),
    })),
  }),
};

/** One opaque blob: a credential of one's own. */
export const opaqueRecord: Structure<Uint8Array> = {
  name: 'OpaqueRecord',
  write: (w, bytes) => void w.opaque(bytes, maxUint32, 'bytes'),
  read: (r) => r.opaque(maxUint32, 'bytes', 1_048_576),
};

/** Pieces of evidence, as evidence.ts encodes them. */
export const evidenceList: Structure<readonly Uint8Array[]> = {
  name: 'EvidenceList',
  write: (w, list) =>
    void w.vector(list, maxUint8, 'evidence', (one) => w.opaque(one, maxUint32, 'evidence')),
  read: (r) =>
    r.vector(maxUint8, 4, 'evidence', () =>
      r.opaque(maxUint32, 'evidence', evidenceLimits.bytesMax),
    ),
};
