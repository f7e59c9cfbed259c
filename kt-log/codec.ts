/**
 * Structures of the trees and their heads (protocol sections 11.2 to 11.8, 12): types, encodings,
 * bounds. Messages of the operations are in operations.ts. Decoded byte strings are views of the
 * input; vectors of hashes stay packed (32 bytes each).
 */
import { hashBytes, openingBytes } from './hash.ts';
import type { Reader, Structure, Writer } from './presentation.ts';
import { encode, maxUint16, maxUint32, maxUint8 } from './presentation.ts';

/** Positions and sizes are numbers below 2^52, so that node numbers 2x + 1 stay exact. */
export const maxTreeSize = 2 ** 52 - 1;
export const maxLabelBytes = maxUint8;
/** Largest value of one version that a codec takes; a log's own bound is lower. */
export const maxValueBytes = 65_536;
/** Largest timestamp or duration, in milliseconds: 2^52 ms are 142 000 years. */
export const maxTimeMs = 2 ** 52 - 1;
/** More hashes than any proof over a tree below 2^52 entries with 255 proven leaves can need. */
export const maxProofElements = maxUint16;

export const DeploymentMode = {
  contactMonitoring: 1,
  thirdPartyManagement: 2,
  thirdPartyAuditing: 3,
} as const;
export type DeploymentMode = (typeof DeploymentMode)[keyof typeof DeploymentMode];

interface CommonConfiguration {
  readonly cipherSuite: number;
  readonly signaturePublicKey: Uint8Array;
  readonly vrfPublicKey: Uint8Array;
  readonly maxAheadMs: number;
  readonly maxBehindMs: number;
  readonly reasonableMonitoringWindowMs: number;
  readonly maximumLifetimeMs?: number | undefined;
}
export interface ThirdPartyAuditor {
  readonly maxAuditorLagMs: number;
  readonly auditorStartPosition: number;
  readonly auditorPublicKey: Uint8Array;
}
/** Long-term parameters of a log; every signature covers all of them. */
export type Configuration = CommonConfiguration &
  (
    | { readonly mode: typeof DeploymentMode.contactMonitoring }
    | {
        readonly mode: typeof DeploymentMode.thirdPartyManagement;
        readonly leafPublicKey: Uint8Array;
      }
    | ({ readonly mode: typeof DeploymentMode.thirdPartyAuditing } & ThirdPartyAuditor)
  );

/** Section 11.2. */
export const configuration: Structure<Configuration> = {
  name: 'Configuration',
  write(w, c) {
    w.u16(c.cipherSuite, 'ciphersuite').u8(c.mode, 'mode');
    w.opaque(c.signaturePublicKey, maxUint16, 'signature_public_key');
    w.opaque(c.vrfPublicKey, maxUint16, 'vrf_public_key');
    if (c.mode === DeploymentMode.thirdPartyManagement) {
      w.opaque(c.leafPublicKey, maxUint16, 'leaf_public_key');
    } else if (c.mode === DeploymentMode.thirdPartyAuditing) {
      w.u64(c.maxAuditorLagMs, 'max_auditor_lag').u64(c.auditorStartPosition, 'auditor_start_pos');
      w.opaque(c.auditorPublicKey, maxUint16, 'auditor_public_key');
    }
    w.u64(c.maxAheadMs, 'max_ahead').u64(c.maxBehindMs, 'max_behind');
    w.u64(c.reasonableMonitoringWindowMs, 'reasonable_monitoring_window');
    w.optional(c.maximumLifetimeMs, (ms) => w.u64(ms, 'maximum_lifetime'));
  },
  read(r) {
    const cipherSuite = r.u16('ciphersuite');
    const mode = r.u8('mode');
    const signaturePublicKey = r.opaque(maxUint16, 'signature_public_key');
    const vrfPublicKey = r.opaque(maxUint16, 'vrf_public_key');
    const party = readThirdParty(r, mode);
    return {
      cipherSuite,
      signaturePublicKey,
      vrfPublicKey,
      ...party,
      maxAheadMs: r.u64('max_ahead', maxTimeMs),
      maxBehindMs: r.u64('max_behind', maxTimeMs),
      reasonableMonitoringWindowMs: r.u64('reasonable_monitoring_window', maxTimeMs),
      maximumLifetimeMs: r.optional('maximum_lifetime', () => r.u64('maximum_lifetime', maxTimeMs)),
    };
  },
};

function readThirdParty(r: Reader, mode: number) {
  switch (mode) {
    case DeploymentMode.contactMonitoring:
      return { mode: DeploymentMode.contactMonitoring };
    case DeploymentMode.thirdPartyManagement:
      return {
        mode: DeploymentMode.thirdPartyManagement,
        leafPublicKey: r.opaque(maxUint16, 'leaf_public_key'),
      };
    case DeploymentMode.thirdPartyAuditing:
      return {
        mode: DeploymentMode.thirdPartyAuditing,
        maxAuditorLagMs: r.u64('max_auditor_lag', maxTimeMs),
        auditorStartPosition: r.u64('auditor_start_pos', maxTreeSize),
        auditorPublicKey: r.opaque(maxUint16, 'auditor_public_key'),
      };
    default:
      throw r.malformed('mode', 'a deployment mode from 1 to 3');
  }
}

/** Section 11.2. */
export interface TreeHead {
  readonly treeSize: number;
  readonly signature: Uint8Array;
}
export const treeHead: Structure<TreeHead> = {
  name: 'TreeHead',
  write: (w, head) =>
    void w.u64(head.treeSize, 'tree_size').opaque(head.signature, maxUint16, 'signature'),
  read: (r) => ({
    treeSize: r.u64('tree_size', maxTreeSize),
    signature: r.opaque(maxUint16, 'signature'),
  }),
};

/** Section 11.3. */
export interface AuditorTreeHead extends TreeHead {
  readonly timestampMs: number;
}
export const auditorTreeHead: Structure<AuditorTreeHead> = {
  name: 'AuditorTreeHead',
  write(w, head) {
    w.u64(head.timestampMs, 'timestamp');
    treeHead.write(w, head);
  },
  read: (r) => ({ timestampMs: r.u64('timestamp', maxTimeMs), ...treeHead.read(r) }),
};

/** What a tree head's signature covers (section 11.2). */
export function treeHeadTbs(config: Configuration, treeSize: number, root: Uint8Array): Uint8Array {
  return encode<undefined>(
    {
      name: 'TreeHeadTBS',
      write(w) {
        configuration.write(w, config);
        w.u64(treeSize, 'tree_size').fixed(root, hashBytes, 'root');
      },
      read: () => undefined,
    },
    undefined,
  );
}

/** What an auditor's signature covers (section 11.3). */
export function auditorTreeHeadTbs(
  config: Configuration,
  timestampMs: number,
  treeSize: number,
  root: Uint8Array,
): Uint8Array {
  return encode<undefined>(
    {
      name: 'AuditorTreeHeadTBS',
      write(w) {
        configuration.write(w, config);
        w.u64(timestampMs, 'timestamp').u64(treeSize, 'tree_size').fixed(root, hashBytes, 'root');
      },
      read: () => undefined,
    },
    undefined,
  );
}

/** Section 11.4: `same` keeps the head that the user advertised. */
export type FullTreeHead =
  | { readonly type: 'same' }
  | {
      readonly type: 'updated';
      readonly treeHead: TreeHead;
      readonly auditorTreeHead?: AuditorTreeHead | undefined;
    };
export function fullTreeHead(mode: DeploymentMode): Structure<FullTreeHead> {
  return {
    name: 'FullTreeHead',
    write(w, head) {
      w.u8(head.type === 'same' ? 1 : 2, 'head_type');
      if (head.type === 'same') return;
      treeHead.write(w, head.treeHead);
      if (mode === DeploymentMode.thirdPartyAuditing && head.auditorTreeHead !== undefined) {
        auditorTreeHead.write(w, head.auditorTreeHead);
      }
    },
    read(r) {
      const type = r.u8('head_type');
      if (type === 1) return { type: 'same' };
      if (type !== 2) throw r.malformed('head_type', 'same (1) or updated (2)');
      return {
        type: 'updated',
        treeHead: treeHead.read(r),
        ...(mode === DeploymentMode.thirdPartyAuditing
          ? { auditorTreeHead: auditorTreeHead.read(r) }
          : {}),
      };
    },
  };
}

/** Section 11.5: the operator's signature over the value, under third-party management only. */
export type UpdateSuffix = Uint8Array | undefined;
export function updateSuffix(mode: DeploymentMode): Structure<UpdateSuffix> {
  const managed = mode === DeploymentMode.thirdPartyManagement;
  return {
    name: 'UpdateSuffix',
    write: (w, s) => void (managed && w.opaque(s ?? new Uint8Array(), maxUint16, 'signature')),
    read: (r) => (managed ? r.opaque(maxUint16, 'signature') : undefined),
  };
}
export interface UpdateValue {
  readonly value: Uint8Array;
  readonly suffix?: UpdateSuffix;
}
export function updateValue(mode: DeploymentMode): Structure<UpdateValue> {
  const suffix = updateSuffix(mode);
  return {
    name: 'UpdateValue',
    write(w, v) {
      w.opaque(v.value, maxUint32, 'value');
      suffix.write(w, v.suffix);
    },
    read: (r) => ({ value: r.opaque(maxUint32, 'value', maxValueBytes), suffix: suffix.read(r) }),
  };
}

/** What the operator signs per version under third-party management (section 11.5). */
export function updateTbs(
  config: Configuration,
  label: Uint8Array,
  version: number,
  value: Uint8Array,
): Uint8Array {
  return encode<undefined>(
    {
      name: 'UpdateTBS',
      write(w) {
        configuration.write(w, config);
        w.opaque(label, maxLabelBytes, 'label').u32(version, 'version');
        w.opaque(value, maxUint32, 'value');
      },
      read: () => undefined,
    },
    undefined,
  );
}

/** Section 11.6: the HMAC input of a commitment. */
export interface CommitmentValue {
  readonly opening: Uint8Array;
  readonly label: Uint8Array;
  readonly version: number;
  readonly update: UpdateValue;
}
export function commitmentValue(mode: DeploymentMode): Structure<CommitmentValue> {
  const update = updateValue(mode);
  return {
    name: 'CommitmentValue',
    write(w, c) {
      w.fixed(c.opening, openingBytes, 'opening').opaque(c.label, maxLabelBytes, 'label');
      w.u32(c.version, 'version');
      update.write(w, c.update);
    },
    read: (r) => ({
      opening: r.fixed(openingBytes, 'opening'),
      label: r.opaque(maxLabelBytes, 'label'),
      version: r.u32('version'),
      update: update.read(r),
    }),
  };
}

/** Section 11.7: the VRF's input for one version of a label. */
export function vrfInput(label: Uint8Array, version: number): Uint8Array {
  const input = new Uint8Array(1 + label.length + 4);
  input[0] = label.length;
  input.set(label, 1);
  new DataView(input.buffer).setUint32(1 + label.length, version);
  return input;
}

/** Section 12.1; `elements` are packed heads of balanced subtrees, left to right. */
export interface InclusionProof {
  readonly elements: Uint8Array;
}
export const inclusionProof: Structure<InclusionProof> = {
  name: 'InclusionProof',
  write: (w, proof) => void w.hashes(proof.elements, maxUint16, 'elements'),
  read: (r) => ({ elements: r.hashes(maxUint16, 'elements') }),
};

export interface PrefixLeaf {
  readonly vrfOutput: Uint8Array;
  readonly commitment: Uint8Array;
}
export const prefixLeaf: Structure<PrefixLeaf> = {
  name: 'PrefixLeaf',
  write: (w, leaf) =>
    void w
      .fixed(leaf.vrfOutput, hashBytes, 'vrf_output')
      .fixed(leaf.commitment, hashBytes, 'commitment'),
  read: (r) => ({
    vrfOutput: r.fixed(hashBytes, 'vrf_output'),
    commitment: r.fixed(hashBytes, 'commitment'),
  }),
};

/** Section 12.2: where the search for one key ended; `depth` of the terminal node, root is 0. */
export type PrefixSearchResult =
  | { readonly type: 'inclusion' | 'nonInclusionParent'; readonly depth: number }
  | { readonly type: 'nonInclusionLeaf'; readonly leaf: PrefixLeaf; readonly depth: number };
const resultTypes = ['inclusion', 'nonInclusionLeaf', 'nonInclusionParent'] as const;
export const prefixSearchResult: Structure<PrefixSearchResult> = {
  name: 'PrefixSearchResult',
  write(w, result) {
    w.u8(resultTypes.indexOf(result.type) + 1, 'result_type');
    if (result.type === 'nonInclusionLeaf') prefixLeaf.write(w, result.leaf);
    w.u8(result.depth, 'depth');
  },
  read(r) {
    const type = resultTypes[r.u8('result_type') - 1];
    if (type === undefined) throw r.malformed('result_type', 'a result type from 1 to 3');
    if (type === 'nonInclusionLeaf') {
      return { type, leaf: prefixLeaf.read(r), depth: r.u8('depth') };
    }
    return { type, depth: r.u8('depth') };
  },
};
export interface PrefixProof {
  readonly results: readonly PrefixSearchResult[];
  readonly elements: Uint8Array;
}
export const prefixProof: Structure<PrefixProof> = {
  name: 'PrefixProof',
  write(w, proof) {
    w.vector(proof.results, maxUint8, 'results', (result) => prefixSearchResult.write(w, result));
    w.hashes(proof.elements, maxUint16, 'elements');
  },
  read: (r) => ({
    results: r.vector(maxUint8, 2, 'results', () => prefixSearchResult.read(r)),
    elements: r.hashes(maxUint16, 'elements'),
  }),
};

/** Section 12.3: meaningless without running the algorithm that asks for its elements. */
export interface CombinedTreeProof {
  readonly timestamps: readonly number[];
  readonly prefixProofs: readonly PrefixProof[];
  readonly prefixRoots: Uint8Array;
  readonly inclusion: InclusionProof;
}
export const combinedTreeProof: Structure<CombinedTreeProof> = {
  name: 'CombinedTreeProof',
  write(w, proof) {
    w.vector(proof.timestamps, maxUint8, 'timestamps', (t) => w.u64(t, 'timestamp'));
    w.vector(proof.prefixProofs, maxUint8, 'prefix_proofs', (p) => prefixProof.write(w, p));
    w.hashes(proof.prefixRoots, maxUint8, 'prefix_roots');
    inclusionProof.write(w, proof.inclusion);
  },
  read: (r) => ({
    timestamps: r.vector(maxUint8, 8, 'timestamps', () => r.u64('timestamp', maxTimeMs)),
    prefixProofs: r.vector(maxUint8, 3, 'prefix_proofs', () => prefixProof.read(r)),
    prefixRoots: r.hashes(maxUint8, 'prefix_roots'),
    inclusion: inclusionProof.read(r),
  }),
};

/** Writes `label<0..2^8-1>`. */
export function writeLabel(w: Writer, label: Uint8Array): void {
  w.opaque(label, maxLabelBytes, 'label');
}
