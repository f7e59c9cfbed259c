/**
 * What a node's signed record says about its key-transparency log, and who may replace one record
 * by another. What each of the two ways to trust a record gives and what not:
 * docs/developer/verification.md.
 */
import {
  configuration,
  decode,
  nativeSuite,
  parsePolicy,
  parseVkey,
  SignatureType,
  VerificationError,
  type Configuration,
  type LogIdentity,
  type Policy,
} from '@quicprochat/kt-log';
import {
  formatNodeAddress,
  InvalidArgumentError,
  parseNodeAddress,
  QpcError,
  Status,
  verifyNodeRecord,
  type NodeRecordTrust,
} from '@quicprochat/proto';
import {
  fromBinary,
  NodeRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
  type NodeRecord,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';

/**
 * No log can be believed for a domain. NO_LOG: its node's record names none. RECORD_REFUSED: the
 * record is not signed as it must be. RECORD_NOT_IN_LOG: the log itself shows another record.
 * LOG_REPLACED: it names another log than the one known here. LOG_CONVICTED: evidence against the log
 * is kept here; known keys stay, new ones are not believed. UNKNOWN_HEAD: what was shown stands on a head that is not
 * known here, and the log cannot be asked now.
 */
export class LogError extends QpcError {
  override name = 'LogError';
  readonly domain: string;
  constructor(
    reason:
      | 'NO_LOG'
      | 'RECORD_REFUSED'
      | 'RECORD_NOT_IN_LOG'
      | 'LOG_REPLACED'
      | 'LOG_CONVICTED'
      | 'UNKNOWN_HEAD',
    domain: string,
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(Status.FailedPrecondition, reason, `key log of ${domain}: ${message}`, options);
    this.domain = domain;
  }
}

/** The keys of a log, as a record names them. */
export interface LogKeys {
  readonly identity: LogIdentity;
  readonly config: Configuration;
}

/** A record that was verified. */
export interface KnownRecord {
  readonly record: NodeRecord;
  /** Encoded SignedNodeRecord: what stands in the log under `@domain`. */
  readonly bytes: Uint8Array;
}

/** A record of the own store: it was verified before it was written. */
export function knownRecordOf(bytes: Uint8Array): KnownRecord {
  const { record } = fromBinary(SignedNodeRecordSchema, bytes);
  return { record: fromBinary(NodeRecordSchema, record), bytes };
}

/**
 * Checks a record served for `domain`. With a pin, the connection that it came over proves it; with
 * an older record, one of that one's signing keys; with neither it is only consistent in itself.
 * Throws LogError RECORD_REFUSED.
 */
export function checkRecord(
  domain: string,
  signed: SignedNodeRecord,
  known: { readonly pin?: Uint8Array | undefined; readonly older?: KnownRecord | undefined },
  nowMs: number,
): KnownRecord {
  try {
    const record = verifyNodeRecord(signed, { domain, nowMs, ...trustIn(signed, known) });
    const bytes = toBinary(SignedNodeRecordSchema, signed);
    if (known.older !== undefined && record.seq === known.older.record.seq) {
      const isSame = Buffer.compare(bytes, known.older.bytes) === 0;
      if (!isSame) throw new InvalidArgumentError('BAD_FIELD', 'another record of the same seq');
    }
    return { record, bytes };
  } catch (cause) {
    if (!(cause instanceof QpcError)) throw cause;
    throw new LogError('RECORD_REFUSED', domain, cause.message, { cause });
  }
}

function trustIn(
  signed: SignedNodeRecord,
  { pin, older }: Parameters<typeof checkRecord>[2],
): Pick<NodeRecordTrust, 'pins' | 'connectionSpki' | 'signKeys' | 'seq'> {
  if (older !== undefined) {
    const signKeys = older.record.keys.map(({ signPub }) => signPub);
    return { pins: [], signKeys, seq: Number(older.record.seq) };
  }
  if (pin !== undefined) return { pins: [pin], connectionSpki: pin };
  return { pins: [], signKeys: signed.signatures.map(({ signPub }) => signPub) };
}

/** The log that the record's node writes now. Throws LogError NO_LOG. */
export function logKeysOf(domain: string, { record }: KnownRecord): LogKeys {
  const named = record.kt.at(-1);
  if (named === undefined) throw new LogError('NO_LOG', domain, 'its node names none');
  try {
    const key = parseVkey(nativeSuite.sha256, named.vkey);
    return { identity: { origin: key.name, key }, config: decode(configuration, named.config) };
  } catch (cause) {
    if (!(cause instanceof VerificationError)) throw cause;
    throw new LogError('NO_LOG', domain, cause.message, { cause });
  }
}

/**
 * Who has to have cosigned the heads of `domain`'s log: of the other nodes met so far, whose auditors
 * replay the logs of their peers. The peers of the own node are known by its own proof, so a
 * majority of them is asked for at the own log; at another one, any. Undefined: nobody is known.
 */
export function policyFor(
  domain: string,
  isOwn: boolean,
  others: readonly KnownRecord[],
): Policy | undefined {
  const auditors = others
    .filter(({ record }) => record.domain !== domain)
    .flatMap(({ record }) => record.cosigners.filter((vkey) => isAuditorOf(record.domain, vkey)));
  const unique = [...new Set(auditors)];
  if (unique.length === 0) return undefined;
  const names = unique.map((_, index) => `a${index}`);
  const threshold = isOwn ? Math.floor(unique.length / 2) + 1 : 1;
  const lines = [
    ...unique.map((vkey, index) => `witness ${names[index]} ${vkey}`),
    `group auditors ${threshold} ${names.join(' ')}`,
    'quorum auditors',
  ];
  return parsePolicy(nativeSuite.sha256, lines.join('\n'));
}

/**
 * `policyFor` of the records' bytes, for a log client, which asks with each answer: parsed when the records
 * are others than the last time.
 */
export function rememberedPolicy(
  domain: string,
  isOwn: boolean,
): (records: readonly Uint8Array[]) => Policy | undefined {
  let last:
    | { readonly records: readonly Uint8Array[]; readonly policy: Policy | undefined }
    | undefined;
  return (records) => {
    const known = last?.records;
    const isSame =
      known?.length === records.length &&
      records.every((bytes, i) => Buffer.compare(bytes, known[i] ?? new Uint8Array()) === 0);
    if (last === undefined || !isSame) {
      last = { records, policy: policyFor(domain, isOwn, records.map(knownRecordOf)) };
    }
    return last.policy;
  };
}

/** Key names bind to the domain: a node's record cannot speak for another node's auditor. */
function isAuditorOf(domain: string, vkey: string): boolean {
  try {
    const key = parseVkey(nativeSuite.sha256, vkey);
    return key.name === `${domain}/auditor` && key.type === SignatureType.cosignatureV1;
  } catch (error) {
    if (error instanceof VerificationError) return false;
    throw error;
  }
}

/** Where a node is reached, by its record: the first endpoint, with the newest key that is live. */
export function nodeAddressIn({ endpoints, keys }: NodeRecord, nowMs: number): string | undefined {
  const [endpoint] = endpoints;
  const key = keys.findLast(
    ({ fromMs, toMs }) => Number(fromMs) <= nowMs && (toMs === 0n || Number(toMs) > nowMs),
  );
  if (endpoint === undefined || key === undefined) return undefined;
  const { host, port } = endpoint;
  const address = formatNodeAddress({ host, port, pin: key.spkiSha256 });
  parseNodeAddress(address);
  return address;
}
