/**
 * Takes revoked devices out of groups (docs/protocol/groups.md): a key that its account gave up is not to
 * read on. The account's other devices do it, or whoever may remove that user; the first one wins, the
 * others find it done. Seen from the contacts that are known here, so nobody is asked for it.
 */
import { jitter, type Runtime } from '@quicprochat/proto';
import type { Contacts } from '../../contacts/contacts.ts';
import type { EventBus } from '../../events.ts';
import { encodeIntent } from './group-intents.ts';
import { removing, whyNot } from '../group-roles.ts';
import { successionOf, type Member, type MlsGroup } from '../../mls/index.ts';
import type { ClientStore } from '../../store/store.ts';
import type { Batch, Writer } from '../../writer.ts';

export const revocationLimits = {
  /** Others leave the account's own devices so much time (ms), and do not all begin at once. */
  othersAfterMs: 10_000,
  spreadMs: 20_000,
  /** Where all may do it, they begin over so much more for each device of the group (ms). */
  perDeviceMs: 2_000,
  /** What was missed is found so long after a start (ms), and then again and again. */
  firstMs: 30_000,
  everyMs: 6 * 3_600_000,
} as const;

export interface RevocationsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly contacts: Pick<Contacts, 'lookup'>;
  readonly userId: string;
  /** Groups have new intents. */
  readonly onIntents: () => void;
}

export class Revocations {
  readonly #parts: RevocationsParts;
  #listening: Disposable | undefined;
  #timer: { cancel(): void } | undefined;
  #working: Promise<void> = Promise.resolve();
  #looks = 0;
  #isStopped = true;

  constructor(parts: RevocationsParts) {
    this.#parts = parts;
  }

  start(): void {
    if (!this.#isStopped) return;
    this.#isStopped = false;
    this.#listening = this.#parts.events.listen((event) => {
      if (event.type !== 'keyChange' && event.type !== 'deviceChange') return;
      if (event.revoked.length > 0) this.look();
    });
    this.#lookIn(revocationLimits.firstMs);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#listening?.[Symbol.dispose]();
    this.#timer?.cancel();
    await this.#working;
  }

  get isIdle(): boolean {
    return this.#looks === 0;
  }
  /** Resolves when nothing is looked through. */
  async idle(): Promise<void> {
    await this.#working;
  }

  /** Looks through all groups, soon. */
  look(): void {
    this.#looks += 1;
    this.#working = this.#working
      .then(() => this.check())
      .catch((error: unknown) => {
        this.#parts.runtime.log.warn('revoked devices', { error: String(error) });
      })
      .finally(() => {
        this.#looks -= 1;
      });
  }

  /** Looks through all groups; durable on return. */
  async check(): Promise<void> {
    const { store, writer, onIntents } = this.#parts;
    let count = 0;
    for (const { groupId, ended } of store.groups.conversations()) {
      if (ended !== undefined) continue;
      const isAdded = await writer.run(async (batch) => this.#checkIn(batch, groupId));
      if (isAdded) count += 1;
    }
    if (count > 0) onIntents();
  }

  #lookIn(delayMs: number): void {
    const { clock, random } = this.#parts.runtime;
    this.#timer = clock.timer(delayMs, () => {
      if (this.#isStopped) return;
      this.look();
      const { everyMs } = revocationLimits;
      this.#lookIn(everyMs / 2 + jitter(random, everyMs));
    });
  }

  /** Whether there is something for this device to do. */
  #checkIn(batch: Batch, groupId: Uint8Array): boolean {
    const { store, runtime, userId: own } = this.#parts;
    const group = batch.group(groupId);
    if (group?.isActive !== true) return false;
    const revoked = group.members().filter((member) => this.#isRevoked(group, member));
    const targets = revoked.map(({ userId, deviceId }) => `${userId}/${deviceId}`);
    const { removed: owners = [], heir } = successionOf(group) ?? {};
    const leaves = new Set(revoked.map(({ leafIndex }) => leafIndex));
    const isOver = owners.length > 0 && owners.every(({ leafIndex }) => leaves.has(leafIndex));
    const isOwners = (target: string): boolean =>
      owners.some(({ userId, deviceId }) => target === `${userId}/${deviceId}`);
    const ours = targets
      .filter((target) => (isOver && isOwners(target)) || this.#may(group, target))
      .sort();
    if (ours.length === 0) return false;
    const intent = encodeIntent({ kind: 'remove', userIds: ours, isDuty: true });
    const isThere = store.groupLog
      .openIntents(groupId)
      .some(({ kind, body }) => kind === intent.kind && body === intent.body);
    if (isThere) return false;
    const isOwn = ours.some((target) => target.startsWith(`${own}/`));
    const { othersAfterMs, spreadMs, perDeviceMs } = revocationLimits;
    // Every member may do it, and one is enough.
    const isAnybody = isOver && heir !== own;
    const devicesMs = isAnybody ? perDeviceMs * group.members().length : 0;
    const waitMs = othersAfterMs + jitter(runtime.random, spreadMs + devicesMs);
    const delayMs = isOwn ? 0 : waitMs;
    batch.write(() => {
      store.groupLog.addIntent({ groupId, dueMs: batch.nowMs + delayMs, ...intent }, batch.nowMs);
    });
    return true;
  }

  #isRevoked(group: MlsGroup, { userId, identityPub, leafIndex }: Member): boolean {
    if (leafIndex === group.ownLeafIndex) return false;
    const { revoked = [] } = this.#parts.contacts.lookup(userId) ?? {};
    return revoked.some((key) => Buffer.compare(key, identityPub) === 0);
  }

  #may(group: MlsGroup, target: string): boolean {
    const change = removing(group, [target]);
    return change !== undefined && whyNot(group, this.#parts.userId, change) === undefined;
  }
}
