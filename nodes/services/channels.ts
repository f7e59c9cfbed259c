/**
 * Channels: CreateChannel, ListGroupMembers, and an Enqueue whose target is a channel. Of a post this
 * node learns the channel, the epoch and the domains; who wrote it, from the session alone.
 */
import {
  channelId,
  deviceChannelSeed,
  domainsHash,
  FailedPreconditionError,
  InvalidArgumentError,
  isDomain,
  PermissionDeniedError,
  RowKind,
  type Handlers,
} from '@quicprochat/proto';
import type { ChannelPost } from '@quicprochat/proto/messages';
import type { Enqueued } from '../store/message-store.ts';
import type { NodeStore } from '../store/store.ts';
import { deviceOf } from './caller.ts';
import { DomainLists } from './domain-lists.ts';

export interface ChannelParts {
  readonly domain: string;
  readonly store: NodeStore;
  readonly federation: {
    /** True for a domain that this node relays to. */
    knows(domain: string): boolean;
    /** The outbox of a peer got rows. */
    notify(domain: string): void;
  };
}

/** The ciphertext of a post. */
export interface PostedMessage {
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly ttlMs: number;
  /** Device key of the calling device, to be told of domains that do not get it; none: sealed. */
  readonly sender?: Uint8Array | undefined;
}

/** The way of posts into the store, with the domains that posters named. */
export class ChannelPosts {
  readonly #parts: ChannelParts;
  /** By cid and hash. */
  readonly #domains = new DomainLists();

  constructor(parts: ChannelParts) {
    this.#parts = parts;
  }

  /**
   * On disk when it resolves: in the local log and in the outbox of each other domain. Throws
   * FailedPreconditionError DOMAINS_STALE when the domains behind the hash are not known here,
   * PermissionDeniedError PEER_DENIED for a sealed post to a domain that is no peer, and what `postToChannel` of the store throws.
   */
  async post(post: ChannelPost, message: PostedMessage): Promise<Enqueued> {
    const { store, domain: own, federation } = this.#parts;
    const { cid, signature } = post;
    const { sender, ...rest } = message;
    const domains = this.#domainsOf(post).filter((domain) => domain !== own);
    const peers = domains.filter((domain) => federation.knows(domain));
    const denied = domains.filter((domain) => !federation.knows(domain));
    if (sender === undefined && denied.length > 0) {
      // There is nobody who could be told of it later.
      throw new PermissionDeniedError('PEER_DENIED', `${denied[0]} is no peer of this node`);
    }
    const enqueued = await store.postToChannel({
      ...rest,
      cid,
      epoch: Number(post.epoch),
      signature,
      kind: RowKind.Envelope,
      peers,
      denied,
      ...(sender === undefined ? {} : { sender }),
    });
    // Only what a member signed is worth memory.
    const isSigned = enqueued.outcome === 'stored';
    if (isSigned && post.domains.length > 0) this.#domains.put(keyOf(post), post.domains);
    for (const peer of peers) federation.notify(peer);
    return enqueued;
  }

  #domainsOf(post: ChannelPost): readonly string[] {
    const { domains, domainsHash: hash } = post;
    if (domains.length === 0) {
      const known = this.#domains.get(keyOf(post));
      if (known === undefined) {
        throw new FailedPreconditionError('DOMAINS_STALE', 'name the domains of the group');
      }
      return known;
    }
    if (!domains.every(isDomain) || new Set(domains).size !== domains.length) {
      throw new InvalidArgumentError('BAD_FIELD', 'channel.domains: need lower-case domains, once');
    }
    if (Buffer.compare(domainsHash(domains), hash) !== 0) {
      throw new InvalidArgumentError('BAD_FIELD', 'channel.domains: are not those of the hash');
    }
    return domains;
  }
}

function keyOf({ cid, domainsHash: hash }: ChannelPost): string {
  return `${Buffer.from(cid).toString('latin1')}${Buffer.from(hash).toString('latin1')}`;
}

export function channelHandlers({
  domain,
  store,
}: ChannelParts): Pick<Handlers, 'createChannel' | 'listGroupMembers'> {
  return {
    async createChannel(request, context) {
      const { identityPub } = deviceOf(context);
      const { cid, hubs, epoch, writePub, nonce } = request;
      if (!hubs.includes(domain)) {
        throw new PermissionDeniedError('PEER_DENIED', 'this node is no hub of the channel');
      }
      const own = channelId(deviceChannelSeed(identityPub, nonce), hubs);
      if (Buffer.compare(cid, own) !== 0) {
        throw new InvalidArgumentError('BAD_FIELD', 'cid: not of this device, nonce and hubs');
      }
      return store.createChannel(identityPub, {
        ...{ cid, hubs, writePub },
        epoch: Number(epoch),
        madeBy: domain,
      });
    },

    async listGroupMembers({ cid }, context) {
      const { rids, epoch } = await store.channelMembers(deviceOf(context).identityPub, cid);
      return { rids: [...rids], epoch: BigInt(epoch) };
    },
  };
}
