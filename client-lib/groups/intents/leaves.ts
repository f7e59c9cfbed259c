/**
 * Leaving a group (docs/protocol/group-log.md, "At a member"): nobody can take out its own leaf, so who
 * leaves says so, and members that may remove it do. The first one wins, the others find it done.
 */
import { jitter } from '@quicprochat/proto';
import { contentLimits, encodeLeave } from '../../content.ts';
import type { EventBus } from '../../events.ts';
import { encodeIntent, GroupChangeError } from './group-intents.ts';
import { removing, whyNot } from '../group-roles.ts';
import type { GroupWalker } from '../log/group-walker.ts';
import type { Sender } from '../../mls/index.ts';
import { mayCome, withPrekeys } from '../../account/prekeys.ts';
import { recipientsOf, sealContent } from '../../sending/sealing.ts';
import { sendUncounted } from '../../sending/uncounted.ts';
import type { IntentRow } from '../../store/group-log-rows.ts';
import type { Batch } from '../../writer.ts';
import type { SendingParts } from '../../sending/sending-parts.ts';

export const leaveLimits = {
  /** Who is still in asks again after as long as it has been asking, at least and at most so long (ms). */
  againMinMs: 10 * 60_000,
  againMaxMs: 24 * 3_600_000,
  /** Members that may remove somebody do not all begin at once (ms). */
  spreadMs: 4_000,
} as const;

export interface LeavesParts extends SendingParts {
  readonly events: EventBus;
  readonly walker: Pick<GroupWalker, 'end'>;
  readonly userId: string;
  /** A group has new intents. */
  readonly onIntents: () => void;
}

export class Leaves {
  readonly #parts: LeavesParts;

  constructor(parts: LeavesParts) {
    this.#parts = parts;
  }

  /**
   * Tells the members that the own user wants to leave. Durable on return. Throws GroupChangeError
   * LAST_OWNER when others stay without an owner, and what sealing throws.
   */
  async ask(intent: IntentRow): Promise<void> {
    const { writer } = this.#parts;
    await withPrekeys(this.#parts, (fetched) =>
      writer.run((batch) => this.#askIn(batch, intent, mayCome(fetched))),
    );
  }

  async #askIn(
    batch: Batch,
    { id, groupId, createdMs }: IntentRow,
    mayFetch: boolean,
  ): Promise<void> {
    const { store, mls, contacts, runtime, walker, events, userId } = this.#parts;
    const { random } = runtime;
    const group = batch.group(groupId);
    const conversation = batch.conversationOfGroup(groupId);
    if (group?.isActive !== true || conversation === undefined) {
      throw new GroupChangeError('REMOVED');
    }
    const recipients = recipientsOf(group);
    if (recipients.every((other) => other.userId === userId)) {
      // Nobody is there who could remove it.
      batch.write(() => {
        const told = walker.end(id, 'DONE', undefined, batch.nowMs);
        store.groups.setEnded(conversation.id, 'LEFT');
        store.groupLog.deleteRekey(groupId);
        batch.after(() => {
          for (const event of told) events.emit(event);
        });
      });
      return;
    }
    const isOwned = group.info.roles.some(
      (entry) => entry.role === 'owner' && entry.userId !== userId,
    );
    if (!isOwned) throw new GroupChangeError('LAST_OWNER');
    const plaintext = encodeLeave({
      innerId: random.bytes(contentLimits.innerIdBytes),
      lamport: conversation.lamport,
      sentMs: runtime.clock.now(),
    });
    const sealed = await sealContent(
      { store, mls, contacts, random },
      group,
      plaintext,
      recipients,
      mayFetch,
    );
    // Done when somebody removed us.
    const { againMinMs, againMaxMs } = leaveLimits;
    const askingMs = batch.nowMs - createdMs;
    const dueMs = batch.nowMs + Math.min(Math.max(askingMs, againMinMs), againMaxMs);
    sendUncounted(this.#parts, batch, groupId, [sealed], () =>
      store.groupLog.setIntentDue(id, dueMs),
    );
  }

  /** A member wants to leave: it becomes a duty of who may remove it. Part of a batch. */
  take(sender: Sender, groupId: Uint8Array, batch: Batch): void {
    const { store, runtime, userId: own, onIntents } = this.#parts;
    const { userId } = sender;
    const group = batch.group(groupId);
    if (group?.isActive !== true || !sender.isMember || userId === own) return;
    const change = removing(group, [userId]);
    if (change === undefined || whyNot(group, own, change) !== undefined) return;
    batch.write(() => {
      const intent = encodeIntent({ kind: 'remove', userIds: [userId], isDuty: true });
      const isThere = store.groupLog
        .openIntents(groupId)
        .some(({ kind, body }) => kind === intent.kind && body === intent.body);
      if (isThere) return;
      const dueMs = batch.nowMs + jitter(runtime.random, leaveLimits.spreadMs);
      store.groupLog.addIntent({ groupId, dueMs, ...intent }, batch.nowMs);
    });
    batch.after(onIntents);
  }
}
