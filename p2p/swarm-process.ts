/**
 * The process of a node's swarm: forked by supervised-swarm.ts, it does what startNodeSwarm does and
 * hands everything that needs the node over the channel. It holds the swarm's key and no other.
 */
import { systemClock, systemRandom, type Log, type Runtime } from '@quicprochat/proto';
import { ownBytes, PortRpc, processPort } from '@quicprochat/proto/transport/port';
import type { Verdict } from './libp2p-gossip.ts';
import type { RelayServerOptions } from './libp2p-relay-server.ts';
import { startNodeSwarm } from './node-swarm.ts';
import { loadSwarmKey } from './swarm-key.ts';
import type { GossipTopic, NodeSwarm, PullAnswer, SwarmPeer } from './swarm-of-node.ts';

/** What the process is started with. */
export interface SwarmStart {
  /** Secret; wiped after use on both sides. */
  readonly seed: Uint8Array;
  readonly listen: readonly string[];
  readonly relays: boolean;
  readonly relayLimits: Partial<Omit<RelayServerOptions, 'mayReserve'>>;
}
export interface GossipBody {
  readonly topic: GossipTopic;
  readonly from: string;
  readonly bytes: Uint8Array;
}
export interface PullBody {
  readonly peerId: string;
  readonly methodId: number;
  readonly payload: Uint8Array;
}
export interface PeerBody {
  readonly peerId: string;
  readonly isUp: boolean;
}
export interface LogBody {
  readonly level: keyof Log;
  readonly event: string;
  readonly fields: Parameters<Log['info']>[1];
}

if (process.send === undefined) throw new Error('swarm-process.ts is forked, never run');
// Nobody would ever stop it.
process.once('disconnect', () => process.exit(0));
// A signal to the whole group is for the node to act on.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

const rpc = new PortRpc(processPort(process));
const tell =
  (level: keyof Log): Log[keyof Log] =>
  (event, fields) => {
    const body: LogBody = { level, event, fields };
    rpc.notify('log', body);
  };
const runtime: Runtime = {
  clock: systemClock,
  random: systemRandom,
  log: { debug: tell('debug'), info: tell('info'), warn: tell('warn'), error: tell('error') },
};
// One connection's fault inside the engine must not end the others.
process.on('unhandledRejection', (error) => {
  runtime.log.warn('p2p.process.rejection', { error: String(error) });
});

/** Messages that the node judges at a time; what is above is a hint less, and pulls bring it. */
const judgedMax = 64;
let judged = 0;

let swarm: NodeSwarm | undefined;
function running(): NodeSwarm {
  if (swarm === undefined) throw new Error('the swarm has not started');
  return swarm;
}

rpc.onRequest('start', async (body) => {
  const { seed, ...options } = body as SwarmStart;
  const key = loadSwarmKey(seed);
  seed.fill(0);
  swarm = await startNodeSwarm(
    { key, runtime, ...options },
    {
      onPeer(peerId, isUp) {
        const peer: PeerBody = { peerId, isUp };
        rpc.notify('peer', peer);
      },
      onGossip: async (topic, from, bytes) => {
        if (judged >= judgedMax) return 'ignore';
        judged += 1;
        const gossip: GossipBody = { topic, from, bytes: ownBytes(bytes) };
        try {
          return (await rpc.request('gossip', gossip)) as Verdict;
        } finally {
          judged -= 1;
        }
      },
      onPull: (peerId, methodId, payload) => {
        const pull: PullBody = { peerId, methodId, payload: ownBytes(payload) };
        return rpc.request('pull', pull) as Promise<PullAnswer>;
      },
      mayReserve: (peerId) => rpc.request('may-reserve', peerId) as Promise<boolean>,
    },
  );
});
rpc.onRequest('set-peers', (body) => running().setPeers(body as readonly SwarmPeer[]));
rpc.onRequest('publish', (body) => {
  const { topic, bytes } = body as Pick<GossipBody, 'topic' | 'bytes'>;
  return running().publish(topic, bytes);
});
rpc.onRequest('pull', (body) => {
  const { peerId, methodId, payload } = body as PullBody;
  return running().pull(peerId, methodId, payload);
});
rpc.onRequest('addresses', () => running().addresses());
rpc.onRequest('stats', () => running().stats());
rpc.onRequest('stop', () => swarm?.[Symbol.asyncDispose]());
