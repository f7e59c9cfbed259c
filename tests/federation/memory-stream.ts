/**
 * The disk of one node with one stream in memory, of which copies are cheap: for thousands of
 * histories of the stream's rules. It keeps the contract of OutboxStore and RelayInboxStore as far as
 * a lane without rejects asks for it; the real store has its own tests of that contract.
 */
import { createHash } from 'node:crypto';
import { DataLossError, InvalidArgumentError, messageTag, type Random } from '@quicprochat/proto';
import type {
  InboundStream,
  OutboundStream,
  OutboxRow,
  OutboxStore,
  RelayApplied,
  RelayBatch,
  RelayInboxStore,
} from '@quicprochat/federation';

interface Disk {
  out: OutboundStream & { tail: Uint8Array };
  rows: OutboxRow[];
  inbound: InboundStream | undefined;
  received: string[];
}

const zeros = (): Uint8Array => new Uint8Array(16);
const textOf = ({ payload }: { readonly payload: Uint8Array }): string =>
  new TextDecoder().decode(payload);

function nextChain(chain: Uint8Array, tag: Uint8Array): Uint8Array {
  return new Uint8Array(
    createHash('sha256').update(chain).update(tag).digest().subarray(0, chain.length),
  );
}

export class MemoryStream implements OutboxStore, RelayInboxStore {
  readonly #random: Random;
  #disk: Disk;

  constructor(random: Random) {
    this.#random = random;
    this.#disk = {
      out: { streamId: random.bytes(16), nextSeq: 1, acked: 0, chain: zeros(), tail: zeros() },
      rows: [],
      inbound: undefined,
      received: [],
    };
  }

  /** Nothing in it is ever changed in place, so that a copy is a few references. */
  copy(): Disk {
    return { ...this.#disk, rows: [...this.#disk.rows], received: [...this.#disk.received] };
  }

  restore(disk: Disk): void {
    this.#disk = { ...disk, rows: [...disk.rows], received: [...disk.received] };
  }

  get held(): string[] {
    return this.#disk.rows.map(textOf);
  }

  get received(): readonly string[] {
    return this.#disk.received;
  }

  add(text: string): void {
    const payload = new TextEncoder().encode(text);
    const { out } = this.#disk;
    const mid = zeros();
    const chain = nextChain(out.tail, messageTag(mid, payload));
    const rids = [new Uint8Array(32)];
    const row = { seq: out.nextSeq, kind: 1, mid, payload, rids, ttlLeftMs: 1e9, chain };
    this.#disk.rows.push(row);
    this.#disk.out = { ...out, nextSeq: out.nextSeq + 1, tail: chain };
  }

  async outboundStream(): Promise<OutboundStream> {
    return this.#disk.out;
  }

  async readOutbox(
    _peer: string,
    _lane: string,
    after: number,
    maxItems: number,
  ): Promise<OutboxRow[]> {
    return this.#disk.rows.filter(({ seq }) => seq > after).slice(0, maxItems);
  }

  async outboxChainAt(_peer: string, _lane: string, seq: number): Promise<Uint8Array | undefined> {
    const { out, rows } = this.#disk;
    return seq === out.acked ? out.chain : rows.find((row) => row.seq === seq)?.chain;
  }

  async settleOutbox(
    _peer: string,
    _lane: string,
    streamId: Uint8Array,
    cursor: number,
  ): Promise<void> {
    const { out, rows } = this.#disk;
    if (Buffer.compare(out.streamId, streamId) !== 0 || cursor <= out.acked) return;
    if (cursor >= out.nextSeq) throw new InvalidArgumentError('BAD_FIELD', `cursor: ${cursor}`);
    const chain = rows.find(({ seq }) => seq === cursor)?.chain ?? zeros();
    this.#disk.rows = rows.filter(({ seq }) => seq > cursor);
    this.#disk.out = { ...out, acked: cursor, chain };
  }

  async restartOutbound(): Promise<OutboundStream> {
    const texts = this.held;
    this.#disk.rows = [];
    this.#disk.out = {
      streamId: this.#random.bytes(16),
      nextSeq: 1,
      acked: 0,
      chain: zeros(),
      tail: zeros(),
    };
    for (const text of texts) this.add(text);
    return this.#disk.out;
  }

  async inboundStreams(): Promise<InboundStream[]> {
    return this.#disk.inbound === undefined ? [] : [this.#disk.inbound];
  }

  async applyRelay(
    _peer: string,
    { lane, streamId, firstSeq, items }: RelayBatch,
  ): Promise<RelayApplied> {
    const held = this.#disk.inbound;
    const isCurrent = held !== undefined && Buffer.compare(held.streamId, streamId) === 0;
    let { cursor, chain } = isCurrent ? held : { cursor: 0, chain: zeros() };
    if (firstSeq > cursor + 1) throw new DataLossError('STREAM_GAP', `at ${cursor}`);
    for (const item of items.slice(cursor + 1 - firstSeq)) {
      const text = textOf(item);
      if (!this.#disk.received.includes(text)) this.#disk.received.push(text);
      chain = nextChain(chain, messageTag(item.mid, item.payload));
      cursor += 1;
    }
    this.#disk.inbound = { lane, streamId, cursor, chain };
    return { cursor, chain, rejects: [] };
  }

  async peersWithRows(): Promise<string[]> {
    return [];
  }
  async requeueDue(): ReturnType<OutboxStore['requeueDue']> {
    return { requeuedPeers: [], deadRows: 0, dueInMs: undefined };
  }
  async peerState(): Promise<{ failures: number; nextTryMs: number; failingSinceMs: number }> {
    return { failures: 0, nextTryMs: 0, failingSinceMs: 0 };
  }
  async setPeerState(): Promise<void> {}
}
