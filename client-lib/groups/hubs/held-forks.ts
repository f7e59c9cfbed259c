/**
 * The forks that this device found (fork-watch.ts, group-walker.ts), as evidence for somebody who has no store, no account and no
 * network (`verifyForkEvidence`).
 */
import { makeForkEvidence, parseEntry } from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  fromBinary,
  SignedNodeRecordSchema,
} from '@quicprochat/proto/messages';
import type { ClientStore } from '../../store/store.ts';
import type { Writer } from '../../writer.ts';

/** Two certified entries of one place. */
export interface HeldFork {
  /** 32 bytes. */
  readonly conversationId: Uint8Array;
  /** That both changes make. */
  readonly epoch: number;
  /** Hashes of the two entries (32 bytes each): this device's own one first. */
  readonly entries: readonly [one: Uint8Array, other: Uint8Array];
  /** All hubs of the group, 1 or 3. */
  readonly hubs: readonly string[];
  /** Those that signed both. */
  readonly convicted: readonly string[];
  /** When they were found (Unix ms). */
  readonly atMs: number;
  /**
   * Encoded ForkEvidence, at most 64 KiB: the entries, the hubs, and the hubs' records as this device knows them now. Nothing
   * in it is secret: hubs have all of it.
   */
  readonly evidence: Uint8Array;
}

/** Oldest first. */
export async function heldForks(parts: {
  readonly store: ClientStore;
  readonly writer: Writer;
}): Promise<readonly HeldFork[]> {
  const { store, writer } = parts;
  const recordOf = (domain: string) => {
    const pinned = store.logs.pinned(domain);
    return pinned?.isInLog === true ? [fromBinary(SignedNodeRecordSchema, pinned.record)] : [];
  };
  return writer.run(async (batch) =>
    store.groupLog.forks().flatMap(({ groupId, one, other, hubs: convicted, atMs }) => {
      const group = batch.group(groupId);
      if (group === undefined) return [];
      const { hubs, info } = group;
      const a = fromBinary(CertifiedEntrySchema, one);
      const b = fromBinary(CertifiedEntrySchema, other);
      const { hash, epoch } = parseEntry(a.entry);
      return [
        {
          ...{ conversationId: info.conversationId.slice(), epoch, hubs, convicted, atMs },
          entries: [hash, parseEntry(b.entry).hash] as const,
          evidence: makeForkEvidence(hubs, [a, b], hubs.flatMap(recordOf)),
        },
      ];
    }),
  );
}
