/**
 * Whether this node, or a peer, was restored from an older copy: what each side said of its own
 * store is kept by the other and told back (docs/protocol/federation.md). A node whose peer
 * remembers more than it has gives its store a new id before it answers.
 */
import type { Runtime } from '@quicprochat/proto';
import { StoreMarks, markFromWire, markToWire, type WireMark } from './store-mark.ts';
import type { ProvenMark, RewindStore } from './store.ts';

/** A mark is told with relay replies, and kept from them, at most this often (ms). */
export const markEveryMs = 30_000;

export interface RewindsOptions {
  readonly store: RewindStore;
  /** Key of this node's proofs (32 bytes). */
  readonly markKey: Uint8Array;
  readonly runtime: Runtime;
  /** The store has a new id: cursors of clients are void. */
  readonly onRewound: () => void;
}

/** What a peer says: of its own store, and what it remembers of ours. */
export interface PeerWords {
  readonly own: WireMark;
  readonly remembers: WireMark;
}

const nothing: WireMark = { storeId: new Uint8Array(0), counter: 0n, proof: new Uint8Array(0) };

export class Rewinds {
  readonly #options: RewindsOptions;
  readonly #marks: StoreMarks;
  readonly #toldMs = new Map<string, number>();
  readonly #keptMs = new Map<string, number>();

  constructor(options: RewindsOptions) {
    this.#options = options;
    this.#marks = new StoreMarks(options.markKey);
  }

  /** What to say to a peer. */
  async words(peer: string): Promise<PeerWords> {
    const { store } = this.#options;
    const remembered = await store.peerMark(peer);
    return {
      own: markToWire(await this.#own(peer)),
      remembers: remembered === undefined ? nothing : markToWire(remembered),
    };
  }

  /** The own mark for a relay reply, when it is time to tell it again. */
  async forReply(peer: string): Promise<WireMark | undefined> {
    const toldMs = this.#toldMs.get(peer) ?? Number.NEGATIVE_INFINITY;
    if (this.#nowMs() < toldMs + markEveryMs) return undefined;
    return markToWire(await this.#own(peer));
  }

  /** Hears a peer's hello, or the answer to one. Throws what the store throws. */
  async hear(peer: string, { own, remembers }: PeerWords): Promise<void> {
    const { store, runtime, onRewound } = this.#options;
    const memory = markFromWire(remembers);
    if (memory !== undefined && this.#marks.isOwn(memory) && (await store.renewIfBehind(memory))) {
      runtime.log.warn('this database is an older copy', { peer, commits: memory.commits });
      onRewound();
    }
    const mark = markFromWire(own);
    if (mark !== undefined) await this.#keep(peer, mark);
  }

  /** Hears the mark of a relay reply, if there is one. */
  async hearReply(peer: string, own: WireMark): Promise<void> {
    const mark = markFromWire(own);
    const keptMs = this.#keptMs.get(peer) ?? Number.NEGATIVE_INFINITY;
    if (mark !== undefined && this.#nowMs() >= keptMs + markEveryMs) await this.#keep(peer, mark);
  }

  async #own(peer: string): Promise<ProvenMark> {
    this.#toldMs.set(peer, this.#nowMs());
    return this.#marks.prove(await this.#options.store.storeMark());
  }

  async #keep(peer: string, mark: ProvenMark): Promise<void> {
    this.#keptMs.set(peer, this.#nowMs());
    await this.#options.store.setPeerMark(peer, mark);
  }

  #nowMs(): number {
    return this.#options.runtime.clock.monotonic();
  }
}
