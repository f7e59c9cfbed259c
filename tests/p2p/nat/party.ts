/** A process of tests/p2p/nat in one namespace: a device, a relay or a node, told what to do by its parent. */
import { loadSwarmKey, verifyEndpointRecord } from '@quicprochat/p2p';
import { createHost, relayServerDefaults } from '@quicprochat/p2p/swarm';
import { signingKeyFromSeed } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { everywhere, message, runtime, startDevice, type Device } from '../devices.ts';
import {
  isConvictedAt,
  logKeys,
  openLog,
  startNode,
  type TestNode,
} from '../../cluster/gossip-nodes.ts';

/** What a party does; `seed` makes its keys. */
export type Command =
  | { readonly do: 'device'; readonly seed: Uint8Array; readonly lan?: boolean }
  | {
      readonly do: 'relay';
      readonly seed: Uint8Array;
      readonly host: string;
      readonly port: number;
    }
  | {
      readonly do: 'node';
      readonly seed: Uint8Array;
      readonly logSeed: Uint8Array;
      readonly listen: string;
      readonly entries: number;
    }
  | { readonly do: 'setRelays'; readonly relays: readonly string[] }
  | { readonly do: 'status' }
  | {
      readonly do: 'deliver';
      readonly to: SignedEndpointRecord;
      readonly direct: boolean;
      readonly relay: boolean;
      readonly budgetMs: number;
    }
  | { readonly do: 'setPeer'; readonly peerId: string; readonly address: string }
  | { readonly do: 'pull' };

export interface Answer {
  readonly peerId?: string;
  readonly record?: SignedEndpointRecord;
  readonly isReserved?: boolean;
  readonly received?: number;
  /** "direct", "relay" or why not. */
  readonly outcome?: string;
  readonly ms?: number;
  readonly up?: number;
  readonly isConvicted?: boolean;
}

let device: Device | undefined;
let node: TestNode | undefined;
let pull: (() => Promise<unknown>) | undefined;

async function run(command: Command): Promise<Answer> {
  switch (command.do) {
    case 'device':
      device = await startDevice({
        device: signingKeyFromSeed(command.seed),
        listen: ['/ip4/0.0.0.0/udp/0/quic-v1', '/ip4/0.0.0.0/tcp/0'],
        reach: ['private', 'public'],
        lan: command.lan === true,
      });
      return { peerId: device.swarm.peerId };
    case 'relay': {
      const { host, port, seed } = command;
      const relay = await createHost({
        key: loadSwarmKey(seed),
        runtime,
        listen: [`/ip4/${host}/udp/${port}/quic-v1`, `/ip4/${host}/tcp/${port}`],
        relayServer: { ...relayServerDefaults, mayReserve: () => Promise.resolve(true) },
      });
      return { peerId: relay.peerId };
    }
    case 'node': {
      const keys = logKeys(command.logSeed);
      // Each node sees another face of the log: another history under the same keys.
      const log = await openLog(keys);
      await log.append(command.entries);
      node = await startNode(keys, { key: loadSwarmKey(command.seed), listen: command.listen });
      pull = () => (node === undefined ? Promise.resolve() : node.follower.pull(log.source));
      return { peerId: node.key.peerId };
    }
    case 'setRelays':
      device?.swarm.setRelays(command.relays);
      return {};
    case 'setPeer': {
      const { peerId, address } = command;
      await node?.swarm.setPeers([{ peerId, addresses: [address] }]);
      return {};
    }
    case 'pull':
      await pull?.();
      return {};
    case 'status':
      return {
        ...(device === undefined
          ? {}
          : {
              record: device.swarm.record(),
              isReserved: device.swarm.relays.every((relay) => relay.isReserved),
              received: device.received.length,
            }),
        ...(node === undefined
          ? {}
          : { up: node.gossip.up.size, isConvicted: await isConvictedAt(node) }),
      };
    case 'deliver':
      return deliver(command);
  }
}

async function deliver(command: Extract<Command, { do: 'deliver' }>): Promise<Answer> {
  if (device === undefined) throw new Error('no device here');
  const record = verifyEndpointRecord(command.to, { nowMs: Date.now(), reach: everywhere });
  const to = {
    record: {
      ...record,
      ...(command.direct ? {} : { addresses: [] }),
      ...(command.relay ? {} : { relays: [] }),
    },
  };
  const startMs = performance.now();
  const outcome = await device.swarm
    .deliver(to, { ...message(device), rid: record.device }, { budgetMs: command.budgetMs })
    .then(
      ({ via }) => via,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
  return { outcome, ms: performance.now() - startMs };
}

process.on('message', ([id, command]: [number, Command]) => {
  run(command).then(
    (answer) => process.send?.([id, answer]),
    (error: unknown) => process.send?.([id, { outcome: String(error) }]),
  );
});
process.once('disconnect', () => process.exit(0));
