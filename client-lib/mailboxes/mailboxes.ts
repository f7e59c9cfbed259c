/**
 * Mailboxes of this device (docs/protocol/p2p.md, "Mailboxes"): at up to two nodes that the own one peers
 * with, so that what is sent while the own node is away comes here meanwhile. Each is visited when the own
 * node fails, for as long as it is away and once after, and every six hours; a visit keeps it for longer.
 */
import {
  hasReason,
  jitter,
  QpcError,
  TransportError,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import { knownRecordOf } from '../kt/log-record.ts';
import type { Session } from '../session.ts';
import { inOwnOrder, nodeRecordOf } from '../peers/node-word.ts';
import type { ClientStore } from '../store/store.ts';
import { visitMailbox, type VisitParts } from './visit.ts';

export const mailboxLimits = {
  mailboxes: 2,
  /** Peers of the own node that are thought of. */
  candidates: 64,
  /** Between two visits while the own node is there (ms), and a quarter of it less at random. */
  visitMs: 6 * 3_600_000,
  /** First and longest wait after a visit that failed, and the longest while the own node is away (ms). */
  retryMinMs: 2_000,
  retryMaxMs: 3_600_000,
  awayRetryMaxMs: 60_000,
  /** How often it is looked whether the own token is another one (ms), and half as much at random. */
  lookMs: 20_000,
  /** So long after the start a device is looking for its first ones (ms). */
  settleMs: 10_000,
  /** No node keeps one for longer without being asked again (ms), whatever it says. */
  lifetimeMaxMs: 30 * 24 * 3_600_000,
} as const;

export interface MailboxesParts extends VisitParts {
  readonly events: EventBus;
  readonly ownDomain: string;
  /** The own user's credential (KT), if the log made one. */
  readonly credential: () => Uint8Array | undefined;
  /** Gets a new one. It is made once a day, the first one maybe before peers had cosigned that much of the log. */
  readonly renewCredential: (signal: AbortSignal) => Promise<void>;
  /** There are other ones. */
  readonly onChange: () => void;
}

/** A mailbox, or a node that is asked for one. */
interface Place {
  readonly domain: string;
  readonly record: Uint8Array;
  /** By the own clock; undefined: it was not granted yet. */
  expiresMs: number | undefined;
  failures: number;
  /** When it is visited (monotonic ms). */
  dueMs: number;
  /** The token that it was told last, in this run. */
  toldToken: number | undefined;
  visit: Promise<void> | undefined;
  /** It is given back: a visit that waits there ends. */
  readonly left: AbortController;
}

export class Mailboxes {
  readonly #parts: MailboxesParts;
  readonly #runtime: Runtime;
  readonly #store: ClientStore;
  readonly #places = new Map<string, Place>();
  /** Nodes that gave none: how often, and until when they are not asked (monotonic ms). */
  readonly #rests = new Map<string, { readonly failures: number; readonly untilMs: number }>();
  readonly #ended = new AbortController();
  readonly #watching: Disposable;
  #offered: readonly string[] = [];
  #session: Session | undefined;
  #isAway = false;
  #timer: Timer | undefined;
  #looking: Promise<void> | undefined;
  #settledMs = 0;
  #isSettled = false;

  constructor(parts: MailboxesParts) {
    this.#parts = parts;
    this.#runtime = parts.runtime;
    this.#store = parts.store;
    this.#watching = parts.events.listen((event) => {
      if (event.type !== 'ownNode') return;
      this.#isAway = event.isAway;
      this.#visitSoon();
    });
  }

  /** The swarm runs, and what is in its record is told. */
  start(): void {
    const { clock } = this.#runtime;
    this.#settledMs = clock.monotonic() + mailboxLimits.settleMs;
    for (const { domain, record, expiresMs } of this.#store.mailboxes.own()) {
      if (expiresMs > clock.now() && this.#places.size < mailboxLimits.mailboxes) {
        this.#places.set(domain, this.#placeOf(domain, record, expiresMs));
      } else this.#store.transaction(() => this.#store.mailboxes.delete(domain));
    }
    if (this.#places.size > 0) this.#parts.onChange();
    this.look();
  }

  async stop(): Promise<void> {
    this.#ended.abort(new TransportError('closed', 'mailboxes: stopped'));
    this.#watching[Symbol.dispose]();
    this.#timer?.cancel();
    await this.#looking;
    for (const { visit } of this.#places.values()) await visit;
  }

  /** Domains that keep one for this device. */
  get domains(): readonly string[] {
    return [...this.#places.values()]
      .filter((one) => one.expiresMs !== undefined)
      .map(({ domain }) => domain);
  }

  /** The first ones are still looked for. */
  get isSettling(): boolean {
    return !this.#isSettled && this.#runtime.clock.monotonic() < this.#settledMs;
  }

  /** The own node names its peers. */
  offered(domains: readonly string[], session: Session): void {
    const { ownDomain, identityKey } = this.#parts;
    const { candidates: max } = mailboxLimits;
    this.#session = session;
    this.#offered = inOwnOrder(domains, { rid: identityKey.publicKey, ownDomain, max });
    for (const domain of this.#rests.keys()) {
      if (!this.#offered.includes(domain)) this.#rests.delete(domain);
    }
    this.look();
  }

  /** The network has changed: what failed is tried anew. */
  networkChanged(): void {
    this.#visitSoon();
  }

  /** It is given back: nobody is told of it any more, nor is the node asked for one soon. Resolves when no visit is under way. */
  async leave(domain: string): Promise<void> {
    const place = this.#places.get(domain);
    this.#restNode(domain, mailboxLimits.retryMaxMs);
    if (place === undefined) return;
    this.#places.delete(domain);
    place.left.abort(new TransportError('cancelled', 'the mailbox is given back'));
    await place.visit;
    this.#parts.onChange();
  }

  /** Something has changed: it is looked what is due. Never fails. */
  look(): void {
    if (this.#ended.signal.aborted || this.#looking !== undefined) return;
    this.#timer?.cancel();
    this.#looking = this.#round()
      .catch((error: unknown) => {
        this.#runtime.log.error('mailboxes', { error: String(error) });
      })
      .finally(() => {
        this.#looking = undefined;
        this.#plan();
      });
  }

  #plan(): void {
    if (this.#ended.signal.aborted) return;
    const { clock, random } = this.#runtime;
    const { lookMs, mailboxes } = mailboxLimits;
    const nowMs = clock.monotonic();
    const hasRoom = this.#places.size < mailboxes;
    const asked = hasRoom ? this.#offered.filter((domain) => !this.#places.has(domain)) : [];
    const idle = [...this.#places.values()].filter(({ visit }) => visit === undefined);
    const waits = [
      ...idle.map(({ dueMs }) => dueMs - nowMs),
      // One that is over already became so since the round, and is asked in the next.
      ...asked.flatMap((domain) => this.#rests.get(domain)?.untilMs ?? []).map((ms) => ms - nowMs),
    ];
    const nextMs = Math.max(1, Math.min(lookMs + jitter(random, lookMs / 2), ...waits));
    this.#timer = clock.timer(nextMs, () => this.look());
  }

  #visitSoon(): void {
    const nowMs = this.#runtime.clock.monotonic();
    for (const place of this.#places.values()) {
      place.failures = 0;
      place.dueMs = nowMs;
    }
    this.look();
  }

  async #round(): Promise<void> {
    const { clock } = this.#runtime;
    const { mailboxes } = mailboxLimits;
    for (const domain of this.#offered) {
      if (this.#ended.signal.aborted || this.#places.size >= mailboxes) break;
      if (this.#places.has(domain)) continue;
      if ((this.#rests.get(domain)?.untilMs ?? 0) > clock.monotonic()) continue;
      const record = await nodeRecordOf(domain, this.#session, { store: this.#store, clock });
      if (record === undefined) this.#restNode(domain);
      // It may have been given back meanwhile.
      else if ((this.#rests.get(domain)?.untilMs ?? 0) <= clock.monotonic())
        this.#places.set(domain, this.#placeOf(domain, record, undefined));
    }
    if (this.#ended.signal.aborted) return;
    // Who gave none is asked again later, and nobody waits for that.
    const isThrough =
      this.domains.length >= mailboxes ||
      this.#offered.every((one) => this.domains.includes(one) || this.#rests.has(one));
    this.#isSettled ||= this.#session !== undefined && isThrough;
    const token = this.#token();
    for (const place of this.#places.values()) {
      // Whoever was blocked must not go on by the old one.
      if (place.visit !== undefined) continue;
      const isToldAnother = place.toldToken !== undefined && place.toldToken !== token?.id;
      if (!isToldAnother && place.dueMs > clock.monotonic()) continue;
      // Once: a node that cannot be told now is told when it is visited next.
      place.toldToken = undefined;
      place.visit = this.#visit(place).finally(() => {
        place.visit = undefined;
        this.look();
      });
    }
  }

  #placeOf(domain: string, record: Uint8Array, expiresMs: number | undefined): Place {
    const dueMs = this.#runtime.clock.monotonic();
    return {
      ...{ domain, record, expiresMs, dueMs, failures: 0 },
      ...{ toldToken: undefined, visit: undefined, left: new AbortController() },
    };
  }

  /** The one that contacts have: the own node has it too. */
  #token() {
    const own = this.#store.tokens.own();
    return own?.isTold === true ? own : undefined;
  }

  /** Never fails. */
  async #visit(place: Place): Promise<void> {
    const { clock, random, log } = this.#runtime;
    const { domain } = place;
    const [credential, token] = [this.#parts.credential(), this.#token()];
    try {
      if (credential === undefined || token === undefined) {
        throw new TransportError('unreachable', 'nothing to show yet');
      }
      const { record: node } = knownRecordOf(place.record);
      const onGranted = (lifetimeMs: number): void => this.#granted(place, token.id, lifetimeMs);
      const isWanted = (): boolean => this.#isAway && place.toldToken === this.#token()?.id;
      const what = { domain, node, credential, token: token.token, onGranted, isWanted };
      await visitMailbox(
        this.#parts,
        what,
        AbortSignal.any([this.#ended.signal, place.left.signal]),
      );
      place.failures = 0;
      const { visitMs, retryMinMs } = mailboxLimits;
      const waitMs = this.#isAway ? retryMinMs : visitMs - jitter(random, visitMs / 4);
      place.dueMs = clock.monotonic() + waitMs;
    } catch (error) {
      if (this.#ended.signal.aborted || place.left.signal.aborted) return;
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      log.debug('mailbox not visited', { domain, reason, error: String(error) });
      this.#failed(place, error);
      if (hasReason(error, 'BLOCKED')) await this.#renew();
    }
  }

  async #renew(): Promise<void> {
    try {
      await this.#parts.renewCredential(this.#ended.signal);
    } catch (error) {
      this.#runtime.log.debug('no new credential', { error: String(error) });
    }
  }

  #granted(place: Place, token: number, lifetimeMs: number): void {
    const { domain, record } = place;
    const expiresMs = this.#runtime.clock.now() + Math.min(lifetimeMs, mailboxLimits.lifetimeMaxMs);
    this.#store.transaction(() => this.#store.mailboxes.put({ domain, record, expiresMs }));
    place.toldToken = token;
    this.#rests.delete(domain);
    const isNew = place.expiresMs === undefined;
    place.expiresMs = expiresMs;
    if (!isNew) return;
    this.#runtime.log.debug('mailbox', { domain });
    this.#parts.onChange();
  }

  #failed(place: Place, error: unknown): void {
    const { clock, random } = this.#runtime;
    const { retryMinMs, retryMaxMs, awayRetryMaxMs } = mailboxLimits;
    const { domain } = place;
    const isRefused =
      error instanceof QpcError &&
      !(error instanceof TransportError) &&
      !hasReason(error, 'RATE_LIMITED', 'OVERLOADED', 'DRAINING', 'STORE_FULL');
    const isOver = (place.expiresMs ?? 0) <= clock.now();
    if (isRefused || isOver) {
      // It keeps none for this device, or not any longer: others are asked, and contacts told.
      this.#places.delete(domain);
      const isOff = hasReason(error, 'FEATURE_OFF', 'UNIMPLEMENTED');
      const retryMs = error instanceof QpcError ? error.retryAfterMs : undefined;
      this.#restNode(domain, isOff ? retryMaxMs / 2 : retryMs);
      if (place.expiresMs === undefined) return;
      this.#store.transaction(() => this.#store.mailboxes.delete(domain));
      this.#parts.onChange();
      return;
    }
    const capMs = this.#isAway ? awayRetryMaxMs : retryMaxMs;
    const boundMs = Math.min(capMs, retryMinMs * 2 ** Math.min(place.failures, 16));
    place.failures += 1;
    place.dueMs = clock.monotonic() + boundMs / 2 + jitter(random, boundMs / 2);
  }

  #restNode(domain: string, atLeastMs = 0): void {
    const { clock, random } = this.#runtime;
    const { retryMinMs, retryMaxMs } = mailboxLimits;
    const failures = (this.#rests.get(domain)?.failures ?? 0) + 1;
    const boundMs = Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(failures - 1, 16));
    const waitMs = Math.max(atLeastMs, boundMs / 2) + jitter(random, boundMs / 2);
    this.#rests.set(domain, { failures, untilMs: clock.monotonic() + waitMs });
  }
}
