/** Devices of the benches: registered at a real node, over real QUIC, below the level of QpcClient. */
import { register } from '@quicprochat/client-lib/account';
import {
  call,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  PushEvent,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { fromBinary, MessageEventSchema, Outcome } from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  loadIdentity,
  makeIdentity,
  transportOf,
  type Connection,
  type EngineName,
  type NodeIdentity,
  type Transport,
} from '@quicprochat/proto/transport';
import type { NodeProcess } from '../cluster/node-process.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

/** What another process needs to be this device: the node knows it by its transport key. */
export interface DeviceKeys {
  readonly nodeAddress: string;
  readonly domain: string;
  readonly rid: Uint8Array;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

/** Registers a user with one device; its session outlives this connection and the node's process. */
export async function registerDevice(
  node: NodeProcess,
  name: string,
  engine: EngineName = 'quic',
): Promise<DeviceKeys> {
  const identity = await makeIdentity(systemRandom);
  const connection = await dialAs(node.address, identity, engine);
  const identityKey = signingKeyFromSeed(systemRandom.bytes(32));
  const accountKey = signingKeyFromSeed(systemRandom.bytes(32));
  await register(
    connection,
    {
      userId: `${name}@${node.domain}`,
      password: new TextEncoder().encode('correct horse battery staple'),
      keys: { identityKey, accountKey, transport: identity },
      pinnedServerKey: undefined,
    },
    systemClock,
  );
  await connection.close(CloseCode.Normal, 'registered');
  return {
    nodeAddress: node.address,
    domain: node.domain,
    rid: identityKey.publicKey,
    certificatePem: identity.certificatePem,
    privateKeyPem: identity.privateKeyPem,
  };
}

/** A new connection of this device. */
export function dialDevice(keys: DeviceKeys, engine: EngineName = 'quic'): Promise<Connection> {
  const identity = loadIdentity(keys.certificatePem, keys.privateKeyPem);
  return dialAs(keys.nodeAddress, identity, engine);
}

const transports = new Map<EngineName, Transport>();

export function dialAs(
  nodeAddress: string,
  identity: NodeIdentity,
  engine: EngineName = 'quic',
): Promise<Connection> {
  const transport = transports.get(engine) ?? transportOf(runtime, [engine]);
  transports.set(engine, transport);
  const { host, port, pin } = parseNodeAddress(nodeAddress);
  return transport.dial(
    { host, port },
    { identity, limits: defaultLimits, maxRequestBytes, pins: [pin] },
  );
}

/** Sends random bytes to a device; resolves when the node answered that they are on its disk. */
export async function enqueueTo(
  connection: Connection,
  { rid, domain }: DeviceKeys,
  mid: Uint8Array,
  payloadBytes: number,
): Promise<void> {
  const payload = systemRandom.bytes(payloadBytes);
  const { outcome } = await call(connection, methods.enqueue, { rid, domain, mid, payload });
  if (outcome !== Outcome.STORED) throw new Error(`bench: enqueue answered outcome ${outcome}`);
}

/** Subscribes; `onMid` gets the id (hex) of every row that is pushed, which is acked at once. */
export async function subscribe(
  connection: Connection,
  onMid: (midHex: string) => void,
): Promise<void> {
  connection.onPushStream(async (frames) => {
    for await (const frame of frames) {
      if (frame.eventType !== PushEvent.Message) continue;
      const { row, storeId } = fromBinary(MessageEventSchema, frame.payload);
      if (row === undefined) continue;
      onMid(Buffer.from(row.mid).toString('hex'));
      await call(connection, methods.ack, { log: {}, storeId, upTo: row.seq });
    }
  });
  await call(connection, methods.subscribe, { cursors: [{ log: {}, after: 0n }] });
}
