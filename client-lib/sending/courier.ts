/**
 * Brings copies to a node: those that are handed over in one turn travel in one BatchEnqueue, a
 * payload once however many devices it is for; a lone one by Enqueue. What an answer means for a row,
 * what is repeated and in which order, is the outbox's business.
 */
import {
  batchCapability,
  maxBatchBytes,
  maxBatchPayloads,
  maxBatchTargets,
  methods,
  QpcError,
  Status,
  TransportError,
} from '@quicprochat/proto';
import type { Outcome, TargetStatus } from '@quicprochat/proto/messages';
import { decodePost, sendPost } from '../channels/channel.ts';
import type { Session } from '../session.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';

/** Bytes on the wire of a target (key, domain, token, index), and of a payload beside its bytes. */
const targetBytes = 96;
const payloadBytes = 32;

/** The node's OK, not checked yet. */
export interface Receipt {
  /** DUPLICATE: it had the copy before, with the token that came then. */
  readonly outcome: Outcome;
  readonly proof: Uint8Array;
  readonly receivedMs: bigint;
}

interface Parcel extends PromiseWithResolvers<Receipt> {
  readonly entry: OutboxEntry;
  readonly token: Uint8Array;
}

/** What a courier needs of a connection. */
export type CourierSession = Pick<Session, 'hello' | 'call'>;

export class Courier {
  readonly #session: CourierSession;
  #waiting: Parcel[] = [];

  constructor(session: CourierSession) {
    this.#session = session;
  }

  get takesBatches(): boolean {
    return this.#session.hello.capabilities.includes(batchCapability);
  }

  /**
   * One attempt; resolves with the node's OK to this copy. Throws TransportError and the node's refusal of
   * this copy (QpcError). `token` is the recipient's delivery token, empty for none.
   */
  send(entry: OutboxEntry, token: Uint8Array): Promise<Receipt> {
    if (entry.post !== undefined) {
      const { domains, ...post } = decodePost(entry.post);
      const { mid, payload } = entry;
      return sendPost(this.#session, { ...post, mid, payload }, domains);
    }
    if (!this.takesBatches) return this.#single(entry, token);
    const parcel = { ...Promise.withResolvers<Receipt>(), entry, token };
    this.#waiting.push(parcel);
    // Copies of one fan-out are handed over in the same turn, before this runs.
    if (this.#waiting.length === 1) queueMicrotask(() => this.#leave());
    return parcel.promise;
  }

  #leave(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const batch of batchesOf(waiting)) {
      const [first] = batch.parcels;
      if (first !== undefined && batch.parcels.length === 1) this.#alone(first);
      else void this.#together(batch);
    }
  }

  #alone({ entry, token, resolve, reject }: Parcel): void {
    this.#single(entry, token).then(resolve, reject);
  }

  async #single({ rid, domain, mid, payload }: OutboxEntry, token: Uint8Array): Promise<Receipt> {
    const request = { rid, domain, mid, payload, ttlS: 0, token };
    return this.#session.call(methods.enqueue, request);
  }

  async #together({ payloads, parcels }: Batch): Promise<void> {
    try {
      const { statuses } = await this.#session.call(methods.batchEnqueue, {
        payloads: payloads.map(({ mid, payload }) => ({ mid, payload })),
        targets: parcels.map(({ entry: { rid, domain }, token, payload }) => {
          return { payload, rid, domain, token };
        }),
      });
      for (const [index, parcel] of parcels.entries()) settle(parcel, statuses[index]);
    } catch (error) {
      // The request as a whole was not understood: one bad copy must not take the others along.
      const isOfOne = error instanceof QpcError && refusesRequest(error);
      for (const parcel of parcels) {
        if (isOfOne) this.#alone(parcel);
        else parcel.reject(error);
      }
    }
  }
}

function settle(parcel: Parcel, status: TargetStatus | undefined): void {
  if (status === undefined) {
    parcel.reject(new TransportError('protocol', 'batch: no status for a target'));
  } else if (status.reason === '') {
    parcel.resolve(status);
  } else {
    const statusCode = Object.values(Status).find((one) => one === status.status && one !== 0);
    const { retryAfterMs } = status;
    parcel.reject(
      new QpcError(
        statusCode === undefined || statusCode === 0 ? Status.Internal : statusCode,
        status.reason,
        'the node refused this copy',
        retryAfterMs > 0n ? { retryAfterMs: Number(retryAfterMs) } : {},
      ),
    );
  }
}

function refusesRequest({ status }: QpcError): boolean {
  return (
    status === Status.InvalidArgument ||
    status === Status.PayloadTooLarge ||
    status === Status.Unimplemented
  );
}

interface Batch {
  readonly payloads: OutboxEntry[];
  readonly parcels: (Parcel & { readonly payload: number })[];
}

/** As few requests as the bounds allow, in order. */
function batchesOf(parcels: readonly Parcel[]): readonly Batch[] {
  const batches: Batch[] = [];
  let batch: Batch | undefined;
  let bytes = 0;
  let index = new Map<string, number>();
  for (const parcel of parcels) {
    const key = Buffer.from(parcel.entry.mid).toString('hex');
    let at = index.get(key);
    const known = at === undefined ? undefined : batch?.payloads[at];
    // An id with other bytes is another payload.
    if (known !== undefined && Buffer.compare(known.payload, parcel.entry.payload) !== 0) {
      at = undefined;
    }
    const cost = targetBytes + (at === undefined ? payloadBytes + parcel.entry.payload.length : 0);
    const isFull =
      batch === undefined ||
      batch.parcels.length >= maxBatchTargets ||
      (at === undefined && batch.payloads.length >= maxBatchPayloads) ||
      bytes + cost > maxBatchBytes;
    if (batch === undefined || isFull) {
      batch = { payloads: [], parcels: [] };
      batches.push(batch);
      index = new Map();
      at = undefined;
      bytes = payloadBytes + parcel.entry.payload.length;
    } else {
      bytes += cost;
    }
    if (at === undefined) {
      at = batch.payloads.push(parcel.entry) - 1;
      index.set(key, at);
    }
    batch.parcels.push({ ...parcel, payload: at });
  }
  return batches;
}
