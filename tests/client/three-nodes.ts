/** Three nodes that know each other in one process, and a person at each: what tests of hubs begin with. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OpenOptions } from '@quicprochat/client-lib';
import type { Clock } from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';
import { RigClient } from './rig.ts';

export interface ThreeNodes {
  /** Red, blue and green. */
  readonly nodes: readonly [LocalNode, LocalNode, LocalNode];
  /** One at each, in that order, online. */
  readonly people: readonly [RigClient, RigClient, RigClient];
}

export interface ThreeNodesOptions {
  /** Of the clients. Default: the real one. */
  readonly clock?: Clock;
  /** Of the nodes, but for what stores in their threads do. Default: the real one. */
  readonly nodeClock?: Clock;
  /** What a client has beside the usual. */
  readonly optionsOf?: (name: string) => Partial<OpenOptions>;
}

/** All of it ends with the stack. */
export async function threeNodes(
  stack: AsyncDisposableStack,
  names: readonly [string, string, string],
  {
    clock = testRuntime.clock,
    nodeClock = testRuntime.clock,
    optionsOf = () => ({}),
  }: ThreeNodesOptions = {},
): Promise<ThreeNodes> {
  const network = memoryNetwork(testRuntime);
  const directory = mkdtempSync(join(tmpdir(), 'qpc-three-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const runtime = { ...testRuntime, clock: nodeClock };
  const make = async (domain: string): Promise<LocalNode> =>
    stack.use(await LocalNode.create(network, domain, '', runtime));
  const nodes = [
    await make('red.example'),
    await make('blue.example'),
    await make('green.example'),
  ] as const;
  for (const node of nodes) await node.start(nodes.filter((one) => one !== node));
  const personAt = async (name: string, node: LocalNode): Promise<RigClient> => {
    const one = new RigClient(`${name}@${node.domain}`, node, directory, clock);
    stack.defer(() => one.close());
    await one.open(optionsOf(name));
    await one.register();
    await one.start();
    return one;
  };
  const people = [
    await personAt(names[0], nodes[0]),
    await personAt(names[1], nodes[1]),
    await personAt(names[2], nodes[2]),
  ] as const;
  return { nodes, people };
}
