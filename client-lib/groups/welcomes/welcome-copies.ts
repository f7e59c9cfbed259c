/**
 * Welcomes that their hub delivers are kept by the inviter as well, beside the entry that certifies them: what only
 * the disk of a node held comes again (docs/protocol/delivery.md, "End-to-end re-send"), until the new device
 * is heard in the group.
 */
import type { Random } from '@quicprochat/proto';
import {
  fromBinary,
  SubmitCommitRequestSchema,
  type CertifiedEntry,
} from '@quicprochat/proto/messages';
import { hybridEnvelope, type SealedCopy } from '../../sending/fan-out.ts';
import type { PendingRow } from '../../store/group-log-rows.ts';

/** One copy for each device that the accepted commit invited, as far as it has a valid prekey. */
export function welcomeCopies(
  { welcome: bytes, request }: Pick<PendingRow, 'welcome' | 'request'>,
  entry: CertifiedEntry,
  prekeyOf: (rid: Uint8Array) => Uint8Array | undefined,
  random: Random,
  joinKey: Uint8Array | undefined,
): readonly SealedCopy[] {
  if (bytes.length === 0) return [];
  const { welcomes } = fromBinary(SubmitCommitRequestSchema, request);
  return welcomes.flatMap(({ target }): SealedCopy[] => {
    if (target === undefined) return [];
    const { rid, domain } = target;
    const mid = random.bytes(16);
    const content = { kind: 'welcome', bytes, entry, joinKey } as const;
    const payload = hybridEnvelope(content, { rid, mid }, prekeyOf, random);
    return payload === undefined ? [] : [{ mid, payload, targets: [{ rid, domain }] }];
  });
}
