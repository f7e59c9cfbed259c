/**
 * What members of conversations are told once, beside what people write: delivery tokens and endpoint
 * records. It travels with the next text, or soon by itself. What is due, and to whom, is said by whoever
 * has it.
 */
import { QpcError, hex } from '@quicprochat/proto';
import { contentLimits, encodeExtras, type ContentExtras } from '../content.ts';
import { mayCome, withPrekeys } from '../account/prekeys.ts';
import { recipientsOf, sealContent } from './sealing.ts';
import { sendUncounted } from './uncounted.ts';
import type { Batch } from '../writer.ts';
import type { SendingParts } from './sending-parts.ts';

export const extraLimits = {
  /** Devices of a group, beyond which they wait for the next text: each would go to all others. */
  devices: 64,
  /** A change waits this long for a text that takes it along (ms). */
  delayMs: 2_000,
  /** After a failure, such as a prekey that cannot be fetched (ms). */
  retryMs: 60_000,
} as const;

/** One thing to tell. */
export interface Extra {
  /** For a message to these members: what is new to the conversation. */
  next(conversationId: Uint8Array, members: readonly string[]): ContentExtras | undefined;
  /** They have it, in the transaction that stores what brings it; or those of them whom `leavesOut` names have not. */
  mark(conversationId: Uint8Array, isForSome?: boolean): void;
  /** Members who are not to have it; the others are told by themselves, once. */
  leavesOut?(conversationId: Uint8Array, members: readonly string[]): readonly string[];
  /** Conversations that are told by themselves. */
  due(): readonly Uint8Array[];
}

/** What one message takes along. */
export interface TakenExtras {
  readonly content: ContentExtras;
  /** In the transaction that stores the message. */
  readonly mark: () => void;
}

export class Extras {
  readonly #parts: SendingParts;
  readonly #all: readonly Extra[];
  #isTimed = false;
  #isStopped = false;
  #working: Promise<void> = Promise.resolve();

  constructor(parts: SendingParts, all: readonly Extra[]) {
    this.#parts = parts;
    this.#all = all;
  }

  /** For a message to these members. */
  next(conversationId: Uint8Array, members: readonly string[]): TakenExtras {
    const taken = this.#all.flatMap((extra) => {
      const content = extra.next(conversationId, members);
      return content === undefined ? [] : [{ extra, content }];
    });
    return {
      content: Object.assign({}, ...taken.map(({ content }) => content)) as ContentExtras,
      mark: () => {
        for (const { extra } of taken) extra.mark(conversationId);
      },
    };
  }

  /** Conversations to which something is new get it soon. */
  wake(delayMs: number = extraLimits.delayMs): void {
    if (this.#isTimed || this.#isStopped) return;
    this.#isTimed = true;
    this.#parts.runtime.clock.timer(delayMs, () => {
      this.#isTimed = false;
      if (!this.#isStopped) this.#working = this.#working.then(() => this.#handOut());
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#working;
  }

  /** Never fails: what cannot be sealed now is tried again. */
  async #handOut(): Promise<void> {
    const { runtime, writer } = this.#parts;
    const due = new Map(this.#all.flatMap((extra) => extra.due()).map((id) => [hex(id), id]));
    for (const conversationId of due.values()) {
      try {
        for (const only of [undefined, ...this.#all.filter((extra) => 'leavesOut' in extra)]) {
          await withPrekeys(this.#parts, (fetched) =>
            writer.run((batch) => this.#seal(batch, conversationId, only, mayCome(fetched))),
          );
        }
      } catch (error) {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.info('what members are to be told waits', { reason, error: String(error) });
        this.wake(extraLimits.retryMs);
      }
    }
  }

  /** What is for all members that can be reached; or `only` that which some of them are not to have. */
  async #seal(
    batch: Batch,
    conversationId: Uint8Array,
    only: Extra | undefined,
    mayFetch: boolean,
  ): Promise<void> {
    const { store, runtime, mls, contacts } = this.#parts;
    const { random, clock } = runtime;
    const conversation = store.groups.conversation(conversationId);
    const group = conversation === undefined ? undefined : batch.group(conversation.groupId);
    if (conversation === undefined || group?.isActive !== true) return;
    const all = recipientsOf(group);
    const usersOf = (some: typeof all): string[] => some.map(({ userId }) => userId);
    const without = only?.leavesOut?.(conversationId, usersOf(all)) ?? [];
    if (only !== undefined && without.length === 0) return;
    const recipients = all.filter(({ userId }) => !without.includes(userId));
    const members = usersOf(recipients);
    const { content, mark } =
      only === undefined
        ? this.next(conversationId, members)
        : {
            content: only.next(conversationId, members) ?? {},
            mark: () => only.mark(conversationId, true),
          };
    const isWanted = recipients.length > 0 && recipients.length < extraLimits.devices;
    if (Object.keys(content).length === 0 || !isWanted) return;
    contacts.requireUnblocked(members);
    const plaintext = encodeExtras({
      innerId: random.bytes(contentLimits.innerIdBytes),
      lamport: conversation.lamport,
      sentMs: clock.now(),
      ...content,
    });
    const sealed = await sealContent(
      { store, mls, contacts, random },
      group,
      plaintext,
      recipients,
      mayFetch,
    );
    sendUncounted(this.#parts, batch, group.groupId, [sealed], mark);
  }
}
