/**
 * A node of the simulation: `startNode` of production with a process, a faulty transport and a store
 * that can crash. It dies and comes back with what its files held, or with an older copy of them.
 */
import { startNode, type NodeConfig, type NodeSecrets, type QpcNode } from '@quicprochat/nodes';
import {
  StoreClient,
  type BatchOutcome,
  type OperationRequest,
} from '@quicprochat/nodes/store/simulation';
import { makePeer } from '@quicprochat/federation';
import { formatNodeAddress } from '@quicprochat/proto';
import type { MemoryNetwork } from '@quicprochat/proto/transport';
import { imageOf, removeFiles, type Disk, type FileImage } from './disk.ts';
import { FaultyTransport, type CallFaults, type FaultyParts } from './network.ts';
import { SimChannel, type NodeCrashPoint } from './node-store.ts';
import { Process, SimRandom, type ClockError, type LogSink } from './process.ts';
import { shortLived } from './short-lives.ts';
import type { Scheduler } from './scheduler.ts';
import type { SimSwarms } from './swarm.ts';
import type { Trace } from './trace.ts';

/** Every host listens on this port of its own. */
export const nodePort = 5001;

/** What does not change while a node comes and goes. */
export interface NodeParts {
  readonly domain: string;
  readonly key: Uint8Array;
  readonly secrets: NodeSecrets;
  readonly config: NodeConfig;
  readonly peers: readonly { readonly domain: string; readonly address: string }[];
}

/** The world around a process. */
export interface Surroundings {
  readonly seed: string;
  readonly scheduler: Scheduler;
  readonly network: MemoryNetwork;
  readonly disk: Disk;
  readonly trace: Trace;
  readonly onLog?: LogSink;
  readonly callFaults: (host: string) => CallFaults;
  readonly commitMs: (host: string, random: SimRandom) => number;
  readonly crashShare: (point: string) => number;
  /** A node answered a client. */
  readonly onAnswer?: FaultyParts['onAnswer'];
  /** Devices deliver to each other while nodes are away; unless told, they wait. */
  readonly swarms?: SimSwarms;
  /** See Mix. */
  readonly ttlMs?: readonly [number, number] | undefined;
  /** See Mix. */
  readonly sealed?: number;
}

export interface NodeObserver {
  committed(
    node: SimNode,
    requests: readonly OperationRequest[],
    outcome: BatchOutcome,
    isReplied: boolean,
  ): void;
  /** A life began over these files. */
  opened(node: SimNode): void;
}

interface Life {
  readonly process: Process;
  readonly path: string;
  readonly channel: SimChannel;
  node: QpcNode | undefined;
}

export class SimNode {
  readonly parts: NodeParts;
  readonly clock: ClockError;
  readonly #around: Surroundings;
  readonly #observer: NodeObserver | undefined;
  #image: FileImage;
  #lives = 0;
  #life: Life | undefined;
  #isForgetful = false;
  readonly #dead: Life[] = [];
  /** Runs when it dies by a fault. */
  onDeath: (point: string) => void = () => {};

  constructor(
    parts: NodeParts,
    image: FileImage,
    around: Surroundings,
    options: { readonly clock?: ClockError; readonly observer?: NodeObserver } = {},
  ) {
    this.parts = parts;
    this.#image = image;
    this.#around = around;
    this.clock = options.clock ?? { offsetMs: 0, rate: 1 };
    this.#observer = options.observer;
  }

  get domain(): string {
    return this.parts.domain;
  }
  get address(): string {
    const pin = this.parts.secrets.identity.spkiSha256;
    return formatNodeAddress({ host: this.domain, port: nodePort, pin });
  }
  get isUp(): boolean {
    return this.#life !== undefined;
  }
  /** Undefined while it is down, starting or stopping. */
  get running(): QpcNode | undefined {
    return this.#life?.node;
  }
  /** The database of this life. Throws while it is down. */
  get path(): string {
    if (this.#life === undefined) throw new Error(`${this.domain} is down`);
    return this.#life.path;
  }
  /**
   * Whether its disk was an older copy, and there may be groups of three hubs in which it did not hear from both others
   * since.
   */
  get isForgetful(): boolean {
    return this.#isForgetful;
  }
  /** As it tells its readers. Throws while it is down. */
  get storeIdHex(): string {
    if (this.#life === undefined) throw new Error(`${this.domain} is down`);
    return Buffer.from(this.#life.channel.storeId).toString('hex');
  }
  /** What its disk holds now. */
  image(): FileImage {
    return this.#life === undefined ? this.#image : imageOf(this.#life.path);
  }

  /** Begins a life. Resolves when the node serves; rejects when it does not start. */
  async start(): Promise<void> {
    if (this.#life !== undefined) return;
    const { domain, key, secrets, config, peers } = this.parts;
    const { seed, scheduler, network, disk, trace, onLog, callFaults, commitMs, ttlMs } =
      this.#around;
    const { swarms } = this.#around;
    this.#lives += 1;
    const random = new SimRandom(seed, domain, this.#lives);
    const process = new Process(domain, scheduler, {
      random,
      clock: this.clock,
      ...(onLog === undefined ? {} : { onLog }),
    });
    const path = disk.place(domain, this.#image);
    const storeRandom = new SimRandom(seed, domain, this.#lives, 'store');
    const channel = new SimChannel({
      path,
      key,
      limits: config.store,
      scheduler,
      process,
      random: storeRandom,
      commitMs: () => commitMs(domain, storeRandom),
      dies: (point) => this.#dies(point, storeRandom),
      mayDie: (point) => this.#around.crashShare(point) > 0,
      ...(ttlMs && {
        changed: (request) => shortLived(request, Math.round(storeRandom.between(...ttlMs))),
      }),
      onCommit: (requests, outcome) => {
        trace.note(domain, 'commit', summary(requests, outcome));
        countCommits(trace, requests, outcome);
        if (hasNothingToLearn(requests, outcome)) this.#isForgetful = false;
        this.#observer?.committed(this, requests, outcome, false);
      },
      onReply: (requests, outcome) => this.#observer?.committed(this, requests, outcome, true),
    });
    const life: Life = { process, path, channel, node: undefined };
    this.#life = life;
    trace.note(domain, 'starts', String(this.#lives));
    this.#observer?.opened(this);
    const transport = new FaultyTransport({
      network,
      process,
      host: domain,
      random: new SimRandom(seed, domain, this.#lives, 'calls'),
      trace,
      faults: () => callFaults(domain),
    });
    const node = await startNode({
      config,
      secrets,
      store: new StoreClient(channel),
      peers: {
        peers: peers.map((peer) => makePeer(peer.domain, [peer.address])),
        deniedDomains: [],
        deniedPins: [],
      },
      transport,
      runtime: process.runtime,
      software: 'sim',
      ...(swarms && {
        startSwarm: (options, events) => swarms.startNode(domain, process, options, events),
      }),
    });
    if (!process.isDead) life.node = node;
  }

  /** An orderly stop. */
  async stop(): Promise<void> {
    const life = this.#life;
    if (life === undefined) return;
    const { node } = life;
    // It may take its time: nobody stops it a second time meanwhile.
    life.node = undefined;
    await node?.stop();
    await life.channel.close();
    // Killed meanwhile: the next life has begun on what was on the disk then.
    if (this.#life !== life) return;
    this.#image = imageOf(life.path);
    life.process.die();
    this.#life = undefined;
    removeFiles(life.path);
  }

  /** SIGKILL: what was written stays, nothing else happens. */
  kill(point: string): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#image = imageOf(life.path);
    this.#life = undefined;
    this.#dead.push(life);
    life.process.die();
    this.#around.network.crash(this.domain);
    this.#around.trace.fault(point, this.domain);
    this.onDeath(point);
  }

  /**
   * The disk is another one when the node starts next: an older image. `keepsCounter`: the file beside
   * the database stays, as when somebody copies the database back.
   */
  restore(image: FileImage, keepsCounter: boolean): void {
    if (this.#life !== undefined) throw new Error(`${this.domain} is up`);
    const restored = new Map(image);
    const counter = this.#image.get('-commits');
    if (keepsCounter && counter !== undefined) restored.set('-commits', counter);
    else restored.delete('-commits');
    this.#image = restored;
    this.#isForgetful = true;
  }

  /** Frees the files of all lives; nothing may run any more. */
  dispose(): void {
    if (this.#life !== undefined) this.#dead.push(this.#life);
    this.#life = undefined;
    for (const { process, channel } of this.#dead) {
      process.die();
      channel.abandon();
    }
  }

  #dies(point: NodeCrashPoint, random: SimRandom): boolean {
    const life = this.#life;
    if (life === undefined) return true;
    if (!random.chance(this.#around.crashShare(point))) return false;
    this.kill(`crash:${point}`);
    return true;
  }
}

function summary(requests: readonly OperationRequest[], outcome: BatchOutcome): string {
  return requests
    .map(({ name }, index) => {
      const one = outcome.outcomes[index];
      return one?.isOk === true ? name : `${name}!${one?.error.reason}`;
    })
    .join(' ');
}

/** At a hub of one, and at the leader of three. */
const accepting: ReadonlySet<string> = new Set(['submitCommit', 'acceptPrepared']);

function countCommits(
  { commits }: Trace,
  requests: readonly OperationRequest[],
  { outcomes }: BatchOutcome,
): void {
  for (const [index, one] of outcomes.entries()) {
    if (one.isOk) commits.accepted += accepting.has(requests[index]?.name ?? '') ? 1 : 0;
    else if (one.error.reason === 'EPOCH_CONFLICT') commits.lost += 1;
  }
}

/** It asked its store in which groups it forgot something, from the first on, and there was none. */
function hasNothingToLearn(requests: readonly OperationRequest[], outcome: BatchOutcome): boolean {
  return requests.some(({ name, args }, index) => {
    const one = outcome.outcomes[index];
    if (name !== 'learnerGroups' || one?.isOk !== true) return false;
    const [after] = args;
    return after.length === 0 && Array.isArray(one.value) && one.value.length === 0;
  });
}
