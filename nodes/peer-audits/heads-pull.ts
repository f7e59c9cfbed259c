/**
 * What a peer holds of the logs of others, asked over the link to it (916 `heads`): on every link and
 * every ten minutes. So nodes that each saw one face of a log find out also where no swarm runs.
 */
import { hasReason, jitter, QpcError, type Runtime } from '@quicprochat/proto';
import type { LinkSession } from '@quicprochat/federation';
import type { GossipNode } from './gossip-node.ts';
import { askHeads } from './link-source.ts';

export const headsPullLimits = {
  /** Between two rounds (ms), and how much of it is random. */
  pullMs: 10 * 60_000,
  pullJitterMs: 60_000,
  /** After a round in which the peer did not answer (ms). */
  retryMs: 30_000,
  /** Heads that one question asks for: from the size that is held here on. */
  heads: 16,
} as const;

export interface HeadsPullOptions {
  readonly node: Pick<GossipNode, 'origins' | 'heldSize' | 'headsShown'>;
  readonly runtime: Runtime;
  /** The peer's own log is audited, which tells more. */
  readonly originOf: (domain: string) => string;
  /** Of this node; its heads are asked for at the start of a link. */
  readonly ownOrigin: string;
}

export class HeadsPull {
  readonly #options: HeadsPullOptions;

  constructor(options: HeadsPullOptions) {
    this.#options = options;
  }

  /** Asks until the session ends. */
  async serve(domain: string, session: LinkSession): Promise<void> {
    const { clock, random } = this.#options.runtime;
    const { pullMs, pullJitterMs, retryMs } = headsPullLimits;
    while (!session.signal.aborted) {
      const isDone = await this.#round(domain, session);
      const waitMs = isDone ? pullMs + jitter(random, pullJitterMs) : retryMs;
      // The only rejection is the session's end.
      await clock.sleep(waitMs, session.signal).catch(() => undefined);
    }
  }

  /** True when the peer has answered, whatever it said. */
  async #round(domain: string, session: LinkSession): Promise<boolean> {
    const { node, originOf, ownOrigin, runtime } = this.#options;
    let isDone = true;
    for (const origin of node.origins()) {
      if (session.signal.aborted) return false;
      if (origin === ownOrigin || origin === originOf(domain)) continue;
      try {
        const from = Math.max(1, await node.heldSize(origin));
        const shown = await askHeads(session, origin, from, headsPullLimits.heads);
        await node.headsShown(domain, origin, shown);
      } catch (error) {
        if (!(error instanceof QpcError)) throw error;
        // A log that the peer does not follow is no fault of it.
        if (!hasReason(error, 'BAD_FIELD')) isDone = false;
        runtime.log.debug('heads of a peer', { peer: domain, origin, reason: error.reason });
      }
    }
    return isDone;
  }
}
