/** What a commit changed for people, as events: from the group before it and the group after it. */
import type { ClientEvent } from '../events.ts';
import { roleOf, type MlsGroup } from '../mls/index.ts';

/** `by`: user id of the committer. Empty for fresh keys alone. */
export function groupEvents(before: MlsGroup, after: MlsGroup, by: string): readonly ClientEvent[] {
  const { info } = after;
  const { conversationId } = info;
  const events: ClientEvent[] = [];
  const members = usersOf(after);
  if (devicesOf(before) !== devicesOf(after) || before.isActive !== after.isActive) {
    events.push({ type: 'membersChanged', conversationId, members });
  }
  if (before.info.name !== info.name) {
    events.push({ type: 'renamed', conversationId, name: info.name, by });
  }
  if (before.info.expirySeconds !== info.expirySeconds) {
    const { expirySeconds } = info;
    events.push({ type: 'timerChanged', conversationId, expirySeconds, by });
  }
  // Of members that stay or come: who went has no role any more.
  for (const userId of members) {
    const role = roleOf(info, userId);
    if (roleOf(before.info, userId) === role) continue;
    events.push({ type: 'roleChanged', conversationId, userId, role, by });
  }
  return events;
}

const usersOf = (group: MlsGroup): readonly string[] =>
  [...new Set(group.members().map(({ userId }) => userId))].sort();

const devicesOf = (group: MlsGroup): string =>
  group
    .members()
    .map(({ userId, deviceId }) => `${userId}/${deviceId}`)
    .sort()
    .join(' ');
