/**
 * The two logs behind one face: katie's Tree in the Go program, and KtLog with its memory store.
 * Requests and responses are the protocol's bytes.
 */
import {
  auditorUpdate,
  contactMonitorRequest,
  contactMonitorResponse,
  decode,
  encode,
  KtLog,
  MemoryTreeStore,
  nativeSigner,
  nativeSuite,
  noteKey,
  ownerInitRequest,
  ownerInitResponse,
  ownerMonitorRequest,
  ownerMonitorResponse,
  searchRequest,
  searchResponse,
  SignatureType,
  updateRequest,
  updateResponse,
  type Configuration,
} from '@quicprochat/kt-log';
import { QpcError } from '@quicprochat/proto/status';
import type { Dice } from '../../cluster/dice.ts';
import { SimulatedClock } from '../../simulated-clock.ts';
import type { KatieServer } from './katie-process.ts';
import { ofBase64 } from './katie-process.ts';
import { suite, vrfProver } from './primitives.ts';

export const kinds = ['search', 'contactMonitor', 'ownerInit', 'ownerMonitor', 'update'] as const;
export type Kind = (typeof kinds)[number];

export interface LabelValues {
  readonly label: Uint8Array;
  readonly values: readonly Uint8Array[];
  /** Greatest version before. */
  readonly greatestVersion: number | undefined;
}
/** New versions that are asked for by an UpdateRequest of the label's owner. */
export interface OwnUpdate extends LabelValues {
  readonly last: number | undefined;
}

/** One entry that was added. */
export interface Added {
  readonly timestampMs: number;
  readonly root: Uint8Array;
  readonly entry: Uint8Array;
  /** An AuditorUpdate. */
  readonly update: Uint8Array;
  /** The owner's UpdateResponse, where one was asked for. */
  readonly response?: Uint8Array | undefined;
}
export type Served = { readonly response: Uint8Array } | { readonly refused: string };

export interface ServedLog {
  readonly name: 'katie' | 'ours';
  /** What time it is for the log; goes up with each entry. */
  readonly nowMs: number;
  /** Adds one entry at `atMs` or shortly after. Only our log takes an owner's request for it. */
  mutate(atMs: number, added: readonly LabelValues[], own?: OwnUpdate): Promise<Added>;
  serve(kind: Kind, request: Uint8Array): Promise<Served>;
}

/** Keys and durations of one history; the seeds are Ed25519's. */
export interface LogPlan {
  readonly signatureSeed: Uint8Array;
  readonly vrfSeed: Uint8Array;
  readonly auditorSeed: Uint8Array;
  readonly maxAheadMs: number;
  readonly maxBehindMs: number;
  readonly windowMs: number;
  readonly lifetimeMs: number | undefined;
}

/** The plan as the Go program reads it. */
export function katieConfig(plan: LogPlan, isAudited: boolean) {
  const { auditorSeed, lifetimeMs, ...rest } = plan;
  return { ...rest, lifetimeMs: lifetimeMs ?? 0, ...(isAudited ? { auditorSeed } : {}) };
}

export class KatieLog implements ServedLog {
  readonly name = 'katie';
  nowMs: number;
  /** Configuration as katie encodes it. */
  readonly config: Uint8Array;
  readonly #katie: KatieServer;
  readonly #id: number;

  private constructor(katie: KatieServer, id: number, config: Uint8Array, nowMs: number) {
    this.#katie = katie;
    this.#id = id;
    this.config = config;
    this.nowMs = nowMs;
  }

  static async open(katie: KatieServer, plan: LogPlan, nowMs: number): Promise<KatieLog> {
    const made = await katie.ask('log', nowMs, { config: katieConfig(plan, false) });
    return new KatieLog(katie, made.id ?? 0, ofBase64(made.config), nowMs);
  }

  async mutate(atMs: number, added: readonly LabelValues[]): Promise<Added> {
    this.nowMs = atMs;
    const add = added.flatMap(({ label, values }) => values.map((value) => ({ label, value })));
    const made = await this.#katie.ask('mutate', atMs, { id: this.#id, add });
    if (made.refused !== undefined) throw new Error(`katie does not write: ${made.refused}`);
    const [root, entry, update] = [made.root, made.entry, made.update].map(ofBase64);
    if (root === undefined || entry === undefined || update === undefined)
      throw new TypeError('reply');
    return { timestampMs: atMs, root, entry, update };
  }

  serve(kind: Kind, request: Uint8Array): Promise<Served> {
    return this.ask(kind, request);
  }

  /** Also the kinds that only the Go program knows. */
  async ask(kind: Kind | 'updateByParts', request: Uint8Array): Promise<Served> {
    const { refused, response } = await this.#katie.ask('serve', this.nowMs, {
      id: this.#id,
      kind,
      request,
    });
    return refused === undefined ? { response: ofBase64(response) } : { refused };
  }
}

/** How long our log collects one entry; a simulated time. */
const batchMs = 1;

export class OurLog implements ServedLog {
  readonly name = 'ours';
  readonly #log: KtLog;
  readonly #clock: SimulatedClock;

  private constructor(log: KtLog, clock: SimulatedClock) {
    this.#log = log;
    this.#clock = clock;
  }

  static async open(
    plan: LogPlan,
    config: Configuration,
    nowMs: number,
    dice: Dice,
  ): Promise<OurLog> {
    const clock = new SimulatedClock(nowMs);
    const note = nativeSigner(plan.auditorSeed);
    const { publicKey } = note;
    const key = noteKey(nativeSuite.sha256, 'ours.example', SignatureType.ed25519, publicKey);
    const log = await KtLog.open({
      config,
      identity: { origin: 'ours.example', key },
      keys: {
        treeHead: nativeSigner(plan.signatureSeed),
        note,
        vrf: vrfProver(plan.vrfSeed),
      },
      store: new MemoryTreeStore(),
      suite,
      clock,
      random: { bytes: (length) => dice.bytes(length) },
      sequencerLimits: { batchMs },
    });
    return new OurLog(log, clock);
  }

  get nowMs(): number {
    return this.#clock.now();
  }

  async mutate(atMs: number, added: readonly LabelValues[], own?: OwnUpdate): Promise<Added> {
    await this.#clock.advance(Math.max(0, atMs - this.nowMs));
    const position = this.#log.size;
    const written = added.map(({ label, values, greatestVersion = -1 }) =>
      this.#log.append({ label, values, greatest: greatestVersion }),
    );
    const updated = own === undefined ? undefined : this.#log.update(own);
    await this.#clock.advance(batchMs);
    await Promise.all(written);
    const answer = await updated;
    const response = answer === undefined ? undefined : encode(updateResponse(1), answer);
    const { head, size } = this.#log;
    const [audited] = await this.#log.auditedEntries(position, size);
    if (size !== position + 1 || head === undefined || audited === undefined) {
      throw new Error(`our log went from ${position} to ${size} entries in one batch`);
    }
    const { timestampMs } = audited.update;
    const entry = new Uint8Array(40);
    new DataView(entry.buffer).setBigUint64(0, BigInt(timestampMs));
    entry.set(audited.prefixRoot, 8);
    const update = encode(auditorUpdate, audited.update);
    return { timestampMs, root: head.root, entry, update, response };
  }

  async serve(kind: Kind, request: Uint8Array): Promise<Served> {
    try {
      return { response: await this.#answer(kind, request) };
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      return { refused: `${error.reason}: ${error.message}` };
    }
  }

  async #answer(kind: Kind, bytes: Uint8Array): Promise<Uint8Array> {
    const log = this.#log;
    const mode = 1;
    switch (kind) {
      case 'search': {
        const request = decode(searchRequest, bytes);
        const structure = searchResponse(mode, request.version !== undefined);
        return encode(structure, await log.search(request));
      }
      case 'contactMonitor': {
        const response = await log.contactMonitor(decode(contactMonitorRequest, bytes));
        return encode(contactMonitorResponse(mode), response);
      }
      case 'ownerInit':
        return encode(
          ownerInitResponse(mode),
          await log.ownerInit(decode(ownerInitRequest, bytes)),
        );
      case 'ownerMonitor': {
        const response = await log.ownerMonitor(decode(ownerMonitorRequest, bytes));
        return encode(ownerMonitorResponse(mode), response);
      }
      case 'update':
        return encode(updateResponse(mode), await log.update(decode(updateRequest, bytes)));
    }
  }
}
