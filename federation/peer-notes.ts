/** When a peer was heard and how its link stood, written down for operators and for the next start. */
import type { Runtime } from '@quicprochat/proto';
import type { LinkStatus } from './link.ts';
import type { LaneStatus } from './outbox.ts';
import type { PeerNoteStore } from './store.ts';

/** When a peer was heard is written down at most this often (ms); changes of its link always. */
const noteEveryMs = 60_000;

/** How it stands with a peer now. */
export interface PeerStanding {
  readonly link: LinkStatus;
  readonly lanes: readonly LaneStatus[];
}

export class PeerNotes {
  readonly #store: PeerNoteStore;
  readonly #runtime: Runtime;
  readonly #stopped: AbortSignal;
  readonly #seenMs = new Map<string, number>();
  readonly #notedMs = new Map<string, number>();

  constructor(store: PeerNoteStore, runtime: Runtime, stopped: AbortSignal) {
    this.#store = store;
    this.#runtime = runtime;
    this.#stopped = stopped;
  }

  /** Reads what is on disk. Throws what the store throws. */
  async load(): Promise<void> {
    for (const { domain, seenMs } of await this.#store.peerNotes())
      this.#seenMs.set(domain, seenMs);
  }

  /** When the peer was heard last (Unix ms); 0: never. */
  seenMs(domain: string): number {
    return this.#seenMs.get(domain) ?? 0;
  }

  /** The peer answered a hello, and takes so many items at once. */
  connected(domain: string, creditItems: number, standing: PeerStanding): void {
    this.#seenMs.set(domain, this.#runtime.clock.now());
    void this.note(domain, standing, creditItems);
  }

  /** The peer was heard now. */
  seen(domain: string, standing: PeerStanding): void {
    const { clock } = this.#runtime;
    this.#seenMs.set(domain, clock.now());
    const notedMs = this.#notedMs.get(domain) ?? Number.NEGATIVE_INFINITY;
    if (clock.monotonic() >= notedMs + noteEveryMs) void this.note(domain, standing);
  }

  /** Writes down how it stands. Never throws. */
  async note(
    domain: string,
    { link, lanes }: PeerStanding,
    creditItems = Math.max(...lanes.map((lane) => lane.creditItems)),
  ): Promise<void> {
    this.#notedMs.set(domain, this.#runtime.clock.monotonic());
    const { state, lastError = '' } = link;
    const seenMs = this.seenMs(domain);
    try {
      await this.#store.setPeerNote(domain, { seenMs, linkState: state, lastError, creditItems });
    } catch (error) {
      // A stopping node closes its store while links end.
      if (this.#stopped.aborted) return;
      this.#runtime.log.error('peer state unsaved', { peer: domain, error: String(error) });
    }
  }
}
