/**
 * The signing keys of hubs (docs/protocol/group-log.md): those of the node record that a domain's log
 * shows, as it is kept here, so that a certificate can be checked while no node answers. A signature that
 * fits no known key has the record asked for once more: nodes rotate keys.
 */
import {
  certifyingKeys,
  hasReason,
  QpcError,
  ResourceExhaustedError,
  Status,
  type Runtime,
} from '@quicprochat/proto';
import { knownRecordOf, LogError } from '../../kt/log-record.ts';
import type { Logs } from '../../kt/logs.ts';
import type { Caller } from '../../dial.ts';
import type { ClientStore } from '../../store/store.ts';

export const hubKeyLimits = {
  /** A record that was asked for is not asked for again before (ms). */
  askEveryMs: 60_000,
  /** Domains whose log this device does not know are asked for at most so often in that time: anybody may name one. */
  strangers: 16,
} as const;

/** A certificate cannot be judged before the record of this domain was asked for. */
export class UnknownHubError extends QpcError {
  override name = 'UnknownHubError';
  readonly domain: string;
  constructor(domain: string) {
    super(Status.FailedPrecondition, 'UNKNOWN_HUB', `hub: no key of ${domain} fits`);
    this.domain = domain;
  }
}

export interface HubKeyParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly logs: Pick<Logs, 'renew'>;
}

export class HubKeys {
  readonly #parts: HubKeyParts;
  readonly #keys = new Map<string, readonly Uint8Array[]>();
  /** When a record was asked for, oldest first. */
  readonly #askedMs = new Map<string, number>();
  readonly #asking = new Map<string, Promise<void>>();

  constructor(parts: HubKeyParts) {
    this.#parts = parts;
  }

  /** All signing keys (32 bytes each) that the record names, those that were given up too: entries are as old. */
  readonly of = (domain: string): readonly Uint8Array[] => {
    const known = this.#keys.get(domain);
    if (known !== undefined) return known;
    const pinned = this.#parts.store.logs.pinned(domain);
    if (pinned?.isInLog !== true) return [];
    const keys = certifyingKeys(knownRecordOf(pinned.record).record);
    this.#keys.set(domain, keys);
    return keys;
  };

  /** Whether the record was asked for a moment ago: what does not fit now is not the hub's. */
  isFresh(domain: string): boolean {
    const askedMs = this.#askedMs.get(domain);
    if (askedMs === undefined) return false;
    return this.#parts.runtime.clock.monotonic() - askedMs < hubKeyLimits.askEveryMs;
  }

  /**
   * Asks for the record, unless that was a moment ago. Throws what Logs.renew throws, and
   * ResourceExhaustedError RATE_LIMITED when too many unknown domains were named of late.
   */
  async learn(domain: string, caller: Caller): Promise<void> {
    if (this.isFresh(domain)) return;
    const running = this.#asking.get(domain);
    if (running !== undefined) return running;
    this.#forgetOld();
    if (this.#strangers() >= hubKeyLimits.strangers && !this.#isKnown(domain)) {
      const options = { retryAfterMs: hubKeyLimits.askEveryMs };
      throw new ResourceExhaustedError('RATE_LIMITED', 'hub: too many unknown domains', options);
    }
    const asking = this.#ask(domain, caller).finally(() => this.#asking.delete(domain));
    this.#asking.set(domain, asking);
    return asking;
  }

  #isKnown(domain: string): boolean {
    return this.#parts.store.logs.pinned(domain)?.isInLog === true;
  }

  #strangers(): number {
    const domains = [...this.#asking.keys(), ...this.#askedMs.keys()];
    return domains.filter((domain) => !this.#isKnown(domain)).length;
  }

  #forgetOld(): void {
    for (const domain of this.#askedMs.keys()) {
      if (this.isFresh(domain)) return;
      this.#askedMs.delete(domain);
    }
  }

  async #ask(domain: string, caller: Caller): Promise<void> {
    const { logs, runtime } = this.#parts;
    try {
      await logs.renew(domain, caller);
    } catch (error) {
      // Its log is not believed, or its node is none of ours: asking again at once helps nobody.
      if (!(error instanceof LogError) && !hasReason(error, 'PEER_DENIED')) throw error;
      runtime.log.warn('no record of a hub', { domain, reason: error.reason });
    }
    this.#keys.delete(domain);
    this.#askedMs.delete(domain);
    this.#askedMs.set(domain, runtime.clock.monotonic());
  }
}
