/**
 * The NodeRecords of the peers: asked for over each new link, proven against the key of that link,
 * and the newest one of each kept on disk (docs/protocol/federation.md). What stands in a record
 * (logs, cosigners) is for others to judge.
 */
import { methods, verifyNodeRecord, type Runtime } from '@quicprochat/proto';
import {
  fromBinary,
  NodeRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
  type NodeRecord,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import { sameBytes } from './lane.ts';
import { asQpcError, type LinkSession } from './link-session.ts';
import type { Peer } from './policy.ts';
import type { PeerRecordStore } from './store.ts';

/** A record that was proven when it came. */
export interface PeerRecord {
  readonly signed: SignedNodeRecord;
  readonly record: NodeRecord;
}

export class PeerRecords {
  readonly #store: PeerRecordStore;
  readonly #runtime: Runtime;
  readonly #byDomain = new Map<string, PeerRecord>();
  readonly #listeners = new Set<(domain: string, record: NodeRecord) => void>();

  constructor(store: PeerRecordStore, runtime: Runtime) {
    this.#store = store;
    this.#runtime = runtime;
  }

  /** Reads what is on disk; before the links start. Throws what the store throws. */
  async load(): Promise<void> {
    for (const { domain, record: bytes } of await this.#store.peerRecords()) {
      const signed = fromBinary(SignedNodeRecordSchema, bytes);
      this.#set(domain, { signed, record: fromBinary(NodeRecordSchema, signed.record) });
    }
  }

  /** The newest proven record of a peer; undefined when none was seen yet. */
  get(domain: string): PeerRecord | undefined {
    return this.#byDomain.get(domain);
  }

  /** Calls `listener` with each record that is read from disk, or is newer and now there. */
  onRecord(listener: (domain: string, record: NodeRecord) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /**
   * Asks the peer for its record, over a link that has just come up. A peer that has none, or one
   * that cannot be believed, keeps the record that it had: that is logged, and the link goes on.
   */
  async refresh(peer: Peer, session: LinkSession): Promise<void> {
    const { log } = this.#runtime;
    const { domain } = peer;
    try {
      const { record } = await session.call(methods.getNodeRecord, { domain: '' });
      if (record !== undefined) await this.#take(peer, session.spkiSha256, record);
    } catch (error) {
      if (session.signal.aborted) return;
      const { reason, message } = asQpcError(error);
      log.warn('peer record refused', { peer: domain, reason, error: message });
    }
  }

  async #take(peer: Peer, connectionSpki: Uint8Array, signed: SignedNodeRecord): Promise<void> {
    const { domain, pins } = peer;
    const { clock, log } = this.#runtime;
    const held = this.#byDomain.get(domain);
    const record = verifyNodeRecord(signed, {
      domain,
      pins,
      connectionSpki,
      nowMs: clock.now(),
      ...(held === undefined ? {} : { seq: Number(held.record.seq) }),
    });
    if (held !== undefined && held.record.seq === record.seq) {
      if (sameBytes(held.signed.record, signed.record)) return;
      // Which of two records of one seq came first must not depend on who asked when.
      log.warn('peer record refused', {
        peer: domain,
        reason: 'SEQ_CONFLICT',
        seq: Number(record.seq),
      });
      return;
    }
    await this.#store.putPeerRecord(domain, toBinary(SignedNodeRecordSchema, signed));
    this.#set(domain, { signed, record });
    log.info('peer record', { peer: domain, seq: Number(record.seq), logs: record.kt.length });
  }

  #set(domain: string, held: PeerRecord): void {
    this.#byDomain.set(domain, held);
    for (const listener of this.#listeners) listener(domain, held.record);
  }
}
