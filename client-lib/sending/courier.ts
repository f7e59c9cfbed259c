/**
 * Brings copies to a node: those that are handed over in one turn travel in one BatchEnqueue, a
 * payload once however many devices it is for, and what is for one device in order and undivided; a lone
 * one by Enqueue. What an answer means for a row, what is repeated and when, is the outbox's business.
 */
import {
  batchCapability,
  hex,
  maxBatchBytes,
  maxBatchPayloads,
  maxBatchTargets,
  methods,
  QpcError,
  sameBytes,
  Status,
  TransportError,
} from '@quicprochat/proto';
import type { Outcome, TargetStatus } from '@quicprochat/proto/messages';
import { decodePost, sendPost } from '../channels/channel.ts';
import type { Session } from '../session.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';

/** Bytes on the wire of a target beside its domain (key, token, index), and of a payload beside its bytes. */
const targetBytes = 64;
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
  readonly #bytesMax: number;
  #waiting: Parcel[] = [];

  /** `bytesMax`: of a batch; a node takes less of a caller without a login. */
  constructor(session: CourierSession, bytesMax: number = maxBatchBytes) {
    this.#session = session;
    this.#bytesMax = bytesMax;
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
    const parcel = { ...Promise.withResolvers<Receipt>(), entry, token };
    this.#waiting.push(parcel);
    // Copies of one fan-out are handed over in the same turn, before this runs.
    if (this.#waiting.length === 1) queueMicrotask(() => this.#leave());
    return parcel.promise;
  }

  #leave(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    const devices = byDevice(waiting);
    if (!this.takesBatches) {
      for (const parcels of devices) void this.#oneByOne(parcels);
      return;
    }
    for (const batch of batchesOf(devices, this.#bytesMax)) {
      if (batch.parcels.length === 1) void this.#oneByOne(batch.parcels);
      else void this.#together(batch);
    }
  }

  /** Those for one device; what stands behind a copy that failed fails with it, or it would overtake it. */
  async #oneByOne(parcels: readonly Parcel[]): Promise<void> {
    for (const [index, { entry, token, resolve }] of parcels.entries()) {
      try {
        resolve(await this.#single(entry, token));
      } catch (error) {
        for (const { reject } of parcels.slice(index)) reject(error);
        return;
      }
    }
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
      if (isOfOne) for (const those of byDevice(parcels)) void this.#oneByOne(those);
      else for (const { reject } of parcels) reject(error);
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

/** In the order of the first copy for each. */
function byDevice(parcels: readonly Parcel[]): readonly (readonly Parcel[])[] {
  return [...Map.groupBy(parcels, ({ entry: { rid } }) => hex(rid)).values()];
}

/** As few requests as the bounds allow; each device's parcels, far below them, in one. */
function batchesOf(devices: readonly (readonly Parcel[])[], bytesMax: number): readonly Batch[] {
  const batches: BatchInTheMaking[] = [];
  for (const parcels of devices) {
    if (batches.at(-1)?.add(parcels) === true) continue;
    const batch = new BatchInTheMaking(bytesMax);
    batch.add(parcels);
    batches.push(batch);
  }
  return batches;
}

class BatchInTheMaking implements Batch {
  readonly payloads: OutboxEntry[] = [];
  readonly parcels: (Parcel & { readonly payload: number })[] = [];
  /** Where a payload stands, by its id. */
  readonly #places = new Map<string, number>();
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** False, and nothing is added, when the batch has no room for all of them; an empty one takes any. */
  add(parcels: readonly Parcel[]): boolean {
    const fresh = parcels.filter(({ entry }) => this.#placeOf(entry) === undefined);
    const bytes =
      parcels.reduce((sum, { entry }) => sum + targetBytes + entry.domain.length, 0) +
      fresh.reduce((sum, { entry }) => sum + payloadBytes + entry.payload.length, 0);
    const isFull =
      this.parcels.length + parcels.length > maxBatchTargets ||
      this.payloads.length + fresh.length > maxBatchPayloads ||
      this.#bytes + bytes > this.#bytesMax;
    if (isFull && this.parcels.length > 0) return false;
    this.#bytes += bytes;
    for (const parcel of parcels) {
      let payload = this.#placeOf(parcel.entry);
      if (payload === undefined) {
        payload = this.payloads.push(parcel.entry) - 1;
        this.#places.set(hex(parcel.entry.mid), payload);
      }
      this.parcels.push({ ...parcel, payload });
    }
    return true;
  }

  #placeOf({ mid, payload }: OutboxEntry): number | undefined {
    const place = this.#places.get(hex(mid));
    if (place === undefined) return undefined;
    // An id with other bytes is another payload.
    const there = this.payloads[place];
    return there !== undefined && sameBytes(there.payload, payload) ? place : undefined;
  }
}
