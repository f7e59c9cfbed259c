/**
 * Where a device can be reached without a node: codec, signature and rules of endpoint records
 * (docs/protocol/p2p.md). Pure functions; who may see a record is the caller's to decide.
 */
import {
  checkFields,
  domainName,
  exactBytes,
  InvalidArgumentError,
  itemsBetween,
  safeSeq,
  signStatement,
  textAtMost,
  UnauthenticatedError,
  verifyStatement,
  type FieldRules,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  EndpointRecordSchema,
  fromBinary,
  SignedEndpointRecordSchema,
  toBinary,
  type EndpointRecord as EndpointMessage,
  type SignedEndpointRecord,
} from '@quicprochat/proto/messages';
import { peerIdOf, type PeerIdText } from './peer-id.ts';
import { addressTextMax, parseSwarmAddress, type Reach } from './swarm-address.ts';

export const endpointLimits = {
  recordBytes: 2_048,
  addresses: 8,
  relays: 3,
  mailboxes: 2,
  /** Between issue and expiry (ms): 7 days. */
  lifetimeMs: 7 * 24 * 3_600_000,
  /** How far a device's clock may be ahead (ms): a day, as for certificates. */
  aheadMs: 24 * 3_600_000,
} as const;

/** What a device says of itself. */
export interface EndpointFacts {
  /** Ed25519 key of the device's swarm (32 bytes). */
  readonly swarmKey: Uint8Array;
  /** Without "/p2p/"; at most 8. */
  readonly addresses: readonly string[];
  /** With "/p2p/" and the relay's peer id; at most 3. */
  readonly relays: readonly string[];
  /** Domains; at most 2. */
  readonly mailboxes: readonly string[];
  readonly seq: number;
  /** Unix ms by the device's clock. */
  readonly issuedMs: number;
  /** At most 7 days after `issuedMs`. */
  readonly expiresMs: number;
}

/** A record whose signature and rules were checked. */
export interface EndpointRecord extends EndpointFacts {
  /** The device that signed (32 bytes). */
  readonly device: Uint8Array;
  readonly peerId: PeerIdText;
  /** As it came, to be kept and checked again. */
  readonly signed: SignedEndpointRecord;
}

export interface EndpointRules {
  readonly nowMs: number;
  /** The device that must have signed, where the caller knows it (32 bytes). */
  readonly device?: Uint8Array;
  /** The peer id that the record must name: of the connection that it came over. */
  readonly peerId?: PeerIdText;
  /** Highest seq known of that device; the record's must be higher. */
  readonly knownSeq?: number;
  /**
   * What its direct addresses and relays may be. `public` unless it came inside MLS, from a node in
   * the same network, or from the local network; `loopback` is for programs of one machine.
   */
  readonly reach?: readonly Reach[];
}

const rules: FieldRules<EndpointMessage> = {
  device: exactBytes(32),
  swarmKey: exactBytes(32),
  addresses: itemsBetween(0, endpointLimits.addresses, textAtMost(addressTextMax)),
  relays: itemsBetween(0, endpointLimits.relays, textAtMost(addressTextMax)),
  mailboxes: itemsBetween(0, endpointLimits.mailboxes, domainName),
  seq: safeSeq,
  issuedMs: safeSeq,
  expiresMs: safeSeq,
};

/**
 * Signs a record as the device. Throws InvalidArgumentError BAD_FIELD for facts that no reader would
 * take, so that a bad record is noticed where it is made.
 */
export function signEndpointRecord(facts: EndpointFacts, device: SigningKey): SignedEndpointRecord {
  const record = toBinary(
    EndpointRecordSchema,
    create(EndpointRecordSchema, {
      device: device.publicKey,
      swarmKey: facts.swarmKey,
      addresses: [...facts.addresses],
      relays: [...facts.relays],
      mailboxes: [...facts.mailboxes],
      seq: BigInt(facts.seq),
      issuedMs: BigInt(facts.issuedMs),
      expiresMs: BigInt(facts.expiresMs),
    }),
  );
  const signed = create(SignedEndpointRecordSchema, {
    record,
    signature: signStatement('qpc/endpoint/1', record, device),
  });
  verifyEndpointRecord(signed, {
    nowMs: facts.issuedMs,
    reach: ['loopback', 'link', 'private', 'public'],
  });
  return signed;
}

/**
 * The record's facts. Throws InvalidArgumentError BAD_FIELD for what breaks a rule (an older or equal
 * seq, a lifetime above 7 days, expired, too many entries, names, an address with another peer id or
 * out of reach), UnauthenticatedError BAD_CREDENTIAL for another device, another peer id or a bad
 * signature.
 */
export function verifyEndpointRecord(
  signed: SignedEndpointRecord | undefined,
  { nowMs, device, peerId, knownSeq, reach = ['public'] }: EndpointRules,
): EndpointRecord {
  if (signed === undefined) throw bad('is missing');
  const { length } = signed.record;
  if (length > endpointLimits.recordBytes) {
    throw bad(`${length} bytes, at most ${endpointLimits.recordBytes}`);
  }
  const message = decode(signed.record);
  checkFields(message, rules);
  if (device !== undefined && Buffer.compare(device, message.device) !== 0) {
    throw new UnauthenticatedError('BAD_CREDENTIAL', 'endpoint record: of another device');
  }
  const named = peerIdOf(message.swarmKey);
  if (peerId !== undefined && peerId !== named) {
    throw new UnauthenticatedError('BAD_CREDENTIAL', 'endpoint record: of another swarm');
  }
  if (!verifyStatement('qpc/endpoint/1', signed.record, signed.signature, message.device)) {
    throw new UnauthenticatedError('BAD_CREDENTIAL', 'endpoint record: bad signature');
  }
  const record: EndpointRecord = {
    device: message.device,
    swarmKey: message.swarmKey,
    peerId: named,
    signed,
    addresses: message.addresses,
    relays: message.relays,
    mailboxes: message.mailboxes,
    seq: Number(message.seq),
    issuedMs: Number(message.issuedMs),
    expiresMs: Number(message.expiresMs),
  };
  checkTimes(record, nowMs);
  if (knownSeq !== undefined && record.seq <= knownSeq) {
    throw bad(`seq ${record.seq}, known is ${knownSeq}`);
  }
  checkAddresses(record, reach);
  return record;
}

function checkTimes({ issuedMs, expiresMs }: EndpointRecord, nowMs: number): void {
  const { lifetimeMs, aheadMs } = endpointLimits;
  if (expiresMs <= issuedMs || expiresMs - issuedMs > lifetimeMs) {
    throw bad(`lives ${expiresMs - issuedMs} ms, need 1-${lifetimeMs}`);
  }
  if (issuedMs > nowMs + aheadMs) throw bad(`issued ${issuedMs - nowMs} ms in the future`);
  if (expiresMs <= nowMs) throw bad(`expired ${nowMs - expiresMs} ms ago`);
}

function checkAddresses(record: EndpointRecord, reach: readonly Reach[]): void {
  for (const text of record.addresses) {
    const address = parseSwarmAddress(text);
    if (!reach.includes(address.reach)) throw bad(`a ${address.reach} address`);
    if (address.peerId !== undefined && address.peerId !== record.peerId) {
      throw bad('an address of another swarm');
    }
  }
  for (const text of record.relays) {
    const address = parseSwarmAddress(text);
    if (!reach.includes(address.reach)) throw bad(`a relay at a ${address.reach} address`);
    if (address.peerId === undefined) throw bad('a relay without its peer id');
    if (address.peerId === record.peerId) throw bad('its own relay');
  }
}

function decode(record: Uint8Array): EndpointMessage {
  try {
    return fromBinary(EndpointRecordSchema, record);
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'endpoint record: cannot be decoded', { cause });
  }
}

function bad(what: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', `endpoint record: ${what}`);
}
