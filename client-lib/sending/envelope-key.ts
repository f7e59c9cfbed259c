/** The channel envelope key of an epoch: an MLS exporter secret (docs/protocol/cryptography.md). */
import { channelKeyId } from '../crypto/envelope.ts';
import type { Mls, MlsGroup } from '../mls/index.ts';
import type { EnvelopeKey } from '../store/group-rows.ts';

/** Key (32 bytes) and key id of the group's current epoch, equal on all members. */
export async function envelopeKeyOf(mls: Mls, group: MlsGroup): Promise<EnvelopeKey> {
  const { groupId, epoch } = group;
  const key = await mls.exporter(group, 'qpc channel envelope', groupId, 32);
  return { keyId: channelKeyId(key), groupId, epoch, key };
}
