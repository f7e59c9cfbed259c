/**
 * The VRFs of a log's labels: stored ones are read, others proved when somebody asks first and stored
 * behind the answer, many at a time. An entry needs outputs only, which cost half, and stores nothing of
 * them: most versions are looked up long after they were written. The newest stay in memory, for those
 * that are looked up soon. What a crash takes is proved again.
 */
import type { Clock } from '@quicprochat/proto';
import type { Hash } from './hash.ts';
import { LruCache } from './lru.ts';
import type { NewEvaluation, TreeStore } from './store.ts';
import type { VrfEvaluation, VrfPlace, VrfProver } from './vrf.ts';

/**
 * How long a proved VRF may wait for others to be stored with, how many make it not wait, and how many
 * (of about 400 bytes) may be on their way; more are given out and forgotten. Places of new versions
 * that are kept, of about as many bytes each.
 */
export const evaluationLimits = {
  saveMs: 1000,
  saveCount: 256,
  heldMax: 16_384,
  placesMax: 32_768,
} as const;

export interface EvaluationsOptions {
  readonly store: TreeStore;
  readonly vrf: VrfProver;
  readonly clock: Clock;
}

/** A key of a Map for a version of a label. */
const keyOf = (label: Uint8Array, version: number): string =>
  `${version}/${Buffer.from(label).toString('latin1')}`;

export class Evaluations {
  readonly #options: EvaluationsOptions;
  /** Being proved, or proved and not stored yet: what two ask for at once is proved once. */
  readonly #held = new Map<string, Promise<VrfEvaluation>>();
  /** Of versions that nobody has looked up yet, the newest of them. */
  readonly #places = new LruCache<string, VrfPlace>(
    { countMax: evaluationLimits.placesMax, weightMax: Number.POSITIVE_INFINITY },
    () => 0,
  );
  #unsaved: NewEvaluation[] = [];
  #timer: { cancel(): void } | undefined;
  #saving: Promise<void> = Promise.resolve();

  constructor(options: EvaluationsOptions) {
    this.#options = options;
  }

  /**
   * The evaluations of these versions, in this order. `keep`: those that were proved are stored soon,
   * unless the store does not know the label. Throws what the prover throws.
   */
  async of(
    label: Uint8Array,
    versions: readonly number[],
    keep: boolean,
  ): Promise<readonly VrfEvaluation[]> {
    const { store } = this.#options;
    const stored = await store.evaluations(label, versions);
    const missing = versions.filter(
      (version, i) => stored[i] === undefined && !this.#held.has(keyOf(label, version)),
    );
    if (missing.length > 0) this.#prove(label, missing, keep);
    // Taken out together, before anything that was stored meanwhile is let go.
    const held = versions.map((version) => this.#held.get(keyOf(label, version)));
    const found: VrfEvaluation[] = [];
    for (const [i, one] of stored.entries()) found.push(one ?? (await held[i]) ?? lost());
    return found;
  }

  /**
   * The outputs of new versions. Computed also where a search has had them stored: behind each commit
   * the pages of a label are read and decrypted anew, which costs as much. Throws what the prover throws.
   */
  async place(label: Uint8Array, versions: readonly number[]): Promise<readonly Hash[]> {
    const made = await this.#options.vrf.places(label, versions);
    return versions.map((version, i) => {
      const place = made[i] ?? lost();
      this.#places.set(keyOf(label, version), place);
      return place.output;
    });
  }

  /** Forgets what it has of the first `count` versions of a label. */
  forget(label: Uint8Array, count: number): void {
    for (let version = 0; version < count; version++) this.#places.delete(keyOf(label, version));
  }

  #prove(label: Uint8Array, versions: readonly number[], keep: boolean): void {
    const keys = versions.map((version) => keyOf(label, version));
    const places = keys.map((key) => this.#places.get(key));
    for (const key of keys) this.#places.delete(key);
    const proved = (async () => this.#options.vrf.prove(label, versions, places))();
    keys.forEach((key, i) => {
      const one = proved.then((evaluations) => evaluations[i] ?? lost());
      // Whoever asked looks at the outcome, as soon as it has all that it asked for.
      one.catch(() => {});
      this.#held.set(key, one);
    });
    const forget = (): void => keys.forEach((key) => this.#held.delete(key));
    proved
      .then((evaluations) => {
        if (!keep || this.#held.size > evaluationLimits.heldMax) return forget();
        versions.forEach((version, i) => {
          this.#unsaved.push({ label, version, evaluation: evaluations[i] ?? lost() });
        });
        this.#saveSoon();
      })
      .catch(forget);
  }

  #saveSoon(): void {
    const { saveCount, saveMs } = evaluationLimits;
    if (this.#unsaved.length >= saveCount) void this.save();
    else this.#timer ??= this.#options.clock.timer(saveMs, () => void this.save());
  }

  /** Stores what waits; resolves when it is durable, or given up because the store did not take it. */
  save(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    const batch = this.#unsaved;
    this.#unsaved = [];
    if (batch.length > 0) this.#saving = this.#saving.then(() => this.#write(batch));
    return this.#saving;
  }

  async #write(batch: readonly NewEvaluation[]): Promise<void> {
    try {
      await this.#options.store.addEvaluations(batch);
    } catch {
      // No room, or the store has failed, which its owner hears otherwise: they are proved again.
    }
    for (const { label, version } of batch) this.#held.delete(keyOf(label, version));
  }
}

function lost(): never {
  throw new TypeError('vrf: a prover left out an evaluation');
}
