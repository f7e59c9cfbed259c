/**
 * Posts that a channel does not take (docs/protocol/channels.md, "Posts that come too late"): their write key
 * has died, the channel has ended, or a node knows nothing of it. What was said is sealed anew for what
 * the group is by now; the inner id stays, so nobody sees it twice.
 */
import { hasReason } from '@quicprochat/proto';
import { decodePost } from './channel.ts';
import type { ChannelRows } from '../store/channel-rows.ts';
import type { GroupRows } from '../store/group-rows.ts';
import type { OutboxRow } from '../store/outbox-copies.ts';

/** Reasons of nodes that are about the key or the channel, and not about the message. */
const deadReasons = ['BAD_SIGNATURE', 'UNKNOWN_CHANNEL'] as const;

export const isDeadPost = (error: unknown): boolean => hasReason(error, ...deadReasons);

export const isDeadReason = (reason: string): boolean => deadReasons.some((one) => one === reason);

/**
 * What to do with a refused post: sealed anew where the group went on; where it stands as when it was
 * sealed, the update with the channel's key is on its way, or this device has not heard of a commit.
 */
export function deadPostVerdict(
  { channels, groups }: { channels: Pick<ChannelRows, 'get'>; groups: Pick<GroupRows, 'epoch'> },
  { rid: cid, post, groupId }: Pick<OutboxRow, 'rid' | 'post' | 'groupId'>,
): 'anew' | 'waits' {
  const epoch = groupId === undefined ? undefined : groups.epoch(groupId);
  const channel = channels.get(cid);
  const isOver = channel === undefined || channel.leftMs !== undefined;
  if (isOver || post === undefined || epoch === undefined) return 'anew';
  return decodePost(post).epoch < epoch ? 'anew' : 'waits';
}
