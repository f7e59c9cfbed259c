/** The commit by which a group gets the channel that it has to have; pure. */
import { hex } from '@quicprochat/proto';
import { channelOf } from './channel.ts';
import { dueMode, type Change, type MlsGroup } from '../mls/index.ts';

/**
 * Undefined: the group is as it has to be. `replaces` (hex of a channel's id): that one is of no use any
 * more. `nonce` names the new one, if there is one.
 */
export function switchingChannel(
  group: Pick<MlsGroup, 'groupId' | 'hubs' | 'info' | 'members'>,
  replaces: string | undefined,
  nonce: Uint8Array,
): Change | undefined {
  const { info } = group;
  const mode = dueMode(info, group.members().length);
  const before = channelOf(group);
  const isReplaced = before !== undefined && hex(before.cid) === replaces;
  if (mode === undefined && !isReplaced) return undefined;
  const channelNonce = mode === 'direct' ? undefined : nonce;
  return { context: { info: { ...info, channelNonce } } };
}
