/**
 * Looks for members that follow another history of a group (docs/protocol/group-log.md, "A lying hub"). Every
 * message says in its authenticated data which entry its sender stands at; one that says another than ours
 * for the same epoch, or that no key of ours opens, makes devices tell each other their certified entries.
 * Two of one place convict the hub, and both are kept.
 */
import {
  checkEvidence,
  hex,
  jitter,
  parseEntry,
  QpcError,
  sameBytes,
  verifyCertified,
  type Random,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  fromBinary,
  GroupHeadSchema,
  toBinary,
  type CertifiedEntry,
  type GroupHead,
} from '@quicprochat/proto/messages';
import type { EventBus } from '../../events.ts';
import { reachableCopies, type Recipient } from '../../sending/fan-out.ts';
import { controlOf } from '../log/group-walker.ts';
import type { JoinKeyAnswers } from '../returning/join-key-answers.ts';
import { UnknownHubError, type HubKeys } from '../log/hub-keys.ts';
import type { MlsGroup } from '../../mls/index.ts';
import { withPrekeys } from '../../account/prekeys.ts';
import { never, Unopened } from '../../receiving/row-verdict.ts';
import { headMarkBytes, recipientsOf } from '../../sending/sealing.ts';
import type { SendingParts } from '../../sending/sending-parts.ts';
import type { Batch } from '../../writer.ts';

const hourMs = 3_600_000;

export const forkLimits = {
  /** Devices of a group, beyond which nobody tells all the others where it stands. */
  devices: 64,
  /** Rows without a key that are this old (ms) make this device tell where it stands. */
  unknownKeyMs: hourMs / 12,
  /** So long (ms) such a row makes it read its groups' logs: whoever heard where it stands may have mended a hub. */
  readForMs: 2 * hourMs,
  /** From telling to reading (ms). */
  readMs: hourMs / 60,
  /** How often that is looked at (ms), and half as much at random. */
  sweepMs: hourMs / 6,
  /** Told entries that are remembered, so that none is told twice to one device. */
  told: 4_096,
  /** Devices that hear of an end of the log that is of no use to who comes back. */
  few: 8,
} as const;

export interface ForkWatchParts extends Omit<SendingParts, 'mls'> {
  readonly events: EventBus;
  readonly hubKeys: Pick<HubKeys, 'of' | 'isFresh'>;
  readonly rid: Uint8Array;
  readonly joinKeys: Pick<JoinKeyAnswers, 'asked' | 'take'>;
  /** Somebody is further on in this group's log. */
  readonly onBehind: (groupId: Uint8Array) => void;
  /** Somebody stands at an entry behind which this device has others. */
  readonly onAhead: (groupId: Uint8Array) => void;
  /** The logs of all groups are to be read. */
  readonly onStuck: () => void;
}

export class ForkWatch {
  readonly #parts: ForkWatchParts;
  readonly #told = new Set<string>();
  readonly #telling = new Set<Promise<boolean>>();
  #timer: { cancel(): void } | undefined;
  #readTimer: { cancel(): void } | undefined;
  #isStopped = true;

  constructor(parts: ForkWatchParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#sweepSoon();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    this.#readTimer?.cancel();
    await this.idle();
  }

  /** Resolves when nothing is being told. */
  async idle(): Promise<void> {
    await Promise.all(this.#telling);
  }

  /**
   * What a message of this epoch says about its sender. `from`: who that is (32 bytes), where it is known;
   * else everybody may be meant.
   */
  heard(groupId: Uint8Array, epoch: bigint, mark: Uint8Array, from?: Uint8Array): void {
    const ours = this.#parts.store.groupLog.headAt(groupId, Number(epoch));
    if (ours === undefined || mark.length !== headMarkBytes) return;
    if (sameBytes(ours.hash.subarray(0, headMarkBytes), mark)) return;
    void this.#tell(groupId, Number(epoch), from);
  }

  /** A device says where it stands. The result makes the changes. Throws a verdict on what is nothing. */
  take(bytes: Uint8Array, batch: Batch): () => void {
    const { hubKeys } = this.#parts;
    const { from, entry, joinKeyId, joinKey } = fromBinary(GroupHeadSchema, bytes);
    if (entry === undefined) throw never('MALFORMED');
    const { entry: fields, epoch, hash } = parseEntry(entry.entry);
    const groupId = fields.group;
    const group = batch.group(groupId);
    // Its invitation may be on its way, or lost: no message is missing for want of this.
    if (group === undefined) throw new Unopened({ kind: 'known' });
    // Anybody could have written this row: without the hub's signature it says nothing.
    const isSigned = ((): boolean => {
      try {
        verifyCertified(entry, group.hubs, hubKeys.of);
        return true;
      } catch {
        return false;
      }
    })();
    if (!isSigned) {
      const unknown = group.hubs.find((hub) => !hubKeys.isFresh(hub));
      throw unknown === undefined ? never('UNCERTIFIED') : new UnknownHubError(unknown);
    }
    return () => {
      const { joinKeys } = this.#parts;
      if (joinKey.length > 0) joinKeys.take(groupId, joinKey, batch);
      if (joinKeyId.length > 0) batch.after(() => joinKeys.asked(groupId, from, joinKeyId));
      const ours = this.#entryAt(groupId, epoch);
      if (ours === undefined) {
        if (BigInt(epoch) > group.epoch) batch.after(() => this.#parts.onBehind(groupId));
        return;
      }
      if (sameBytes(parseEntry(ours.entry).hash, hash)) {
        if (BigInt(epoch) < group.epoch) batch.after(() => this.#parts.onAhead(groupId));
        return;
      }
      if (!this.#convict(batch, group, ours, entry)) {
        // They part further back: the entries before these are compared next.
        batch.after(() => void this.#tell(groupId, epoch - 1, from));
        // It may be the end of the log, where nobody looks who is further on by rows alone.
        batch.after(() => this.#parts.onBehind(groupId));
      }
      batch.after(() => void this.#tell(groupId, epoch, from));
    };
  }

  /** Both certificates are kept; false when they prove nothing. */
  #convict(
    batch: Batch,
    { groupId, hubs: all, info }: MlsGroup,
    one: CertifiedEntry,
    other: CertifiedEntry,
  ): boolean {
    const { store, events, hubKeys } = this.#parts;
    const hubs = checkEvidence(one, other, all, hubKeys.of);
    if (hubs.length === 0) return false;
    const { conversationId } = info;
    const { epoch } = parseEntry(one.entry);
    let isNews = false;
    batch.write(() => {
      const [first, second] = [one, other].map((each) => toBinary(CertifiedEntrySchema, each));
      if (first === undefined || second === undefined) return;
      const fork = { groupId, one: first, other: second, hubs, atMs: batch.nowMs };
      isNews = store.groupLog.addFork(fork);
    });
    batch.after(() => {
      if (isNews) events.emit({ type: 'fork', conversationId, epoch, hubs });
    });
    return true;
  }

  /**
   * The hub may have forgotten what came behind the newest entry here: members hear where this device stands. False:
   * there are some, and none could be told.
   */
  async tellNewest(groupId: Uint8Array): Promise<boolean> {
    const head = this.#parts.store.groupLog.head(groupId);
    if (head === undefined) return true;
    const start = `${hex(groupId)} ${head.epoch} `;
    for (const key of this.#told) if (key.startsWith(start)) this.#told.delete(key);
    return this.#tell(groupId, head.epoch, 'some');
  }

  /**
   * The log ends with an entry by which this device cannot come back. Nobody else need have seen it, for rows of it go to
   * whom its maker named: a few members, others each time, hear of it and read the log.
   */
  tellEnd(groupId: Uint8Array, certified: CertifiedEntry): void {
    void this.#tell(groupId, parseEntry(certified.entry).epoch, 'few', certified);
  }

  #entryAt(groupId: Uint8Array, epoch: number): CertifiedEntry | undefined {
    const kept = this.#parts.store.groupLog.headAt(groupId, epoch);
    return kept === undefined ? undefined : controlOf(kept).entry;
  }

  /**
   * Tells one device, some or all of the group, where this one stands in that epoch; each of them once. Never fails; false:
   * there are some, and none could be told.
   */
  async #tell(
    groupId: Uint8Array,
    epoch: number,
    to?: Meant,
    entry: CertifiedEntry | undefined = this.#entryAt(groupId, epoch),
  ): Promise<boolean> {
    if (this.#isStopped || entry === undefined || entry.signatures.length === 0) return true;
    const { rid, store } = this.#parts;
    const joinKeyId = store.resync.lackedKey(groupId);
    const fields = { from: rid, entry, ...(joinKeyId && { joinKeyId }) };
    const head = create(GroupHeadSchema, fields);
    const telling = this.#seal(groupId, epoch, head, to)
      .catch((error: unknown) => {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        this.#parts.runtime.log.info('telling an entry failed', { reason, error: String(error) });
        return false;
      })
      .finally(() => this.#telling.delete(telling));
    this.#telling.add(telling);
    return telling;
  }

  /** To all that have a prekey; false: none of them has. */
  async #seal(
    groupId: Uint8Array,
    epoch: number,
    head: GroupHead,
    to: Meant | undefined,
  ): Promise<boolean> {
    const { store, runtime, writer, contacts, onOutbox } = this.#parts;
    const content = { kind: 'groupHead', bytes: toBinary(GroupHeadSchema, head) } as const;
    const { hash } = parseEntry(head.entry?.entry);
    const keyOf = ({ identityPub }: Recipient): string =>
      `${hex(groupId)} ${epoch} ${hex(hash)} ${hex(identityPub)}`;
    return withPrekeys(this.#parts, (fetched) =>
      writer.run(async (batch) => {
        const group = batch.group(groupId);
        const all = group === undefined ? [] : recipientsOf(group);
        const meant = meantBy(to, all, runtime.random);
        // Only who is in the group, as it is here: others are told nothing of it.
        const recipients = meant.filter((one) => !this.#told.has(keyOf(one)));
        if (recipients.length === 0) return true;
        const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
        const { copies, missing } = reachableCopies(
          content,
          recipients,
          prekeyOf,
          runtime.random,
          fetched === undefined,
        );
        if (copies.length === 0) return false;
        batch.write(() => {
          const about = { kind: 'RESEND', groupId, epoch: BigInt(epoch) } as const;
          for (const copy of copies) {
            store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
          }
        });
        batch.after(() => {
          if (this.#told.size > forkLimits.told) this.#told.clear();
          for (const one of recipients) if (!missing.includes(one)) this.#told.add(keyOf(one));
          onOutbox();
        });
        return true;
      }),
    );
  }

  #sweepSoon(): void {
    const { clock, random } = this.#parts.runtime;
    if (this.#isStopped) return;
    const { sweepMs } = forkLimits;
    this.#timer = clock.timer(sweepMs + jitter(random, sweepMs / 2), () => {
      this.sweep();
      this.#sweepSoon();
    });
  }

  /**
   * Rows wait for a key that no log brought: in the envelope of an epoch that some other member is in, and
   * this device is not. Nobody outside can say of which group, so all are told.
   */
  sweep(): void {
    const { store, runtime } = this.#parts;
    const nowMs = runtime.clock.now();
    const { unknownKeyMs, readForMs, readMs } = forkLimits;
    const stuckMs = store.inbox
      .parked()
      .flatMap(({ reason, parkedMs }) => (reason === 'UNKNOWN_KEY' ? [parkedMs] : []))
      .filter((parkedMs) => parkedMs < nowMs - unknownKeyMs);
    if (stuckMs.length === 0) return;
    if (stuckMs.some((parkedMs) => parkedMs > nowMs - readForMs)) {
      this.#readTimer?.cancel();
      this.#readTimer = runtime.clock.timer(readMs, this.#parts.onStuck);
    }
    for (const { groupId, ended } of store.groups.conversations()) {
      const head = ended === undefined ? store.groupLog.head(groupId) : undefined;
      if (head !== undefined) void this.#tell(groupId, head.epoch);
    }
  }
}

/** One device, or a part of the group that is another one each time; undefined: all of it, if it is not large. */
type Meant = Uint8Array | 'some' | 'few';

/** Of a large group nobody, or such a part. */
function meantBy(
  to: Meant | undefined,
  all: readonly Recipient[],
  random: Random,
): readonly Recipient[] {
  const { devices, few } = forkLimits;
  if (to === undefined) return all.length < devices ? all : [];
  if (typeof to !== 'string') return all.filter(({ identityPub }) => sameBytes(identityPub, to));
  const from = Math.floor(jitter(random, all.length));
  return [...all.slice(from), ...all.slice(0, from)].slice(0, to === 'few' ? few : devices - 1);
}
