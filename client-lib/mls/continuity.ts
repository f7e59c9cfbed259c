/**
 * Whether a group may have become what a GroupInfo says, as far as a device can tell that did not see how:
 * its signer's word counts for as much as the rules of the last epoch that the device saw let that user
 * change. So nobody gains rights in the eyes of who comes back by letting it miss the commit that took them.
 */
import type { Member } from './group.ts';
import { ruleBroken } from './policy.ts';
import type { ParentEpoch } from './effects.ts';
import { isSuccession } from './succession.ts';
import { sameBytes } from './suite.ts';

/**
 * The rule that it would break, in words; undefined: none. `own`: user id of this device. `isRevoked`: of a device that a log
 * says gave up its key.
 */
export function continuityBroken(
  before: ParentEpoch,
  after: ParentEpoch,
  signer: string,
  own: string,
  isRevoked: (member: Member) => boolean = () => false,
): string | undefined {
  const [old, now] = [before.members(), after.members()];
  const isIn = (members: readonly Member[], { identityPub, userId, deviceId }: Member): boolean =>
    members.some(
      (one) =>
        sameBytes(one.identityPub, identityPub) &&
        one.userId === userId &&
        one.deviceId === deviceId,
    );
  if (!sameBytes(before.info.conversationId, after.info.conversationId)) {
    return 'a conversation keeps its id';
  }
  // Another device of the own user saw what became of the group, and judged it by the same rules.
  if (signer === own) return undefined;
  if (!old.some(({ userId }) => userId === signer)) return 'nobody who was in it vouches for it';
  const added = now.filter((member) => !isIn(old, member));
  const removed = old.filter((member) => !isIn(now, member));
  // Two commits at least: one that adds changes nothing else. New leaves may stand where old ones stood.
  const both: ParentEpoch = {
    ...{ info: before.info, hubs: before.hubs },
    members: () => [...old, ...added.map((one, index) => ({ ...one, leafIndex: -1 - index }))],
  };
  const context = { info: after.info, hubs: after.hubs };
  if (isSuccession(both, { added: [], removed, context }) && !removed.every(isRevoked)) {
    return 'owners are gone that gave up no key';
  }
  return (
    ruleBroken(before, signer, { added, removed: [], context: undefined }) ??
    ruleBroken(both, signer, { added: [], removed, context })
  );
}
