/**
 * What peers gossip, for the audits of this node: heads and notes are compared with what the
 * followers hold, evidence goes to the relay of evidence. The swarm is only another carrier of what
 * links of federation carry (docs/protocol/p2p.md); judgements are the same.
 */
import {
  decodeEvidence,
  isConvicted,
  nativeSuite,
  parseCheckpoint,
  parseNote,
  VerificationError,
  type AuditStore,
  type Follower,
  type Observation,
} from '@quicprochat/kt-log';
import { InvalidArgumentError, TokenBuckets, type Rate, type Runtime } from '@quicprochat/proto';
import type {
  KtHeadsRequest,
  KtHeadsResponse,
  KtHeadsResponseSchema,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import type { KtGossipNode, Verdict } from '@quicprochat/p2p';
import type { EvidenceRelay } from './evidence-relay.ts';
import { headFromWire } from './link-source.ts';

/** Notes that one peer may hand on; each costs a signature's check or two. */
const notesPerPeer: Rate = { perSecond: 20, burst: 200 };

export interface GossipNodeOptions {
  readonly store: AuditStore;
  readonly runtime: Runtime;
  /** Logs that are followed here; the own one is not among them. */
  readonly origins: () => readonly string[];
  readonly followerOf: (origin: string) => Follower | undefined;
  readonly evidence: Pick<EvidenceRelay, 'shown'>;
  /** Domain of a peer id; undefined for one that is not a peer any more. */
  readonly domainOf: (peerId: string) => string | undefined;
  /** There is more of the log than was replayed. */
  readonly want: (origin: string) => void;
  readonly ownOrigin: string;
  readonly ownSize: () => number;
  readonly ownNote: () => Promise<Uint8Array | undefined>;
  /** Looks whether a head or note of the own log is one that it lacks. */
  readonly ownShown: (domain: string, shown: KtHeadsResponse) => Promise<void>;
  readonly heads: (
    request: KtHeadsRequest,
  ) => Promise<MessageInitShape<typeof KtHeadsResponseSchema>>;
}

export class GossipNode implements KtGossipNode {
  readonly #options: GossipNodeOptions;
  readonly #buckets: TokenBuckets;
  /** Largest size of a note that was passed on, by log. */
  readonly #passed = new Map<string, number>();

  constructor(options: GossipNodeOptions) {
    this.#options = options;
    this.#buckets = new TokenBuckets(options.runtime.clock);
  }

  origins(): readonly string[] {
    return [this.#options.ownOrigin, ...this.#options.origins()];
  }

  async heldSize(origin: string): Promise<number> {
    const { store, ownOrigin, ownSize } = this.#options;
    if (origin === ownOrigin) return ownSize();
    return (await store.followed(origin))?.size ?? 0;
  }

  ownNote(): Promise<Uint8Array | undefined> {
    return this.#options.ownNote();
  }

  heads(request: KtHeadsRequest): Promise<MessageInitShape<typeof KtHeadsResponseSchema>> {
    return this.#options.heads(request);
  }

  async evidence(max: number): Promise<readonly Uint8Array[]> {
    const held = await this.#options.store.evidence();
    return held.slice(-max).map(({ bytes }) => bytes);
  }

  async headsShown(from: string, origin: string, shown: KtHeadsResponse): Promise<void> {
    const { domainOf, followerOf, ownOrigin, ownShown } = this.#options;
    const domain = domainOf(from);
    if (domain === undefined) return;
    const follower = followerOf(origin);
    if (follower === undefined || (await this.#isJudged(origin))) return;
    try {
      if (origin === ownOrigin) return await ownShown(domain, shown);
      for (const wire of shown.heads) {
        const head = headFromWire(wire);
        if (this.#isOver(origin, await follower.observe({ type: 'head', head }))) return;
      }
      if (shown.checkpoint.length > 0) {
        const { checkpoint: note } = shown;
        this.#isOver(origin, await follower.observe({ type: 'note', note }));
      }
    } catch (error) {
      if (!(error instanceof VerificationError)) throw error;
      // It may have been made up by the peer: it accuses nobody.
      const { log } = this.#options.runtime;
      log.warn('heads of a peer are not signed', { peer: domain, origin, error: error.message });
    }
  }

  async noteShown(from: string, note: Uint8Array): Promise<Verdict> {
    const { followerOf, ownOrigin } = this.#options;
    const isPaid = this.#buckets.take(from, notesPerPeer) === 0;
    if (!isPaid) return 'ignore';
    try {
      const { origin, size } = parseCheckpoint(parseNote(note).text);
      // Of the own log pulls tell more.
      const follower = origin === ownOrigin ? undefined : followerOf(origin);
      if (follower === undefined || (await this.#isJudged(origin))) return 'ignore';
      const observation = await follower.observe({ type: 'note', note });
      if (this.#isOver(origin, observation)) return 'ignore';
      const isNew = size > (this.#passed.get(origin) ?? 0);
      if (isNew) this.#passed.set(origin, size);
      return isNew && observation.type !== 'unknown' ? 'accept' : 'ignore';
    } catch (error) {
      if (error instanceof VerificationError) return 'reject';
      throw error;
    }
  }

  async evidenceShown(from: string, bytes: Uint8Array): Promise<Verdict> {
    const { store, evidence, followerOf, domainOf } = this.#options;
    const domain = domainOf(from);
    if (domain === undefined) return 'ignore';
    try {
      const { origin } = decodeEvidence(nativeSuite.sha256, bytes);
      if (followerOf(origin) === undefined) return 'ignore';
      const hash = nativeSuite.sha256(bytes);
      const held = await store.evidence(origin);
      if (held.some((one) => Buffer.compare(one.hash, hash) === 0)) return 'ignore';
      await evidence.shown(domain, bytes);
      return 'accept';
    } catch (error) {
      const isJunk = error instanceof VerificationError || error instanceof InvalidArgumentError;
      if (isJunk) return 'reject';
      throw error;
    }
  }

  /** A log that is convicted already: there is nothing left to find out. */
  async #isJudged(origin: string): Promise<boolean> {
    return isConvicted(await this.#options.store.status(origin));
  }

  /** True when the log was convicted by it. */
  #isOver(origin: string, { type }: Observation): boolean {
    if (type === 'ahead') this.#options.want(origin);
    return type === 'conflict';
  }
}
