/**
 * Gossipsub for a closed list of peers. Its streams and meshes are for them alone, whoever else is
 * connected; what is said in a topic goes on only if the caller accepts it. A hint and no more: what
 * is published while nobody is connected is lost, and the number of recipients is no receipt.
 */
import { gossipsub, TopicValidatorResult, type GossipSub } from '@libp2p/gossipsub';
import type { PeerId, StreamHandler, Topology } from '@libp2p/interface';
import type { Registrar } from '@libp2p/interface-internal';
import { PayloadTooLargeError } from '@quicprochat/proto';
import type { PeerIdText } from './peer-id.ts';

/** `accept` passes it on; `ignore` does not; `reject` is what no correct peer could have sent. */
export type Verdict = 'accept' | 'ignore' | 'reject';

export interface GossipOptions {
  /** Topics that exist, with the largest message of each (bytes). */
  readonly topics: Readonly<Record<string, number>>;
  readonly isPeer: (peerId: PeerIdText) => boolean;
  /** Judges a message of a fitting size; `from` handed it on and need not have made it. */
  readonly judge: (topic: string, from: PeerIdText, bytes: Uint8Array) => Promise<Verdict>;
}

/** Envelope of a message: signature, key, topic, and control messages beside it (bytes). */
const overheadBytes = 64 * 1024;

export class Gossip {
  readonly #options: GossipOptions;
  #gossip: GossipSub | undefined;

  constructor(options: GossipOptions) {
    this.#options = options;
  }

  factory(): ReturnType<typeof gossipsub> {
    const { topics } = this.#options;
    return (components) => {
      const make = gossipsub({
        globalSignaturePolicy: 'StrictSign',
        allowedTopics: Object.keys(topics),
        floodPublish: true,
        allowPublishToZeroTopicPeers: true,
        ignoreDuplicatePublishError: true,
        doPX: false,
        D: 6,
        Dlo: 4,
        Dhi: 12,
        maxInboundDataLength: Math.max(...Object.values(topics)) + overheadBytes,
        maxOutboundBufferSize: 4 * 1024 * 1024,
        // A contract and evidence judge peers here; scores would cut off one that is only slow.
        scoreParams: { IPColocationFactorWeight: 0, behaviourPenaltyWeight: 0 },
      });
      // Not spread: asking libp2p for a component that is none throws.
      const { privateKey, peerId, peerStore, connectionManager, logger } = components;
      const registrar = this.#gated(components.registrar);
      const gossip = make({ privateKey, peerId, peerStore, connectionManager, logger, registrar });
      for (const [topic, maxBytes] of Object.entries(topics)) {
        // Before it is subscribed: nothing is passed on that nobody looked at.
        gossip.topicValidators.set(topic, (from, message) =>
          this.#judge(topic, maxBytes, from, message.data),
        );
      }
      this.#gossip = gossip;
      return gossip;
    };
  }

  /** After the swarm's start. */
  subscribe(): void {
    for (const topic of Object.keys(this.#options.topics)) this.#gossip?.subscribe(topic);
  }

  /** Returns to how many peers it was handed. Throws PayloadTooLargeError above the topic's bound. */
  async publish(topic: string, bytes: Uint8Array): Promise<number> {
    const maxBytes = this.#options.topics[topic] ?? 0;
    if (bytes.length > maxBytes) {
      throw new PayloadTooLargeError(`${topic}: ${bytes.length} bytes, at most ${maxBytes}`);
    }
    const published = await this.#gossip?.publish(topic, bytes);
    return published?.recipients.length ?? 0;
  }

  async #judge(
    topic: string,
    maxBytes: number,
    from: PeerId,
    data: Uint8Array,
  ): Promise<TopicValidatorResult> {
    if (data.length > maxBytes) return TopicValidatorResult.Reject;
    return results[await this.#options.judge(topic, from.toString(), data)];
  }

  /** Streams in and out for the listed peers only: a swarm that relays has others connected too. */
  #gated(registrar: Registrar): Registrar {
    const { isPeer } = this.#options;
    const handle: Registrar['handle'] = (protocol, handler, options) => {
      const gated: StreamHandler = (stream, connection) => {
        if (isPeer(connection.remotePeer.toString())) return handler(stream, connection);
        stream.abort(new Error('gossip is for peers'));
        return undefined;
      };
      return registrar.handle(protocol, gated, options);
    };
    const register: Registrar['register'] = (protocol, topology, options) => {
      const gated: Topology = {
        ...topology,
        onConnect: async (peer, connection) => {
          if (isPeer(peer.toString())) await topology.onConnect?.(peer, connection);
        },
      };
      return registrar.register(protocol, gated, options);
    };
    return new Proxy(registrar, {
      get(target, name) {
        if (name === 'handle') return handle;
        if (name === 'register') return register;
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  }
}

const results: Readonly<Record<Verdict, TopicValidatorResult>> = {
  accept: TopicValidatorResult.Accept,
  ignore: TopicValidatorResult.Ignore,
  reject: TopicValidatorResult.Reject,
};
