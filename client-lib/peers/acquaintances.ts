/**
 * Who may deliver here without a node: devices that are members of a conversation of this device, and those
 * whose cards it has, except of people that were blocked. Kept in memory until memberships change, so that strangers who
 * knock cost nothing.
 */
import { hex, PermissionDeniedError } from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import { recipientsOf } from '../sending/sealing.ts';
import type { ClientStore } from '../store/store.ts';
import type { Writer } from '../writer.ts';

export interface AcquaintancesParts {
  /** User id of a device (hex) whose card is kept here. */
  readonly cardHolder: (device: string) => string | undefined;
  readonly store: ClientStore;
  readonly events: EventBus;
  readonly writer: Writer;
}

export class Acquaintances {
  readonly #parts: AcquaintancesParts;
  readonly #watching: Disposable;
  /** User ids by device (hex); undefined: to be looked up. */
  #known: Promise<ReadonlyMap<string, string>> | undefined;

  constructor(parts: AcquaintancesParts) {
    this.#parts = parts;
    this.#watching = parts.events.listen(({ type }) => {
      if (['joined', 'membersChanged', 'removed'].includes(type)) this.#known = undefined;
    });
  }

  stop(): void {
    this.#watching[Symbol.dispose]();
  }

  /** Throws PermissionDeniedError BLOCKED for whoever may not; the same for strangers and blocked people. */
  async admit(device: Uint8Array): Promise<void> {
    const name = hex(device);
    const userId = (await this.#look()).get(name) ?? this.#parts.cardHolder(name);
    if (userId !== undefined && !this.#parts.store.tokens.blocked().includes(userId)) return;
    throw new PermissionDeniedError('BLOCKED', 'this device takes nothing from you');
  }

  /** User ids by device (hex) of all members of conversations. */
  members(): Promise<ReadonlyMap<string, string>> {
    return this.#look();
  }

  #look(): Promise<ReadonlyMap<string, string>> {
    if (this.#known !== undefined) return this.#known;
    const looking = this.#members();
    this.#known = looking;
    // A store that failed is asked again by the next one who knocks.
    looking.catch(() => {
      if (this.#known === looking) this.#known = undefined;
    });
    return looking;
  }

  async #members(): Promise<ReadonlyMap<string, string>> {
    const { store, writer } = this.#parts;
    const known = new Map<string, string>();
    for (const { groupId } of store.groups.conversations()) {
      await writer.run(async (batch) => {
        const group = batch.group(groupId);
        if (group?.isActive !== true) return;
        for (const { identityPub, userId } of recipientsOf(group)) {
          known.set(hex(identityPub), userId);
        }
      });
    }
    return known;
  }
}
