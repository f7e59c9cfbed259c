/**
 * Who red.example's node is: the NodeRecord and its signatures over `"qpc/node/1\0" || record`
 * (docs/protocol/federation.md). Says nothing about where a record was found, and pins nothing:
 * the caller brings what it trusts already.
 */
import { sameBytes } from './bytes.ts';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { isDomain } from './address.ts';
import {
  NodeRecordSchema,
  SignedNodeRecordSchema,
  type NodeKey,
  type NodeRecord,
  type SignedNodeRecord,
} from './gen/qpc/v1/federation_pb.ts';
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';
import { InvalidArgumentError, UnauthenticatedError } from './status.ts';
import type { Endpoint } from './transport/transport.ts';

export const nodeRecordLimits = {
  recordBytes: 16 * 1024,
  keys: 4,
  formerKeys: 8,
  endpoints: 16,
  capabilities: 32,
  logs: 16,
  cosigners: 8,
  swarmAddresses: 8,
} as const;

/** Clocks of nodes may differ by this much before a key's dates matter (ms). */
const clockGraceMs = 24 * 3600 * 1000;

/** One TLS key with the signing key beside it. */
export interface NodeRecordKey {
  /** SHA-256 SPKI of the TLS certificate (32 bytes). */
  readonly spkiSha256: Uint8Array;
  readonly signing: SigningKey;
  /** Unix ms; `toMs` 0 = open. */
  readonly fromMs: number;
  readonly toMs: number;
}

/** A key-transparency log of the node; only its verifier looks into the bytes. */
export interface NodeRecordLog {
  /** KEYTRANS Configuration, encoded. */
  readonly config: Uint8Array;
  /** C2SP verifier key of its checkpoints. */
  readonly vkey: string;
  /** First tree size under these keys. */
  readonly fromSize: number;
}

export interface NodeRecordFacts {
  readonly domain: string;
  /** 1-4; every one of them signs. */
  readonly keys: readonly NodeRecordKey[];
  readonly endpoints: readonly Endpoint[];
  /** Grows with every change. */
  readonly seq: number;
  readonly versionMin: number;
  readonly versionMax: number;
  readonly capabilities: readonly string[];
  /** Oldest first. */
  readonly logs?: readonly NodeRecordLog[];
  /** C2SP verifier keys of the node's own cosignatures. */
  readonly cosigners?: readonly string[];
  /** The node's swarm: its Ed25519 key (32 bytes) and at most 8 addresses of at most 128 bytes. */
  readonly swarm?: { readonly swarmKey: Uint8Array; readonly addresses: readonly string[] };
  /** Keys that are no longer in the record and sign it still, for whoever knows only them. */
  readonly formerSigners?: readonly SigningKey[];
  /** Signing keys that were given up (32 bytes each, newest first, at most 8): what they certified of group logs counts. */
  readonly formerSignPubs?: readonly Uint8Array[];
}

/** Makes and signs a record. Throws InvalidArgumentError BAD_FIELD on facts beyond the limits. */
export function signNodeRecord(facts: NodeRecordFacts): SignedNodeRecord {
  const record = create(NodeRecordSchema, {
    domain: facts.domain,
    keys: facts.keys.map((key) => ({
      spkiSha256: key.spkiSha256,
      signPub: key.signing.publicKey,
      fromMs: BigInt(key.fromMs),
      toMs: BigInt(key.toMs),
    })),
    endpoints: facts.endpoints.map(({ host, port }) => ({ host, port })),
    seq: BigInt(facts.seq),
    versionMin: facts.versionMin,
    versionMax: facts.versionMax,
    capabilities: [...facts.capabilities],
    kt: (facts.logs ?? []).map(({ config, vkey, fromSize }) => ({
      config,
      vkey,
      fromSize: BigInt(fromSize),
    })),
    cosigners: [...(facts.cosigners ?? [])],
    ...(facts.swarm === undefined
      ? {}
      : { swarm: { swarmKey: facts.swarm.swarmKey, addresses: [...facts.swarm.addresses] } }),
    formerSignPubs: [...(facts.formerSignPubs ?? [])],
  });
  checkRecord(record);
  const bytes = toBinary(NodeRecordSchema, record);
  return create(SignedNodeRecordSchema, {
    record: bytes,
    signatures: [...facts.keys.map(({ signing }) => signing), ...(facts.formerSigners ?? [])].map(
      (signing) => ({
        signPub: signing.publicKey,
        signature: signStatement('qpc/node/1', bytes, signing),
      }),
    ),
  });
}

/** What the caller trusts already. */
export interface NodeRecordTrust {
  readonly domain: string;
  /** SHA-256 SPKI pins of the domain (32 bytes each). */
  readonly pins: readonly Uint8Array[];
  /**
   * Key of the connection that the record came over (32 bytes): a record may name any key, only a
   * handshake proves one. Trusted when it is among `pins` and live in the record...
   */
  readonly connectionSpki?: Uint8Array;
  /** ...or when a signing key of an older trusted record signed this one (32 bytes each). */
  readonly signKeys?: readonly Uint8Array[];
  /** ...or when the domain's own site shows it, and nothing else is known of the domain. */
  readonly isFromSite?: boolean;
  /** Highest seq accepted so far: an older record is a replay. */
  readonly seq?: number;
  readonly nowMs: number;
}

/**
 * Returns the record of a domain once it is proven: signed by every signing key that is live in
 * it, and tied to a pinned connection, an older signing key or the domain's own site. Throws
 * InvalidArgumentError BAD_FIELD or BAD_SIGNATURE for a malformed record, UnauthenticatedError
 * BAD_CREDENTIAL for an untrusted one.
 */
export function verifyNodeRecord(signed: SignedNodeRecord, trust: NodeRecordTrust): NodeRecord {
  const record = decodeRecord(signed.record);
  checkRecord(record);
  if (record.domain !== trust.domain) {
    throw new UnauthenticatedError('BAD_CREDENTIAL', `node record: is not for ${trust.domain}`);
  }
  if (record.seq < BigInt(trust.seq ?? 0)) {
    throw new UnauthenticatedError(
      'BAD_CREDENTIAL',
      `node record: seq ${record.seq}, at least ${trust.seq ?? 0}`,
    );
  }
  const live = liveKeys(record, trust.nowMs);
  const { connectionSpki } = trust;
  const hasPin =
    connectionSpki !== undefined &&
    trust.pins.some((pin) => sameBytes(pin, connectionSpki)) &&
    live.some((key) => sameBytes(key.spkiSha256, connectionSpki));
  const hasHeir = (trust.signKeys ?? []).some((key) => isSignedBy(signed, key));
  if (!hasPin && !hasHeir && trust.isFromSite !== true) {
    throw new UnauthenticatedError('BAD_CREDENTIAL', 'node record: no key of it is trusted here');
  }
  if (live.length === 0 || !live.every((key) => isSignedBy(signed, key.signPub))) {
    throw new InvalidArgumentError('BAD_SIGNATURE', 'node record: not signed by every live key');
  }
  return record;
}

/**
 * The record as it speaks for itself, for whoever compares its keys with what the domain shows: well formed, and signed by
 * a key of its own, whatever the date. Proves nothing about the domain. Throws InvalidArgumentError BAD_FIELD or
 * BAD_SIGNATURE.
 */
export function openNodeRecord(signed: SignedNodeRecord): NodeRecord {
  const record = decodeRecord(signed.record);
  checkRecord(record);
  if (!record.keys.some(({ signPub }) => isSignedBy(signed, signPub))) {
    throw new InvalidArgumentError('BAD_SIGNATURE', 'node record: no key of its own signed it');
  }
  return record;
}

function decodeRecord(bytes: Uint8Array): NodeRecord {
  if (bytes.length > nodeRecordLimits.recordBytes) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `node record: ${bytes.length} bytes, at most ${nodeRecordLimits.recordBytes}`,
    );
  }
  try {
    return fromBinary(NodeRecordSchema, bytes);
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'node record: does not parse', { cause });
  }
}

function checkRecord(record: NodeRecord): void {
  const { keys, endpoints, capabilities } = nodeRecordLimits;
  const rules: readonly (readonly [isHeld: boolean, what: string])[] = [
    [isDomain(record.domain), 'domain: need a lower-case domain'],
    [
      record.keys.length >= 1 && record.keys.length <= keys,
      `${record.keys.length} keys, need 1-${keys}`,
    ],
    [
      record.keys.every((key) => key.spkiSha256.length === 32 && key.signPub.length === 32),
      'keys: need 32 bytes each',
    ],
    [
      record.formerSignPubs.length <= nodeRecordLimits.formerKeys &&
        record.formerSignPubs.every((key) => key.length === 32),
      `former keys: at most ${nodeRecordLimits.formerKeys} of 32 bytes`,
    ],
    [
      record.endpoints.length <= endpoints,
      `${record.endpoints.length} endpoints, at most ${endpoints}`,
    ],
    [
      record.endpoints.every(
        ({ host, port }) => host.length > 0 && host.length <= 253 && port >= 1 && port <= 65_535,
      ),
      'endpoints: need a host and a port of 1-65535',
    ],
    [record.seq >= 1n && record.seq <= BigInt(Number.MAX_SAFE_INTEGER), 'seq: need 1 to 2^53 - 1'],
    [
      record.versionMin >= 1 && record.versionMin <= record.versionMax,
      'versions: need 1 <= min <= max',
    ],
    [
      record.capabilities.length <= capabilities &&
        record.capabilities.every((name) => name.length <= 64),
      `capabilities: at most ${capabilities} of 64 characters`,
    ],
    [
      record.kt.length <= nodeRecordLimits.logs &&
        record.kt.every(
          ({ config, vkey }) => config.length > 0 && config.length <= 1024 && isVkey(vkey),
        ),
      `logs: at most ${nodeRecordLimits.logs}, each with a Configuration and a verifier key`,
    ],
    [
      record.cosigners.length <= nodeRecordLimits.cosigners && record.cosigners.every(isVkey),
      `cosigners: at most ${nodeRecordLimits.cosigners} verifier keys`,
    ],
    [
      record.swarm === undefined ||
        (record.swarm.swarmKey.length === 32 &&
          record.swarm.addresses.length <= nodeRecordLimits.swarmAddresses &&
          record.swarm.addresses.every((address) => address.length <= 128)),
      `swarm: need a key of 32 bytes and at most ${nodeRecordLimits.swarmAddresses} addresses`,
    ],
  ];
  const broken = rules.find(([isHeld]) => !isHeld);
  if (broken !== undefined)
    throw new InvalidArgumentError('BAD_FIELD', `node record: ${broken[1]}`);
}

/** The bounds of a verifier key; whether it is one, kt-log says. */
function isVkey(text: string): boolean {
  return text.length > 0 && text.length <= 8192 && !/\s/u.test(text);
}

/**
 * Signing keys under which what a node certified of group logs counts (32 bytes each): entries are read years after
 * they were certified, so the keys that it gave up are among them.
 */
export function certifyingKeys({ keys, formerSignPubs }: NodeRecord): readonly Uint8Array[] {
  return [...keys.map(({ signPub }) => signPub), ...formerSignPubs];
}

/** Keys of a record whose time is now; clocks may differ by a day. */
export function liveKeys(record: NodeRecord, nowMs: number): readonly NodeKey[] {
  return record.keys.filter((key) => isLive(key, nowMs));
}

function isLive(key: NodeKey, nowMs: number): boolean {
  const hasBegun = key.fromMs <= BigInt(nowMs + clockGraceMs);
  return hasBegun && (key.toMs === 0n || key.toMs >= BigInt(Math.max(0, nowMs - clockGraceMs)));
}

function isSignedBy(signed: SignedNodeRecord, signPub: Uint8Array): boolean {
  // More signatures than keys would only buy the sender our time.
  return signed.signatures
    .slice(0, nodeRecordLimits.keys)
    .some(
      (one) =>
        sameBytes(one.signPub, signPub) &&
        verifyStatement('qpc/node/1', signed.record, one.signature, signPub),
    );
}
