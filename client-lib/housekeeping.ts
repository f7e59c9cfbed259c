/**
 * What a device throws away because of its age (docs/protocol/delivery.md): marks, settled copies, kept
 * ciphertexts, records, endpoints of others, keys of epochs that are over, and keys that were skipped.
 * Once at the start and then again and again.
 */
import { jitter, type Runtime } from '@quicprochat/proto';
import {
  dropEpochsBefore,
  dropSkippedKeys,
  oldestKept,
  skippedKeys,
  type SkippedKey,
} from './mls/index.ts';
import type { ClientStore } from './store/store.ts';
import type { Writer } from './writer.ts';

const hourMs = 3600 * 1000;

export const housekeepingLimits = {
  /** Wait after the start (ms), so that a short run does not pay for it, and between two rounds. */
  firstMs: 10_000,
  everyMs: 6 * hourMs,
  /** How long the key of a message that has not come is kept (ms). */
  skippedKeptMs: 48 * hourMs,
  /** How long the end of a wish for a group is known (ms). */
  intentsKeptMs: 30 * 24 * hourMs,
} as const;

export interface HousekeepingParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
}

export class Housekeeping {
  readonly #parts: HousekeepingParts;
  #timer: { cancel(): void } | undefined;
  #working: Promise<void> | undefined;
  #isStopped = false;

  constructor(parts: HousekeepingParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#roundIn(housekeepingLimits.firstMs);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#working;
  }

  /** Everything that is too old, now. */
  async round(): Promise<void> {
    const { store, runtime } = this.#parts;
    const nowMs = runtime.clock.now();
    store.transaction(() => {
      store.inbox.expire(nowMs);
      store.outbox.expire(nowMs);
      store.channels.expire(nowMs);
      store.closed.expire(nowMs);
      store.resend.expire(nowMs);
      store.endpoints.expire(nowMs);
      store.groupLog.expireIntents(nowMs - housekeepingLimits.intentsKeptMs);
    });
    for (const { groupId } of store.groups.conversations()) {
      if (this.#isStopped && this.#working !== undefined) return;
      await this.#dropEpochs(groupId);
      await this.#dropSkipped(groupId);
    }
  }

  #roundIn(delayMs: number): void {
    const { clock, random, log } = this.#parts.runtime;
    this.#timer?.cancel();
    if (this.#isStopped) return;
    this.#timer = clock.timer(delayMs, () => {
      this.#working = this.round()
        .catch((error: unknown) => log.warn('housekeeping failed', { error: String(error) }))
        .finally(() => {
          this.#working = undefined;
          const { everyMs } = housekeepingLimits;
          this.#roundIn(everyMs / 2 + jitter(random, everyMs));
        });
    });
  }

  /** Past epochs go with age, those before the newest eight sooner. */
  async #dropEpochs(groupId: Uint8Array): Promise<void> {
    const { store, writer } = this.#parts;
    await writer.run(async (batch) => {
      const group = batch.group(groupId);
      const past = store.groups.pastEpochs(groupId);
      if (group === undefined || past.length === 0) return;
      const oldest = oldestKept(past, batch.nowMs) ?? group.epoch;
      if (oldest === past[0]?.epoch) return;
      const { next, wipe } = dropEpochsBefore(group, oldest);
      batch.useKeys(next, next.epoch, wipe);
      batch.write(() => store.groups.dropEpochsBelow(groupId, oldest));
    });
  }

  /** A key waits since the first round that saw it. */
  async #dropSkipped(groupId: Uint8Array): Promise<void> {
    const { store, writer } = this.#parts;
    await writer.run(async (batch) => {
      const group = batch.group(groupId);
      if (group === undefined) return;
      const { nowMs } = batch;
      const since = new Map(store.skipped.of(groupId).map((row) => [nameOf(row), row.seenMs]));
      const keys = skippedKeys(group);
      if (keys.length === 0 && since.size === 0) return;
      const isOld = (key: SkippedKey): boolean =>
        nowMs - (since.get(nameOf(key)) ?? nowMs) > housekeepingLimits.skippedKeptMs;
      const old = keys.filter(isOld);
      if (old.length > 0) {
        const { next, wipe } = dropSkippedKeys(group, old);
        for (const epoch of new Set(old.map((key) => key.epoch))) batch.useKeys(next, epoch, wipe);
      }
      batch.write(() =>
        store.skipped.replace(
          groupId,
          keys
            .filter((key) => !old.includes(key))
            .map((key) => ({
              ...key,
              epoch: Number(key.epoch),
              seenMs: since.get(nameOf(key)) ?? nowMs,
            })),
        ),
      );
    });
  }
}

function nameOf(key: Omit<SkippedKey, 'epoch'> & { readonly epoch: bigint | number }): string {
  return `${key.epoch} ${key.leafIndex} ${key.generation}`;
}
