/**
 * Ways past the own node, wired: the ladder, its way to recipients' nodes, and, where devices may deliver
 * to each other, the swarm with what it needs. Only where the application switched it on.
 */
import { TransportError, type Runtime, type SigningKey } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import type { Transport } from '@quicprochat/proto/transport';
import type { EventBus } from '../events.ts';
import type { Extra } from '../sending/extras.ts';
import type { Caller, LineCaller } from '../dial.ts';
import type { Link } from '../link.ts';
import type { Session } from '../session.ts';
import { MailboxNodes } from '../mailboxes/mailbox-nodes.ts';
import { Mailboxes } from '../mailboxes/mailboxes.ts';
import type { VisitParts } from '../mailboxes/visit.ts';
import type { Outbox } from '../sending/outbox.ts';
import { Acquaintances } from '../peers/acquaintances.ts';
import { EndpointLookups } from '../peers/endpoint-lookups.ts';
import { Endpoints } from '../peers/endpoints.ts';
import type { FallbackOptions } from '../peers/peer-swarm.ts';
import { Peers, type PeersParts } from '../peers/peers.ts';
import { SealedSender } from '../sending/sealed-sender.ts';
import type { ClientStore } from '../store/store.ts';
import type { Writer } from '../writer.ts';
import { Ladder, ladderLimits } from './ladder.ts';

export interface FallbackParts {
  readonly options: FallbackOptions;
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly outbox: Outbox;
  readonly identityKey: SigningKey;
  readonly own: { readonly domain: string; readonly nodeAddress: string };
  readonly receive: PeersParts['receive'];
  readonly receiveMailbox: VisitParts['receive'];
  /** The own user's credential (KT), if the log made one. */
  readonly credential: () => Uint8Array | undefined;
  readonly renewCredential: (signal: AbortSignal) => Promise<void>;
  /** See AcquaintancesParts. */
  readonly cardHolder: (device: string) => string | undefined;
  /** Something is to be told to conversations soon. */
  readonly onDue: (delayMs?: number) => void;
}

export class Fallback {
  readonly #runtime: Runtime;
  readonly #guest: SealedSender;
  readonly #endpoints: Endpoints | undefined;
  readonly #peers: Peers | undefined;
  readonly #lookups: EndpointLookups | undefined;
  readonly #mailboxNodes: MailboxNodes | undefined;
  readonly #mailboxes: Mailboxes | undefined;
  readonly #ladder: Ladder;

  constructor({ options, receive, receiveMailbox, identityKey, onDue, ...parts }: FallbackParts) {
    const { store, runtime, events, own } = parts;
    const swarm = options.peers;
    this.#runtime = runtime;
    this.#guest = new SealedSender(parts);
    if (swarm !== undefined) {
      const onLearned = (target: string): void => {
        this.#ladder.learned(target);
        this.#mailboxNodes?.soon();
      };
      const { reach } = swarm;
      const isSettling = (): boolean => this.#peers?.isSettling === true;
      const endpoints = new Endpoints({
        ...{ store, runtime, events, reach, onDue, onLearned, isSettling },
      });
      const acquaintances = new Acquaintances(parts);
      this.#endpoints = endpoints;
      const callerOf = (domain: string): Promise<Caller> => this.callerOf(domain);
      this.#lookups = new EndpointLookups({
        ...{ store, runtime, events, acquaintances, endpoints, callerOf },
      });
      const ownDomain = own.domain;
      this.#mailboxNodes = new MailboxNodes({
        ...{ store, runtime, ownDomain, acquaintances, endpoints },
        onKnown: () => this.#ladder.kick(),
      });
      if (options.mailboxes !== false) {
        this.#mailboxes = new Mailboxes({
          ...{ store, runtime, events, ownDomain, identityKey, receive: receiveMailbox },
          ...{ transport: parts.transport, credential: parts.credential },
          renewCredential: parts.renewCredential,
          onChange: () => this.#peers?.mailboxesChanged(),
        });
      }
      this.#peers = new Peers({
        ...{ store, runtime, swarm, identityKey, receive, endpoints, acquaintances },
        mailboxes: this.#mailboxes,
        guests:
          options.guestPlaces === false
            ? undefined
            : {
                ...{ store, runtime, transport: parts.transport, ownDomain: own.domain },
                ...{ rid: identityKey.publicKey, credential: parts.credential },
                renewCredential: parts.renewCredential,
              },
      });
    }
    const { domain } = own;
    this.#ladder = new Ladder({
      ...{ ...parts, domain, guest: this.#guest, peers: this.#peers },
      mailboxesOf: (target, home) => this.#mailboxNodes?.of(target, home) ?? [],
    });
  }

  /** What conversations are told. */
  get extras(): readonly Extra[] {
    return this.#endpoints === undefined ? [] : [this.#endpoints];
  }

  start(): void {
    this.#peers?.start();
  }

  async stop(): Promise<void> {
    // Together: the end of the swarm ends what the ladder waits for.
    await Promise.all([this.#ladder.stop(), this.#peers?.stop()]);
    // A node that does not answer is not waited for.
    await Promise.all([
      ...[this.#guest.close(), this.#lookups?.stop()],
      this.#mailboxNodes?.stop(),
    ]);
  }

  /** The swarm looks for its addresses and relays, and every way is tried anew. */
  networkChanged(): void {
    this.#peers?.networkChanged();
    this.#ladder.networkChanged();
  }

  /** Rows are in the outbox. */
  kick(): void {
    this.#ladder.kick();
  }

  follow(session: Session): void {
    this.#peers?.follow(session);
    this.#lookups?.soon();
    this.#mailboxNodes?.follow(session);
  }

  /**
   * Whether the own node counts as away; known when it is there, or after three dials or ten seconds. Rejects with the
   * signal's reason, and as Link.session.
   */
  async isOwnNodeAway(link: Pick<Link, 'session'>, signal?: AbortSignal): Promise<boolean> {
    const known = new AbortController();
    const either = AbortSignal.any([known.signal, ...(signal === undefined ? [] : [signal])]);
    try {
      return await Promise.race([
        this.#ladder.away(either).then(() => true),
        link.session(either).then(() => false),
      ]);
    } finally {
      known.abort(new TransportError('cancelled', 'it is known'));
    }
  }

  /** Calls another domain's node without saying who asks. Errors are those of SealedSender.send. */
  callerOf(domain: string): Promise<LineCaller> {
    return this.#guest.caller(domain);
  }

  /** See OwnMailboxesParts. */
  async leaveMailbox(domain: string): Promise<void> {
    await this.#mailboxes?.leave(domain);
  }

  /** Where this device is reached without nodes, if it is. */
  get endpoint(): SignedEndpointRecord | undefined {
    return this.#endpoints?.own;
  }

  /** See ContentsParts. */
  take(signed: SignedEndpointRecord, from: Uint8Array): void {
    this.#endpoints?.take(signed, from);
  }

  /** The own node has not reached a domain since then, by its clock (ms); 0: it does. */
  away(domain: string, sinceMs: number): void {
    if (sinceMs === 0) this.#ladder.reached(domain);
    else this.#ladder.unreachable(domain, this.#runtime.clock.now() - sinceMs);
  }

  /** The own node refused to take something along to a domain. */
  unreachable(domain: string): void {
    this.#ladder.unreachable(domain, ladderLimits.backOffMs);
  }
}
