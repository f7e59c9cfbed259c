/**
 * Evidence that a group was forked, in one file that needs no store, log, account or network: both certified entries of one
 * place, the group's hubs, and their node records (docs/protocol/group-log.md, "A lying hub"). What it cannot
 * prove by itself is whose the keys are; `ConvictedHub` says so.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { isDomain } from './address.ts';
import { sameBytes } from './bytes.ts';
import type { NodeRecord, SignedNodeRecord } from './gen/qpc/v1/federation_pb.ts';
import {
  CertifiedEntrySchema,
  ForkEvidenceSchema,
  type CertifiedEntry,
  type ForkEvidence,
} from './gen/qpc/v1/group_pb.ts';
import { checkEvidence, groupLogLimits, isCertifiedBy, parseEntry } from './group-log.ts';
import { certifyingKeys, nodeRecordLimits, openNodeRecord } from './node-record.ts';
import { ed25519KeyBytes, ed25519SignatureBytes } from './signature.ts';
import { InvalidArgumentError, QpcError } from './status.ts';

export const forkEvidenceLimits = {
  /** Encoded ForkEvidence: three records of 16 KiB, two entries of 1 KiB, and their signatures. */
  bytes: 64 * 1024,
} as const;

/** Who signed two entries of one place. */
export interface ConvictedHub {
  readonly domain: string;
  /** Ed25519 (32 bytes each): what signed. Whoever holds them did it. */
  readonly keys: readonly Uint8Array[];
  /**
   * True: these keys are in a record that the caller trusts. False: only the evidence says that they are of this domain, and
   * anybody can write such a record; the reader compares them with those that the domain shows.
   */
  readonly isTrusted: boolean;
}

export interface ForkVerdict {
  /** MLS group id (32 bytes). */
  readonly group: Uint8Array;
  /** That both commits make. */
  readonly epoch: number;
  /** Hashes of the entries (32 bytes each), as they stand in the logs of hubs. */
  readonly entries: readonly [one: Uint8Array, other: Uint8Array];
  /** All hubs of the group, 1 or 3, as the evidence says: the group itself shows them to members only. */
  readonly hubs: readonly string[];
  /** Empty: it proves nothing. */
  readonly convicted: readonly ConvictedHub[];
}

/**
 * Encodes evidence, at most `forkEvidenceLimits.bytes`. Left out is what counts for nothing (signatures of others or beyond
 * those that are looked at, fields that are not known, records that are malformed or of others), so that no hub becomes
 * too large to convict.
 * Throws InvalidArgumentError BAD_FIELD for a malformed entry.
 */
export function makeForkEvidence(
  hubs: readonly string[],
  [one, other]: readonly [CertifiedEntry, CertifiedEntry],
  records: readonly SignedNodeRecord[],
): Uint8Array {
  const known = records.filter((signed) => hubs.includes(openedOf(signed)?.domain ?? ''));
  const evidence = create(ForkEvidenceSchema, {
    hubs: [...hubs],
    one: withoutJunk(one, hubs),
    other: withoutJunk(other, hubs),
    records: known.map(({ record, signatures }) => ({
      record,
      signatures: wellFormed(signatures.slice(0, nodeRecordLimits.keys)).map(
        ({ signPub, signature }) => ({ signPub, signature }),
      ),
    })),
  });
  return toBinary(ForkEvidenceSchema, evidence);
}

/**
 * Who is convicted by evidence, from nothing but its bytes. `trusted`: records that the caller believes, as from
 * `https://<domain>/.well-known/qpc`; their keys count in the place of those that the evidence brings for these domains.
 *
 * It does not prove that the keys are the domain's (`isTrusted`), nor why the hub signed twice: one that was put back to an
 * older copy of its database looks the same. Nor does it say which of the two a member follows, or who wrote them.
 *
 * Throws InvalidArgumentError BAD_FIELD for bytes that are no evidence, BAD_SIGNATURE where a record is not signed by a key of
 * its own; nothing else.
 */
export function verifyForkEvidence(
  bytes: Uint8Array,
  trusted: readonly NodeRecord[] = [],
): ForkVerdict {
  const { hubs, one, other, records: brought } = decode(bytes);
  needHubs(hubs);
  if (one === undefined || other === undefined) throw bad('needs two entries');
  const [a, b] = [parseEntry(one.entry), parseEntry(other.entry)];
  if (brought.length > hubs.length) throw bad(`${brought.length} records of ${hubs.length} hubs`);
  const records = brought.map(openNodeRecord);
  const isOfHub = records.every(({ domain }) => hubs.includes(domain));
  if (!isOfHub || new Set(records.map(({ domain }) => domain)).size < records.length) {
    throw bad('records: one of each hub');
  }
  const keysOf = keysIn([...trusted, ...records]);
  const convicted = checkEvidence(one, other, hubs, keysOf).map((domain) => ({
    domain,
    keys: distinct([
      ...keysThatSigned(one, a.hash, domain, keysOf(domain)),
      ...keysThatSigned(other, b.hash, domain, keysOf(domain)),
    ]),
    isTrusted: trusted.some((record) => record.domain === domain),
  }));
  const { group } = a.entry;
  return { group, epoch: a.epoch, entries: [a.hash, b.hash], hubs, convicted };
}

/** Of the first record of a domain. */
function keysIn(records: readonly NodeRecord[]): (domain: string) => readonly Uint8Array[] {
  return (domain) => {
    const record = records.find((one) => one.domain === domain);
    return record === undefined ? [] : certifyingKeys(record);
  };
}

function keysThatSigned(
  { signatures, term }: CertifiedEntry,
  hash: Uint8Array,
  domain: string,
  keys: readonly Uint8Array[],
): readonly Uint8Array[] {
  return signatures
    .slice(0, groupLogLimits.hubs)
    .filter((one) => isCertifiedBy(domain, keys, one, hash, Number(term)))
    .map(({ signPub }) => signPub);
}

/** What of it may count: `checkEvidence` looks at as many signatures as a group has hubs. */
function withoutJunk(
  { entry, term, signatures }: CertifiedEntry,
  hubs: readonly string[],
): CertifiedEntry {
  const { signedBytes, signature } = parseEntry(entry);
  const kept = wellFormed(signatures.slice(0, groupLogLimits.hubs));
  return create(CertifiedEntrySchema, {
    entry: { entry: signedBytes, signature },
    term,
    signatures: kept
      .filter(({ domain }) => hubs.includes(domain))
      .map((one) => ({ domain: one.domain, signPub: one.signPub, signature: one.signature })),
  });
}

function wellFormed<T extends { readonly signPub: Uint8Array; readonly signature: Uint8Array }>(
  signatures: readonly T[],
): readonly T[] {
  return signatures.filter(
    ({ signPub, signature }) =>
      signPub.length === ed25519KeyBytes && signature.length === ed25519SignatureBytes,
  );
}

function openedOf(signed: SignedNodeRecord): NodeRecord | undefined {
  try {
    return openNodeRecord(signed);
  } catch (error) {
    if (error instanceof QpcError) return undefined;
    throw error;
  }
}

function decode(bytes: Uint8Array): ForkEvidence {
  if (bytes.length > forkEvidenceLimits.bytes) {
    throw bad(`${bytes.length} bytes, at most ${forkEvidenceLimits.bytes}`);
  }
  try {
    return fromBinary(ForkEvidenceSchema, bytes);
  } catch (cause) {
    throw bad('does not parse', { cause });
  }
}

function needHubs(hubs: readonly string[]): void {
  if (hubs.length !== 1 && hubs.length !== groupLogLimits.hubs) {
    throw bad(`hubs: ${hubs.length}, need 1 or ${groupLogLimits.hubs}`);
  }
  if (!hubs.every(isDomain) || new Set(hubs).size < hubs.length) {
    throw bad('hubs: need lower-case domains, each once');
  }
}

function distinct(keys: readonly Uint8Array[]): readonly Uint8Array[] {
  return keys.filter((key, at) => keys.findIndex((one) => sameBytes(one, key)) === at);
}

function bad(what: string, options?: { readonly cause?: unknown }): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', `fork evidence: ${what}`, options);
}
