/**
 * The join key for a device that lost its place before somebody was removed (docs/protocol/group-log.md, "Coming
 * back"): it names the id of the key that it lacks, and members who have that key tell it, sealed to the device. Who may
 * have it needs no judgement: a device with a leaf in the epoch that the answering member is in, whoever asks for it.
 */
import { hex, QpcError, sameBytes } from '@quicprochat/proto';
import { create, GroupHeadSchema, toBinary } from '@quicprochat/proto/messages';
import { withPrekeys } from '../../account/prekeys.ts';
import { channelKeyId } from '../../crypto/envelope.ts';
import { hybridCopies } from '../../sending/fan-out.ts';
import { recipientsOf } from '../../sending/sealing.ts';
import type { SendingParts } from '../../sending/sending-parts.ts';
import type { Batch } from '../../writer.ts';
import { controlOf } from '../log/group-walker.ts';

/** Answers that are remembered, so that a device hears of one key once. */
const toldKept = 1_024;

export interface JoinKeyAnswersParts extends Omit<SendingParts, 'mls'> {
  readonly rid: Uint8Array;
  /** The group's state can be opened now. */
  readonly onKey: () => void;
}

export class JoinKeyAnswers {
  readonly #parts: JoinKeyAnswersParts;
  readonly #told = new Set<string>();
  readonly #telling = new Set<Promise<void>>();

  constructor(parts: JoinKeyAnswersParts) {
    this.#parts = parts;
  }

  /** Somebody told a key: it is the right one or not, whoever that was. Part of a batch. */
  take(groupId: Uint8Array, key: Uint8Array, batch: Batch): void {
    const { store, onKey } = this.#parts;
    const keyId = store.resync.lackedKey(groupId);
    if (keyId === undefined || key.length !== 32 || !sameBytes(channelKeyId(key), keyId)) return;
    const copy = Uint8Array.from(key);
    batch.write(() => {
      const row = store.resync.get(groupId);
      // It came in by another way meanwhile, which brought a key of its own.
      if (row === undefined || row.isDone) return;
      store.resync.putJoinKey(groupId, copy);
      if (row.sent === undefined) store.resync.put({ ...row, dueMs: batch.nowMs });
    });
    batch.after(onKey);
  }

  /** `to` (a device, 32 bytes) lacks the key of this id. */
  asked(groupId: Uint8Array, to: Uint8Array, keyId: Uint8Array): void {
    const telling = this.#tell(groupId, to, keyId)
      .catch((error: unknown) => {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        const { log } = this.#parts.runtime;
        log.info('telling a join key failed', { reason, error: String(error) });
      })
      .finally(() => this.#telling.delete(telling));
    this.#telling.add(telling);
  }

  /** Resolves when nothing is being told. */
  async idle(): Promise<void> {
    await Promise.all(this.#telling);
  }

  async #tell(groupId: Uint8Array, to: Uint8Array, keyId: Uint8Array): Promise<void> {
    const { store, runtime, writer, contacts, rid, onOutbox } = this.#parts;
    const name = `${hex(groupId)} ${hex(keyId)} ${hex(to)}`;
    await withPrekeys(this.#parts, () =>
      writer.run(async (batch) => {
        const key = store.resync.joinKey(groupId);
        const group = batch.group(groupId);
        const head = store.groupLog.head(groupId);
        const entry = head && controlOf(head).entry;
        const isIn = batch.conversationOfGroup(groupId)?.ended === undefined;
        if (!isIn || group === undefined || key === undefined || entry === undefined) return;
        if (!sameBytes(channelKeyId(key), keyId) || this.#told.has(name)) return;
        const meant = recipientsOf(group).filter((one) => sameBytes(one.identityPub, to));
        if (meant.length === 0) return;
        const bytes = toBinary(
          GroupHeadSchema,
          create(GroupHeadSchema, { from: rid, entry, joinKey: key }),
        );
        const prekeyOf = (of: Uint8Array): Uint8Array | undefined => contacts.prekey(of);
        const content = { kind: 'groupHead', bytes } as const;
        const copies = hybridCopies(content, meant, prekeyOf, runtime.random);
        batch.write(() => {
          const about = { kind: 'RESEND', groupId, epoch: group.epoch } as const;
          for (const copy of copies) {
            store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
          }
        });
        batch.after(() => {
          if (this.#told.size >= toldKept) this.#told.clear();
          this.#told.add(name);
          onOutbox();
        });
      }),
    );
  }
}
