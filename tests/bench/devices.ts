/** Devices of the benches: registered at a real node, over real QUIC, below QpcClient. */
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
import { fromBinary, MessageEventSchema } from '@quicprochat/proto/messages';
import {
  defaultLimits,
  makeIdentity,
  quicTransport,
  type Connection,
  type NodeIdentity,
} from '@quicprochat/proto/transport';
import type { NodeProcess } from '../cluster/node-process.ts';

const transport = quicTransport({ clock: systemClock, random: systemRandom, log: silentLog });

export class BenchDevice {
  readonly node: NodeProcess;
  readonly rid: Uint8Array;
  readonly connection: Connection;
  readonly #identity: NodeIdentity;

  private constructor(
    node: NodeProcess,
    rid: Uint8Array,
    identity: NodeIdentity,
    connection: Connection,
  ) {
    this.node = node;
    this.rid = rid;
    this.#identity = identity;
    this.connection = connection;
  }

  static async register(node: NodeProcess, name: string): Promise<BenchDevice> {
    const identity = await makeIdentity(systemRandom);
    const connection = await dial(node, identity);
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
    return new BenchDevice(node, identityKey.publicKey, identity, connection);
  }

  /** Another connection of this device. */
  dial(): Promise<Connection> {
    return dial(this.node, this.#identity);
  }

  /** Subscribes; `onMid` gets the id of every row that is pushed, which is acked at once. */
  async subscribe(onMid: (midHex: string) => void): Promise<void> {
    const { connection } = this;
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
}

async function dial(node: NodeProcess, identity: NodeIdentity): Promise<Connection> {
  const { host, port, pin } = parseNodeAddress(node.address);
  return transport.dial(
    { host, port },
    { identity, limits: defaultLimits, maxRequestBytes, pins: [pin] },
  );
}
