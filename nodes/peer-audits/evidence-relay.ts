/**
 * Evidence between nodes: what this node found or was shown goes to every other peer once, and what
 * peers show is checked, kept, and passed on. Junk costs its sender: whoever shows it waits.
 */
import {
  decodeEvidence,
  nativeSuite,
  VerificationError,
  type AuditStore,
  type CheckedEvidence,
  type EvidenceRecord,
  type Follower,
} from '@quicprochat/kt-log';
import {
  InvalidArgumentError,
  maxEvidenceBytes,
  methods,
  QpcError,
  ResourceExhaustedError,
  TokenBuckets,
  type Runtime,
  hex,
} from '@quicprochat/proto';
import { Wakeup, type LinkSession } from '@quicprochat/federation';

export const evidenceLimits = {
  /** Records that are kept of one log: the first few convict it. */
  perLog: 16,
  /** Newest records that a peer is told on a link. */
  toldPerLink: 64,
  /** What a peer may show: checks of a few milliseconds each, junk counts fivefold. */
  shown: { perSecond: 0.2, burst: 10 },
  junkCost: 5,
  retryMs: 30_000,
} as const;

export interface EvidenceRelayOptions {
  readonly store: AuditStore;
  readonly peers: readonly string[];
  /** Who judges evidence against a log; undefined for a log that nobody here follows. */
  readonly followerOf: (origin: string) => Follower | undefined;
  readonly runtime: Runtime;
  readonly notify: (domain: string) => void;
  /** Told of evidence that is durable here: other ways than the links. */
  readonly onFound?: (record: EvidenceRecord) => void;
}

interface PeerState {
  readonly wakeup: Wakeup;
  /** Hashes (hex) that the peer has, as far as this process knows. */
  readonly known: Set<string>;
  unsent: EvidenceRecord[];
}

export class EvidenceRelay {
  readonly #options: EvidenceRelayOptions;
  readonly #buckets: TokenBuckets;
  readonly #peers = new Map<string, PeerState>();

  constructor(options: EvidenceRelayOptions) {
    const { runtime, peers } = options;
    this.#options = options;
    this.#buckets = new TokenBuckets(runtime.clock);
    for (const domain of peers) this.add(domain);
  }

  /** A peer more. */
  add(domain: string): void {
    const wakeup = new Wakeup(this.#options.runtime.clock);
    this.#peers.set(domain, { wakeup, known: new Set(), unsent: [] });
  }

  hasWork(domain: string): boolean {
    return (this.#peers.get(domain)?.unsent.length ?? 0) > 0;
  }

  /** Evidence is durable: raises the alarm and tells the peers that do not know it. */
  found(record: EvidenceRecord, checked: CheckedEvidence): void {
    const { runtime, notify } = this.#options;
    const { origin, kind, hash } = record;
    const evidence = hex(hash);
    runtime.log.error('a key log is convicted', {
      origin,
      kind,
      evidence,
      explain: checked.explain,
    });
    this.#options.onFound?.(record);
    for (const [domain, peer] of this.#peers) {
      if (peer.known.has(evidence)) continue;
      peer.unsent.push(record);
      peer.wakeup.raise();
      notify(domain);
    }
  }

  /**
   * Takes evidence that a peer shows. Throws InvalidArgumentError BAD_FIELD for what proves nothing
   * or concerns no log that is followed here, ResourceExhaustedError RATE_LIMITED.
   */
  async shown(domain: string, bytes: Uint8Array): Promise<void> {
    const { store, followerOf } = this.#options;
    this.#pay(domain, 1);
    const evidence = hex(nativeSuite.sha256(bytes));
    const known = this.#peers.get(domain)?.known;
    try {
      const { origin } = decodeEvidence(nativeSuite.sha256, bytes);
      const follower = followerOf(origin);
      if (follower === undefined) {
        throw new InvalidArgumentError('BAD_FIELD', 'evidence: of a log that this node ignores');
      }
      const held = await store.evidence(origin);
      const isHeld = held.some(({ hash }) => hex(hash) === evidence);
      if (!isHeld && held.length >= evidenceLimits.perLog) return;
      // Before the judgement, which tells everybody who does not know it.
      known?.add(evidence);
      await follower.judge(bytes);
    } catch (error) {
      known?.delete(evidence);
      this.#buckets.take(domain, evidenceLimits.shown, evidenceLimits.junkCost);
      if (!(error instanceof VerificationError)) throw error;
      throw new InvalidArgumentError('BAD_FIELD', `evidence: ${error.message}`, { cause: error });
    }
  }

  #pay(domain: string, count: number): void {
    const retryAfterMs = this.#buckets.take(domain, evidenceLimits.shown, count);
    if (retryAfterMs === 0) return;
    throw new ResourceExhaustedError('RATE_LIMITED', 'evidence: too much at once', {
      retryAfterMs,
    });
  }

  /** Tells the peer until the session ends. */
  async serve(domain: string, session: LinkSession): Promise<void> {
    const peer = this.#peers.get(domain);
    if (peer === undefined) return;
    const { signal } = session;
    const stop = (): void => peer.wakeup.raise();
    signal.addEventListener('abort', stop, { once: true });
    const held = (await this.#options.store.evidence()).slice(-evidenceLimits.toldPerLink);
    peer.unsent = held.filter(({ hash }) => !peer.known.has(hex(hash)));
    while (!signal.aborted) {
      const [next] = peer.unsent;
      if (next === undefined) await peer.wakeup.wait();
      else if (await this.#tell(domain, next, session)) {
        peer.unsent = peer.unsent.filter((one) => one !== next);
        peer.known.add(hex(next.hash));
      } else if (!signal.aborted) await peer.wakeup.wait(evidenceLimits.retryMs);
    }
    signal.removeEventListener('abort', stop);
  }

  /** True when the peer has it, or will never want it. */
  async #tell(domain: string, record: EvidenceRecord, session: LinkSession): Promise<boolean> {
    const { bytes, origin } = record;
    if (bytes.length > maxEvidenceBytes) return true;
    try {
      const op = { case: 'evidence' as const, value: { evidence: bytes } };
      await session.call(methods.fedKt, { op });
      return true;
    } catch (error) {
      if (session.signal.aborted) return false;
      if (!(error instanceof QpcError)) throw error;
      const { reason, message } = error;
      this.#options.runtime.log.warn('evidence not taken', {
        peer: domain,
        origin,
        reason,
        error: message,
      });
      return reason === 'BAD_FIELD';
    }
  }
}
