/**
 * Ways past the own node (docs/protocol/p2p.md, "The ladder"): while it, or the node of a recipient, does
 * not answer, each device's copies go to its own node as a guest's, to its mailboxes at others, or to the device itself; the same id
 * and bytes on every rung. Each way carries everything that is not known to be behind it already, in order,
 * so that no message of a sender overtakes another. What the own node has, it keeps: a lower rung adds
 * copies, and cancels nothing.
 */
import { hasReason, hex, jitter, QpcError, TransportError, type Runtime } from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import type { Outbox } from '../sending/outbox.ts';
import type { Peers } from '../peers/peers.ts';
import { mostAfter, rowsTogether } from '../sending/rows-together.ts';
import type { SealedReceipt, SealedSender } from '../sending/sealed-sender.ts';
import type { OutboxEntry, OutboxRow } from '../store/outbox-copies.ts';
import type { ClientStore } from '../store/store.ts';
import { OwnNode } from './own-node.ts';

export const ladderLimits = {
  /** Devices that are served at the same time. */
  targetsInParallel: 32,
  /** An OK of another node is waited for so long (ms); then other ways are tried beside it. */
  guestMs: 1_000,
  /** A way that failed is tried again after this time and at most half of it more (ms). */
  retryMs: 30_000,
  /** How long a domain counts as away after the own node last said so (ms). */
  awayMs: 10 * 60_000,
  /** Copies that their devices refused, remembered. */
  refused: 4_096,
  /** Waiting of the own node for another one from which on its devices are tried past it (ms). */
  backOffMs: 30_000,
} as const;

export interface LadderParts {
  /** Domain of the own node. */
  readonly domain: string;
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly outbox: Pick<Outbox, 'guestAccepted' | 'mailboxAccepted' | 'delivered' | 'writeMarks'>;
  /** The way to a recipient's node without a login. */
  readonly guest: Pick<SealedSender, 'send'>;
  readonly peers?: Pick<Peers, 'deliver'> | undefined;
  /** Domains that keep mailboxes for a device (hex) of this home, as far as they can be written to. */
  readonly mailboxesOf?: (target: string, home: string) => readonly string[];
}

/** A way to a device. */
interface Rung {
  /** What it may leave out: what the device's node has, or only what the device has. */
  readonly at: 'node' | 'device';
  /** Whose mailbox it is: then this way adds a copy, and the others are tried all the same. */
  readonly mailbox?: string;
  /** One attempt. False: it is not known to have arrived, and this way is not tried now. */
  readonly send: (row: OutboxRow) => Promise<boolean>;
}

export class Ladder {
  readonly #parts: LadderParts;
  readonly #ownNode: OwnNode;
  readonly #ended = new AbortController();
  /** Domains that the own node cannot reach, until when (monotonic ms). */
  readonly #awayUntil = new Map<string, number>();
  /** Ways that failed, until when: "guest domain", "token rid", "peer rid". */
  readonly #restsUntil = new Map<string, number>();
  /** Rows that their devices could not open: they go by nodes alone. */
  readonly #refused = new Set<number>();
  /** Devices (hex) to be looked at, and their domains. */
  readonly #wanted = new Map<string, string>();
  readonly #busy = new Set<string>();
  /** Devices that wait until one of their ways may work again. */
  readonly #waiting = new Map<string, { readonly domain: string; cancel(): void }>();
  readonly #working = new Set<Promise<void>>();
  /** Rows above it were not looked at. */
  #seenId = 0;
  /** The same, of those that are looked at while the own node is in doubt. */
  #doubtedId = 0;

  constructor(parts: LadderParts) {
    this.#parts = parts;
    const { events, runtime } = parts;
    this.#ownNode = new OwnNode(runtime.clock, events, {
      onAway: (isAway) => {
        events.emit({ type: 'ownNode', isAway });
        this.#seenId = 0;
        this.kick();
      },
      onDoubt: () => {
        this.#doubtedId = 0;
        this.kick();
      },
    });
  }

  async stop(): Promise<void> {
    this.#ended.abort(new TransportError('closed', 'ladder: stopped'));
    this.#ownNode.stop();
    for (const waiting of this.#waiting.values()) waiting.cancel();
    await Promise.all(this.#working);
  }

  /** Resolves once the own node counts as away. Rejects with the signal's reason. */
  async away(signal: AbortSignal): Promise<void> {
    const changed = Promise.withResolvers<void>();
    const onAbort = (): void => changed.reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort);
    using _listening = this.#parts.events.listen((event) => {
      if (event.type === 'ownNode' && event.isAway) changed.resolve();
    });
    try {
      signal.throwIfAborted();
      if (!this.#ownNode.isAway) await changed.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** The own node said that it cannot reach a domain, or has not for `waitMs`. */
  unreachable(domain: string, waitMs: number): void {
    if (domain === this.#parts.domain || waitMs < ladderLimits.backOffMs) return;
    if (!this.#awayUntil.has(domain)) this.#seenId = 0;
    this.#awayUntil.set(domain, this.#nowMs() + ladderLimits.awayMs);
    this.kick();
  }

  /** The own node brought something there. */
  reached(domain: string): void {
    this.#awayUntil.delete(domain);
  }

  /** The network has changed: every way is tried anew. */
  networkChanged(): void {
    this.#restsUntil.clear();
    for (const target of this.#waiting.keys()) this.#want(target);
    this.kick();
  }

  /** It is known anew where a device (hex) is. */
  learned(target: string): void {
    this.#restsUntil.delete(`peer ${target}`);
    this.#want(target);
    this.kick();
  }

  /** Rows are there, or something has changed. Never fails. */
  kick(): void {
    if (this.#ended.signal.aborted) return;
    try {
      this.#look();
      this.#serveWanted();
    } catch (error) {
      this.#parts.runtime.log.error('ladder', { error: String(error) });
    }
  }

  #look(): void {
    const { isAway, isDoubtful } = this.#ownNode;
    const { outbox } = this.#parts.store;
    // What was accepted before counts too: it may lie in a node that is away.
    if (isAway || this.#awayUntil.size > 0) {
      const { targets, newestId } = outbox.undeliveredTargets(this.#seenId);
      this.#seenId = newestId;
      for (const { target, domain } of targets) this.#wanted.set(target, domain);
    }
    if (isAway || !isDoubtful) return;
    // It may only be slow: nothing but what waits for its word is worth another way.
    const { targets, newestId } = outbox.undeliveredTargets(this.#doubtedId, 'sealed');
    this.#doubtedId = newestId;
    for (const { target, domain } of targets) this.#wanted.set(target, domain);
  }

  #isWanted(domain: string): boolean {
    if (this.#ended.signal.aborted) return false;
    if (this.#ownNode.isDoubtful) return true;
    const untilMs = this.#awayUntil.get(domain);
    if (untilMs === undefined) return false;
    if (untilMs > this.#nowMs()) return true;
    this.#awayUntil.delete(domain);
    return false;
  }

  #serveWanted(): void {
    for (const [target, domain] of this.#wanted) {
      if (this.#busy.size >= ladderLimits.targetsInParallel) return;
      if (this.#busy.has(target)) continue;
      this.#wanted.delete(target);
      if (!this.#isWanted(domain)) continue;
      this.#busy.add(target);
      const work = this.#serve(target, domain).finally(() => {
        this.#working.delete(work);
        this.#busy.delete(target);
        this.kick();
      });
      this.#working.add(work);
    }
  }

  /** Brings a device what it has not, by the best ways that work. Never fails. */
  async #serve(target: string, domain: string): Promise<void> {
    // Asked for inside of a transaction, maybe: what is written down here must not be part of it.
    await Promise.resolve();
    const { node, others } = this.#rungs(target, domain);
    if (node !== undefined && (await this.#climb(node, target, domain))) return;
    const isThrough = await Promise.all(
      others.map(async (rung) => {
        const isAtItsEnd = await this.#climb(rung, target, domain);
        return isAtItsEnd && rung.mailbox === undefined;
      }),
    );
    if (isThrough.includes(true)) return;
    // Nobody knows that everything is there: asked again when a way may work again.
    if (this.#isWanted(domain)) this.#later(target, domain);
  }

  /** The device's own node comes before the others, which are tried together. */
  #rungs(
    target: string,
    domain: string,
  ): { readonly node: Rung | undefined; readonly others: readonly Rung[] } {
    const { store, peers, mailboxesOf } = this.#parts;
    const rid = Buffer.from(target, 'hex');
    const hasToken = store.tokens.of(rid) !== undefined;
    const isGuest = domain !== this.#parts.domain && hasToken;
    const mailboxes = hasToken ? (mailboxesOf?.(target, domain) ?? []) : [];
    const others: Rung[] = mailboxes.map((mailbox) => ({
      ...{ at: 'device', mailbox },
      send: (row) => this.#toMailbox(row, mailbox),
    }));
    if (peers !== undefined) {
      others.push({ at: 'device', send: (row) => this.#toDevice(row, peers) });
    }
    const node: Rung = { at: 'node', send: (row) => this.#asGuest(row) };
    return { node: isGuest ? node : undefined, others };
  }

  /** Everything by one way, in order; false when it does not work. Never fails. */
  async #climb(rung: Rung, target: string, domain: string): Promise<boolean> {
    const { store, outbox, runtime } = this.#parts;
    try {
      outbox.writeMarks();
      const next = (after: number): OutboxRow | undefined =>
        store.outbox.undelivered(target, after, rung.at, rung.mailbox);
      // A node keeps the order of copies that it is given together, a device may not.
      const isToNode = rung.at === 'node' || rung.mailbox !== undefined;
      let most = 1;
      for (let after = 0; ;) {
        if (!this.#isWanted(domain)) return true;
        const first = next(after);
        if (first === undefined) return true;
        const rows = rowsTogether(first, most, next);
        const areThrough = await Promise.all(rows.map((row) => rung.send(row)));
        if (areThrough.includes(false)) return false;
        after = rows.at(-1)?.id ?? first.id;
        if (isToNode) most = mostAfter(rows.length);
      }
    } catch (error) {
      runtime.log.error('ladder', { error: String(error) });
      return false;
    }
  }

  #asGuest(row: OutboxRow): Promise<boolean> {
    const { outbox } = this.#parts;
    const { domain } = row;
    return this.#toNode(row, { domain, device: `token ${nameOf(row)}` }, (receipt) =>
      outbox.guestAccepted(row, receipt),
    );
  }

  /** It is this node's as much as any other: the copy says that it is for the device, there. */
  #toMailbox(row: OutboxRow, domain: string): Promise<boolean> {
    const { outbox } = this.#parts;
    const device = `mailbox ${domain} ${nameOf(row)}`;
    return this.#toNode({ ...row, domain }, { domain, device }, (receipt) =>
      outbox.mailboxAccepted(row, domain, receipt),
    );
  }

  async #toNode(
    row: OutboxRow,
    { domain, device }: { readonly domain: string; readonly device: string },
    accepted: (receipt: SealedReceipt) => Promise<boolean>,
  ): Promise<boolean> {
    const { store, guest, runtime } = this.#parts;
    const node = `guest ${domain}`;
    if (this.#rests(node) || this.#rests(device)) return false;
    const token = store.tokens.of(row.rid);
    if (token === undefined) return false;
    let isLate = false;
    const sending = (async (): Promise<boolean> => {
      const isProven = await accepted(await guest.send(row, token));
      if (!isProven) this.#rest(node);
      // It still counts, and the node was only slow: what is left goes there too.
      else if (isLate) this.#works(node, row);
      return isProven;
    })().catch((error: unknown) => {
      // A refusal is about this device's token or inbox; everything else about the node.
      this.#rest(isRefusal(error) ? device : node);
      runtime.log.debug('not as a guest', { domain, reason: reasonOf(error) });
      return false;
    });
    const patience = new AbortController();
    const late = runtime.clock
      .sleep(ladderLimits.guestMs, AbortSignal.any([patience.signal, this.#ended.signal]))
      .then(() => {
        isLate = true;
        this.#rest(node);
        return false;
      })
      .catch(() => false);
    try {
      return await Promise.race([sending, late]);
    } finally {
      patience.abort(new TransportError('cancelled', 'answered'));
    }
  }

  #works(way: string, { rid, domain }: OutboxEntry): void {
    this.#restsUntil.delete(way);
    this.#wanted.set(hex(rid), domain);
    this.kick();
  }

  async #toDevice(row: OutboxRow, peers: Pick<Peers, 'deliver'>): Promise<boolean> {
    const { runtime, outbox } = this.#parts;
    const device = `peer ${nameOf(row)}`;
    if (this.#refused.has(row.id)) return true;
    if (this.#rests(device)) return false;
    try {
      outbox.delivered(row, await peers.deliver(row, this.#ended.signal));
      return true;
    } catch (error) {
      runtime.log.debug('not to the device', { reason: reasonOf(error), error: String(error) });
      if (hasReason(error, 'BAD_FIELD', 'TOO_LARGE')) {
        // One that nobody can open there is no reason to hold up the others.
        if (this.#refused.size >= ladderLimits.refused) this.#refused.clear();
        this.#refused.add(row.id);
        return true;
      }
      this.#rest(device, error instanceof QpcError ? error.retryAfterMs : undefined);
      return false;
    }
  }

  #rests(way: string): boolean {
    const untilMs = this.#restsUntil.get(way);
    if (untilMs === undefined) return false;
    if (untilMs > this.#nowMs()) return true;
    this.#restsUntil.delete(way);
    return false;
  }

  #rest(way: string, retryMs: number = ladderLimits.retryMs): void {
    const { random } = this.#parts.runtime;
    this.#restsUntil.set(way, this.#nowMs() + retryMs + jitter(random, retryMs / 2));
  }

  /** When the first of its ways may work again. */
  #later(target: string, domain: string): void {
    const { clock, random } = this.#parts.runtime;
    const untilMs = [`guest ${domain}`, `token ${target}`, `peer ${target}`].flatMap(
      (way) => this.#restsUntil.get(way) ?? [],
    );
    const { retryMs } = ladderLimits;
    const waitMs =
      untilMs.length === 0
        ? retryMs + jitter(random, retryMs / 2)
        : Math.max(1, Math.min(...untilMs) - this.#nowMs());
    this.#waiting.get(target)?.cancel();
    const timer = clock.timer(waitMs, () => {
      this.#want(target);
      this.kick();
    });
    this.#waiting.set(target, { domain, cancel: () => timer.cancel() });
  }

  /** A device that waits does so no longer. */
  #want(target: string): void {
    const waiting = this.#waiting.get(target);
    if (waiting === undefined) return;
    waiting.cancel();
    this.#waiting.delete(target);
    this.#wanted.set(target, waiting.domain);
  }

  #nowMs(): number {
    return this.#parts.runtime.clock.monotonic();
  }
}

const nameOf = ({ rid }: OutboxEntry): string => hex(rid);

/** The node answered, and does not want it. */
function isRefusal(error: unknown): boolean {
  return (
    error instanceof QpcError &&
    !(error instanceof TransportError) &&
    !hasReason(error, 'PEER_UNREACHABLE', 'DRAINING', 'OVERLOADED')
  );
}

function reasonOf(error: unknown): string {
  return error instanceof QpcError ? error.reason : 'INTERNAL';
}
