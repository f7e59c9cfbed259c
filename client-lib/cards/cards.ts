/**
 * Contact cards of this device (docs/protocol/contact-cards.md): the own one to hand out, those of others
 * to know them by while no log answers, to invite them while no node serves their KeyPackages, and to be
 * checked in full once their log can be asked.
 */
import { defaultAuditorsMin, VerificationError, type OpenedCredential } from '@quicprochat/kt-log';
import {
  FailedPreconditionError,
  hex,
  InvalidArgumentError,
  parseUserId,
  PermissionDeniedError,
  QpcError,
  sameBytes,
  signPrekey,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { contactLimits, type Contact } from '../contacts/contact.ts';
import type { Contacts } from '../contacts/contacts.ts';
import type { Invitee } from '../contacts/invitation.ts';
import { LogError } from '../kt/log-record.ts';
import { labelOf, type Logs } from '../kt/logs.ts';
import type { Session } from '../session.ts';
import { mandatorySuite, xwingSuite, type Mls, type MlsSuite } from '../mls/index.ts';
import type { ClientStore } from '../store/store.ts';
import { cardLimits, makeCard, openCard, type Card } from './card.ts';

/** A full check of cards that failed for want of an answer comes again after so long (ms). */
const checkRetryMs = 60_000;
/** Whose cards are here is looked up again after so long (ms): keys change, and cards end. */
const holdersMs = 60_000;

export interface CardsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly logs: Logs;
  readonly contacts: Contacts;
  readonly mls: Mls;
  readonly userId: string;
  readonly identityKey: SigningKey;
  /** Where this device is reached without nodes, if that is on. */
  readonly endpoint: () => SignedEndpointRecord | undefined;
  /** Where another device is; see ContentsParts.onEndpoint. */
  readonly onEndpoint: (endpoint: SignedEndpointRecord, from: Uint8Array) => void;
}

export class Cards {
  readonly #parts: CardsParts;
  /** User ids by device (hex), as they were a moment ago (ms); undefined: to be looked up. */
  #holders: { readonly of: ReadonlyMap<string, string>; readonly atMs: number } | undefined;

  constructor(parts: CardsParts) {
    this.#parts = parts;
  }

  /**
   * The own card as it can be made now, for ten days at most. Throws FailedPreconditionError BAD_CURSOR
   * while the log has made no credential of the own keys, or keys were not published yet.
   */
  export(): Uint8Array {
    const { store, runtime, logs, userId, identityKey, endpoint } = this.#parts;
    const nowMs = runtime.clock.now();
    const log = logs.known(parseUserId(userId).domain);
    const credential = log?.client.credentials.own(labelOf(userId));
    const hybrid = store.keys.newestHybridKey();
    const packages = [xwingSuite, mandatorySuite].flatMap(
      (suite) => store.keys.newestLastResort(suite)?.publicBytes ?? [],
    );
    if (credential === undefined || hybrid === undefined || packages.length === 0) {
      const what = credential === undefined ? 'a credential of the log' : 'published keys';
      throw new FailedPreconditionError('BAD_CURSOR', `card: there is no ${what} yet`);
    }
    const own = store.tokens.own();
    const lifeMs = Math.min(cardLimits.lifetimeMs, hybrid.notAfterMs - nowMs);
    return makeCard(
      { userId, credential, issuedMs: nowMs, expiresMs: nowMs + lifeMs },
      {
        endpoint: endpoint(),
        keyPackages: packages,
        prekey: signPrekey(identityKey, hybrid.publicKey, hybrid.notAfterMs),
        token: own?.isTold === true ? own.token : new Uint8Array(0),
      },
      identityKey,
    );
  }

  /**
   * Takes in somebody's card. Asks nobody, as a rule: the person is known by a credential from then on, which the
   * log has to confirm once it can be asked. A credential that stands on a head from before this device followed the
   * log says nothing here: then keys count that are known already, else what the log shows to `asking`. Throws what openCard
   * throws, InvalidArgumentError BAD_FIELD for the own card and one that is older than another one of that device,
   * LogError NO_LOG (the log of that domain is not known here), LOG_CONVICTED or UNKNOWN_HEAD, what Contacts.resolve throws,
   * VerificationError for a credential that does not prove itself, PermissionDeniedError BLOCKED for
   * devices that are not in it, and what Contacts.accept throws.
   */
  async import(bytes: Uint8Array, asking?: Session): Promise<Contact> {
    const { store, runtime, contacts, userId: own, onEndpoint } = this.#parts;
    const nowMs = runtime.clock.now();
    const card = openCard(bytes, nowMs);
    const { userId } = parseUserId(card.userId);
    if (userId === own) throw new InvalidArgumentError('BAD_FIELD', 'card: it is the own one');
    this.#requireNewest(card);
    const opened = this.#openCredential(card, nowMs);
    const isAsked = opened === undefined && contacts.lookup(userId) === undefined;
    if (opened !== undefined) await this.#acceptCredential(userId, opened);
    else if (isAsked) await this.#ask(userId, asking);
    // By the newest keys that are known: what the card says is not used for a device that left.
    const contact = contacts.get(userId);
    if (contact === undefined) throw new Error('an accepted contact is not there');
    await this.#checkDevices(card, contact);
    store.transaction(() => {
      store.cards.put(userId, bytes, nowMs);
      if (isAsked) store.cards.markChecked(userId, nowMs);
      for (const { identityPub, token, endpoint } of card.devices) {
        if (token.length > 0) store.tokens.put(identityPub, token, false, nowMs);
        if (endpoint !== undefined) onEndpoint(endpoint, identityPub);
      }
    });
    this.#holders = undefined;
    for (const { identityPub, prekey } of card.devices) contacts.acceptPrekey(identityPub, prekey);
    return contact;
  }

  async #acceptCredential(userId: string, opened: OpenedCredential): Promise<void> {
    const { store, contacts } = this.#parts;
    const before = store.contacts.get(userId);
    if (before !== undefined && before.version > opened.version) return;
    const { version, value, entryTimeMs: atMs } = opened;
    const shown = { version, value, treeSize: 0, source: 'credential' as const, atMs };
    await contacts.accept(userId, shown, before);
  }

  async #ask(userId: string, asking: Session | undefined): Promise<void> {
    if (asking === undefined) {
      throw new LogError(
        'UNKNOWN_HEAD',
        parseUserId(userId).domain,
        'the card stands on an entry that is not known here; take it in while the log can be asked, or have it made anew',
      );
    }
    await this.#parts.contacts.resolve(userId, asking, asking.signal);
  }

  /** Who shows an old card again brings back no token, prekey or address that its device took back. */
  #requireNewest({ userId, issuedMs, devices: [device] }: Card): void {
    const stored = this.#parts.store.cards.get(userId);
    if (stored === undefined || device === undefined) return;
    try {
      const kept = openCard(stored.bytes, this.#parts.runtime.clock.now());
      const isSame = kept.devices.some((one) => sameBytes(one.identityPub, device.identityPub));
      if (!isSame || kept.issuedMs <= issuedMs) return;
    } catch (error) {
      if (error instanceof QpcError) return; // its time is over
      throw error;
    }
    throw new InvalidArgumentError('BAD_FIELD', 'card: a newer one of that device is here');
  }

  /**
   * Offline, by distinguished heads that are known here, else by auditors of two other operators; undefined where
   * there are neither, and for a credential that no distinguished head covers yet.
   */
  #openCredential(card: Card, nowMs: number): OpenedCredential | undefined {
    const { logs } = this.#parts;
    const { domain, userId } = parseUserId(card.userId);
    const log = logs.known(domain);
    if (log === undefined) throw new LogError('NO_LOG', domain, 'its log was never met here');
    if (logs.isConvicted(domain)) {
      throw new LogError('LOG_CONVICTED', domain, 'it contradicted itself; see the evidence');
    }
    const { policy } = log.client.options;
    const recentMs = contactLimits.credentialMs;
    const stranger =
      policy === undefined ? undefined : { policy, auditorsMin: defaultAuditorsMin, recentMs };
    let opened: OpenedCredential;
    try {
      opened = log.client.credentials.open(card.credential, stranger);
    } catch (error) {
      if (isUnknownHead(error)) return undefined;
      throw error;
    }
    const isFinal = opened.pending === undefined || log.client.credentials.settle(opened.pending);
    if (!sameBytes(opened.label, labelOf(userId))) {
      throw new VerificationError('CHAIN', 'credential of the card', `one of ${userId}`);
    }
    // Of an account that is younger than the log's next distinguished head: it proves nothing yet.
    if (!isFinal) return undefined;
    if (nowMs - opened.entryTimeMs > recentMs) {
      throw new VerificationError('TOO_OLD', 'credential of the card', 'not older than ten days');
    }
    return opened;
  }

  /** Each device is one of the contact's, and each KeyPackage is that device's. */
  async #checkDevices(card: Card, contact: Contact): Promise<void> {
    for (const { identityPub, keyPackages } of card.devices) {
      const device = contact.devices.find((one) => sameBytes(one.identityPub, identityPub));
      const infos = await Promise.all(
        keyPackages.map((one) => this.#parts.mls.inspectKeyPackage(one)),
      );
      const isTheirs = infos.every(
        ({ userId, deviceId, signatureKey }) =>
          userId === contact.userId &&
          deviceId === device?.deviceId &&
          sameBytes(signatureKey, identityPub),
      );
      if (device !== undefined && isTheirs) continue;
      throw new PermissionDeniedError('BLOCKED', 'card: a device that is none of its user’s');
    }
  }

  /**
   * Devices of the user that can be invited by its card, suites in order of preference; none without a
   * card that is still good. For when no node serves KeyPackages.
   */
  async invitees(userId: string, suites: readonly MlsSuite[]): Promise<readonly Invitee[]> {
    const { store, runtime, contacts, mls } = this.#parts;
    const stored = store.cards.get(userId);
    const contact = contacts.get(userId);
    if (stored === undefined || contact === undefined || contacts.lookup(userId) === undefined) {
      return [];
    }
    let card: Card;
    try {
      card = openCard(stored.bytes, runtime.clock.now());
    } catch (error) {
      if (error instanceof QpcError) return []; // its time is over
      throw error;
    }
    const found: Invitee[] = [];
    for (const { identityPub, keyPackages } of card.devices) {
      if (!contact.devices.some((one) => sameBytes(one.identityPub, identityPub))) continue;
      const packages = await Promise.all(
        keyPackages.map(async (keyPackage) => {
          const { suite } = await mls.inspectKeyPackage(keyPackage);
          return { userId, identityPub, suite, keyPackage };
        }),
      );
      const [best] = suites.flatMap((suite) => packages.filter((one) => one.suite === suite));
      if (best !== undefined) found.push(best);
    }
    return found;
  }

  /** Where devices are by the cards that are kept: for a start with ways past the nodes. */
  tellEndpoints(): void {
    const { store, runtime, onEndpoint } = this.#parts;
    for (const { bytes } of store.cards.all()) {
      try {
        const { devices } = openCard(bytes, runtime.clock.now());
        store.transaction(() => {
          for (const { identityPub, endpoint } of devices) {
            if (endpoint !== undefined) onEndpoint(endpoint, identityPub);
          }
        });
      } catch (error) {
        if (!(error instanceof QpcError)) throw error; // its time is over
      }
    }
  }

  /**
   * Whose device (hex) it is, by a card that is kept and may still be good; whoever was given one may knock. Devices
   * are those that the person has by now, so it is looked up again, though not for every stranger.
   */
  holder(device: string): string | undefined {
    const { store, runtime, contacts } = this.#parts;
    const nowMs = runtime.clock.now();
    const isFresh = this.#holders !== undefined && Math.abs(nowMs - this.#holders.atMs) < holdersMs;
    if (this.#holders === undefined || !isFresh) {
      const found = store.cards
        .holders(nowMs - cardLimits.lifetimeMs)
        .flatMap((userId) =>
          (contacts.get(userId)?.devices ?? []).map(
            ({ identityPub }) => [hex(identityPub), userId] as const,
          ),
        );
      this.#holders = { of: new Map(found), atMs: nowMs };
    }
    return this.#holders.of.get(device);
  }

  /**
   * Asks the logs of people whose cards were taken in meanwhile, until each has answered or the session
   * ends. Keys that differ are told and not merged (Contacts.resolve).
   */
  async recheck(session: Session): Promise<void> {
    const { store, runtime, contacts } = this.#parts;
    while (!session.signal.aborted) {
      const due = store.cards.all().filter(({ checkedMs }) => checkedMs === undefined);
      let failures = 0;
      for (const { userId } of due) {
        try {
          await contacts.resolve(userId, session, session.signal);
          store.transaction(() => store.cards.markChecked(userId, runtime.clock.now()));
        } catch (error) {
          if (!(error instanceof QpcError)) throw error;
          if (session.signal.aborted) return;
          runtime.log.info('a card is not confirmed', { userId, reason: error.reason });
          failures += 1;
        }
      }
      if (failures === 0) return;
      await runtime.clock.sleep(checkRetryMs, session.signal).catch(() => undefined);
    }
  }
}

/** Nothing is wrong with it, as far as one can see from here. */
function isUnknownHead(error: unknown): boolean {
  if (!(error instanceof VerificationError)) return false;
  const { reason, checked } = error;
  return reason === 'NOT_FOUND' || (reason === 'BAD_SIGNATURE' && checked === 'cosignatures');
}
