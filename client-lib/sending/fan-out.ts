/**
 * Which envelopes a sealed MLS message travels in, and to whom (docs/protocol/cryptography.md, direct mode):
 * one channel envelope for all devices, or one hybrid envelope for each.
 */
import { isXwingPublicKey, parseUserId, QpcError, Status, type Random } from '@quicprochat/proto';
import { sealChannel, sealHybrid, type SealedContent } from '../crypto/envelope.ts';
import type { EnvelopeKey } from '../store/group-rows.ts';
import type { OutboxPost, OutboxTarget } from '../store/outbox-copies.ts';

/** A device that gets a copy. */
export interface Recipient {
  readonly userId: string;
  /** Device identity key (32 bytes): its delivery address. */
  readonly identityPub: Uint8Array;
}

/** One ciphertext and the devices that it is for. */
export interface SealedCopy {
  /** Message id (16 bytes), once per ciphertext. */
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly targets: readonly OutboxTarget[];
  /** It goes to the group's channel, which is its only target. */
  readonly post?: OutboxPost;
}

/** Why nothing was sealed for a device. */
export const noPrekey = 'NO_PREKEY';

/** A device's prekey is missing or expired: fetch it and try again. */
export class PrekeyError extends QpcError {
  override name = 'PrekeyError';
  readonly userIds: readonly string[];
  constructor(userIds: readonly string[]) {
    super(Status.NotFound, noPrekey, `envelope: ${userIds.length} users without a valid prekey`);
    this.userIds = userIds;
  }
}

export function targetOf({ userId, identityPub }: Recipient): OutboxTarget {
  return { rid: identityPub, domain: parseUserId(userId).domain, userId };
}

/** One envelope under the epoch's key for all recipients; none when there are no recipients. */
export function channelCopies(
  content: SealedContent,
  recipients: readonly Recipient[],
  key: EnvelopeKey,
  random: Random,
): SealedCopy[] {
  if (recipients.length === 0) return [];
  const payload = sealChannel({ content, key: key.key, random });
  return [{ mid: random.bytes(16), payload, targets: recipients.map(targetOf) }];
}

type PrekeyOf = (identityPub: Uint8Array) => Uint8Array | undefined;

/** An envelope for a device, to its prekey; undefined where it has none that anything can be sealed to. */
export function hybridEnvelope(
  content: SealedContent,
  { rid, mid }: { readonly rid: Uint8Array; readonly mid: Uint8Array },
  prekeyOf: PrekeyOf,
  random: Random,
): Uint8Array | undefined {
  const recipientKey = prekeyOf(rid);
  if (recipientKey === undefined) return undefined;
  try {
    return sealHybrid({ content, recipientKey, rid, mid, random });
  } catch (error) {
    // Kept from before keys were looked at when they came.
    if (!isXwingPublicKey(recipientKey)) return undefined;
    throw error;
  }
}

/** One envelope per recipient, to its prekey; `midOfAll`: of all of them, else each has its own. Throws PrekeyError naming all who have none. */
export function hybridCopies(
  content: SealedContent,
  recipients: readonly Recipient[],
  prekeyOf: PrekeyOf,
  random: Random,
  midOfAll?: Uint8Array,
): readonly SealedCopy[] {
  requirePrekeys(recipients, prekeyOf);
  const { copies, missing } = copiesFor(content, recipients, prekeyOf, random, midOfAll);
  if (missing.length > 0) throw new PrekeyError(usersOf(missing));
  return copies;
}

/**
 * For those who have a prekey, whatever the others lack. `mayFetch`: it is not too late to ask for those; then it throws
 * as `hybridCopies`.
 */
export function reachableCopies<R extends Recipient>(
  content: SealedContent,
  recipients: readonly R[],
  prekeyOf: PrekeyOf,
  random: Random,
  mayFetch: boolean,
): Copies<R> {
  return mayFetch
    ? { copies: hybridCopies(content, recipients, prekeyOf, random), missing: [] }
    : copiesFor(content, recipients, prekeyOf, random);
}

interface Copies<R extends Recipient> {
  readonly copies: readonly SealedCopy[];
  /** Recipients without a prekey. */
  readonly missing: readonly R[];
}

function copiesFor<R extends Recipient>(
  content: SealedContent,
  recipients: readonly R[],
  prekeyOf: PrekeyOf,
  random: Random,
  midOfAll?: Uint8Array,
): Copies<R> {
  const copies: SealedCopy[] = [];
  const missing: R[] = [];
  for (const recipient of recipients) {
    const mid = midOfAll ?? random.bytes(16);
    const payload = hybridEnvelope(content, { rid: recipient.identityPub, mid }, prekeyOf, random);
    if (payload === undefined) missing.push(recipient);
    else copies.push({ mid, payload, targets: [targetOf(recipient)] });
  }
  return { copies, missing };
}

/** Throws PrekeyError naming those who have none, before anything is sealed. */
export function requirePrekeys(recipients: readonly Recipient[], prekeyOf: PrekeyOf): void {
  const missing = recipients.filter(({ identityPub }) => prekeyOf(identityPub) === undefined);
  if (missing.length > 0) throw new PrekeyError(usersOf(missing));
}

const usersOf = (recipients: readonly Recipient[]): string[] => [
  ...new Set(recipients.map(({ userId }) => userId)),
];
