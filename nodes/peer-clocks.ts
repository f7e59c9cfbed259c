/**
 * Compares the node's clock with its peers'. A clock that is ahead does harm that nothing takes back: entries of the
 * key log get times that no client accepts before they have come, and none may be earlier after them.
 */
import { methods, QpcError, type Runtime } from '@quicprochat/proto';
import type { LinkService, LinkSession } from '@quicprochat/federation';
import { protocolVersion } from './services/core.ts';

export const clockLimits = {
  /** How often a peer is asked while its link is up (ms). */
  everyMs: 10 * 60_000,
  /** A difference that is told (ms); a fifth of what a log's clients allow by default. */
  toldMs: 60_000,
} as const;

export class PeerClocks implements LinkService {
  readonly #runtime: Pick<Runtime, 'clock' | 'log'>;

  constructor(runtime: Pick<Runtime, 'clock' | 'log'>) {
    this.#runtime = runtime;
  }

  /** Nobody is dialed for it. */
  hasWork(): boolean {
    return false;
  }

  async serve(domain: string, session: LinkSession): Promise<void> {
    const { clock, log } = this.#runtime;
    while (!session.signal.aborted) {
      const aheadMs = await this.#aheadOf(session);
      if (aheadMs !== undefined && Math.abs(aheadMs) > clockLimits.toldMs) {
        log.warn('clock differs from that of a peer', { peer: domain, aheadMs });
      }
      // The only rejection is the session's end.
      await clock.sleep(clockLimits.everyMs, session.signal).catch(() => undefined);
    }
  }

  /** By how much this node's clock is ahead, at least (ms); undefined where the peer did not say. */
  async #aheadOf(session: LinkSession): Promise<number | undefined> {
    const { clock } = this.#runtime;
    const askedMs = clock.now();
    try {
      const version = { versionMin: protocolVersion, versionMax: protocolVersion };
      const { serverTimeMs } = await session.call(methods.hello, { ...version, agent: 'qpcd' });
      const theirsMs = Number(serverTimeMs);
      // The answer was made at some moment in between, which is on nobody's side.
      if (theirsMs > clock.now()) return clock.now() - theirsMs;
      return theirsMs < askedMs ? askedMs - theirsMs : 0;
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      return undefined;
    }
  }
}
