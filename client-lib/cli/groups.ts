/** What `qpc listen` says of changes of a group. */
import type { ClientEvent } from '../index.ts';
import { shortId, shownName } from './conversations.ts';
import { hexOf, type JsonRecord } from './output.ts';

type GroupNotice = Extract<
  ClientEvent,
  {
    type:
      | 'renamed'
      | 'roleChanged'
      | 'timerChanged'
      | 'disappeared'
      | 'removed'
      | 'groupChange'
      | 'fork'
      | 'leftBehind';
  }
>;

export function groupNoticeOf(event: GroupNotice): { line: string; record: JsonRecord } {
  const { conversationId } = event;
  const shown = shortId(conversationId);
  const conversation = hexOf(conversationId);
  switch (event.type) {
    case 'renamed': {
      const { name, by } = event;
      return {
        line: `-- ${by} renamed ${shown} to ${shownName(name, conversationId)}`,
        record: { type: 'renamed', conversation, name, by },
      };
    }
    case 'roleChanged': {
      const { userId, role, by } = event;
      return {
        line: `-- ${by} made ${userId} ${role} in ${shown}`,
        record: { type: 'roleChanged', conversation, userId, role, by },
      };
    }
    case 'timerChanged': {
      const { expirySeconds, by } = event;
      return {
        line: `-- messages in ${shown} ${timerText(expirySeconds)}, says ${by}`,
        record: { type: 'timerChanged', conversation, expirySeconds, by },
      };
    }
    case 'disappeared': {
      const messages = event.ids.map(hexOf);
      return {
        line: `-- ${messages.length} messages in ${shown} are gone`,
        record: { type: 'disappeared', conversation, messages },
      };
    }
    case 'removed':
      return {
        line: `-- ${event.by} removed you from ${shown}`,
        record: { type: 'removed', conversation, by: event.by },
      };
    case 'groupChange': {
      const { kind, outcome, reason = null } = event;
      return {
        line: `-- ${kind} in ${shown}: ${outcome}${reason === null ? '' : ` (${reason})`}`,
        record: { type: 'groupChange', conversation, kind, outcome, reason },
      };
    }
    case 'fork': {
      const { epoch, hubs } = event;
      return {
        line: `-- WARNING: ${hubs.join(', ')} signed two histories of ${shown} (epoch ${epoch})`,
        record: { type: 'fork', conversation, epoch, hubs },
      };
    }
    case 'leftBehind': {
      const { epoch } = event;
      return {
        line: `-- this device cannot follow ${shown} past epoch ${epoch}; it has to be added again`,
        record: { type: 'leftBehind', conversation, epoch },
      };
    }
  }
}

const units = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
  [1, 's'],
] as const;

function timerText(seconds: number): string {
  if (seconds === 0) return 'stay';
  const [size, unit] = units.find(([one]) => seconds % one === 0) ?? [1, 's'];
  return `disappear after ${seconds / size} ${unit}`;
}
