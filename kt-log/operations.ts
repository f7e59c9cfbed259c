/**
 * Messages of the user operations (protocol sections 10.2, 13, 15.1): types, encodings, bounds.
 * Decoding needs the deployment mode, and for a SearchResponse whether a version was asked.
 */
import type {
  CombinedTreeProof,
  DeploymentMode,
  FullTreeHead,
  UpdateSuffix,
  UpdateValue,
} from './codec.ts';
import {
  combinedTreeProof,
  DeploymentMode as Mode,
  fullTreeHead,
  maxLabelBytes,
  maxTreeSize,
  maxValueBytes,
  updateSuffix,
  updateValue,
  writeLabel,
} from './codec.ts';
import { hashBytes, openingBytes, vrfProofBytes } from './hash.ts';
import type { Reader, Structure, Writer } from './presentation.ts';
import { maxUint16, maxUint32, maxUint8 } from './presentation.ts';

/** Size of the tree head that the user saw last; absent for a user without one. */
export interface Advertised {
  readonly last?: number | undefined;
}
const writeLast = (w: Writer, last: number | undefined): void =>
  void w.optional(last, (size) => w.u64(size, 'last'));
const readLast = (r: Reader): number | undefined =>
  r.optional('last', () => r.u64('last', maxTreeSize));
const writeVersion = (w: Writer, version: number | undefined, field: string): void =>
  void w.optional(version, (v) => w.u32(v, field));
const readVersion = (r: Reader, field: string): number | undefined =>
  r.optional(field, () => r.u32(field));

/** Section 13.1. */
export interface SearchRequest extends Advertised {
  readonly label: Uint8Array;
  readonly version?: number | undefined;
}
export const searchRequest: Structure<SearchRequest> = {
  name: 'SearchRequest',
  write(w, m) {
    writeLast(w, m.last);
    writeLabel(w, m.label);
    writeVersion(w, m.version, 'version');
  },
  read: (r) => ({
    last: readLast(r),
    label: r.opaque(maxLabelBytes, 'label'),
    version: readVersion(r, 'version'),
  }),
};

/** One version of a binary ladder: its VRF proof, and its commitment where the receiver needs it. */
export interface BinaryLadderStep {
  readonly proof: Uint8Array;
  readonly commitment?: Uint8Array | undefined;
}
export const binaryLadderStep: Structure<BinaryLadderStep> = {
  name: 'BinaryLadderStep',
  write(w, step) {
    w.fixed(step.proof, vrfProofBytes, 'proof');
    w.optional(step.commitment, (c) => w.fixed(c, hashBytes, 'commitment'));
  },
  read: (r) => ({
    proof: r.fixed(vrfProofBytes, 'proof'),
    commitment: r.optional('commitment', () => r.fixed(hashBytes, 'commitment')),
  }),
};
const stepBytesMin = vrfProofBytes + 1;
export function writeLadder(w: Writer, steps: readonly BinaryLadderStep[], max: number): void {
  w.vector(steps, max, 'binary_ladder', (step) => binaryLadderStep.write(w, step));
}
export function readLadder(r: Reader, max: number): BinaryLadderStep[] {
  return r.vector(max, stepBytesMin, 'binary_ladder', () => binaryLadderStep.read(r));
}

/** `version` is there exactly when the request asked for the greatest one. */
export interface SearchResponse {
  readonly fullTreeHead: FullTreeHead;
  readonly version?: number | undefined;
  readonly opening: Uint8Array;
  readonly value: UpdateValue;
  readonly binaryLadder: readonly BinaryLadderStep[];
  readonly search: CombinedTreeProof;
}
export function searchResponse(
  mode: DeploymentMode,
  versionAsked: boolean,
): Structure<SearchResponse> {
  const head = fullTreeHead(mode);
  const value = updateValue(mode);
  return {
    name: 'SearchResponse',
    write(w, m) {
      head.write(w, m.fullTreeHead);
      if (!versionAsked) w.u32(m.version ?? -1, 'version');
      w.fixed(m.opening, openingBytes, 'opening');
      value.write(w, m.value);
      writeLadder(w, m.binaryLadder, maxUint8);
      combinedTreeProof.write(w, m.search);
    },
    read: (r) => ({
      fullTreeHead: head.read(r),
      version: versionAsked ? undefined : r.u32('version'),
      opening: r.fixed(openingBytes, 'opening'),
      value: value.read(r),
      binaryLadder: readLadder(r, maxUint8),
      search: combinedTreeProof.read(r),
    }),
  };
}

/** Section 13.2: the greatest version proven to exist at a position of the log. */
export interface MonitorMapEntry {
  readonly position: number;
  readonly version: number;
}
export const monitorMapEntry: Structure<MonitorMapEntry> = {
  name: 'MonitorMapEntry',
  write: (w, entry) => void w.u64(entry.position, 'position').u32(entry.version, 'version'),
  read: (r) => ({ position: r.u64('position', maxTreeSize), version: r.u32('version') }),
};
const writeMap = (w: Writer, entries: readonly MonitorMapEntry[]): void =>
  void w.vector(entries, maxUint8, 'entries', (entry) => monitorMapEntry.write(w, entry));
const readMap = (r: Reader): MonitorMapEntry[] =>
  r.vector(maxUint8, 12, 'entries', () => monitorMapEntry.read(r));

export interface ContactMonitorRequest extends Advertised {
  readonly label: Uint8Array;
  readonly entries: readonly MonitorMapEntry[];
}
export const contactMonitorRequest: Structure<ContactMonitorRequest> = {
  name: 'ContactMonitorRequest',
  write(w, m) {
    writeLast(w, m.last);
    writeLabel(w, m.label);
    writeMap(w, m.entries);
  },
  read: (r) => ({
    last: readLast(r),
    label: r.opaque(maxLabelBytes, 'label'),
    entries: readMap(r),
  }),
};

/** ContactMonitorResponse and OwnerMonitorResponse (sections 13.2, 13.4) and DistinguishedResponse. */
export interface ProofResponse {
  readonly fullTreeHead: FullTreeHead;
  readonly proof: CombinedTreeProof;
}
function proofResponse(name: string, mode: DeploymentMode): Structure<ProofResponse> {
  const head = fullTreeHead(mode);
  return {
    name,
    write(w, m) {
      head.write(w, m.fullTreeHead);
      combinedTreeProof.write(w, m.proof);
    },
    read: (r) => ({ fullTreeHead: head.read(r), proof: combinedTreeProof.read(r) }),
  };
}
export const contactMonitorResponse = (mode: DeploymentMode): Structure<ProofResponse> =>
  proofResponse('ContactMonitorResponse', mode);
export const ownerMonitorResponse = (mode: DeploymentMode): Structure<ProofResponse> =>
  proofResponse('OwnerMonitorResponse', mode);
export const distinguishedResponse = (mode: DeploymentMode): Structure<ProofResponse> =>
  proofResponse('DistinguishedResponse', mode);

/** Section 13.3. */
export interface OwnerInitRequest extends Advertised {
  readonly label: Uint8Array;
  readonly start: number;
}
export const ownerInitRequest: Structure<OwnerInitRequest> = {
  name: 'OwnerInitRequest',
  write(w, m) {
    writeLast(w, m.last);
    writeLabel(w, m.label);
    w.u64(m.start, 'start');
  },
  read: (r) => ({
    last: readLast(r),
    label: r.opaque(maxLabelBytes, 'label'),
    start: r.u64('start', maxTreeSize),
  }),
};
export interface OwnerInitResponse {
  readonly fullTreeHead: FullTreeHead;
  readonly greatestVersions: readonly number[];
  readonly binaryLadder: readonly BinaryLadderStep[];
  readonly init: CombinedTreeProof;
}
export function ownerInitResponse(mode: DeploymentMode): Structure<OwnerInitResponse> {
  const head = fullTreeHead(mode);
  return {
    name: 'OwnerInitResponse',
    write(w, m) {
      head.write(w, m.fullTreeHead);
      w.vector(m.greatestVersions, maxUint8, 'greatest_versions', (v) => w.u32(v, 'version'));
      writeLadder(w, m.binaryLadder, maxUint16);
      combinedTreeProof.write(w, m.init);
    },
    read: (r) => ({
      fullTreeHead: head.read(r),
      greatestVersions: r.vector(maxUint8, 4, 'greatest_versions', () => r.u32('version')),
      binaryLadder: readLadder(r, maxUint16),
      init: combinedTreeProof.read(r),
    }),
  };
}

/** Section 13.4. */
export interface OwnerMonitorRequest extends Advertised {
  readonly label: Uint8Array;
  readonly entries: readonly MonitorMapEntry[];
  readonly start: number;
  readonly greatestVersion?: number | undefined;
}
export const ownerMonitorRequest: Structure<OwnerMonitorRequest> = {
  name: 'OwnerMonitorRequest',
  write(w, m) {
    writeLast(w, m.last);
    writeLabel(w, m.label);
    writeMap(w, m.entries);
    w.u64(m.start, 'start');
    writeVersion(w, m.greatestVersion, 'greatest_version');
  },
  read: (r) => ({
    last: readLast(r),
    label: r.opaque(maxLabelBytes, 'label'),
    entries: readMap(r),
    start: r.u64('start', maxTreeSize),
    greatestVersion: readVersion(r, 'greatest_version'),
  }),
};

/** Section 13.5: a LabelValue, the value of one version. */
export const labelValue: Structure<Uint8Array> = {
  name: 'LabelValue',
  write: (w, value) => void w.opaque(value, maxUint32, 'value'),
  read: (r) => r.opaque(maxUint32, 'value', maxValueBytes),
};
const writeValues = (w: Writer, values: readonly Uint8Array[]): void =>
  void w.vector(values, maxUint8, 'values', (value) => labelValue.write(w, value));
const readValues = (r: Reader): Uint8Array[] =>
  r.vector(maxUint8, 4, 'values', () => labelValue.read(r));

export interface UpdateRequest extends Advertised {
  readonly label: Uint8Array;
  readonly greatestVersion?: number | undefined;
  readonly values: readonly Uint8Array[];
}
export const updateRequest: Structure<UpdateRequest> = {
  name: 'UpdateRequest',
  write(w, m) {
    writeLast(w, m.last);
    writeLabel(w, m.label);
    writeVersion(w, m.greatestVersion, 'greatest_version');
    writeValues(w, m.values);
  },
  read: (r) => ({
    last: readLast(r),
    label: r.opaque(maxLabelBytes, 'label'),
    greatestVersion: readVersion(r, 'greatest_version'),
    values: readValues(r),
  }),
};

export interface UpdateInfo {
  readonly opening: Uint8Array;
  readonly suffix?: UpdateSuffix;
}
export function updateInfo(mode: DeploymentMode): Structure<UpdateInfo> {
  const suffix = updateSuffix(mode);
  return {
    name: 'UpdateInfo',
    write(w, info) {
      w.fixed(info.opening, openingBytes, 'opening');
      suffix.write(w, info.suffix);
    },
    read: (r) => ({ opening: r.fixed(openingBytes, 'opening'), suffix: suffix.read(r) }),
  };
}
export interface UpdateResponse {
  readonly fullTreeHead: FullTreeHead;
  readonly position: number;
  /** Under third-party management only. */
  readonly skippedVersions?: number | undefined;
  readonly values: readonly Uint8Array[];
  readonly info: readonly UpdateInfo[];
  readonly binaryLadder: readonly BinaryLadderStep[];
  readonly update: CombinedTreeProof;
}
export function updateResponse(mode: DeploymentMode): Structure<UpdateResponse> {
  const head = fullTreeHead(mode);
  const info = updateInfo(mode);
  const managed = mode === Mode.thirdPartyManagement;
  return {
    name: 'UpdateResponse',
    write(w, m) {
      head.write(w, m.fullTreeHead);
      w.u64(m.position, 'position');
      if (managed) w.u32(m.skippedVersions ?? 0, 'skipped_versions');
      writeValues(w, m.values);
      w.vector(m.info, maxUint8, 'info', (item) => info.write(w, item));
      writeLadder(w, m.binaryLadder, maxUint8);
      combinedTreeProof.write(w, m.update);
    },
    read: (r) => ({
      fullTreeHead: head.read(r),
      position: r.u64('position', maxTreeSize),
      ...(managed ? { skippedVersions: r.u32('skipped_versions') } : {}),
      values: readValues(r),
      info: r.vector(maxUint8, openingBytes, 'info', () => info.read(r)),
      binaryLadder: readLadder(r, maxUint8),
      update: combinedTreeProof.read(r),
    }),
  };
}

/** Section 15.1; codec only: no log of ours runs under third-party management. */
export interface ManagerUpdateRequest extends Advertised {
  readonly label: Uint8Array;
  readonly greatestVersion?: number | undefined;
  readonly values: readonly UpdateValue[];
  readonly signedVersion: number;
}
const managedValue = updateValue(Mode.thirdPartyManagement);
export const managerUpdateRequest: Structure<ManagerUpdateRequest> = {
  name: 'ManagerUpdateRequest',
  write(w, m) {
    writeLast(w, m.last);
    writeLabel(w, m.label);
    writeVersion(w, m.greatestVersion, 'greatest_version');
    w.vector(m.values, maxUint8, 'values', (value) => managedValue.write(w, value));
    w.u32(m.signedVersion, 'signed_version');
  },
  read: (r) => ({
    last: readLast(r),
    label: r.opaque(maxLabelBytes, 'label'),
    greatestVersion: readVersion(r, 'greatest_version'),
    values: r.vector(maxUint8, 6, 'values', () => managedValue.read(r)),
    signedVersion: r.u32('signed_version'),
  }),
};

/** Section 13.6. */
export interface DistinguishedRequest extends Advertised {
  readonly stop?: number | undefined;
}
export const distinguishedRequest: Structure<DistinguishedRequest> = {
  name: 'DistinguishedRequest',
  write(w, m) {
    writeLast(w, m.last);
    w.optional(m.stop, (position) => w.u64(position, 'stop'));
  },
  read: (r) => ({
    last: readLast(r),
    stop: r.optional('stop', () => r.u64('stop', maxTreeSize)),
  }),
};

/** Section 10.2: root values to compare with another user; packed, left to right. */
export interface DistinguishedHead {
  readonly heads: Uint8Array;
}
export const distinguishedHead: Structure<DistinguishedHead> = {
  name: 'DistinguishedHead',
  write: (w, m) => void w.hashes(m.heads, maxUint8, 'heads'),
  read: (r) => ({ heads: r.hashes(maxUint8, 'heads') }),
};

/**
 * Ours, not the protocol's (section 13.1 leaves negative results to documented extensions): shows
 * that a label does not exist. The fields are those of a SearchResponse for version zero.
 */
export interface AbsenceProof {
  readonly fullTreeHead: FullTreeHead;
  readonly step: BinaryLadderStep;
  readonly search: CombinedTreeProof;
}
export function absenceProof(mode: DeploymentMode): Structure<AbsenceProof> {
  const head = fullTreeHead(mode);
  return {
    name: 'AbsenceProof',
    write(w, m) {
      head.write(w, m.fullTreeHead);
      binaryLadderStep.write(w, m.step);
      combinedTreeProof.write(w, m.search);
    },
    read: (r) => ({
      fullTreeHead: head.read(r),
      step: binaryLadderStep.read(r),
      search: combinedTreeProof.read(r),
    }),
  };
}
