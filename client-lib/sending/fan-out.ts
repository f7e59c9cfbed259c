/**
 * Which envelopes a sealed MLS message travels in, and to whom (docs/protocol/cryptography.md, direct mode):
 * one channel envelope for all devices, or one hybrid envelope for each.
 */
import { parseUserId, QpcError, Status, type Random } from '@quicprochat/proto';
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

/** A device's prekey is missing or expired: fetch it and try again. */
export class PrekeyError extends QpcError {
  override name = 'PrekeyError';
  readonly userIds: readonly string[];
  constructor(userIds: readonly string[]) {
    super(Status.NotFound, 'NO_PREKEY', `envelope: ${userIds.length} users without a valid prekey`);
    this.userIds = userIds;
  }
}

function targetOf({ userId, identityPub }: Recipient): OutboxTarget {
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

/** One envelope per recipient, to its prekey; `midOfAll`: of all of them, else each has its own. Throws PrekeyError naming all who have none. */
export function hybridCopies(
  content: SealedContent,
  recipients: readonly Recipient[],
  prekeyOf: (identityPub: Uint8Array) => Uint8Array | undefined,
  random: Random,
  midOfAll?: Uint8Array,
): SealedCopy[] {
  const missing = recipients.filter(({ identityPub }) => prekeyOf(identityPub) === undefined);
  if (missing.length > 0) throw new PrekeyError([...new Set(missing.map((one) => one.userId))]);
  return recipients.flatMap((recipient) => {
    const recipientKey = prekeyOf(recipient.identityPub);
    if (recipientKey === undefined) return [];
    const mid = midOfAll ?? random.bytes(16);
    const payload = sealHybrid({
      content,
      recipientKey,
      rid: recipient.identityPub,
      mid,
      random,
    });
    return [{ mid, payload, targets: [targetOf(recipient)] }];
  });
}
