/**
 * Test support: one client whose store has an account and rows to send, and a scripted node, on a
 * memory network and a clock that the test owns.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QpcClient, type OpenOptions } from '@quicprochat/client-lib';
import { openStore } from '@quicprochat/client-lib/store';
import {
  batchCapability,
  formatNodeAddress,
  silentLog,
  systemRandom,
  type Handlers,
  type Runtime,
} from '@quicprochat/proto';
import { makeIdentity, memoryNetwork, type MemoryNetwork } from '@quicprochat/proto/transport';
import { SimulatedClock } from '../simulated-clock.ts';
import { startScriptedNode, type Script, type ScriptedNode } from './scripted-node.ts';

const host = 'red.example';
const hourMs = 3_600_000;
export const storeKey = new Uint8Array(32).fill(3);

/** Recipient device number `n`, and its name in what a scripted node stored. */
export const targetOf = (n: number): Uint8Array => new Uint8Array(32).fill(n + 1);
export const nameOf = (n: number): string => Buffer.from(targetOf(n)).toString('hex');

const batchHello = {
  version: 1,
  domain: host,
  callerClass: 'device',
  capabilities: [batchCapability],
};

export interface Scene extends AsyncDisposable {
  readonly clock: SimulatedClock;
  readonly node: ScriptedNode;
  /** The client is host `alice`, the node `red.example`. */
  readonly network: MemoryNetwork;
  readonly path: string;
  /** `options`: what the client has beside the usual. */
  open(options?: Partial<OpenOptions>): Promise<QpcClient>;
  /** Runs simulated time until the outbox of the client is empty. */
  drain(client: QpcClient): Promise<void>;
}

export interface SceneOptions {
  /** For each entry one SEALED row to that target; its index is in mid and payload. */
  readonly targets?: readonly number[];
  /** Whether the tokens of the targets are known [true]. */
  readonly hasTokens?: boolean;
  readonly script?: Script;
  /** Whether the node says that it takes batches. */
  readonly takesBatches?: boolean;
  readonly overrides?: Partial<Handlers>;
  /** The SPKI hash that the client expects; the node's own unless told otherwise. */
  readonly pin?: Uint8Array;
}

export async function makeScene(options: SceneOptions): Promise<Scene> {
  const clock = new SimulatedClock();
  const runtime: Runtime = { clock, random: systemRandom, log: silentLog };
  const network = memoryNetwork(runtime);
  const identity = await makeIdentity(systemRandom);
  const own = await makeIdentity(systemRandom);
  const node = await startScriptedNode(
    network.transport(host),
    host,
    identity,
    runtime,
    options.script ?? (async () => 'stored'),
    {
      ...(options.takesBatches === true ? { hello: async () => batchHello } : {}),
      ...options.overrides,
    },
  );
  const directory = mkdtempSync(join(tmpdir(), 'qpc-scene-'));
  const path = join(directory, 'client.db');
  {
    using store = openStore(path, storeKey);
    store.account.put({
      userId: 'alice@red.example',
      nodeAddress: formatNodeAddress({
        host,
        port: 5001,
        pin: options.pin ?? identity.spkiSha256,
      }),
      accountSeed: systemRandom.bytes(32),
      nextAccountSeed: undefined,
      bundleSeq: 0,
      identitySeed: systemRandom.bytes(32),
      certificatePem: own.certificatePem,
      privateKeyPem: own.privateKeyPem,
      opaqueServerKey: undefined,
      isRegistered: true,
      sessionExpiresMs: Number.MAX_SAFE_INTEGER,
    });
    store.transaction(() => {
      for (const [index, target] of (options.targets ?? []).entries()) {
        const mid = new Uint8Array(16);
        new DataView(mid.buffer).setUint32(0, index);
        if (options.hasTokens ?? true) {
          store.tokens.put(targetOf(target), new Uint8Array(16).fill(target), true, clock.now());
        }
        store.outbox.add(
          {
            mid,
            payload: Uint8Array.of(index & 0xff),
            targets: [{ rid: targetOf(target), domain: host }],
            messageId: undefined,
          },
          clock.now(),
        );
      }
    });
  }
  return {
    clock,
    node,
    network,
    path,
    open: (more = {}) =>
      QpcClient.open({
        storePath: path,
        storeKey,
        runtime,
        transport: network.transport('alice'),
        ...more,
      }),
    async drain(client) {
      let isFlushed = false;
      const flushed = client.flush().then(() => (isFlushed = true));
      assert(await clock.runUntil(() => isFlushed, hourMs), 'the outbox did not empty in an hour');
      await flushed;
    },
    async [Symbol.asyncDispose]() {
      await node[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
