/**
 * The group log as pure functions: entries that committers sign, certificates that hubs sign, and the
 * evidence that a hub accepted two commits where the log has room for one (docs: protocol/group-log).
 * Whether the commit inside is valid MLS, only members can tell.
 */
import { createHash } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { channelLimits } from './channel.ts';
import {
  GroupEntrySchema,
  SignedGroupEntrySchema,
  type CertifiedEntry,
  type GroupEntry,
  type HubSignature,
  type SignedGroupEntry,
} from './gen/qpc/v1/group_pb.ts';
import {
  ed25519KeyBytes,
  ed25519SignatureBytes,
  signStatement,
  verifyStatement,
  type SigningKey,
} from './signature.ts';
import { ConflictError, FailedPreconditionError, InvalidArgumentError } from './status.ts';

export const groupLogLimits = {
  groupIdBytes: 32,
  hashBytes: 32,
  /**
   * Children of one parent that a later one may reject, as many as fit into an entry: after that only a new
   * group helps. A hub takes only a few of them from one device or domain (docs/protocol/group-log.md).
   */
  rejects: 24,
  /** Encoded GroupEntry. */
  entryBytes: 1_024,
  /** The same as it is offered to a hub: with one child more than it may reject, which `parseOffered` tells apart. */
  offeredBytes: 1_088,
  hubs: channelLimits.hubsMax,
  /** Of a commit or a Welcome with its keys: beside it in a row of 512 KiB stands the certified entry. */
  envelopeBytes: 508 * 1024,
  /** Entries of one answer to GroupLog. */
  pageEntries: 64,
} as const;

/** An entry whose fields keep their bounds; who signed it is not decided yet. */
export interface ParsedEntry {
  readonly entry: GroupEntry;
  /** As a number: at most 2^53 - 1. */
  readonly epoch: number;
  /** 32 bytes. */
  readonly hash: Uint8Array;
  readonly signedBytes: Uint8Array;
  readonly signature: Uint8Array;
}

/** What an entry says of its children. */
export type ParentFacts = Pick<GroupEntry, 'nextCommitPub' | 'joinCommitPub'> & {
  readonly hash: Uint8Array;
  readonly epoch: number;
};

/** SHA-256("qpc-entry" || encoded GroupEntry), 32 bytes. */
export function entryHash(entryBytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update('qpc-entry').update(entryBytes).digest());
}

/** What an entry names as its commit (32 bytes): SHA-256 of the bytes that travel. */
export function commitHash(commit: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(commit).digest());
}

/** Signs an entry with the commit key of its parent's epoch; entry 0 with the key of its own. */
export function signEntry(entry: GroupEntry, commitKey: SigningKey): SignedGroupEntry {
  const bytes = toBinary(GroupEntrySchema, entry);
  const signature = signStatement('qpc/entry/1', bytes, commitKey);
  return create(SignedGroupEntrySchema, { entry: bytes, signature });
}

/** Throws InvalidArgumentError BAD_FIELD. */
export function parseEntry(signed: SignedGroupEntry | undefined): ParsedEntry {
  if (signed === undefined) throw bad('is missing');
  const { entry: signedBytes, signature } = signed;
  const { entryBytes, groupIdBytes, hashBytes, rejects } = groupLogLimits;
  if (signedBytes.length > entryBytes) throw bad(`${signedBytes.length} bytes`);
  if (signature.length !== ed25519SignatureBytes) {
    throw bad(`signature: ${signature.length} bytes, need ${ed25519SignatureBytes}`);
  }
  const entry = decodeEntry(signedBytes);
  const isFirst = entry.epoch === 0n;
  const need = (value: Uint8Array, length: number, name: string): void => {
    if (value.length !== length) throw bad(`${name}: ${value.length} bytes, need ${length}`);
  };
  need(entry.group, groupIdBytes, 'group');
  // Entry 0 has no commit and nothing before it; all others have both.
  need(entry.parent, isFirst ? 0 : hashBytes, 'parent');
  need(entry.commitHash, isFirst ? 0 : hashBytes, 'commitHash');
  need(entry.nextCommitPub, ed25519KeyBytes, 'nextCommitPub');
  need(entry.joinCommitPub, ed25519KeyBytes, 'joinCommitPub');
  if (entry.epoch > BigInt(Number.MAX_SAFE_INTEGER)) throw bad('epoch: above 2^53 - 1');
  if (entry.rejects.length > (isFirst ? 0 : rejects)) throw bad(`rejects: ${entry.rejects.length}`);
  for (const hash of entry.rejects) need(hash, hashBytes, 'rejects');
  if (new Set(entry.rejects.map(hexOf)).size !== entry.rejects.length) throw bad('rejects: twice');
  const hash = entryHash(signedBytes);
  return { entry, epoch: Number(entry.epoch), hash, signedBytes, signature };
}

/**
 * As `parseEntry`, of an entry that a committer offers. Throws FailedPreconditionError EPOCH_FULL too: it rejects more
 * children of its parent than an entry may, so nothing is accepted behind that any more.
 */
export function parseOffered(signed: SignedGroupEntry | undefined): ParsedEntry {
  const { rejects, offeredBytes } = groupLogLimits;
  const { entry = new Uint8Array(0) } = signed ?? {};
  if (entry.length <= offeredBytes && decodeEntry(entry).rejects.length > rejects) {
    const what = `entry: its parent has more than ${rejects} children that came to nothing`;
    throw new FailedPreconditionError('EPOCH_FULL', what);
  }
  return parseEntry(signed);
}

/** The entry as what its children need. */
export function factsOf({ entry, hash, epoch }: ParsedEntry): ParentFacts {
  const { nextCommitPub, joinCommitPub } = entry;
  return { hash, epoch, nextCommitPub, joinCommitPub };
}

/**
 * Checks an entry against the one it was made on, or, for entry 0, against itself. Returns whose
 * commit it is. Throws InvalidArgumentError BAD_FIELD for another parent or epoch, BAD_SIGNATURE when
 * no key of the parent signed it.
 */
export function checkEntry(
  parsed: ParsedEntry,
  parent: ParentFacts | undefined,
): 'member' | 'external' {
  const { entry, epoch, signedBytes, signature } = parsed;
  if ((parent === undefined) !== (epoch === 0)) throw bad('epoch: only entry 0 has no parent');
  if (parent !== undefined) {
    if (!same(entry.parent, parent.hash)) throw bad('parent: is another entry');
    if (epoch !== parent.epoch + 1) throw bad(`epoch: ${epoch}, need ${parent.epoch + 1}`);
  }
  const { nextCommitPub, joinCommitPub } = parent ?? entry;
  if (verifyStatement('qpc/entry/1', signedBytes, signature, nextCommitPub)) return 'member';
  const isExternal = parent !== undefined;
  if (isExternal && verifyStatement('qpc/entry/1', signedBytes, signature, joinCommitPub)) {
    return 'external';
  }
  throw new InvalidArgumentError('BAD_SIGNATURE', 'entry: no commit key of its parent signed it');
}

/**
 * Whether the log has room for the entry behind its parent: it is the first child, or it rejects
 * every child that is there. `children` are their hashes. Throws ConflictError EPOCH_CONFLICT, which
 * the hub fills with the entries since the parent.
 */
export function checkRoom({ entry }: ParsedEntry, children: readonly Uint8Array[]): void {
  const rejected = new Set(entry.rejects.map(hexOf));
  const isRoom =
    rejected.size === children.length && children.every((hash) => rejected.has(hexOf(hash)));
  if (!isRoom) throw new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch');
}

/** A hub's word that it accepted the entry with this hash. */
export function signCertificate(
  hash: Uint8Array,
  term: number,
  hub: { readonly domain: string; readonly signing: SigningKey },
): Pick<HubSignature, 'domain' | 'signPub' | 'signature'> {
  const { domain, signing } = hub;
  const signature = signStatement('qpc/commit/1', certifiedBytes(hash, term), signing);
  return { domain, signPub: signing.publicKey, signature };
}

/** The signing keys of a hub (32 bytes each), from its proven NodeRecords. */
export type HubKeys = (domain: string) => readonly Uint8Array[];

/** Whether it is this domain's word for the entry with this hash in this term. */
export function isCertifiedBy(
  domain: string,
  keys: readonly Uint8Array[],
  signed: Pick<HubSignature, 'domain' | 'signPub' | 'signature'>,
  hash: Uint8Array,
  term: number,
): boolean {
  return (
    signed.domain === domain &&
    keys.some((key) => same(key, signed.signPub)) &&
    verifyStatement('qpc/commit/1', certifiedBytes(hash, term), signed.signature, signed.signPub)
  );
}

/** The hubs, of those given, whose certificate of the entry is right. */
function certifiers(
  certified: CertifiedEntry,
  hash: Uint8Array,
  hubs: readonly string[],
  keysOf: HubKeys,
): string[] {
  const term = Number(certified.term);
  if (!Number.isSafeInteger(term)) return [];
  // More signatures than hubs would only buy the sender our time.
  const signatures = certified.signatures.slice(0, groupLogLimits.hubs);
  return hubs.filter((domain) =>
    signatures.some((one) => isCertifiedBy(domain, keysOf(domain), one, hash, term)),
  );
}

/**
 * The entry, once a majority of the hubs certified it. Throws InvalidArgumentError BAD_FIELD or
 * BAD_SIGNATURE. Whether it fits behind its parent, `checkEntry` says.
 */
export function verifyCertified(
  certified: CertifiedEntry,
  hubs: readonly string[],
  keysOf: HubKeys,
): ParsedEntry {
  const parsed = parseEntry(certified.entry);
  const count = certifiers(certified, parsed.hash, hubs, keysOf).length;
  if (2 * count <= hubs.length) {
    throw new InvalidArgumentError(
      'BAD_SIGNATURE',
      `entry: certified by ${count} of ${hubs.length} hubs`,
    );
  }
  return parsed;
}

/**
 * The hubs that two certificates convict: they accepted two children of one parent of which neither
 * rejects the other, so that members who see only one of them go on in different groups. Empty when
 * the two prove nothing, as when one of them is not of a majority: what a hub of three wrote down and
 * never accepted may give way to another commit. Needs no log and no network; anybody can repeat it.
 */
export function checkEvidence(
  one: CertifiedEntry,
  other: CertifiedEntry,
  hubs: readonly string[],
  keysOf: HubKeys,
): string[] {
  const [a, b] = [parseEntry(one.entry), parseEntry(other.entry)];
  const isOnePlace = same(a.entry.group, b.entry.group) && same(a.entry.parent, b.entry.parent);
  if (!isOnePlace || same(a.hash, b.hash) || rejects(a, b) || rejects(b, a)) return [];
  const [ofOne, ofOther] = [
    certifiers(one, a.hash, hubs, keysOf),
    certifiers(other, b.hash, hubs, keysOf),
  ];
  if (![ofOne, ofOther].every(({ length }) => 2 * length > hubs.length)) return [];
  return ofOther.filter((domain) => ofOne.includes(domain));
}

function rejects({ entry }: ParsedEntry, { hash }: ParsedEntry): boolean {
  return entry.rejects.some((rejected) => same(rejected, hash));
}

function certifiedBytes(hash: Uint8Array, term: number): Uint8Array {
  const termBytes = Buffer.alloc(8);
  termBytes.writeBigUInt64BE(BigInt(term));
  return Buffer.concat([hash, termBytes]);
}

function decodeEntry(bytes: Uint8Array): GroupEntry {
  try {
    return fromBinary(GroupEntrySchema, bytes);
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'entry: does not parse', { cause });
  }
}

function bad(what: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', `entry: ${what}`);
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
