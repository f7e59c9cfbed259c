/**
 * Keeps what others need to reach this device at its node: single-use KeyPackages and a last
 * resort per suite, and the hybrid prekey (docs/protocol/cryptography.md). Private parts are in the
 * store before the public ones leave.
 */
import { methods, signPrekey, type Runtime, type SigningKey } from '@quicprochat/proto';
import { hybridKeyId } from '../crypto/envelope.ts';
import { xwingGenerateKeyPair } from '../crypto/xwing.ts';
import type { Caller } from '../dial.ts';
import {
  isMlsSuite,
  mandatorySuite,
  xwingSuite,
  type Identity,
  type Mls,
  type MlsSuite,
  type SignatureKey,
} from '../mls/index.ts';
import type { HybridKey, StoredKeyPackage } from '../store/key-rows.ts';
import type { ClientStore } from '../store/store.ts';

const dayMs = 24 * 3600 * 1000;

export const publisherLimits = {
  singleUse: 50,
  /** Below this many the supply is filled up. */
  singleUseLow: 20,
  /** Packages per upload and per transaction. */
  batch: 51,
  prekeyLifetimeMs: 14 * dayMs,
  prekeyRotationMs: 7 * dayMs,
  lastResortLifetimeMs: 90 * dayMs,
  lastResortRotationMs: 7 * dayMs,
  /**
   * A used last resort is replaced no sooner than this after it was made (ms): strangers decide how
   * often it is used, and each replacement is kept for months.
   */
  lastResortReplaceMs: 3_600_000,
  /** A Welcome or message may lie for 30 days; keys outlive that. */
  keptAfterExpiryMs: 31 * dayMs,
} as const;

export interface KeyPublisherParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly mls: Mls;
  readonly identity: Identity;
  readonly identityKey: SigningKey;
  readonly signatureKey: SignatureKey;
}

export class KeyPublisher {
  readonly #parts: KeyPublisherParts;
  #running: Promise<void> | undefined;
  #again = false;

  constructor(parts: KeyPublisherParts) {
    this.#parts = parts;
  }

  /**
   * Brings the node up to date: prekey, then both suites. One run at a time; a call during a run
   * runs once more after it. Throws what the node or the connection answers; nothing is lost then,
   * the next run goes on.
   */
  async publish(caller: Caller): Promise<void> {
    if (this.#running !== undefined) {
      this.#again = true;
      return this.#running;
    }
    const running = (async () => {
      do {
        this.#again = false;
        await this.#publishOnce(caller);
      } while (this.#again);
    })();
    this.#running = running;
    try {
      await running;
    } finally {
      this.#running = undefined;
    }
  }

  async #publishOnce(caller: Caller): Promise<void> {
    const { store, runtime } = this.#parts;
    store.keys.expire(runtime.clock.now() - publisherLimits.keptAfterExpiryMs);
    await this.#publishPrekey(caller);
    // What a lost connection left unpublished goes first; the node skips what it knows.
    await this.#upload(caller, store.keys.unpublishedKeyPackages());
    const { lastResortReplaceMs, lastResortRotationMs } = publisherLimits;
    const { counts } = await caller.call(methods.keyPackageCount, {});
    for (const suite of [xwingSuite, mandatorySuite]) {
      const count = counts.find((one) => one.suite === suite);
      const isLastResortDue =
        count === undefined ||
        !count.hasLastResort ||
        (count.lastResortUsed && this.#lastResortAgeMs(suite) >= lastResortReplaceMs) ||
        this.#lastResortAgeMs(suite) > lastResortRotationMs;
      const have = count?.singleUse ?? 0;
      const missing = have < publisherLimits.singleUseLow ? publisherLimits.singleUse - have : 0;
      await this.#upload(caller, await this.#make(suite, missing, isLastResortDue));
    }
  }

  async #publishPrekey(caller: Caller): Promise<void> {
    const { store, runtime, identityKey } = this.#parts;
    const nowMs = runtime.clock.now();
    let key = store.keys.newestHybridKey();
    if (
      key === undefined ||
      key.notAfterMs - nowMs < publisherLimits.prekeyLifetimeMs - publisherLimits.prekeyRotationMs
    ) {
      const fresh = this.#makeHybridKey(nowMs + publisherLimits.prekeyLifetimeMs);
      store.transaction(() => store.keys.putHybridKey(fresh));
      key = fresh;
    }
    if (key.isPublished) return;
    const { keyId, publicKey, notAfterMs } = key;
    await caller.call(methods.uploadHybridKey, {
      prekey: signPrekey(identityKey, publicKey, notAfterMs),
    });
    store.transaction(() => store.keys.markHybridKeyPublished(keyId));
  }

  #makeHybridKey(notAfterMs: number): HybridKey {
    const { publicKey, secretSeed } = xwingGenerateKeyPair(this.#parts.runtime.random);
    return {
      keyId: hybridKeyId(publicKey),
      seed: secretSeed,
      publicKey,
      notAfterMs,
      isPublished: false,
    };
  }

  /** Time since the newest one was made (ms); infinite without one. */
  #lastResortAgeMs(suite: MlsSuite): number {
    const { store, runtime } = this.#parts;
    const newest = store.keys.newestLastResort(suite);
    if (newest === undefined) return Infinity;
    return runtime.clock.now() - (newest.notAfterMs - publisherLimits.lastResortLifetimeMs);
  }

  /** New packages, durable with their private parts. */
  async #make(
    suite: MlsSuite,
    singleUse: number,
    withLastResort: boolean,
  ): Promise<readonly StoredKeyPackage[]> {
    const { store, mls, identity, signatureKey } = this.#parts;
    const made: StoredKeyPackage[] = [];
    const kinds = [
      ...(withLastResort ? [true] : []),
      ...Array.from({ length: singleUse }, () => false),
    ];
    for (const isLastResort of kinds) {
      const one = await mls.makeKeyPackage({
        suite,
        identity,
        signatureKey,
        lastResort: isLastResort,
      });
      made.push({ ...one, suite, isLastResort, isPublished: false });
    }
    store.transaction(() => store.keys.addKeyPackages(made));
    return made;
  }

  async #upload(caller: Caller, packages: readonly StoredKeyPackage[]): Promise<void> {
    const { store, runtime } = this.#parts;
    for (let from = 0; from < packages.length; from += publisherLimits.batch) {
      const batch = packages
        .slice(from, from + publisherLimits.batch)
        .filter(({ suite }) => isMlsSuite(suite));
      await caller.call(methods.uploadKeyPackage, {
        keyPackages: batch.map(({ publicBytes }) => publicBytes),
      });
      store.transaction(() => store.keys.markKeyPackagesPublished(batch.map(({ ref }) => ref)));
      runtime.log.info('key packages published', { count: batch.length });
    }
  }
}
