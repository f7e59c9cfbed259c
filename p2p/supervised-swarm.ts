/**
 * A node's swarm in a process of its own (docs/decisions/0012): started, watched and started again,
 * with the peers that it had, when it ends, hangs or grows too large. The node goes on without it
 * meanwhile: gossip is a hint, relays are asked again by who needs them.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { jitter, TransportError, type Timer } from '@quicprochat/proto';
import { inTime, onGone, ownBytes, PortRpc, processPort } from '@quicprochat/proto/transport/port';
import type {
  GossipTopic,
  NodeSwarm,
  NodeSwarmEvents,
  NodeSwarmOptions,
  PullAnswer,
  SwarmPeer,
  SwarmStats,
} from './swarm-of-node.ts';
import type { GossipBody, LogBody, PeerBody, PullBody, SwarmStart } from './swarm-process.ts';

export const supervisorLimits = {
  /** Time to bind and start (ms). */
  startMs: 20_000,
  /** Between two looks at its memory, which it has to answer (ms). */
  lookMs: 30_000,
  answerMs: 15_000,
  /** Resident memory above which it is started anew (bytes). */
  rssBytesMax: 1024 * 1024 * 1024,
  /** Time to stop before it is killed (ms). */
  stopMs: 5_000,
  /** Pause before it is started again, doubled each time up to the second (ms). */
  pauseMs: 1_000,
  pauseMaxMs: 60_000,
  /** It ran that long: the next pause is the first again (ms). */
  steadyMs: 5 * 60_000,
} as const;

interface Running {
  readonly child: ChildProcess;
  readonly rpc: PortRpc;
  readonly exited: Promise<void>;
}

export class SupervisedSwarm implements NodeSwarm {
  readonly #options: NodeSwarmOptions;
  readonly #events: NodeSwarmEvents;
  readonly #rssBytesMax: number;
  readonly #up = new Set<string>();
  #peers: readonly SwarmPeer[] = [];
  #running: Running | undefined;
  #isStarted = false;
  #timer: Timer | undefined;
  #look: Timer | undefined;
  #restarts = 0;
  #startedMs = 0;
  #isStopping = false;

  /**
   * Starts it. Throws TransportError `unreachable` when it cannot bind, `timeout` when it does not
   * start: a configuration that cannot work is told at the start, not retried.
   */
  static async start(
    options: NodeSwarmOptions,
    events: NodeSwarmEvents,
    limits: { readonly rssBytesMax?: number } = {},
  ): Promise<SupervisedSwarm> {
    const swarm = new SupervisedSwarm(options, events, limits.rssBytesMax);
    await swarm.#start();
    return swarm;
  }

  private constructor(
    options: NodeSwarmOptions,
    events: NodeSwarmEvents,
    rssBytesMax: number = supervisorLimits.rssBytesMax,
  ) {
    this.#options = options;
    this.#events = events;
    this.#rssBytesMax = rssBytesMax;
  }

  /** How often it had to be started again. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Process id of the swarm; undefined while there is none. */
  get pid(): number | undefined {
    return this.#running?.child.pid;
  }

  async setPeers(peers: readonly SwarmPeer[]): Promise<void> {
    this.#peers = peers;
    // One that is being started gets them at the end of its start.
    if (this.#isStarted) await this.#running?.rpc.request('set-peers', peers);
  }

  async publish(topic: GossipTopic, bytes: Uint8Array): Promise<number> {
    return (await this.#ask('publish', { topic, bytes: ownBytes(bytes) })) as number;
  }

  async pull(peerId: string, methodId: number, payload: Uint8Array): Promise<PullAnswer> {
    const body: PullBody = { peerId, methodId, payload: ownBytes(payload) };
    return (await this.#ask('pull', body)) as PullAnswer;
  }

  async addresses(): Promise<readonly string[]> {
    return (await this.#ask('addresses', undefined)) as readonly string[];
  }

  async stats(): Promise<SwarmStats> {
    return (await this.#ask('stats', undefined)) as SwarmStats;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopping = true;
    this.#timer?.cancel();
    this.#look?.cancel();
    const running = this.#running;
    if (running === undefined) return;
    const kill = this.#options.runtime.clock.timer(supervisorLimits.stopMs, () =>
      running.child.kill('SIGKILL'),
    );
    try {
      await running.rpc.request('stop', undefined);
      running.child.disconnect();
    } catch {
      // It went away by itself, or hangs: then it is killed.
    }
    await running.exited;
    kill.cancel();
  }

  async #ask(name: string, body: unknown): Promise<unknown> {
    if (this.#running === undefined || !this.#isStarted) {
      throw new TransportError('closed', 'the swarm is not running');
    }
    return this.#running.rpc.request(name, body);
  }

  async #start(): Promise<void> {
    const running = this.#fork();
    this.#running = running;
    const { key, listen, relays, relayLimits = {}, runtime } = this.#options;
    const seed = key.seed();
    const start: SwarmStart = { seed, listen, relays, relayLimits };
    const begin = async (): Promise<void> => {
      await running.rpc.request('start', start);
      let told: readonly SwarmPeer[] | undefined;
      while (told !== this.#peers) {
        told = this.#peers;
        await running.rpc.request('set-peers', told);
      }
    };
    try {
      await inTime(runtime.clock, supervisorLimits.startMs, 'the swarm', begin());
      this.#isStarted = true;
    } catch (error) {
      running.child.kill('SIGKILL');
      await running.exited;
      throw error;
    } finally {
      seed.fill(0);
    }
    this.#startedMs = runtime.clock.monotonic();
    this.#planLook(running);
  }

  #fork(): Running {
    const file = import.meta.url.endsWith('.ts') ? './swarm-process.ts' : './swarm-process.js';
    const child = fork(fileURLToPath(new URL(file, import.meta.url)), {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // Options of this process (a profiler, a test runner) are not meant for it.
      execArgv: [],
    });
    const rpc = new PortRpc(processPort(child));
    const { log } = this.#options.runtime;
    rpc.onNotice('log', (body) => {
      const { level, event, fields } = body as LogBody;
      log[level](event, fields);
    });
    rpc.onNotice('peer', (body) => {
      const { peerId, isUp } = body as PeerBody;
      this.#peerChanged(peerId, isUp);
    });
    rpc.onRequest('gossip', (body) => {
      const { topic, from, bytes } = body as GossipBody;
      return this.#events.onGossip(topic, from, bytes);
    });
    rpc.onRequest('pull', (body) => {
      const { peerId, methodId, payload } = body as PullBody;
      return this.#events.onPull(peerId, methodId, payload);
    });
    rpc.onRequest('may-reserve', (body) => this.#events.mayReserve(String(body)));
    child.on('error', (error) => log.error('p2p process', { error: String(error) }));
    const exited = new Promise<void>((resolve) => {
      onGone(child, (code, signal) => {
        rpc.lose(new TransportError('closed', 'the swarm has ended'));
        resolve();
        this.#exited(rpc, code, signal);
      });
    });
    return { child, rpc, exited };
  }

  #peerChanged(peerId: string, isUp: boolean): void {
    if (!isUp && !this.#up.has(peerId)) return;
    if (isUp) this.#up.add(peerId);
    else this.#up.delete(peerId);
    this.#events.onPeer(peerId, isUp);
  }

  #exited(rpc: PortRpc, code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#running?.rpc !== rpc) return;
    this.#running = undefined;
    this.#isStarted = false;
    this.#look?.cancel();
    for (const peerId of this.#up) this.#peerChanged(peerId, false);
    // A first start that fails is the caller's to hear of.
    if (this.#isStopping || this.#startedMs === 0) return;
    const { clock, log, random } = this.#options.runtime;
    const { steadyMs, pauseMs, pauseMaxMs } = supervisorLimits;
    const isSteady = clock.monotonic() - this.#startedMs >= steadyMs;
    const boundMs = isSteady ? pauseMs : Math.min(pauseMaxMs, pauseMs * 2 ** this.#failures);
    this.#failures = isSteady ? 1 : Math.min(this.#failures + 1, 16);
    log.error('p2p process ended', { code: code ?? undefined, signal: signal ?? undefined });
    this.#timer = clock.timer(jitter(random, boundMs + 1), () => void this.#restart());
  }
  #failures = 0;

  async #restart(): Promise<void> {
    if (this.#isStopping) return;
    this.#restarts += 1;
    try {
      await this.#start();
    } catch (error) {
      // Its end has planned the next try.
      this.#options.runtime.log.error('p2p process does not start', { error: String(error) });
    }
  }

  /** A process that does not answer, or grew too large, is ended; that starts it anew. */
  #planLook(running: Running): void {
    const { clock, log } = this.#options.runtime;
    this.#look = clock.timer(supervisorLimits.lookMs, () => {
      const stats = running.rpc.request('stats', undefined);
      inTime(clock, supervisorLimits.answerMs, 'the swarm', stats).then(
        (answer) => {
          const { rssBytes } = answer as SwarmStats;
          if (rssBytes <= this.#rssBytesMax) return this.#planLook(running);
          log.error('p2p process is too large', { rssBytes, rssBytesMax: this.#rssBytesMax });
          running.child.kill('SIGKILL');
        },
        () => {
          if (this.#isStopping) return;
          log.error('p2p process hangs', { afterMs: supervisorLimits.answerMs });
          running.child.kill('SIGKILL');
        },
      );
    });
  }
}
