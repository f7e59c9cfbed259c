/**
 * Checks the signatures by which nodes say that they have a message (docs/protocol/delivery.md,
 * "Delivery proof"), with the signing keys of the node's own record. Which record is believed is that
 * of kt/log-record.ts; what an unproven OK means for a row is the outbox's business.
 */
import {
  verifyDeliveryProof,
  type Clock,
  type Runtime,
  type StoredStatement,
  methods,
} from '@quicprochat/proto';
import { checkRecord, knownRecordOf, type KnownRecord } from '../kt/log-record.ts';
import { nodeRecordIn } from '../kt/node-address.ts';
import type { Caller } from '../dial.ts';
import type { ClientStore } from '../store/store.ts';

export const proofLimits = {
  /** A node whose signatures fit no known key is asked for its record at most this often (ms). */
  askEveryMs: 30_000,
  /** Clocks may differ by this much before the dates of a key matter (ms). */
  clockGraceMs: 24 * 3600 * 1000,
} as const;

export interface DeliveryProofParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly own: {
    readonly domain: string;
    /** The pinned key of the own node: SHA-256 SPKI (32 bytes). */
    readonly pin: Uint8Array;
  };
}

export class DeliveryProofs {
  readonly #parts: DeliveryProofParts;
  /** Signing keys that were live when they were read, by domain; as many as there are nodes met. */
  readonly #keys = new Map<string, readonly Uint8Array[]>();
  readonly #askedMs = new Map<string, number>();
  readonly #asking = new Map<string, Promise<void>>();

  constructor(parts: DeliveryProofParts) {
    this.#parts = parts;
  }

  /**
   * True when the node of `domain`, which `caller` speaks to, signed the statement. A signature that
   * fits no known key has the node asked for its record, which may have changed since. Never throws:
   * what cannot be checked is not proven.
   */
  async isProven(
    domain: string,
    statement: StoredStatement,
    proof: Uint8Array,
    caller: Caller,
  ): Promise<boolean> {
    if (proof.length === 0) return false;
    if (verifyDeliveryProof(statement, proof, this.#known(domain))) return true;
    await this.#ask(domain, caller);
    return verifyDeliveryProof(statement, proof, this.#known(domain));
  }

  #known(domain: string): readonly Uint8Array[] {
    const known = this.#keys.get(domain);
    if (known !== undefined) return known;
    const older = this.#pinned(domain);
    const keys = older === undefined ? [] : liveKeys(older, this.#parts.runtime.clock);
    this.#keys.set(domain, keys);
    return keys;
  }

  #pinned(domain: string): KnownRecord | undefined {
    const known = nodeRecordIn(this.#parts.store, domain);
    return known === undefined ? undefined : knownRecordOf(known);
  }

  /** Several rows may find the same unknown key: one of them asks. */
  async #ask(domain: string, caller: Caller): Promise<void> {
    const { clock } = this.#parts.runtime;
    const running = this.#asking.get(domain);
    if (running !== undefined) return running;
    const lastMs = this.#askedMs.get(domain);
    if (lastMs !== undefined && clock.monotonic() - lastMs < proofLimits.askEveryMs) return;
    this.#askedMs.set(domain, clock.monotonic());
    const asking = this.#learn(domain, caller).finally(() => this.#asking.delete(domain));
    this.#asking.set(domain, asking);
    return asking;
  }

  async #learn(domain: string, caller: Caller): Promise<void> {
    const { runtime, own } = this.#parts;
    const older = this.#pinned(domain);
    const pin = domain === own.domain ? own.pin : undefined;
    // Of another node nothing is believed that its log did not show before.
    if (older === undefined && pin === undefined) return;
    try {
      const { record } = await caller.call(methods.getNodeRecord, { domain: '' });
      if (record === undefined) return;
      const checked = checkRecord(domain, record, { pin, older }, runtime.clock.now());
      this.#keys.set(domain, liveKeys(checked, runtime.clock));
    } catch (error) {
      // No record, or one that nothing here vouches for: then the signature stays unproven.
      runtime.log.info('no record to check a delivery proof with', { error: String(error) });
    }
  }
}

/** The signing keys that a record's node may use now. */
function liveKeys({ record }: KnownRecord, clock: Clock): readonly Uint8Array[] {
  const nowMs = clock.now();
  const { clockGraceMs } = proofLimits;
  return record.keys
    .filter(({ toMs }) => toMs === 0n || Number(toMs) + clockGraceMs >= nowMs)
    .map(({ signPub }) => signPub);
}
