/**
 * An honest node of a simulation: the audits and the gossip of a real node over its disk, in one life
 * after the other. What it keeps is what its disk has when it dies.
 */
import {
  isConvicted,
  MemoryAuditStore,
  MemoryTreeStore,
  type EvidenceRecord,
  type FollowedLog,
  type SignedHead,
} from '@quicprochat/kt-log';
import { fedKtHandlers, NodeInSwarm, PeerAudits } from '@quicprochat/nodes/gossip';
import {
  methods,
  UnimplementedError,
  type Handlers,
  type Log,
  type Method,
} from '@quicprochat/proto';
import type { FedKtRequest } from '@quicprochat/proto/messages';
import type { Dice } from '../cluster/dice.ts';
import type { Scheduler } from '../sim/scheduler.ts';
import { identityOf, openHistory, type History, type Identity } from './histories.ts';
import type { MemberLinks, SimLinks } from './links.ts';
import { answerAboutLog } from './log-answers.ts';
import { Process } from './process.ts';
import type { SimSwarms } from './swarm.ts';

export interface NodeParts {
  readonly scheduler: Scheduler;
  readonly dice: Dice;
  readonly links: SimLinks;
  readonly swarms: SimSwarms;
  readonly log: Log;
}

interface Life {
  readonly process: Process;
  readonly links: MemberLinks;
  readonly own: History;
  readonly audits: PeerAudits;
  swarm: NodeInSwarm | undefined;
}

/** Writes of an audit store: each takes up to so long (ms). */
const writeMaxMs = 4;

export class HonestNode {
  readonly id: Identity;
  readonly peers: readonly string[];
  readonly #parts: NodeParts;
  readonly #disk = new MemoryAuditStore();
  readonly #tree = new MemoryTreeStore();
  #life: Life | undefined;
  /** Lives that ended. */
  deaths = 0;

  constructor(domain: string, peers: readonly string[], parts: NodeParts) {
    this.id = identityOf(domain);
    this.peers = peers;
    this.#parts = parts;
  }

  get isUp(): boolean {
    return this.#life !== undefined;
  }

  /** Peer id of its swarm. */
  get peerId(): string {
    return this.id.swarm.peerId;
  }

  async start(): Promise<void> {
    const { scheduler, dice, links: net, swarms, log } = this.#parts;
    const { domain, secrets, swarm: key } = this.id;
    const process = new Process(scheduler, dice, log);
    const { runtime } = process;
    const audited = process.disk(
      this.#disk,
      ['advance', 'setStatus', 'putHeads', 'putEvidence'],
      () => dice.int(writeMaxMs),
    );
    const links = net.of(domain, this.peers, (from, method, request) =>
      this.#answer(from, method, request),
    );
    const audits = new PeerAudits({ domain, federation: links, store: audited, secrets, runtime });
    const own = await openHistory(this.id, {
      clock: runtime.clock,
      tree: process.disk(this.#tree, [], () => 0),
      mayWrite: () => audits.mayWrite(),
      cosigners: () => audits.forLog(),
    });
    // The record of a node is its log's first entry, before it meets anybody.
    if (own.log.size === 0) await own.append();
    audits.start({
      log: own.log,
      config: this.id.config,
      identity: this.id.identity,
      tree: own.tree,
    });
    const life: Life = { process, links, own, audits, swarm: undefined };
    this.#life = life;
    // Records are on disk since the peers met for the first time.
    for (const peer of this.peers) links.learn(peer);
    life.swarm = await NodeInSwarm.start(
      {
        config: {
          listen: { host: '192.0.2.1', port: 5002 },
          addresses: [],
          isRelay: false,
          reservations: 1,
          guests: { all: 0, perDomain: 0, perUser: 0 },
          rssBytesMax: 2 ** 40,
        },
        key,
        reservers: { mayReserve: () => Promise.resolve(false) },
        federation: links,
        audits,
        log: own.log,
        runtime,
      },
      async (_, events) => swarms.start(key.peerId, events),
    );
    net.start(links);
  }

  kill(): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#life = undefined;
    this.deaths += 1;
    life.process.kill();
    this.#parts.links.leave(this.id.domain);
    this.#parts.swarms.leave(this.peerId);
  }

  /** One entry more in its own log, if it may. */
  append(): void {
    void this.#life?.own.append();
  }

  /** Of its own log, as it is on disk. */
  async ownSize(): Promise<number> {
    return (await this.#tree.newestHead())?.size ?? 0;
  }

  // What is on its disk.
  evidence(): Promise<readonly EvidenceRecord[]> {
    return this.#disk.evidence();
  }
  async isConvicting(origin: string): Promise<boolean> {
    return isConvicted(await this.#disk.status(origin));
  }
  status(origin: string): Promise<string | undefined> {
    return this.#disk.status(origin);
  }
  followed(origin: string): Promise<FollowedLog | undefined> {
    return this.#disk.followed(origin);
  }
  heads(origin: string): Promise<readonly SignedHead[]> {
    return this.#disk.heads(origin, 1, Number.MAX_SAFE_INTEGER);
  }

  async #answer(from: string, method: Method, request: unknown): Promise<Record<string, unknown>> {
    const life = this.#life;
    if (life === undefined) return new Promise<never>(() => undefined);
    return answerOf(life, this.id.domain, from, method, request);
  }
}

/** The handlers of a node as far as peers ask them about logs. */
async function answerOf(
  { own, audits, process }: Life,
  domain: string,
  from: string,
  method: Method,
  request: unknown,
): Promise<Record<string, unknown>> {
  const about = await answerAboutLog(own, method, request);
  if (about !== undefined) return about;
  if (method.id !== methods.fedKt.id) throw new UnimplementedError(method.name);
  const { clock } = process.runtime;
  const { fedKt } = fedKtHandlers({
    ...{ domain, clock, audits },
    answers: {} as never, // nobody looks up users here
    lookups: { perSecond: 1, burst: 1 },
  });
  const context = { caller: { class: 'peer', domain: from } };
  return fedKt(request as FedKtRequest, context as Parameters<Handlers['fedKt']>[1]);
}
