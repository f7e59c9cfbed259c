/**
 * Envelopes: what relays see of a message (`Envelope` of proto/qpc/v1/content.proto), in hybrid
 * mode (HPKE to one device's X-Wing prekey, RFC 9180) or channel mode (AES-256-GCM under the
 * epoch's exported key). Seals and opens bytes; which keys exist, and what to do with a message
 * whose key is not here yet, is the caller's.
 */
import { hash } from 'node:crypto';
import { maxControlBytes, PayloadTooLargeError, QpcError, Status } from '@quicprochat/proto';
import type { ErrorOptions, Random } from '@quicprochat/proto';
import {
  create,
  EnvelopeSchema,
  fromBinary,
  GoneSchema,
  GroupHeadSchema,
  GroupStandingSchema,
  JoinStateSchema,
  ResendRequestSchema,
  SealedSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import {
  evidenceMessage,
  parseEvidence,
  parseTokens,
  tokensMessage,
  type HandedToken,
  type KeyEvidence,
} from '../content.ts';
import type { CertifiedEntry, MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal, aesGcmTagLength } from './aes-gcm.ts';
import { DecryptionError } from './decryption-error.ts';
import { hmac } from './hkdf.ts';
import { hpkeOpenBase, hpkeSealBase } from './hpke.ts';
import { concat, octets } from './octets.ts';
import { paddedLength, roundUp } from './padding.ts';
import { xwingCiphertextLength, xwingPublicKeyLength } from './xwing.ts';

const version = 1;
const xwingKemId = 0x647a;
const keyIdLength = 8;
const text = new TextEncoder();
const infoPrefix = text.encode('qpc/env/1\0');
const empty = new Uint8Array(0);

/**
 * What an envelope carries: an MLSMessage (RFC 9420 section 6) with a PrivateMessage, a PublicMessage or a
 * Welcome, or an encoded ResendRequest or Gone (resend-request.ts), GroupHead (fork-watch.ts) or JoinState
 * (group-info.ts), or the key of a Welcome for several devices (shared-welcome.ts).
 */
export interface SealedContent {
  readonly kind:
    | 'mlsMessage'
    | 'welcome'
    | 'resendRequest'
    | 'gone'
    | 'groupHead'
    | 'joinState'
    | 'groupStanding'
    | 'welcomeKey';
  readonly bytes: Uint8Array;
  /** Beside a Welcome: by which who is invited may know the inviter. */
  readonly evidence?: KeyEvidence | undefined;
  /** Beside a Welcome: delivery tokens of members. */
  readonly tokens?: readonly HandedToken[] | undefined;
  /** Beside a Welcome that no hub brings: what certifies it. */
  readonly entry?: CertifiedEntry | undefined;
  /** Beside a Welcome: the group's join key (32 bytes). */
  readonly joinKey?: Uint8Array | undefined;
}

/** A parsed envelope whose lengths are right; nothing in it is authenticated yet. */
export type SealedEnvelope =
  | {
      readonly mode: 'hybrid';
      /** Which prekey opens it (8 bytes, `hybridKeyId`). */
      readonly keyId: Uint8Array;
      readonly enc: Uint8Array;
      readonly ciphertext: Uint8Array;
    }
  | {
      readonly mode: 'channel';
      /** Which epoch's key opens it (8 bytes, `channelKeyId`). */
      readonly keyId: Uint8Array;
      readonly nonce: Uint8Array;
      readonly ciphertext: Uint8Array;
    };

/**
 * UNKNOWN_KEY (status NotFound): no key with this key id is here; it may come, so park the
 * message. BAD_ENVELOPE (InvalidArgument): malformed or not authentic, no key will ever help.
 */
export class EnvelopeError extends QpcError {
  override name = 'EnvelopeError';
  constructor(reason: 'UNKNOWN_KEY' | 'BAD_ENVELOPE', message: string, options?: ErrorOptions) {
    const status = reason === 'UNKNOWN_KEY' ? Status.NotFound : Status.InvalidArgument;
    super(status, reason, `envelope: ${message}`, options);
  }
}

/** Key id (8 bytes) of an X-Wing public key: SHA-256(pub)[0..8]. */
export function hybridKeyId(publicKey: Uint8Array): Uint8Array {
  octets(publicKey, xwingPublicKeyLength, 'prekey');
  return Uint8Array.from(hash('sha256', publicKey, 'buffer').subarray(0, keyIdLength));
}

/** Key id (8 bytes) of an epoch's channel envelope key (32 bytes): HMAC-SHA256(key, "id")[0..8]. */
export function channelKeyId(key: Uint8Array): Uint8Array {
  octets(key, 32, 'channel key');
  return hmac('sha256', key, text.encode('id')).slice(0, keyIdLength);
}

/**
 * Envelope for one device, bound to its delivery address and the message id. Costs 1120 bytes of
 * encapsulation, 16 of tag, 8 of key id, padding and 17 to 21 of framing.
 * Throws PayloadTooLargeError above 512 KiB.
 */
export function sealHybrid(input: {
  readonly content: SealedContent;
  /** The device's X-Wing prekey (1216 bytes). */
  readonly recipientKey: Uint8Array;
  /** The device's identity key (32 bytes). */
  readonly rid: Uint8Array;
  /** Message id (16 bytes). */
  readonly mid: Uint8Array;
  readonly random: Random;
}): Uint8Array {
  const plaintext = padded(input.content);
  const { enc, ciphertext } = hpkeSealBase({
    kem: 'xwing',
    publicKey: input.recipientKey,
    info: hybridInfo(input.rid, input.mid),
    aad: empty,
    plaintext,
    random: input.random,
  });
  plaintext.fill(0);
  const keyId = hybridKeyId(input.recipientKey);
  const value = { kemId: xwingKemId, keyId, enc, ct: ciphertext };
  return encoded({ v: version, sealed: { case: 'hybrid', value } });
}

/**
 * Envelope for everybody who holds the epoch's key (32 bytes): one copy for all of a group.
 * Costs 12 bytes of nonce, 16 of tag, 8 of key id, padding and 12 to 16 of framing.
 * Throws PayloadTooLargeError above 512 KiB.
 */
export function sealChannel(input: {
  readonly content: SealedContent;
  readonly key: Uint8Array;
  /** What it is named by (8 bytes): the key's own id unless told. It is not authenticated. */
  readonly keyId?: Uint8Array;
  readonly random: Random;
}): Uint8Array {
  const keyId = octets(input.keyId ?? channelKeyId(input.key), keyIdLength, 'key id');
  const plaintext = padded(input.content);
  // Random nonces are safe here: a key lives one epoch, far below 2^32 messages.
  const nonce = input.random.bytes(aesGcmNonceLength);
  const ct = aesGcmSeal(input.key, nonce, empty, plaintext);
  plaintext.fill(0);
  return encoded({ v: version, sealed: { case: 'channel', value: { keyId, nonce, ct } } });
}

/**
 * Reads an envelope's frame. The encoding must be the canonical one of version 1, so that no
 * byte outside the seal can be changed unnoticed. Throws EnvelopeError BAD_ENVELOPE.
 */
export function parseEnvelope(payload: Uint8Array): SealedEnvelope {
  if (payload.length > maxControlBytes) {
    throw bad(`${payload.length} bytes, at most ${maxControlBytes}`);
  }
  const { v, sealed } = decodeCanonical(EnvelopeSchema, payload);
  if (v !== version) throw bad(`version ${v}, know ${version}`);
  switch (sealed.case) {
    case 'hybrid': {
      const { kemId, keyId, enc, ct } = sealed.value;
      if (kemId !== xwingKemId) throw bad(`kem ${kemId}, know ${xwingKemId}`);
      exactly(keyId, keyIdLength, 'key id');
      exactly(enc, xwingCiphertextLength, 'encapsulation');
      atLeastTag(ct);
      return { mode: 'hybrid', keyId, enc, ciphertext: ct };
    }
    case 'channel': {
      const { keyId, nonce, ct } = sealed.value;
      exactly(keyId, keyIdLength, 'key id');
      exactly(nonce, aesGcmNonceLength, 'nonce');
      atLeastTag(ct);
      return { mode: 'channel', keyId, nonce, ciphertext: ct };
    }
    case undefined:
      throw bad('of no kind that version 1 has');
  }
}

/**
 * Opens a hybrid envelope with the X-Wing seed (32 bytes) that `seedOf` finds by key id.
 * Throws EnvelopeError: UNKNOWN_KEY when it finds none, BAD_ENVELOPE when the envelope is not
 * authentic for this address and message id.
 */
export function openHybrid(
  envelope: Extract<SealedEnvelope, { mode: 'hybrid' }>,
  seedOf: (keyId: Uint8Array) => Uint8Array | undefined,
  rid: Uint8Array,
  mid: Uint8Array,
): SealedContent {
  const info = hybridInfo(rid, mid);
  const secretSeed = seedOf(envelope.keyId);
  if (secretSeed === undefined) throw unknownKey();
  const { enc, ciphertext } = envelope;
  return opened(() =>
    hpkeOpenBase({ kem: 'xwing', secretSeed, enc, info, aad: empty, ciphertext }),
  );
}

/**
 * Opens a channel envelope with the epoch key (32 bytes) that `keyOf` finds by key id.
 * Throws EnvelopeError: UNKNOWN_KEY when it finds none, BAD_ENVELOPE when it is not authentic.
 */
export function openChannel(
  envelope: Extract<SealedEnvelope, { mode: 'channel' }>,
  keyOf: (keyId: Uint8Array) => Uint8Array | undefined,
): SealedContent {
  const key = keyOf(envelope.keyId);
  if (key === undefined) throw unknownKey();
  return opened(() => aesGcmOpen(key, envelope.nonce, empty, envelope.ciphertext));
}

function hybridInfo(rid: Uint8Array, mid: Uint8Array): Uint8Array {
  return concat(infoPrefix, octets(rid, 32, 'rid'), octets(mid, 16, 'mid'));
}

/**
 * `Sealed || 0x80 || 0x00...`. MLS pads a PrivateMessage itself (to this same ladder), so 32 bytes
 * of rounding suffice: they cover what differs outside of its padding, such as the 16 bytes of
 * authenticated data that only application messages carry. A Welcome has no padding of its own and
 * grows with every member, so it climbs the whole ladder, and so do the others.
 */
function padded(from: SealedContent): Uint8Array {
  const sealed = toBinary(SealedSchema, create(SealedSchema, { content: sealedOf(from) }));
  const length = sealed.length + 1;
  const isPadded = from.kind === 'mlsMessage';
  const out = new Uint8Array(isPadded ? roundUp(length, 32) : paddedLength(length));
  out.set(sealed);
  out[sealed.length] = 0x80;
  sealed.fill(0);
  return out;
}

function sealedOf({
  kind,
  bytes,
  evidence,
  tokens,
  entry,
  joinKey,
}: SealedContent): NonNullable<MessageInitShape<typeof SealedSchema>['content']> {
  switch (kind) {
    case 'mlsMessage':
      return { case: 'mlsMessage', value: bytes };
    case 'welcome': {
      const beside = {
        ...(evidence === undefined ? {} : { evidence: evidenceMessage(evidence) }),
        ...(tokens === undefined || tokens.length === 0 ? {} : { tokens: tokensMessage(tokens) }),
        ...(entry === undefined ? {} : { entry }),
        ...(joinKey === undefined ? {} : { joinKey }),
      };
      return { case: 'welcome', value: { welcome: bytes, ...beside } };
    }
    case 'resendRequest':
      return { case: 'resendRequest', value: fromBinary(ResendRequestSchema, bytes) };
    case 'gone':
      return { case: 'gone', value: fromBinary(GoneSchema, bytes) };
    case 'groupHead':
      return { case: 'groupHead', value: fromBinary(GroupHeadSchema, bytes) };
    case 'joinState':
      return { case: 'joinState', value: fromBinary(JoinStateSchema, bytes) };
    case 'groupStanding':
      return { case: 'groupStanding', value: fromBinary(GroupStandingSchema, bytes) };
    case 'welcomeKey':
      return { case: 'welcomeKey', value: bytes };
  }
}

/** Opens, unpads and decodes; only a failed authentication is the envelope's fault. */
function opened(open: () => Uint8Array): SealedContent {
  let plaintext: Uint8Array;
  try {
    plaintext = open();
  } catch (cause) {
    if (cause instanceof DecryptionError) throw bad('not authentic', { cause });
    throw cause;
  }
  const end = plaintext.findLastIndex((byte) => byte !== 0);
  if (end < 0 || plaintext[end] !== 0x80) throw bad('content without its padding');
  const { content } = decodeCanonical(SealedSchema, plaintext.subarray(0, end));
  switch (content.case) {
    case 'mlsMessage':
      return filled({ kind: 'mlsMessage', bytes: content.value });
    case 'welcome': {
      const welcome = filled({ kind: 'welcome', bytes: content.value.welcome });
      const evidence = parseEvidence(content.value.evidence);
      const tokens = parseTokens(content.value.tokens);
      const { entry, joinKey } = content.value;
      return {
        ...welcome,
        ...(joinKey.length === 0
          ? {}
          : { joinKey: Uint8Array.from(exactly(joinKey, 32, 'join key')) }),
        ...(entry === undefined ? {} : { entry }),
        ...(evidence === undefined ? {} : { evidence }),
        ...(tokens === undefined ? {} : { tokens }),
      };
    }
    case 'resendRequest':
      return filled({ kind: content.case, bytes: toBinary(ResendRequestSchema, content.value) });
    case 'gone':
      return filled({ kind: content.case, bytes: toBinary(GoneSchema, content.value) });
    case 'groupHead':
      return filled({ kind: content.case, bytes: toBinary(GroupHeadSchema, content.value) });
    case 'joinState':
      return filled({ kind: content.case, bytes: toBinary(JoinStateSchema, content.value) });
    case 'groupStanding':
      return filled({ kind: content.case, bytes: toBinary(GroupStandingSchema, content.value) });
    case 'welcomeKey':
      return filled({ kind: content.case, bytes: exactly(content.value, 32, 'welcome key') });
    case undefined:
      throw bad('content of no kind that version 1 has');
  }
}

function filled(content: SealedContent): SealedContent {
  if (content.bytes.length === 0) throw bad('content is empty');
  // The decoder's bytes are a view of the whole plaintext; what is kept must stand alone.
  return { kind: content.kind, bytes: Uint8Array.from(content.bytes) };
}

function encoded(envelope: MessageInitShape<typeof EnvelopeSchema>): Uint8Array {
  const payload = toBinary(EnvelopeSchema, create(EnvelopeSchema, envelope));
  if (payload.length > maxControlBytes) {
    throw new PayloadTooLargeError(`envelope: ${payload.length} bytes, at most ${maxControlBytes}`);
  }
  return payload;
}

/** Protobuf that has one encoding only: unknown fields, repeats and long varints are refused. */
function decodeCanonical<T extends typeof EnvelopeSchema | typeof SealedSchema>(
  schema: T,
  bytes: Uint8Array,
): MessageShape<T> {
  let message: MessageShape<T>;
  let again: Uint8Array;
  try {
    message = fromBinary<T>(schema, bytes, { readUnknownFields: false });
    again = toBinary<T>(schema, message);
  } catch (cause) {
    throw bad(`no ${schema.name}`, { cause });
  }
  if (Buffer.compare(again, bytes) !== 0) throw bad(`no canonical ${schema.name}`);
  return message;
}

function exactly(bytes: Uint8Array, length: number, name: string): Uint8Array {
  if (bytes.length !== length) throw bad(`${name} of ${bytes.length} bytes, need ${length}`);
  return bytes;
}

function atLeastTag(ciphertext: Uint8Array): void {
  if (ciphertext.length <= aesGcmTagLength) {
    throw bad(`ciphertext of ${ciphertext.length} bytes, need more than ${aesGcmTagLength}`);
  }
}

function bad(message: string, options?: ErrorOptions): EnvelopeError {
  return new EnvelopeError('BAD_ENVELOPE', message, options);
}

function unknownKey(): EnvelopeError {
  return new EnvelopeError('UNKNOWN_KEY', 'sealed to a key that is not here');
}
