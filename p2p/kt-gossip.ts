/**
 * Heads, cosignatures and evidence of key logs between nodes, over a swarm: the carrier of the bytes
 * that method 916 carries over federation links. Gossip is the hint, pulls are the truth: after every
 * connection and from time to time each peer is asked for its heads of every log. What the bytes mean
 * is for the node behind `KtGossipNode`.
 */
import {
  errorFromWire,
  errorToWire,
  InvalidArgumentError,
  jitter,
  methods,
  ResourceExhaustedError,
  TokenBuckets,
  TransportError,
  UnimplementedError,
  type Rate,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import {
  create,
  ErrorSchema,
  FedKtRequestSchema,
  FedKtResponseSchema,
  fromBinary,
  toBinary,
  type FedKtRequest,
  type FedKtResponse,
  type KtHeadsRequest,
  type KtHeadsResponse,
  type KtHeadsResponseSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import type { Verdict } from './libp2p-gossip.ts';
import {
  gossipTopics,
  type GossipTopic,
  type NodeSwarm,
  type NodeSwarmEvents,
  type PullAnswer,
} from './swarm-of-node.ts';

export const ktGossipLimits = {
  /** Between two rounds of pulls (ms), and how much of it is random. */
  pullMs: 10 * 60_000,
  pullJitterMs: 60_000,
  /** A pull that failed comes again (ms). */
  retryMs: 5_000,
  /** Between two publications of the own newest head (ms). */
  publishMs: 60_000,
  /** Heads that one pull asks for: from the size that is held here on. */
  heads: 16,
  /** Newest evidence that a peer is shown when it connects. */
  evidence: 64,
  /** Questions and evidence of one peer: in a round one for each log, and what it holds. */
  asked: { perSecond: 50, burst: 1_000 } satisfies Rate,
} as const;

/** The node's side: it knows the logs, keeps what is found, and judges. */
export interface KtGossipNode {
  /** Names of the logs that it writes or follows. */
  origins(): readonly string[];
  /** Entries of the log that it has replayed. */
  heldSize(origin: string): Promise<number>;
  /** Newest note of its own log, with cosignatures; undefined while there is none. */
  ownNote(): Promise<Uint8Array | undefined>;
  /** Answers a pull. Throws QpcErrors for what it does not hold. */
  heads(request: KtHeadsRequest): Promise<MessageInitShape<typeof KtHeadsResponseSchema>>;
  /** Compares what a peer holds of a log with what is held here; keeps evidence if they differ. */
  headsShown(from: string, origin: string, shown: KtHeadsResponse): Promise<void>;
  /** A note from the topic. `accept` what is new and true; keeps evidence of a contradiction. */
  noteShown(from: string, note: Uint8Array): Promise<Verdict>;
  /** Evidence from the topic or from a peer: durable before it is accepted. */
  evidenceShown(from: string, evidence: Uint8Array): Promise<Verdict>;
  /** Newest evidence that is held, oldest first. */
  evidence(max: number): Promise<readonly Uint8Array[]>;
}

export class KtGossip implements Disposable {
  readonly #node: KtGossipNode;
  readonly #runtime: Runtime;
  readonly #buckets: TokenBuckets;
  readonly #up = new Set<string>();
  /** Peers that a pull is under way of, and whether another one is due after it. */
  readonly #pulling = new Map<string, boolean>();
  readonly #timers = new Set<Timer>();
  #swarm: NodeSwarm | undefined;
  #isClosed = false;

  constructor(node: KtGossipNode, runtime: Runtime) {
    this.#node = node;
    this.#runtime = runtime;
    this.#buckets = new TokenBuckets(runtime.clock);
  }

  /** What the swarm is started with; `mayReserve` is not gossip's. */
  readonly events: Omit<NodeSwarmEvents, 'mayReserve'> = {
    onPeer: (peerId, isUp) => this.#onPeer(peerId, isUp),
    onGossip: (topic, from, bytes) => this.#judge(topic, from, bytes),
    onPull: (from, methodId, payload) => this.#answer(from, methodId, payload),
  };

  start(swarm: NodeSwarm): void {
    this.#swarm = swarm;
    for (const peerId of this.#up) this.#want(peerId);
    this.#planPublish();
    this.#planPulls();
  }

  /** Peers that are connected. */
  get up(): ReadonlySet<string> {
    return this.#up;
  }

  /** The own log has a new head: told at once. */
  async publishHead(): Promise<void> {
    const note = await this.#node.ownNote();
    if (note !== undefined) await this.#publish('qpc/kt/1', note);
  }

  /** Evidence that is durable here: told at once, to everybody. */
  async publishEvidence(evidence: Uint8Array): Promise<void> {
    const isSmall = evidence.length <= gossipTopics['qpc/kt-evidence/1'];
    if (isSmall) await this.#publish('qpc/kt-evidence/1', evidence);
    // A peer answers that it has it; the topic does not. Larger evidence travels only so.
    await Promise.all([...this.#up].map((peerId) => this.#show(peerId, evidence)));
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  async #publish(topic: GossipTopic, bytes: Uint8Array): Promise<void> {
    try {
      if (bytes.length <= gossipTopics[topic]) await this.#swarm?.publish(topic, bytes);
    } catch (error) {
      this.#runtime.log.debug('p2p publish', { topic, error: String(error) });
    }
  }

  async #judge(topic: GossipTopic, from: string, bytes: Uint8Array): Promise<Verdict> {
    try {
      return topic === 'qpc/kt/1'
        ? await this.#node.noteShown(from, bytes)
        : await this.#node.evidenceShown(from, bytes);
    } catch (error) {
      // Of this side, not of the message.
      this.#runtime.log.warn('p2p gossip', { topic, error: String(error) });
      return 'ignore';
    }
  }

  async #answer(from: string, methodId: number, payload: Uint8Array): Promise<PullAnswer> {
    try {
      const retryAfterMs = this.#buckets.take(from, ktGossipLimits.asked);
      if (retryAfterMs > 0) {
        throw new ResourceExhaustedError('RATE_LIMITED', 'too many questions', { retryAfterMs });
      }
      if (methodId !== methods.fedKt.id) {
        throw new UnimplementedError(`method ${methodId} is not pulled`);
      }
      const op = await this.#answerTo(from, decodeRequest(payload));
      const answer = create(FedKtResponseSchema, { op });
      return { status: 0, payload: toBinary(FedKtResponseSchema, answer) };
    } catch (error) {
      const { log, random } = this.#runtime;
      const [status, wire] = errorToWire(error, { log, random, method: 'p2p pull' });
      return { status, payload: wire };
    }
  }

  async #answerTo(
    from: string,
    { op }: FedKtRequest,
  ): Promise<NonNullable<MessageInitShape<typeof FedKtResponseSchema>['op']>> {
    switch (op.case) {
      case 'heads':
        return { case: 'heads', value: await this.#node.heads(op.value) };
      case 'evidence': {
        const verdict = await this.#node.evidenceShown(from, op.value.evidence);
        if (verdict === 'reject')
          throw new InvalidArgumentError('BAD_FIELD', 'evidence of nothing');
        return { case: 'evidence', value: {} };
      }
      default:
        throw new UnimplementedError('only heads and evidence travel here');
    }
  }

  #onPeer(peerId: string, isUp: boolean): void {
    if (isUp) {
      this.#up.add(peerId);
      this.#want(peerId);
    } else this.#up.delete(peerId);
  }

  /** A pull soon: one of a peer at a time. */
  #want(peerId: string): void {
    if (this.#swarm === undefined || this.#isClosed) return;
    if (this.#pulling.has(peerId)) {
      this.#pulling.set(peerId, true);
      return;
    }
    this.#pulling.set(peerId, false);
    void this.#pull(peerId).then((isDone) => {
      const isDue = this.#pulling.get(peerId) === true;
      this.#pulling.delete(peerId);
      if (!this.#up.has(peerId)) return;
      if (isDue) this.#want(peerId);
      else if (!isDone) this.#after(ktGossipLimits.retryMs, () => this.#want(peerId));
    });
  }

  /** Asks for heads of every log, then shows what evidence there is. True when all was answered. */
  async #pull(peerId: string): Promise<boolean> {
    const { log } = this.#runtime;
    let isDone = true;
    for (const origin of this.#node.origins()) {
      try {
        const fromSize = BigInt(Math.max(1, await this.#node.heldSize(origin)));
        const op = {
          case: 'heads' as const,
          value: { origin, fromSize, max: ktGossipLimits.heads },
        };
        const answer = await this.#ask(peerId, op);
        if (answer.op.case !== 'heads') throw new TransportError('protocol', 'no heads');
        await this.#node.headsShown(peerId, origin, answer.op.value);
      } catch (error) {
        // A log that the peer does not follow is no fault of it.
        if (error instanceof TransportError) isDone = false;
        log.debug('p2p pull', { peer: peerId, origin, error: String(error) });
      }
    }
    for (const evidence of await this.#node.evidence(ktGossipLimits.evidence)) {
      if (!(await this.#show(peerId, evidence))) isDone = false;
    }
    return isDone;
  }

  /** False when the peer did not answer; it may have it all the same. */
  async #show(peerId: string, evidence: Uint8Array): Promise<boolean> {
    try {
      await this.#ask(peerId, { case: 'evidence', value: { evidence } });
    } catch (error) {
      this.#runtime.log.debug('p2p evidence', { peer: peerId, error: String(error) });
      return !(error instanceof TransportError);
    }
    return true;
  }

  async #ask(
    peerId: string,
    op: NonNullable<MessageInitShape<typeof FedKtRequestSchema>['op']>,
  ): Promise<FedKtResponse> {
    if (this.#swarm === undefined) throw new TransportError('closed', 'no swarm yet');
    const request = toBinary(FedKtRequestSchema, create(FedKtRequestSchema, { op }));
    const { status, payload } = await this.#swarm.pull(peerId, methods.fedKt.id, request);
    try {
      if (status === 0) return fromBinary(FedKtResponseSchema, payload);
    } catch (cause) {
      throw new TransportError('protocol', 'the answer is no FedKtResponse', { cause });
    }
    throw errorFromWire(status, fromBinary(ErrorSchema, payload));
  }

  #planPublish(): void {
    this.#after(ktGossipLimits.publishMs, () => {
      void this.publishHead().catch((error: unknown) =>
        this.#runtime.log.warn('p2p publish', { error: String(error) }),
      );
      this.#planPublish();
    });
  }

  #planPulls(): void {
    const { pullMs, pullJitterMs } = ktGossipLimits;
    this.#after(pullMs + jitter(this.#runtime.random, pullJitterMs), () => {
      for (const peerId of this.#up) this.#want(peerId);
      this.#planPulls();
    });
  }

  #after(ms: number, work: () => void): void {
    if (this.#isClosed) return;
    const timer = this.#runtime.clock.timer(ms, () => {
      this.#timers.delete(timer);
      work();
    });
    this.#timers.add(timer);
  }
}

function decodeRequest(payload: Uint8Array): FedKtRequest {
  try {
    return fromBinary(FedKtRequestSchema, payload);
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'request is no FedKt', { cause });
  }
}
