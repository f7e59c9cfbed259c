/** What two nodes say to each other first: version, streams, credit, and what each remembers. */
import { FailedPreconditionError, PermissionDeniedError } from '@quicprochat/proto';
import type {
  FedHelloRequest,
  FedHelloRequestSchema,
  FedHelloResponse,
  FedHelloResponseSchema,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import { inOrder } from './inbox.ts';
import { streamToWire } from './lane.ts';
import type { Rewinds } from './rewinds.ts';
import type { WireMark } from './store-mark.ts';
import type { RelayInboxStore } from './store.ts';

/** Version of the node-to-node protocol that this code speaks. */
export const federationVersion = 1;

/** Fields of a hello, and of its answer, about both stores. */
type HelloWords = WireMark &
  Pick<FedHelloRequest, 'remembersStoreId' | 'remembersCounter' | 'remembersProof'>;

export interface HelloParts {
  /** This node's own domain. */
  readonly domain: string;
  readonly store: Pick<RelayInboxStore, 'inboundStreams'>;
  readonly rewinds: Rewinds;
}

export class Hellos {
  readonly #parts: HelloParts;

  constructor(parts: HelloParts) {
    this.#parts = parts;
  }

  /** What to say to a peer. Throws what the store throws. */
  async make(peer: string): Promise<MessageInitShape<typeof FedHelloRequestSchema>> {
    return {
      domain: this.#parts.domain,
      versionMin: federationVersion,
      versionMax: federationVersion,
      streams: await this.#streams(peer),
      ...(await this.#words(peer)),
    };
  }

  /** What to answer; `credit` is the peer's. Throws what the store throws. */
  async answer(
    peer: string,
    credit: { readonly creditItems: number; readonly creditBytes: number },
  ): Promise<MessageInitShape<typeof FedHelloResponseSchema>> {
    return {
      domain: this.#parts.domain,
      version: federationVersion,
      streams: await this.#streams(peer),
      ...(await this.#words(peer)),
      ...credit,
    };
  }

  /** Hears what a peer says of both stores. Throws what the store throws. */
  hear(peer: string, hello: FedHelloRequest | FedHelloResponse): Promise<void> {
    return this.#parts.rewinds.hear(peer, {
      own: hello,
      remembers: {
        storeId: hello.remembersStoreId,
        counter: hello.remembersCounter,
        proof: hello.remembersProof,
      },
    });
  }

  async #streams(peer: string): Promise<ReturnType<typeof streamToWire>[]> {
    const streams = await this.#parts.store.inboundStreams(peer);
    return inOrder(streams).map(streamToWire);
  }

  async #words(peer: string): Promise<HelloWords> {
    const { own, remembers } = await this.#parts.rewinds.words(peer);
    return {
      ...own,
      remembersStoreId: remembers.storeId,
      remembersCounter: remembers.counter,
      remembersProof: remembers.proof,
    };
  }
}

/** Throws FailedPreconditionError VERSION when a caller speaks no version that this code speaks. */
export function checkVersions({ versionMin, versionMax }: FedHelloRequest): void {
  if (versionMin <= federationVersion && versionMax >= federationVersion) return;
  throw new FailedPreconditionError('VERSION', `this node speaks version ${federationVersion}`);
}

/** Throws unless an answer is that of the domain that was dialed, in a version that was offered. */
export function checkAnswer(hello: FedHelloResponse, domain: string): void {
  if (hello.domain !== domain) {
    throw new PermissionDeniedError(
      'PEER_DENIED',
      `the node there says it is ${hello.domain.slice(0, 64)}`,
    );
  }
  if (hello.version !== federationVersion) {
    throw new FailedPreconditionError('VERSION', `the peer speaks version ${hello.version}`);
  }
}
