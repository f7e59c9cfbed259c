/**
 * Endpoint records (docs/protocol/p2p.md): the own one goes to the members of conversations inside MLS,
 * theirs are kept, so that devices find each other when no node answers. They are location data: only
 * who was written to here gets the own one, and only a device's own word about itself is kept.
 */
import { verifyEndpointRecord, type EndpointRecord, type Reach } from '@quicprochat/p2p';
import { deviceIdOf, hex, jitter, QpcError, type Runtime } from '@quicprochat/proto';
import {
  EndpointRecordSchema,
  fromBinary,
  type SignedEndpointRecord,
} from '@quicprochat/proto/messages';
import type { EventBus } from '../events.ts';
import type { Extra } from '../sending/extras.ts';
import type { ClientStore } from '../store/store.ts';

const hourMs = 3_600_000;

export const endpointRules = {
  /** A conversation gets a changed record at most so often (ms). Every 3 days it is a new one anyway. */
  changeMs: hourMs,
  /** A swarm that starts looks for its relays first: its record is told after this time (ms). */
  settleMs: 2_000,
  /** Between two looks whether it found others' relays too (ms). */
  settlingMs: 500,
  /** New members are told within this time (ms), not all at once. */
  joinJitterMs: 10_000,
  /** Checked records in memory. */
  checked: 512,
} as const;

export interface EndpointsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  /** What addresses of others may be. */
  readonly reach: readonly Reach[];
  /** Something is to be told soon. */
  readonly onDue: (delayMs?: number) => void;
  /** A newer record of a device (hex) is kept, or it came by itself. */
  readonly onLearned: (target: string) => void;
  /** The own record is going to be another one in a moment. */
  readonly isSettling?: () => boolean;
}

export class Endpoints implements Extra {
  readonly #parts: EndpointsParts;
  readonly #watching: Disposable;
  #own: { readonly signed: SignedEndpointRecord; readonly seq: number } | undefined;
  /** From when on it is told (monotonic ms). */
  #settledMs: number | undefined;
  /** By device (hex), in the order of their use. */
  readonly #checked = new Map<string, EndpointRecord>();

  constructor(parts: EndpointsParts) {
    this.#parts = parts;
    const { store, runtime, onDue } = parts;
    this.#watching = parts.events.listen((event) => {
      if (event.type !== 'membersChanged') return;
      store.transaction(() => store.endpoints.markTold(event.conversationId, 0, 0));
      onDue(jitter(runtime.random, endpointRules.joinJitterMs));
    });
  }

  stop(): void {
    this.#watching[Symbol.dispose]();
  }

  /** The own record is another one. */
  changed(signed: SignedEndpointRecord, seq: number): void {
    const { store, runtime, onDue } = this.#parts;
    store.transaction(() => store.endpoints.putOwnSeq(seq));
    const { addresses, relays, mailboxes } = fromBinary(EndpointRecordSchema, signed.record);
    // One that leads nowhere would only keep the next one waiting.
    if (addresses.length + relays.length + mailboxes.length === 0) return;
    this.#own = { signed, seq };
    this.#settledMs ??= runtime.clock.monotonic() + endpointRules.settleMs;
    onDue(this.#unsettledMs());
  }

  /** The newest own record; undefined while the swarm does not run. */
  get own(): SignedEndpointRecord | undefined {
    return this.#own?.signed;
  }

  /** Nothing is told any more: the swarm has stopped. */
  gone(): void {
    this.#own = undefined;
    this.#settledMs = undefined;
  }

  next(
    conversationId: Uint8Array,
    members: readonly string[],
  ): { readonly endpoint: SignedEndpointRecord } | undefined {
    const { store } = this.#parts;
    const own = this.#own;
    if (own === undefined || this.#unsettledMs() > 0) return undefined;
    if (!store.endpoints.isDue(conversationId, own.seq, this.#changedMs())) {
      return undefined;
    }
    const blocked = store.tokens.blocked();
    if (members.some((userId) => blocked.includes(userId))) return undefined;
    return { endpoint: own.signed };
  }

  mark(conversationId: Uint8Array): void {
    const { store, runtime } = this.#parts;
    if (this.#own === undefined) return;
    store.endpoints.markTold(conversationId, this.#own.seq, runtime.clock.now());
  }

  due(): readonly Uint8Array[] {
    const { store, onDue } = this.#parts;
    if (this.#own === undefined) return [];
    const waitMs = this.#unsettledMs();
    if (waitMs === 0) return store.endpoints.due(this.#own.seq, this.#changedMs());
    onDue(waitMs);
    return [];
  }

  #unsettledMs(): number {
    const { runtime, isSettling } = this.#parts;
    const waitMs = Math.max(0, (this.#settledMs ?? 0) - runtime.clock.monotonic());
    return waitMs === 0 && isSettling?.() === true ? endpointRules.settlingMs : waitMs;
  }

  /** A record that the device `from` sent inside MLS. What breaks a rule, or is not newer, is dropped. */
  take(signed: SignedEndpointRecord, from: Uint8Array): void {
    const { store, runtime, reach } = this.#parts;
    const nowMs = runtime.clock.now();
    const knownSeq = store.endpoints.get(from)?.seq;
    try {
      const record = verifyEndpointRecord(signed, {
        ...{ nowMs, device: from, reach },
        ...(knownSeq === undefined ? {} : { knownSeq }),
      });
      this.#keep(record);
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      runtime.log.debug('endpoint record dropped', { reason: error.reason, error: error.message });
    }
  }

  /** A device that may deliver here came by itself, and proved this. So there is a way to it now. */
  met(record: EndpointRecord): void {
    this.learn(record);
    this.#parts.onLearned(hex(record.device));
  }

  /** What a device proved; kept if it is newer. */
  learn(record: EndpointRecord): void {
    const { store } = this.#parts;
    if (record.seq <= (store.endpoints.get(record.device)?.seq ?? -1)) return;
    store.transaction(() => this.#keep(record));
  }

  #keep(record: EndpointRecord): void {
    const { store, runtime, onLearned } = this.#parts;
    const { device, signed, seq } = record;
    store.endpoints.put(device, signed, record);
    this.#checked.delete(hex(device));
    runtime.log.debug('endpoint kept', { of: deviceIdOf(device), seq });
    onLearned(hex(device));
  }

  /** Where a device (hex) is, if a record of it is kept that has not expired. */
  of(target: string): EndpointRecord | undefined {
    const { store, runtime, reach } = this.#parts;
    const nowMs = runtime.clock.now();
    const known = this.#checked.get(target);
    if (known !== undefined && known.expiresMs > nowMs) return known;
    this.#checked.delete(target);
    const stored = store.endpoints.get(Buffer.from(target, 'hex'));
    if (stored === undefined || stored.expiresMs <= nowMs) return undefined;
    // Addresses that could be reached when it came may be out of reach by another configuration.
    try {
      const record = verifyEndpointRecord(stored.signed, { nowMs, reach });
      this.#checked.set(target, record);
      for (const oldest of this.#checked.keys()) {
        if (this.#checked.size <= endpointRules.checked) break;
        this.#checked.delete(oldest);
      }
      return record;
    } catch {
      return undefined;
    }
  }

  #changedMs(): number {
    return this.#parts.runtime.clock.now() - endpointRules.changeMs;
  }
}
