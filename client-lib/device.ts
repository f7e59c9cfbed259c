/**
 * The running parts of one registered device, wired: link, sync, receiver, outbox, conversations,
 * keys and the logs that vouch for them. Knows the wiring and the order of start and stop, and nothing else.
 */
import {
  deviceIdOf,
  parseNodeAddress,
  parseUserId,
  QpcError,
  seedOf,
  type Runtime,
} from '@quicprochat/proto';
import type { Transport } from '@quicprochat/proto/transport';
import { accountKeys } from './account/account.ts';
import { AccountChanges } from './account/account-changes.ts';
import type { Contact } from './contacts/contact.ts';
import { ChannelSync } from './channels/channel-sync.ts';
import { Contacts } from './contacts/contacts.ts';
import { Conversations } from './groups/conversation.ts';
import { DeliveryProofs } from './sending/delivery-proofs.ts';
import { DeliveryTokens } from './sending/delivery-tokens.ts';
import { Extras } from './sending/extras.ts';
import type { EventBus } from './events.ts';
import { Groups } from './groups/groups.ts';
import { Disappearing } from './groups/disappearing.ts';
import { EvidenceExchange } from './kt/evidence-exchange.ts';
import { Cards } from './cards/cards.ts';
import { GossipRounds } from './kt/gossip-rounds.ts';
import { LogGossip } from './kt/log-gossip.ts';
import { Holes } from './receiving/holes.ts';
import { Housekeeping } from './housekeeping.ts';
import { Fallback } from './ladder/fallback.ts';
import { Guardian } from './kt/guardian.ts';
import { labelOf, Logs } from './kt/logs.ts';
import { OwnKeys } from './kt/own-keys.ts';
import { OwnMailboxes } from './mailboxes/own-mailboxes.ts';
import { KeyPublisher } from './account/key-publisher.ts';
import type { Caller } from './dial.ts';
import { Link } from './link.ts';
import type { Session } from './session.ts';
import { createMls } from './mls/index.ts';
import { Outbox } from './sending/outbox.ts';
import type { FallbackOptions } from './peers/peer-swarm.ts';
import { News } from './receiving/received.ts';
import { Receipts } from './receiving/receipts.ts';
import { Receiver } from './receiving/receiver.ts';
import { Redelivery } from './sending/redelivery.ts';
import { Resender } from './sending/resender.ts';
import type { AccountRecord } from './store/account-rows.ts';
import type { ClientStore } from './store/store.ts';
import { SealedSender } from './sending/sealed-sender.ts';
import { Sync } from './receiving/sync.ts';
import { Typing } from './sending/typing.ts';
import { UserLookup } from './contacts/user-lookup.ts';
import { Writer } from './writer.ts';

/** How often keys are looked after, and how soon after a failure (ms). */
const publishEveryMs = 6 * 3600 * 1000;
const publishRetryMs = 60_000;

export interface DeviceParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly events: EventBus;
  readonly record: AccountRecord;
  /** Copies for devices whose delivery token is known go without the sender's name. */
  readonly sealsSender: boolean;
  /** Ways past the own node; undefined: none. */
  readonly fallback: FallbackOptions | undefined;
}

export class Device {
  readonly link: Link;
  readonly outbox: Outbox;
  readonly contacts: Contacts;
  readonly tokens: DeliveryTokens;
  readonly typing: Typing;
  readonly conversations: Conversations;
  readonly groups: Groups;
  readonly logs: Logs;
  readonly gossip: LogGossip;
  readonly cards: Cards;
  readonly mailboxes: OwnMailboxes;
  readonly changes: AccountChanges;
  readonly receipts: Receipts;
  readonly disappearing: Disappearing;
  readonly news = new News();
  readonly #runtime: Runtime;
  readonly #guardian: Guardian;
  readonly #sealed: SealedSender | undefined;
  /** What goes on beside calls; over when the device has stopped. */
  readonly #background = new Set<Promise<void>>();
  readonly #fallback: Fallback | undefined;
  readonly #extras: Extras;
  readonly #gossip: GossipRounds;
  readonly #writer: Writer;
  readonly #holes: Holes;
  readonly #resender: Resender;
  readonly #redelivery: Redelivery;
  readonly #housekeeping: Housekeeping;
  readonly #receiver: Receiver;
  readonly #sync: Sync;
  readonly #channels: ChannelSync;
  readonly #publisher: KeyPublisher;
  readonly #lookup: UserLookup;

  constructor({ store, runtime, transport, events, record, ...options }: DeviceParts) {
    const { userId, nodeAddress } = record;
    const keys = accountKeys(record);
    const { publicKey } = keys.identityKey;
    const identity = { userId, deviceId: deviceIdOf(publicKey) };
    const { domain } = parseUserId(userId);
    const { pin } = parseNodeAddress(nodeAddress);
    const signatureKey = { publicKey, seed: seedOf(keys.identityKey) };
    this.#runtime = runtime;
    this.logs = new Logs({
      store,
      runtime,
      own: { domain, pin },
      onRefused: (of, error) => this.#guardian.onRefused(of, error),
    });
    this.disappearing = new Disappearing({ store, runtime, events });
    const ownKeys = new OwnKeys({ store, runtime, events, userId });
    this.contacts = new Contacts({
      store,
      runtime,
      events,
      logs: this.logs,
      ownUserId: userId,
      onLie: (of, error) => this.#guardian.onLie(of, error),
      checkOwn: ownKeys.check,
      onOwnRefused: ownKeys.refused,
    });
    const { contacts, logs } = this;
    this.#guardian = new Guardian({ store, runtime, events, logs, contacts, userId });
    const evidence = new EvidenceExchange({
      store,
      runtime,
      logs,
      contacts,
      userId,
      onFork: (of, error) => this.#guardian.onLie(of, error),
      onKnown: (known) => this.#logged(this.#retryFor([known]), 'parked rows'),
    });
    this.changes = new AccountChanges({
      store,
      runtime,
      logs,
      contacts,
      ownKeys,
      userId,
      identityPub: publicKey,
    });
    const mls = createMls({
      clock: runtime.clock,
      random: runtime.random,
      manifests: this.contacts.lookup,
    });
    this.cards = new Cards({
      ...{ store, runtime, logs, contacts, mls, userId, identityKey: keys.identityKey },
      endpoint: () => this.#fallback?.endpoint,
      onEndpoint: (signed, from) => this.#fallback?.take(signed, from),
    });
    this.#writer = new Writer(store, runtime);
    const proofs = new DeliveryProofs({ store, runtime, own: { domain, pin } });
    const own = { domain, nodeAddress };
    this.#sealed = options.sealsSender
      ? new SealedSender({ store, runtime, transport, own })
      : undefined;
    const sealed = this.#sealed;
    this.outbox = new Outbox({
      ...{ store, runtime, events, proofs, userId, sealed },
      renew: (...asked) => this.tokens.renew(...asked),
      onDueAgain: () => this.#redelivery.wake(),
      onStuckPost: (groupId, cid) => this.groups.channels.stuck(groupId, cid),
      onUnreachable: (away) => this.#fallback?.unreachable(away),
    });
    const credential = (): Uint8Array | undefined =>
      logs.known(domain)?.client.credentials.own(labelOf(userId));
    const receiveMailbox: Receiver['receiveMailbox'] = (...row) =>
      this.#receiver.receiveMailbox(...row);
    this.mailboxes = new OwnMailboxes({
      ...{ store, runtime, transport, identityKey: keys.identityKey },
      ...{ receive: receiveMailbox, credential },
      onLeaving: async (at) => this.#fallback?.leaveMailbox(at),
    });
    this.#fallback =
      options.fallback === undefined
        ? undefined
        : new Fallback({
            ...{ store, runtime, transport, events, own, options: options.fallback },
            writer: this.#writer,
            outbox: this.outbox,
            identityKey: keys.identityKey,
            receive: (row) => this.#receiver.receivePeer(row),
            receiveMailbox,
            onDue: (delayMs) => this.#extras.wake(delayMs),
            credential,
            renewCredential: async (signal) => {
              const log = logs.known(domain);
              const { link } = this;
              await log?.client.credentials.refresh(log.transport(link), labelOf(userId), {
                signal,
              });
            },
            cardHolder: (of) => this.cards.holder(of),
          });
    const onOutbox = (): void => {
      this.outbox.kick();
      this.#fallback?.kick();
    };
    this.link = new Link({
      runtime,
      transport,
      nodeAddress,
      nodePins: () => this.logs.nodePins(),
      identity: keys.transport,
      events,
      onSession: (session) => this.#onSession(session),
    });
    const sending = {
      store,
      runtime,
      writer: this.#writer,
      mls,
      contacts,
      cards: this.cards,
      caller: this.link,
      onOutbox,
    };
    this.receipts = new Receipts(sending);
    this.#holes = new Holes({ ...sending, events, identityKey: keys.identityKey });
    this.#redelivery = new Redelivery({
      ...{ ...sending, events, identity, outbox: this.outbox },
      onStuckPost: (groupId, cid) => this.groups.channels.stuck(groupId, cid),
      onAway: (away, sinceMs) => this.#fallback?.away(away, sinceMs),
    });
    this.#housekeeping = new Housekeeping(sending);
    this.#resender = new Resender({ ...sending, identity, identityKey: keys.identityKey });
    this.tokens = new DeliveryTokens({
      ...{ ...sending, rid: publicKey, identityKey: keys.identityKey },
      session: () => this.link.current,
      onDue: () => this.#extras.wake(),
    });
    const fallback = this.#fallback;
    const past = fallback && {
      isAway: (signal?: AbortSignal) => fallback.isOwnNodeAway(this.link, signal),
      callerOf: (of: string) => fallback.callerOf(of),
    };
    this.gossip = new LogGossip({
      ...{ store, runtime, logs },
      onConvicted: (of, error) => this.#guardian.alarm(of, 'fork', error),
      onDue: () => this.#extras.wake(0),
    });
    this.#gossip = new GossipRounds({
      ...{ gossip: this.gossip, runtime, logs, ownDomain: domain },
      callerOf: past?.callerOf,
    });
    this.#extras = new Extras(sending, [
      this.tokens,
      this.gossip,
      ...(this.#fallback?.extras ?? []),
    ]);
    this.groups = new Groups({
      ...{ ...sending, events, logs, evidence, tokens: this.tokens },
      ...{ rid: publicKey, signatureKey, userId, past },
      onEvidence: (taken) => evidence.take(taken),
      onMoved: (groupId) => {
        this.#receiver.retryGroup(groupId);
        this.#redelivery.moved(groupId);
        this.#channels.wake();
      },
      onMendable: (reason, waitsFor) =>
        this.#receiver.retryParked((row) => row.reason === reason && row.waitsFor === waitsFor),
    });
    this.#receiver = new Receiver({
      tokens: this.tokens,
      controls: this.groups.rows,
      leaves: this.groups.leaves,
      forks: this.groups.forks,
      standings: this.groups.standings,
      store,
      runtime,
      events,
      writer: this.#writer,
      mls,
      identity,
      rid: publicKey,
      onWaits: (reason, waitsFor) => {
        if (reason === 'UNKNOWN_USER') this.#lookup.want(waitsFor.split(' '));
        else this.groups.waits(reason, waitsFor);
      },
      onEvidence: (taken) => evidence.take(taken),
      onEndpoint: (signed, from) => this.#fallback?.take(signed, from),
      onConvictions: (told, id) => this.gossip.passedOn(told, id),
      onMessages: () => this.news.ring(),
      holes: this.#holes,
      resender: this.#resender,
      onReceiptsDue: (conversationId) => this.receipts.wake(conversationId),
      onDue: () => this.#redelivery.wake(),
      onStuckPost: (groupId, cid) => this.groups.channels.stuck(groupId, cid),
    });
    this.#lookup = new UserLookup({
      runtime,
      contacts: this.contacts,
      caller: this.link,
      onFound: (userIds) => this.#retryFor(userIds),
      onRefused: (userIds, reason) => this.#receiver.refuseUsers(userIds, reason),
    });
    this.typing = new Typing({
      store,
      runtime,
      events,
      writer: this.#writer,
      mls,
      rid: publicKey,
      session: () => this.link.current,
    });
    const onRowsLost = async (groupId?: Uint8Array): Promise<void> => {
      this.groups.pull.want(groupId);
      await this.#holes.catchUp(groupId);
    };
    this.#channels = new ChannelSync({
      ...{ store, runtime, receiver: this.#receiver, onRowsLost },
      onStuck: (groupId, cid) => this.groups.channels.stuck(groupId, cid),
      isPolling: () => this.#sync.isPolling,
    });
    this.#sync = new Sync({
      onTyping: (payload) => this.#logged(this.typing.take(payload), 'typing'),
      store,
      runtime,
      events,
      receiver: this.#receiver,
      outbox: this.outbox,
      onRowsLost,
      onKeyPackagesLow: (session) => this.#publish(session),
      onKeyHint: (hinted) => this.#guardian.touch(hinted),
      onLogEvidence: () => this.#gossip.hint(),
    });
    this.#publisher = new KeyPublisher({
      store,
      runtime,
      mls,
      identity,
      identityKey: keys.identityKey,
      signatureKey,
    });
    this.conversations = new Conversations({
      committer: this.groups.committer,
      rekeys: this.groups.rekeys,
      cards: this.cards,
      extras: this.#extras,
      store,
      runtime,
      contacts: this.contacts,
      evidence,
      tokens: this.tokens,
      isDark: past?.isAway,
      writer: this.#writer,
      mls,
      caller: this.link,
      identity,
      signatureKey,
      onOutbox,
      onTimed: () => this.disappearing.wake(),
      onUnsealed: () => this.#redelivery.wake(),
    });
  }

  /**
   * Own keys verified in the log, and published keys, over a given connection: then others can reach
   * us. Throws what Guardian.begin throws.
   */
  async prepare(caller: Caller): Promise<void> {
    await this.#guardian.begin(caller);
    await this.#publisher.publish(caller);
    await this.tokens.tellNode(caller);
  }

  /** Takes in a card, and asks its log at once if that can be. Throws as Cards.import. */
  async importCard(bytes: Uint8Array): Promise<Contact> {
    const session = this.link.current;
    const contact = await this.cards.import(bytes, session);
    if (session !== undefined) {
      this.#logged(this.cards.recheck(session), 'asking logs about cards');
    }
    return contact;
  }

  /** Keys of a blocked contact are used from now on: what waited for them is tried again. */
  async acceptIdentityReset(userId: string): Promise<void> {
    this.contacts.acceptIdentityReset(userId);
    await this.#retryFor([userId]);
  }

  /** Starts the background connection; what was left over in the store goes on. */
  start(): void {
    if (this.#sync.resume()) this.link.redial('receiving again');
    this.link.start();
    this.receipts.start();
    this.#holes.start();
    this.#resender.start();
    this.#redelivery.start();
    this.#housekeeping.start();
    this.disappearing.start();
    this.#fallback?.start();
    if (this.#fallback !== undefined) this.cards.tellEndpoints();
    this.#gossip.start();
    this.groups.start();
    this.#logged(this.#receiver.retryParked(), 'parked rows');
  }

  /** Another network: the node is dialed again, and so are ways past it. */
  networkChanged(): void {
    this.link.redial('the network has changed');
    this.#fallback?.networkChanged();
  }

  /** Until it is disposed of the node is asked soon whether it passed copies on. */
  watchCopies(): Disposable {
    return this.#redelivery.watch();
  }

  /** Disconnects; what is prepared gets written. Idempotent. */
  async stop(): Promise<void> {
    this.disappearing.stop();
    await this.link.stop();
    await this.#gossip.stop();
    await this.#fallback?.stop();
    await this.#sealed?.close();
    await this.#lookup.stop();
    await this.groups.stop();
    await this.receipts.stop();
    await this.#extras.stop();
    await this.#holes.stop();
    await this.#resender.stop();
    await this.#redelivery.stop();
    await this.#housekeeping.stop();
    await Promise.all(this.#background);
    await this.#writer.idle();
    this.outbox.close();
    this.news.close();
  }

  #onSession(session: Session): void {
    this.#sync.attach(session);
    this.#logged(this.#channels.follow(session), 'reading channels');
    this.groups.kick();
    this.#logged(this.#receiver.retryDue(), 'parked rows');
    this.#fallback?.follow(session);
    this.#keepPublished(session);
    this.#logged(this.#guardian.watch(session), 'watching the logs');
    this.#logged(this.#gossip.follow(session), 'asking what is heard of logs');
    this.#logged(this.cards.recheck(session), 'asking logs about cards');
    this.#logged(this.#redelivery.follow(session), 'asking after copies');
  }

  /** Keys age and run out during a long session too. */
  #keepPublished(session: Session): void {
    const again = (afterMs: number) => () => {
      if (session.signal.aborted) return;
      this.#runtime.clock.timer(afterMs, () => {
        if (!session.signal.aborted) this.#keepPublished(session);
      });
    };
    const work = this.prepare(session);
    work.then(again(publishEveryMs), again(publishRetryMs));
    this.#logged(work, 'publishing keys');
  }

  #publish(session: Session): void {
    this.#logged(this.prepare(session), 'publishing keys');
  }

  async #retryFor(userIds: readonly string[]): Promise<void> {
    await this.#receiver.retryParked(
      (row) =>
        row.reason === 'UNKNOWN_USER' &&
        row.waitsFor.split(' ').some((userId) => userIds.includes(userId)) &&
        this.#lookup.isThrough(row.waitsFor),
    );
  }

  /** Background work whose failure the next session or start mends. */
  #logged(work: Promise<void>, what: string): void {
    const logged = work
      .catch((error: unknown) => {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        this.#runtime.log.info(`${what} failed`, { reason, error: String(error) });
      })
      .finally(() => this.#background.delete(logged));
    this.#background.add(logged);
  }
}
