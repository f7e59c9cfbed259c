/**
 * What a client tells its application besides messages: typed events, and the bus that hands them
 * out as async iterators. Events are notices; everything that must not be lost also stands in the
 * store (messages, undecryptable rows, gaps, failed sends).
 */
import type { Role } from './mls/index.ts';
import type { ParkReason } from './store/inbox-rows.ts';
import type { Path } from './store/paths.ts';

/** Where the connection to the own node stands. */
export type LinkState =
  | 'stopped'
  | 'connecting'
  | 'online'
  /** The node owes an answer for longer than it usually takes: slow, or gone. The session stands until one is sure. */
  | 'silent'
  /** Waiting before the next attempt. */
  | 'offline'
  /** The node does not know this device's session: log in again. No more attempts until then. */
  | 'sessionExpired'
  /** Another connection of this device took over; receiving stopped. */
  | 'superseded';

export type ClientEvent =
  | {
      readonly type: 'link';
      readonly state: LinkState;
      /** Reason of the error that led here, if one did. */
      readonly reason: string | undefined;
    }
  /** Somebody made us a member. */
  | {
      readonly type: 'joined';
      readonly conversationId: Uint8Array;
      readonly name: string;
      readonly creator: string;
    }
  | {
      readonly type: 'membersChanged';
      readonly conversationId: Uint8Array;
      /** User ids of all members now. */
      readonly members: readonly string[];
    }
  /** `by`, here and in the next two: user id of who committed it. */
  | {
      readonly type: 'renamed';
      readonly conversationId: Uint8Array;
      readonly name: string;
      readonly by: string;
    }
  | {
      readonly type: 'roleChanged';
      readonly conversationId: Uint8Array;
      readonly userId: string;
      readonly role: Role;
      readonly by: string;
    }
  /** Messages sent from now on disappear after so many seconds; 0: they stay. */
  | {
      readonly type: 'timerChanged';
      readonly conversationId: Uint8Array;
      readonly expirySeconds: number;
      readonly by: string;
    }
  /** The texts of these messages are gone (inner ids): their time was over. */
  | {
      readonly type: 'disappeared';
      readonly conversationId: Uint8Array;
      readonly ids: readonly Uint8Array[];
    }
  /** Somebody removed this device from a conversation, maybe because its user wanted to leave. */
  | { readonly type: 'removed'; readonly conversationId: Uint8Array; readonly by: string }
  /**
   * What this device wanted changed in a conversation is done, was done by somebody else (`superseded`),
   * or was refused: by the group's rules, by its hub (its reason), or after six lost races
   * (EPOCH_CONFLICT).
   */
  | {
      readonly type: 'groupChange';
      readonly conversationId: Uint8Array;
      readonly intentId: number;
      readonly kind: string;
      readonly outcome: 'done' | 'superseded' | 'refused';
      readonly reason: string | undefined;
    }
  /**
   * A conversation that began while no node answered, and that its hub will not have: messages go on, and nothing of the
   * group changes any more. Told once, to who began it.
   */
  | {
      readonly type: 'hubRefused';
      readonly conversationId: Uint8Array;
      readonly reason: string;
    }
  /** The hubs signed two histories of a conversation; both certificates are kept as evidence: `forks()`. */
  | {
      readonly type: 'fork';
      readonly conversationId: Uint8Array;
      readonly epoch: number;
      /** Domains that signed both. */
      readonly hubs: readonly string[];
    }
  /**
   * A member of this name committed what is valid for nobody (`isVoted`: by the word of more than half of those
   * who stay), and it is passed over. `by` is missing where nobody can say who it was.
   */
  | {
      readonly type: 'commitRefused';
      readonly conversationId: Uint8Array;
      /** That it was to make. */
      readonly epoch: number;
      readonly by: string | undefined;
      readonly isVoted: boolean;
    }
  /**
   * This device cannot apply a commit, and does not know whether others can: it asks them. `PATH`: its secrets
   * do not open here; `KEYS`: no log vouches for who it adds; `OWN`: it says that it is this device's own.
   */
  | {
      readonly type: 'commitDoubted';
      readonly conversationId: Uint8Array;
      readonly epoch: number;
      readonly by: string | undefined;
      readonly cause: 'PATH' | 'KEYS' | 'OWN';
    }
  /**
   * This device lost its place after that epoch, and comes back by itself if it can. `BEHIND`: the others went on
   * behind a commit that it cannot apply; `GAP`: the hub keeps none that old.
   */
  | {
      readonly type: 'leftBehind';
      readonly conversationId: Uint8Array;
      readonly epoch: number;
      readonly cause: 'BEHIND' | 'GAP' | 'STALE';
    }
  /** It came back with a new leaf; what was written meanwhile is asked for. */
  | {
      readonly type: 'cameBack';
      readonly conversationId: Uint8Array;
      readonly epoch: number;
      readonly cause: 'BEHIND' | 'GAP' | 'STALE';
    }
  /**
   * It cannot come back just now, and tries again; somebody may remove and invite it instead. `NO_JOIN_KEY`:
   * somebody was removed since, and no member has told it the new key yet; `UNVOUCHED`: nobody with the right to has
   * committed since what changed; and what hubs answer.
   */
  | { readonly type: 'stillBehind'; readonly conversationId: Uint8Array; readonly reason: string }
  /** A row cannot be opened yet; it is kept and tried again. */
  | { readonly type: 'parked'; readonly reason: ParkReason; readonly mid: Uint8Array }
  /** A row can never be opened; it is recorded in the store. */
  | { readonly type: 'undecryptable'; readonly reason: string; readonly mid: Uint8Array }
  /** The node no longer holds these rows of our inbox, and we never had them. */
  | { readonly type: 'gap'; readonly from: number; readonly to: number }
  /**
   * Messages of a device in a conversation that nobody has any more (`gone`, by the device's own
   * word), or that nobody gave in 30 days: numbers `from` to `to` of what it sent there.
   */
  | {
      readonly type: 'missing';
      readonly conversationId: Uint8Array;
      readonly senderDeviceId: string;
      readonly from: number;
      readonly to: number;
      readonly reason: 'gone' | 'unanswered';
    }
  /**
   * The last copy of an own message is with the own node or past it; by these paths. `messageId`, here and below: as
   * `send` returned it, and `id` of `history`.
   */
  | { readonly type: 'accepted'; readonly messageId: number; readonly via: readonly Path[] }
  /**
   * The own node does not answer for so long that messages go past it, or is back. Told only where ways
   * past it are switched on.
   */
  | { readonly type: 'ownNode'; readonly isAway: boolean }
  /** The nodes of all recipients have their copies of an own message. */
  | { readonly type: 'relayed'; readonly messageId: number }
  /** A device of every other member has an own message; or one of each showed it to its person. */
  | { readonly type: 'delivered' | 'read'; readonly messageId: number }
  /** A copy was refused for good. `messageId` is undefined for a commit or Welcome. */
  | {
      readonly type: 'sendFailed';
      readonly messageId: number | undefined;
      readonly rid: Uint8Array;
      readonly reason: string;
    }
  /**
   * The inbox of a device takes nothing more of strangers, and its delivery token is not known here
   * yet: the copy waits for it. `messageId` is undefined for what is no message of the history.
   */
  | {
      readonly type: 'waitsForToken';
      readonly messageId: number | undefined;
      readonly rid: Uint8Array;
    }
  /**
   * The node said OK to a copy without a signature of its own that it has it (NO_PROOF), or with one
   * that is not its (BAD_PROOF). The copy does not count as accepted; it is tried again.
   */
  | {
      readonly type: 'unproven';
      readonly messageId: number | undefined;
      readonly rid: Uint8Array;
      readonly reason: 'NO_PROOF' | 'BAD_PROOF';
    }
  /** The own node had a copy and gave it up: refused over there, or that node was away too long. */
  | {
      readonly type: 'bounced';
      readonly messageId: number | undefined;
      readonly rid: Uint8Array;
      readonly reason: string;
    }
  /** A copy's time to live ended before its device took it. */
  | {
      readonly type: 'expired';
      readonly messageId: number | undefined;
      readonly rid: Uint8Array;
    }
  /**
   * Copies wait at the own node because that of `domain` is away, since then by the own node's
   * clock. Told once in an outage, with the messages that waited then; later ones wait too.
   */
  | {
      readonly type: 'delayed';
      readonly domain: string;
      readonly sinceMs: number;
      readonly messageIds: readonly number[];
    }
  /** The keys of somebody are others now, in a way that the account's own key signed. */
  | {
      readonly type: 'keyChange';
      readonly userId: string;
      /** Version of the user's label in its log. */
      readonly version: number;
      readonly change: 'devices' | 'accountKeyRotated' | 'closed';
      /** Device ids. */
      readonly added: readonly string[];
      readonly revoked: readonly string[];
    }
  /**
   * Somebody's account key was replaced without its signature: lost, or stolen. Blocked when people
   * had compared it: then none of the new keys is used until `acceptIdentityReset`.
   */
  | {
      readonly type: 'identityReset';
      readonly userId: string;
      readonly version: number;
      readonly isBlocked: boolean;
    }
  /** Another device of the own account changed its keys, signed with the account key. */
  | {
      readonly type: 'deviceChange';
      readonly version: number;
      readonly change: 'devices' | 'accountKeyRotated' | 'closed';
      readonly added: readonly string[];
      readonly revoked: readonly string[];
    }
  /** The log shows keys for the own account that neither it nor another device of it made. */
  | { readonly type: 'unexpectedKey'; readonly reason: string; readonly message: string }
  /**
   * Something is wrong with the log of a domain; its keys are not used while that lasts. `lie`: an
   * answer failed its check. `fork`: it contradicts itself. `record`: it is not the log it should
   * be. `refused`: it does not do what it owes. `stale`: no answer for a day. `unwitnessed`: no
   * auditor has seen it for a day. `damaged`: what is stored here about it.
   */
  | {
      readonly type: 'logAlarm';
      readonly domain: string;
      readonly kind: 'lie' | 'fork' | 'record' | 'refused' | 'stale' | 'unwitnessed' | 'damaged';
      readonly reason: string;
      readonly message: string;
    }
  /**
   * The node gave these rows to this device before, and they are not here: the device's store is an
   * older copy (or the node lies). What is missing is asked for; conversations that exist can be read,
   * and not be written to before somebody else changes their members.
   */
  | { readonly type: 'storeRestored'; readonly from: number; readonly to: number }
  /** Somebody is writing in a conversation. Worth something for 10 s; comes again while it goes on. */
  | {
      readonly type: 'typing';
      readonly conversationId: Uint8Array;
      readonly userId: string;
      readonly deviceId: string;
    }
  /** The node's database is another one; `resent` copies are sent once more. */
  | { readonly type: 'storeChanged'; readonly resent: number }
  /** This subscriber was too slow: that many events are missing here. */
  | { readonly type: 'overflow'; readonly missed: number };

export const eventLimits = {
  /** Events that wait for one subscriber; beyond, the oldest go and `overflow` says how many. */
  queued: 1024,
} as const;

interface Subscriber {
  readonly queue: ClientEvent[];
  missed: number;
  wake: (() => void) | undefined;
}

/** Hands events to every subscriber, in order. */
export class EventBus {
  readonly #subscribers = new Set<Subscriber>();
  readonly #listeners = new Set<(event: ClientEvent) => void>();
  #isClosed = false;

  /** Throws what a listener threw, once everybody has the event. */
  emit(event: ClientEvent): void {
    const failures: unknown[] = [];
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        failures.push(error);
      }
    }
    for (const subscriber of this.#subscribers) {
      subscriber.queue.push(event);
      if (subscriber.queue.length > eventLimits.queued) {
        subscriber.queue.shift();
        subscriber.missed += 1;
      }
      subscriber.wake?.();
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('; '));
  }

  /** Calls back at once for each event, inside of `emit`. */
  listen(listener: (event: ClientEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Events from now on, until the signal, `close` or leaving the loop. */
  subscribe(signal?: AbortSignal): AsyncIterableIterator<ClientEvent> {
    const subscriber: Subscriber = { queue: [], missed: 0, wake: undefined };
    // Registered now and not at the first `next`, so that nothing between is missed.
    if (!this.#isClosed) this.#subscribers.add(subscriber);
    return this.#drain(subscriber, signal);
  }

  /** Ends every iterator after what it has queued. */
  close(): void {
    this.#isClosed = true;
    for (const subscriber of this.#subscribers) subscriber.wake?.();
  }

  async *#drain(subscriber: Subscriber, signal?: AbortSignal): AsyncIterableIterator<ClientEvent> {
    const wake = (): void => subscriber.wake?.();
    signal?.addEventListener('abort', wake);
    try {
      while (signal?.aborted !== true) {
        if (subscriber.missed > 0) {
          const { missed } = subscriber;
          subscriber.missed = 0;
          yield { type: 'overflow', missed };
        }
        const event = subscriber.queue.shift();
        if (event !== undefined) {
          yield event;
        } else if (this.#isClosed) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            subscriber.wake = resolve;
          });
          subscriber.wake = undefined;
        }
      }
    } finally {
      signal?.removeEventListener('abort', wake);
      this.#subscribers.delete(subscriber);
    }
  }
}
