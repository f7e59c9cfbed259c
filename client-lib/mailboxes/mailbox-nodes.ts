/**
 * Nodes that keep mailboxes of contacts: their records are asked for at the own node while it is there, for
 * they are needed when it is not. One that the own node does not vouch for is written to by nobody here.
 */
import { jitter, type Runtime, type Timer } from '@quicprochat/proto';
import type { Session } from '../session.ts';
import type { Acquaintances } from '../peers/acquaintances.ts';
import type { Endpoints } from '../peers/endpoints.ts';
import { nodeRecordOf } from '../peers/node-word.ts';
import type { ClientStore } from '../store/store.ts';

export const mailboxNodeLimits = {
  /** After something changed (ms), and as much at random. */
  delayMs: 1_000,
  /** A record is asked for anew after this time (ms). */
  againMs: 24 * 3_600_000,
  /** Between two rounds without a change (ms). */
  roundMs: 3_600_000,
  /** Questions of one round. */
  perRound: 16,
} as const;

export interface MailboxNodesParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly ownDomain: string;
  readonly acquaintances: Pick<Acquaintances, 'members'>;
  readonly endpoints: Pick<Endpoints, 'of'>;
  /** More of them can be written to. */
  readonly onKnown: () => void;
}

export class MailboxNodes {
  readonly #parts: MailboxNodesParts;
  /** Domains, until when they are not asked about (monotonic ms); as many as contacts named last. */
  #restsUntil = new Map<string, number>();
  #session: Session | undefined;
  #timer: Timer | undefined;
  #isStopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(parts: MailboxNodesParts) {
    this.#parts = parts;
  }

  /** Where a device (hex) has mailboxes that can be written to. */
  of(target: string, home: string): readonly string[] {
    const { endpoints, store, ownDomain } = this.#parts;
    const named = endpoints.of(target)?.mailboxes ?? [];
    return named.filter(
      (domain) =>
        domain !== home &&
        (domain === ownDomain ||
          store.mailboxes.node(domain) !== undefined ||
          store.logs.pinned(domain) !== undefined),
    );
  }

  follow(session: Session): void {
    this.#session = session;
    this.soon();
  }

  /** Contacts may have named others. */
  soon(): void {
    const { delayMs } = mailboxNodeLimits;
    this.#plan(delayMs + jitter(this.#parts.runtime.random, delayMs));
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#running;
  }

  #plan(waitMs: number): void {
    if (this.#isStopped) return;
    this.#timer?.cancel();
    const { clock, log } = this.#parts.runtime;
    this.#timer = clock.timer(waitMs, () => {
      this.#running = this.#running
        .then(() => this.#round())
        .catch((error: unknown) => log.error('mailbox nodes', { error: String(error) }))
        .finally(() => this.#plan(mailboxNodeLimits.roundMs));
    });
  }

  async #round(): Promise<void> {
    const { store, runtime, ownDomain, acquaintances, endpoints, onKnown } = this.#parts;
    const { againMs, roundMs, perRound } = mailboxNodeLimits;
    const { clock } = runtime;
    const named = new Set<string>();
    for (const target of (await acquaintances.members()).keys()) {
      for (const domain of endpoints.of(target)?.mailboxes ?? []) named.add(domain);
    }
    named.delete(ownDomain);
    const rests = new Map([...this.#restsUntil].filter(([domain]) => named.has(domain)));
    this.#restsUntil = rests;
    let asked = 0;
    for (const domain of named) {
      const session = this.#session;
      if (this.#isStopped || session === undefined || session.signal.aborted) return;
      if (asked >= perRound) return;
      if ((rests.get(domain) ?? 0) > clock.monotonic()) continue;
      const checkedMs = store.mailboxes.node(domain)?.checkedMs;
      if (checkedMs !== undefined && clock.now() - checkedMs < againMs) continue;
      asked += 1;
      const record = await nodeRecordOf(domain, session, { store, clock });
      rests.set(domain, clock.monotonic() + roundMs);
      if (record === undefined || this.#isStopped) continue;
      store.transaction(() => store.mailboxes.putNode(domain, record, clock.now()));
      runtime.log.debug('mailbox node known', { domain });
      onKnown();
    }
  }
}
