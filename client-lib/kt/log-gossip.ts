/**
 * What nodes and members have heard of the logs that this device relies on (docs/developer/verification.md):
 * evidence that others found, heads to compare with what was shown here, cosignatures that the log itself
 * did not bring. Nothing is believed that does not prove itself; what convicts a log is passed on to the
 * members of conversations with its users, over whatever reaches them.
 */
import { createHash } from 'node:crypto';
import { ForkError, VerificationError } from '@quicprochat/kt-log/verify';
import { decodeEvidence, manifestRule } from '@quicprochat/kt-log';
import {
  hasReason,
  maxKtHeardLogs,
  methods,
  parseUserId,
  QpcError,
  type Runtime,
  hex,
} from '@quicprochat/proto';
import type { KtHeard } from '@quicprochat/proto/messages';
import { contentLimits, type ContentExtras } from '../content.ts';
import type { Extra } from '../sending/extras.ts';
import type { Caller } from '../dial.ts';
import type { ClientStore } from '../store/store.ts';
import { LogError } from './log-record.ts';
import type { DomainLog, Logs } from './logs.ts';

export const logGossipLimits = {
  /** Pieces of evidence that are fetched of one log: one convicts it. */
  evidencePerLog: 2,
  /** The largest that is fetched (bytes); an operator's tools take more. */
  evidenceBytes: 4 * 1024 * 1024,
} as const;

export interface LogGossipParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly logs: Logs;
  /** A log contradicts itself, or another breach of it is proven. */
  readonly onConvicted: (domain: string, error: QpcError) => void;
  /** Conversations have something to be told. */
  readonly onDue: () => void;
}

/** Marks of what was told, among the events of the store. */
const told = 'convictionTold';

export class LogGossip implements Extra {
  readonly #parts: LogGossipParts;
  /** Largest signed size that others hold, by domain. */
  readonly #heardSizes = new Map<string, number>();

  constructor(parts: LogGossipParts) {
    this.#parts = parts;
  }

  /** Entries of the newest checkpoint that others showed; 0: none did. */
  heardSize(domain: string): number {
    return this.#heardSizes.get(domain) ?? 0;
  }

  /**
   * Asks a node what it has heard of these logs (all that are relied on, unless told). Throws what the
   * call throws, and nothing for what the node says.
   */
  async ask(caller: Caller, domains = this.#parts.logs.domains()): Promise<void> {
    const { logs } = this.#parts;
    const known = domains.flatMap((domain) => logs.known(domain) ?? []).slice(0, maxKtHeardLogs);
    if (known.length === 0) return;
    const answer = await caller.call(methods.ktHeard, {
      logs: known.map(({ client }) => ({
        origin: client.origin,
        size: BigInt(client.head()?.size ?? 0),
      })),
    });
    for (const heard of answer.logs) {
      const log = known.find(({ client }) => client.origin === heard.origin);
      if (log !== undefined) await this.#take(log, heard, caller);
    }
  }

  async #take(log: DomainLog, heard: KtHeard, caller: Caller): Promise<void> {
    const { domain, client } = log;
    const { head, checkpoint } = heard;
    this.#judged(domain, () => {
      if (head !== undefined) client.heard.head({ ...head, size: Number(head.size) });
    });
    this.#judged(domain, () => {
      if (checkpoint.length === 0) return;
      const { size } = client.heard.note(checkpoint);
      this.#heardSizes.set(domain, Math.max(size, this.heardSize(domain)));
    });
    if (client.evidence().length > 0) return;
    for (const hash of heard.evidence.slice(0, logGossipLimits.evidencePerLog)) {
      const evidence = await fetchEvidence(caller, hash);
      if (hex(sha256(evidence)) === hex(hash)) this.#convict(log, evidence);
    }
  }

  /** Evidence that a member passed on, in a conversation that has it now. */
  passedOn(evidence: readonly Uint8Array[], conversationId: Uint8Array): void {
    for (const bytes of evidence) {
      try {
        const { origin } = decodeEvidence(sha256, bytes);
        const log = this.#convictable(origin);
        if (log === undefined) continue;
        this.#convict(log, bytes);
        // Whoever is in that conversation has it, if it is worth anything.
        if (log.client.evidence().length > 0) this.#mark(conversationId, log.domain);
      } catch (error) {
        if (!(error instanceof VerificationError)) throw error;
        this.#parts.runtime.log.info('evidence of a member is refused', { reason: error.reason });
      }
    }
  }

  #convictable(origin: string): DomainLog | undefined {
    const { logs } = this.#parts;
    return logs
      .domains()
      .flatMap((domain) => logs.known(domain) ?? [])
      .find(({ client }) => client.origin === origin);
  }

  #convict({ domain, client }: DomainLog, evidence: Uint8Array): void {
    this.#judged(domain, () => {
      if (!client.heard.evidence(evidence, manifestRule)) return;
      const message = 'others hold evidence that it contradicted itself';
      throw new LogError('LOG_CONVICTED', domain, message);
    });
  }

  #judged(domain: string, judge: () => void): void {
    try {
      judge();
    } catch (error) {
      const isProof = error instanceof ForkError || hasReason(error, 'LOG_CONVICTED');
      if (isProof) {
        this.#parts.onConvicted(domain, error);
        this.#parts.onDue();
      } else if (error instanceof QpcError) {
        // Not signed by the log: it accuses nobody but who said it.
        const { reason } = error;
        this.#parts.runtime.log.info('what was heard of a log is refused', { domain, reason });
      } else throw error;
    }
  }

  // Extra
  next(conversationId: Uint8Array, members: readonly string[]): ContentExtras | undefined {
    const domains = new Set(members.map((member) => parseUserId(member).domain));
    const convictions = this.#untold(conversationId)
      .filter(({ domain }) => domains.has(domain))
      .map(({ evidence }) => evidence)
      .slice(0, contentLimits.convictions);
    return convictions.length === 0 ? undefined : { convictions };
  }

  mark(conversationId: Uint8Array): void {
    for (const { domain } of this.#untold(conversationId)) this.#mark(conversationId, domain);
  }

  due(): readonly Uint8Array[] {
    const ids = this.#parts.store.groups.conversations().map(({ id }) => id);
    return ids.filter((id) => this.#untold(id).length > 0);
  }

  /** Evidence that the conversation was not told of, a small piece for each log. */
  #untold(id: Uint8Array): readonly { readonly domain: string; readonly evidence: Uint8Array }[] {
    const { logs, store } = this.#parts;
    return logs.domains().flatMap((domain) => {
      if (store.logs.hasEvent(told, hex(id), domain)) return [];
      const kept = logs.known(domain)?.client.evidence() ?? [];
      const evidence = kept.find(({ length }) => length <= contentLimits.convictionBytes);
      return evidence === undefined ? [] : [{ domain, evidence }];
    });
  }

  #mark(conversationId: Uint8Array, domain: string): void {
    const { store, runtime } = this.#parts;
    const atMs = runtime.clock.now();
    store.logs.addEvent({ atMs, type: told, subject: hex(conversationId), reason: domain });
  }
}

const sha256 = (bytes: Uint8Array): Uint8Array =>
  new Uint8Array(createHash('sha256').update(bytes).digest());

/** By pages, as far as it is fetched at all: what a node says of the whole is believed for that alone. */
async function fetchEvidence(caller: Caller, hash: Uint8Array): Promise<Uint8Array> {
  const pages: Uint8Array[] = [];
  for (let have = 0; ;) {
    const answer = await caller.call(methods.ktEvidence, { hash, offset: BigInt(have) });
    const { evidence, total } = answer;
    have += evidence.length;
    pages.push(evidence);
    // A node of before has no pages, and says no total.
    const isEnd = evidence.length === 0 || have >= total;
    const isTooLarge = Math.max(have, Number(total)) > logGossipLimits.evidenceBytes;
    if (isEnd || isTooLarge) return Buffer.concat(pages);
  }
}
