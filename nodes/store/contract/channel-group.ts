/**
 * A group as nodes see it in a test: a channel with a write key for each epoch, posts and
 * ChannelUpdates as its members and its hub make them.
 */
import {
  channelId,
  signChannelPost,
  signChannelUpdate,
  signingKeyFromSeed,
  systemRandom,
  type SigningKey,
} from '@quicprochat/proto';
import { ChannelUpdateSchema, create, type ChannelUpdate } from '@quicprochat/proto/messages';
import type { ChannelPostRow, NewChannel } from '../channel-store.ts';
import { dayMs } from './fixture.ts';

/** Fields of an update that differ from the group's own. */
export interface UpdateChanges {
  readonly cid?: Uint8Array;
  readonly hubs?: readonly string[];
  readonly epoch?: bigint;
  readonly writePub?: Uint8Array;
  readonly removal?: boolean;
  readonly seed?: Uint8Array;
  readonly add?: readonly { readonly rid: Uint8Array; readonly token: Uint8Array }[];
  readonly remove?: readonly Uint8Array[];
}

export class TestGroup {
  readonly cid: Uint8Array;
  readonly seed: Uint8Array;
  readonly hubs: readonly string[];
  epoch: number;
  readonly #keys = new Map<number, SigningKey>();

  constructor(
    hubs: readonly string[] = ['red.example'],
    epoch = 0,
    seed: Uint8Array = systemRandom.bytes(32),
  ) {
    this.seed = seed;
    this.cid = channelId(seed, hubs);
    this.hubs = hubs;
    this.epoch = epoch;
  }

  writeKey(epoch: number): SigningKey {
    const key = this.#keys.get(epoch) ?? signingKeyFromSeed(systemRandom.bytes(32));
    this.#keys.set(epoch, key);
    return key;
  }

  /** As its creator asks for it. */
  asNew(madeBy = 'red.example'): NewChannel {
    const { cid, hubs, epoch } = this;
    return { cid, hubs, epoch, writePub: this.writeKey(epoch).publicKey, madeBy };
  }

  /** A fresh post of an epoch; `changes` falsify it, or say where it goes. */
  post(changes: Partial<ChannelPostRow> = {}, signedBy?: SigningKey): ChannelPostRow {
    const { cid } = this;
    const epoch = changes.epoch ?? this.epoch;
    const mid = changes.mid ?? systemRandom.bytes(16);
    const payload = changes.payload ?? systemRandom.bytes(100);
    const key = signedBy ?? this.writeKey(epoch);
    const signature = signChannelPost({ cid, epoch, mid, payload }, key);
    const rest = { kind: 1, ttlMs: 30 * dayMs, peers: [], denied: [] };
    return { ...rest, cid, epoch, mid, payload, signature, ...changes };
  }

  /** The update of the next epoch, which becomes the group's. */
  advance(changes: UpdateChanges = {}): Uint8Array {
    this.epoch += 1;
    return this.signed(changes);
  }

  /** Another update of the same epoch: each domain gets one of its own. */
  signed(changes: UpdateChanges = {}): Uint8Array {
    return signChannelUpdate(this.update(changes), this.writeKey(this.epoch - 1));
  }

  /** An update of the group's epoch, not signed yet. */
  update(changes: UpdateChanges = {}): ChannelUpdate {
    const { cid, hubs, epoch, seed } = this;
    const { add = [], remove = [], ...rest } = changes;
    return create(ChannelUpdateSchema, {
      ...{ cid, seed },
      epoch: BigInt(epoch),
      writePub: this.writeKey(epoch).publicKey,
      ...rest,
      hubs: [...(changes.hubs ?? hubs)],
      add: [...add],
      remove: [...remove],
    });
  }
}
