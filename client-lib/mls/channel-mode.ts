/**
 * Whether the messages of a group go to each device or to a channel (docs/protocol/channels.md), as a function
 * of the group's state alone: all members find the same. The switch is a commit; between the two bounds
 * a group stays as it is, so that somebody who comes and goes does not move it to and fro.
 */
import type { QpcGroupInfo } from './group-extensions.ts';

/** What decides. */
type ChannelInfo = Pick<QpcGroupInfo, 'directDevices' | 'channelNonce'>;

/** Most devices with which a group with a channel goes back to direct mode: three quarters of `directDevices`. */
export function backToDirect({ directDevices }: Pick<ChannelInfo, 'directDevices'>): number {
  return Math.floor((directDevices * 3) / 4);
}

/** The mode that a group of so many devices has to change to; undefined: it stays as it is. */
export function dueMode(info: ChannelInfo, devices: number): 'channel' | 'direct' | undefined {
  if (info.channelNonce === undefined) return devices > info.directDevices ? 'channel' : undefined;
  return devices <= backToDirect(info) ? 'direct' : undefined;
}

/** The rule that a change of the channel breaks, in words. A channel may be replaced by a fresh one. */
export function channelRuleBroken(
  before: ChannelInfo,
  after: ChannelInfo,
  devices: number,
): string | undefined {
  const had = before.channelNonce !== undefined;
  const has = after.channelNonce !== undefined;
  if (had === has) return undefined;
  if (dueMode(before, devices) === (has ? 'channel' : 'direct')) return undefined;
  return has
    ? 'the group is too small for a channel'
    : 'the group is too large without its channel';
}
