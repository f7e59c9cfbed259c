/**
 * The bytes of a contact card (docs/protocol/contact-cards.md): made and signed by a device, opened with
 * everything checked that needs no log: bounds, times, signatures of the devices over their own parts.
 */
import {
  checkPrekey,
  InvalidArgumentError,
  sameBytes,
  signStatement,
  UnauthenticatedError,
  verifyStatement,
  type SigningKey,
} from '@quicprochat/proto';
import {
  ContactCardSchema,
  create,
  fromBinary,
  SignedContactCardSchema,
  toBinary,
  type ContactCard,
  type SignedEndpointRecord,
  type SignedPrekey,
} from '@quicprochat/proto/messages';
import { verifyEndpointRecord } from '@quicprochat/p2p';

const dayMs = 24 * 3_600_000;

export const cardLimits = {
  /** The whole card, signed (bytes). */
  bytes: 64 * 1024,
  devices: 16,
  /** KeyPackages of one device: one of each suite. */
  keyPackages: 2,
  /** From its making to its end, as credentials are recent (ms). */
  lifetimeMs: 10 * dayMs,
  /** Clocks of people differ by so much (ms). */
  aheadMs: dayMs,
} as const;

/** A device of a card. Its KeyPackages are not looked into here. */
export interface CardDevice {
  /** Identity key (32 bytes). */
  readonly identityPub: Uint8Array;
  readonly endpoint: SignedEndpointRecord | undefined;
  readonly keyPackages: readonly Uint8Array[];
  readonly prekey: SignedPrekey;
  /** Delivery token (16 bytes); empty: none. */
  readonly token: Uint8Array;
}

export interface Card {
  readonly userId: string;
  /** Wrapped credential (kt-log); not opened here. */
  readonly credential: Uint8Array;
  readonly devices: readonly CardDevice[];
  readonly issuedMs: number;
  readonly expiresMs: number;
}

/** Signs a card of this device, which is the only one in it. */
export function makeCard(
  card: Omit<Card, 'devices'>,
  device: Omit<CardDevice, 'identityPub'>,
  identityKey: SigningKey,
): Uint8Array {
  const { endpoint, keyPackages, prekey, token } = device;
  const bytes = toBinary(
    ContactCardSchema,
    create(ContactCardSchema, {
      userId: card.userId,
      credential: card.credential,
      devices: [
        {
          ...{ identityPub: identityKey.publicKey, prekey, token },
          keyPackages: [...keyPackages],
          ...(endpoint === undefined ? {} : { endpoint }),
        },
      ],
      issuedMs: BigInt(card.issuedMs),
      expiresMs: BigInt(card.expiresMs),
    }),
  );
  const signature = signStatement('qpc/card/1', bytes, identityKey);
  return toBinary(
    SignedContactCardSchema,
    create(SignedContactCardSchema, { card: bytes, signature }),
  );
}

/**
 * Opens a card: everything in it is its devices' own word, and of now. Who the devices are of is still
 * the card's claim. Throws InvalidArgumentError BAD_FIELD (bounds, times, expired), UnauthenticatedError
 * BAD_CREDENTIAL for a signature that is not its device's.
 */
export function openCard(bytes: Uint8Array, nowMs: number): Card {
  if (bytes.length > cardLimits.bytes) throw bad(`${bytes.length} bytes`);
  const signed = decoded(() => fromBinary(SignedContactCardSchema, bytes));
  const message = decoded(() => fromBinary(ContactCardSchema, signed.card));
  const [first] = message.devices;
  if (first === undefined || message.devices.length > cardLimits.devices) {
    throw bad(`${message.devices.length} devices`);
  }
  const isSigned =
    first.identityPub.length === 32 &&
    signed.signature.length === 64 &&
    verifyStatement('qpc/card/1', signed.card, signed.signature, first.identityPub);
  if (!isSigned) throw new UnauthenticatedError('BAD_CREDENTIAL', 'card: not signed by its device');
  const [issuedMs, expiresMs] = timesOf(message, nowMs);
  const devices = message.devices.map((device) => checkDevice(device, nowMs));
  const isDoubled = devices.some((one, i) =>
    devices.slice(0, i).some(({ identityPub }) => sameBytes(identityPub, one.identityPub)),
  );
  if (isDoubled) throw bad('a device twice');
  const { userId, credential } = message;
  return { userId, credential, devices, issuedMs, expiresMs };
}

function timesOf(message: ContactCard, nowMs: number): readonly [number, number] {
  const [issuedMs, expiresMs] = [Number(message.issuedMs), Number(message.expiresMs)];
  const isSound =
    expiresMs > issuedMs &&
    expiresMs - issuedMs <= cardLimits.lifetimeMs &&
    issuedMs <= nowMs + cardLimits.aheadMs;
  if (!isSound) throw bad('times');
  if (expiresMs <= nowMs) throw bad(`expired on ${new Date(expiresMs).toISOString()}`);
  return [issuedMs, expiresMs];
}

function checkDevice(device: ContactCard['devices'][number], nowMs: number): CardDevice {
  const { identityPub, endpoint, keyPackages, prekey, token } = device;
  const isSound =
    identityPub.length === 32 &&
    keyPackages.length > 0 &&
    keyPackages.length <= cardLimits.keyPackages &&
    (token.length === 0 || token.length === 16);
  if (!isSound || prekey === undefined) throw bad('a device that lacks something');
  checkPrekey(prekey, identityPub, nowMs);
  const reach = ['private', 'public', 'loopback', 'link'] as const;
  // One that has expired meanwhile says nothing, and costs the card nothing.
  const isThere = endpoint !== undefined && isCurrent(endpoint, identityPub, nowMs, reach);
  return {
    ...{ identityPub, prekey, keyPackages, token },
    endpoint: isThere ? endpoint : undefined,
  };
}

function isCurrent(
  endpoint: SignedEndpointRecord,
  device: Uint8Array,
  nowMs: number,
  reach: Parameters<typeof verifyEndpointRecord>[1]['reach'],
): boolean {
  try {
    verifyEndpointRecord(endpoint, { nowMs, device, ...(reach === undefined ? {} : { reach }) });
    return true;
  } catch (error) {
    if (error instanceof UnauthenticatedError) throw error;
    if (error instanceof InvalidArgumentError) return false;
    throw error;
  }
}

function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'card: no encoded card', { cause });
  }
}

const bad = (what: string): InvalidArgumentError =>
  new InvalidArgumentError('BAD_FIELD', `card: ${what}`);
