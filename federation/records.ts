/**
 * The NodeRecords of the peers: the newest proven one of each, kept on disk with what else is known
 * of its keys (docs/protocol/federation.md). Who proves one is trust.ts; what stands in a record
 * (logs, cosigners) is for others to judge.
 */
import {
  certifyingKeys,
  liveKeys,
  sameBytes,
  UnauthenticatedError,
  type Runtime,
} from '@quicprochat/proto';
import {
  fromBinary,
  NodeRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
  type NodeRecord,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import type { HeldPeerRecord, PeerRecordStore } from './store.ts';

/** Retired keys of a peer that are remembered; it changes one in a year. */
const retiredMax = 32;

/** A record that was proven when it came. */
export interface PeerRecord {
  readonly signed: SignedNodeRecord;
  readonly record: NodeRecord;
}

/** Unknown keys that the domain's own site shows. */
export interface Candidate extends PeerRecord {
  readonly sinceMs: number;
}

/** What is known of the keys of a peer. */
export interface PeerKeys {
  readonly held: PeerRecord | undefined;
  readonly retiredPins: readonly Uint8Array[];
  readonly candidate: Candidate | undefined;
  /** Not from the peers file. */
  readonly isFound: boolean;
}

const nothing: PeerKeys = {
  held: undefined,
  retiredPins: [],
  candidate: undefined,
  isFound: false,
};

export class PeerRecords {
  readonly #store: PeerRecordStore;
  readonly #runtime: Runtime;
  readonly #byDomain = new Map<string, PeerKeys>();
  readonly #listeners = new Set<(domain: string, record: NodeRecord) => void>();

  constructor(store: PeerRecordStore, runtime: Runtime) {
    this.#store = store;
    this.#runtime = runtime;
  }

  /** Reads what is on disk; before the links start. Throws what the store throws. */
  async load(): Promise<void> {
    for (const stored of await this.#store.peerRecords()) {
      const held = stored.record === undefined ? undefined : parse(stored.record);
      const { retiredPins, isFound, candidateSinceMs: sinceMs } = stored;
      const candidate =
        stored.candidate === undefined ? undefined : { ...parse(stored.candidate), sinceMs };
      this.#byDomain.set(stored.domain, { held, retiredPins, candidate, isFound });
      if (held !== undefined) this.#tell(stored.domain, held.record);
    }
  }

  /** The newest proven record of a peer; undefined when none was seen yet. */
  get(domain: string): PeerRecord | undefined {
    return this.#byDomain.get(domain)?.held;
  }

  /** Keys under which a peer's certificates count (32 bytes each); none when no record was seen yet. */
  certifyingKeys(domain: string): readonly Uint8Array[] {
    const known = this.get(domain);
    return known === undefined ? [] : certifyingKeys(known.record);
  }

  keys(domain: string): PeerKeys {
    return this.#byDomain.get(domain) ?? nothing;
  }

  /** Domains that are not in the peers file and have shown a record. */
  get found(): readonly string[] {
    return [...this.#byDomain].filter(([, { isFound }]) => isFound).map(([domain]) => domain);
  }

  /** Domains with a candidate. */
  get candidates(): readonly string[] {
    return [...this.#byDomain].filter(([, one]) => one.candidate).map(([domain]) => domain);
  }

  /** Calls `listener` with each record that is read from disk, or is newer and now there. */
  onRecord(listener: (domain: string, record: NodeRecord) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /**
   * Keeps a proven record. Keys that the older one had and this one lacks are retired. Returns false
   * for the one that is held. `isAnew`: the older one counts no more. Throws UnauthenticatedError
   * BAD_CREDENTIAL for another record of the seq that is held.
   */
  async keep(
    domain: string,
    proven: PeerRecord,
    { isFound, isAnew }: { readonly isFound: boolean; readonly isAnew: boolean },
  ): Promise<boolean> {
    const known = this.keys(domain);
    const { held } = known;
    if (held !== undefined && held.record.seq === proven.record.seq) {
      // Which of two records of one seq came first must not depend on who asked when.
      if (sameBytes(held.signed.record, proven.signed.record)) return false;
      const message = `node record: a second one of seq ${proven.record.seq}`;
      if (!isAnew) throw new UnauthenticatedError('BAD_CREDENTIAL', message);
    }
    const now = pinsIn(proven.record);
    const gone = [...known.retiredPins, ...(held === undefined ? [] : pinsIn(held.record))];
    const retiredPins = unique(gone)
      .filter((pin) => !now.some((one) => sameBytes(one, pin)))
      .slice(-retiredMax);
    await this.#put(domain, { held: proven, retiredPins, candidate: undefined, isFound });
    const { log } = this.#runtime;
    const { seq, kt } = proven.record;
    log.info('peer record', { peer: domain, seq: Number(seq), logs: kt.length });
    this.#tell(domain, proven.record);
    return true;
  }

  /** Remembers keys that nobody known here has signed, or forgets them. */
  async setCandidate(domain: string, candidate: Candidate | undefined): Promise<void> {
    await this.#put(domain, { ...this.keys(domain), candidate });
  }

  /** A found domain is as unknown as before it was found. */
  async forget(domain: string): Promise<void> {
    await this.#put(domain, nothing);
    this.#byDomain.delete(domain);
  }

  async #put(domain: string, keys: PeerKeys): Promise<void> {
    const { held, retiredPins, candidate, isFound } = keys;
    const encode = (one: PeerRecord | undefined): Uint8Array | undefined =>
      one === undefined ? undefined : toBinary(SignedNodeRecordSchema, one.signed);
    const stored: HeldPeerRecord = {
      domain,
      record: encode(held),
      retiredPins,
      candidate: encode(candidate),
      candidateSinceMs: candidate?.sinceMs ?? 0,
      isFound,
    };
    await this.#store.putPeerRecord(stored);
    this.#byDomain.set(domain, keys);
  }

  #tell(domain: string, record: NodeRecord): void {
    for (const listener of this.#listeners) listener(domain, record);
  }
}

/** SPKI hashes of a record's keys, live or not. */
export function pinsIn(record: NodeRecord): Uint8Array[] {
  return record.keys.map(({ spkiSha256 }) => spkiSha256);
}

/** SPKI hashes of the keys whose time is now. */
export function livePins(record: NodeRecord, nowMs: number): Uint8Array[] {
  return liveKeys(record, nowMs).map(({ spkiSha256 }) => spkiSha256);
}

export function unique(pins: readonly Uint8Array[]): Uint8Array[] {
  return [...new Map(pins.map((pin) => [Buffer.from(pin).toString('hex'), pin])).values()];
}

function parse(bytes: Uint8Array): PeerRecord {
  const signed = fromBinary(SignedNodeRecordSchema, bytes);
  return { signed, record: fromBinary(NodeRecordSchema, signed.record) };
}
