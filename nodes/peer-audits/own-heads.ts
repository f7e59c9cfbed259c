/**
 * Do the peers know more of this node's log than the node itself? Then its database came from a
 * backup, and the next head that it signed would be a fork. Until that is known, and ever after if
 * it is so, nothing may be written to the log (docs/protocol/federation.md).
 */
import {
  nativeSuite,
  verifyTreeHead,
  type Configuration,
  type KtLog,
  type SignedHead,
  type TreeStore,
} from '@quicprochat/kt-log';
import {
  FailedPreconditionError,
  QpcError,
  UnavailableError,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import type { LinkSession } from '@quicprochat/federation';
import { askHeads, headFromWire } from './link-source.ts';

/** How long after the start writes wait for peers that do not answer (ms). */
export const peersAnswerMs = 5_000;

export interface OwnLog {
  readonly log: KtLog;
  readonly config: Configuration;
  readonly origin: string;
  readonly tree: Pick<TreeStore, 'head'>;
}

/** A head of this node's log that the log does not have. */
export interface AheadOfUs {
  readonly peer: string;
  readonly size: number;
}

export class OwnHeads implements Disposable {
  readonly #own: OwnLog;
  readonly #runtime: Runtime;
  readonly #unasked: Set<string>;
  readonly #answered = Promise.withResolvers<void>();
  #ahead: AheadOfUs | undefined;
  #timer: Timer | undefined;
  #isClosed = false;

  /** `peers`: domains that are waited for. */
  constructor(own: OwnLog, peers: readonly string[], runtime: Runtime) {
    this.#own = own;
    this.#runtime = runtime;
    this.#unasked = new Set(peers);
    if (peers.length === 0) this.#answered.resolve();
    else this.#timer = runtime.clock.timer(peersAnswerMs, () => this.#answered.resolve());
  }

  /** Nothing is written any more. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#answered.resolve();
  }

  /** What a peer showed that this log lacks; undefined while nobody showed anything. */
  get ahead(): AheadOfUs | undefined {
    return this.#ahead;
  }

  /**
   * Resolves when the log may be written: every peer has answered, or 5 s after the start. Throws
   * FailedPreconditionError FEATURE_OFF when the log is behind what it signed once.
   */
  async mayWrite(): Promise<void> {
    await this.#answered.promise;
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'the node stops');
    const ahead = this.#ahead;
    if (ahead === undefined) return;
    throw new FailedPreconditionError(
      'FEATURE_OFF',
      `this node's key log is read-only: ${ahead.peer} holds a head of size ${ahead.size} that it signed and lost`,
    );
  }

  /** Asks the peer on a new link; a peer that has no answer is asked again on the next one. */
  async ask(domain: string, session: LinkSession): Promise<void> {
    const { log, origin } = this.#own;
    try {
      const from = Math.max(1, log.size);
      const { heads } = await askHeads(session, origin, from, 2);
      for (const head of heads.map(headFromWire)) await this.#compare(domain, head);
    } catch (error) {
      if (session.signal.aborted) return;
      if (!(error instanceof QpcError)) throw error;
      const { reason, message } = error;
      this.#runtime.log.warn('own heads not told', { peer: domain, reason, error: message });
    }
    this.#unasked.delete(domain);
    if (this.#unasked.size === 0) this.#answered.resolve();
  }

  /** Looks at heads of the own log that a peer holds. Throws as #compare. */
  async shown(domain: string, heads: readonly SignedHead[]): Promise<void> {
    for (const head of heads) await this.#compare(domain, head);
  }

  /** Throws VerificationError for a head that this node never signed. */
  async #compare(domain: string, head: SignedHead): Promise<void> {
    const { log, config, tree } = this.#own;
    const { size, root, signature } = head;
    verifyTreeHead(nativeSuite, config, { treeSize: size, signature }, root);
    const ours = size > log.size ? undefined : await tree.head(size);
    if (ours === undefined || Buffer.compare(ours.root, root) !== 0) this.noteAhead(domain, size);
  }

  /** The peer has shown something of this size with our signature that our log does not have. */
  noteAhead(peer: string, size: number): void {
    if (this.#ahead !== undefined) return;
    this.#ahead = { peer, size };
    this.#runtime.log.error('own key log is behind', { peer, size, ownSize: this.#own.log.size });
  }
}
