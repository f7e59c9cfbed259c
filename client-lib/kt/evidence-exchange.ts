/**
 * What members tell each other about logs, inside MLS (docs/developer/verification.md): the sender's
 * credential, by which others know its keys while no log can be asked, and the heads that it saw, by
 * which a log with two faces is found out. Everything received is checked, and never a reason to ask.
 */
import { createHash } from 'node:crypto';
import {
  decodeHeads,
  defaultAuditorsMin,
  ForkError,
  VerificationError,
  type OpenedCredential,
} from '@quicprochat/kt-log/verify';
import { parseUserId, QpcError, type Runtime } from '@quicprochat/proto';
import { contentLimits, type KeyEvidence } from '../content.ts';
import { contactLimits, ContactError } from '../contacts/contact.ts';
import type { Contacts } from '../contacts/contacts.ts';
import type { ClientStore } from '../store/store.ts';
import { labelOf, type DomainLog, type Logs } from './logs.ts';

export interface EvidenceExchangeParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly logs: Logs;
  readonly contacts: Contacts;
  readonly userId: string;
  readonly onFork: (domain: string, error: ForkError) => void;
  /** A member's keys are known now. Called inside a job of the writer, so it waits for nothing. */
  readonly onKnown: (userId: string) => void;
}

/** The marks of what was sent, among the events of the store. */
const sent = 'evidenceSent';

export class EvidenceExchange {
  readonly #parts: EvidenceExchangeParts;

  constructor(parts: EvidenceExchangeParts) {
    this.#parts = parts;
  }

  /** What the members of a conversation have not had yet; undefined when there is nothing new. */
  next(conversationId: Uint8Array, memberIds: readonly string[]): KeyEvidence | undefined {
    const credential = this.#credential();
    if (credential === undefined) return undefined;
    const subject = Buffer.from(conversationId).toString('hex');
    // Asked first, since heads take a look at every log: most messages have had it already.
    const isSent = this.#parts.store.logs.hasEvent(sent, subject, digestOf(credential));
    return isSent ? undefined : this.own(memberIds);
  }

  /** Marks it as sent, in the transaction that seals the message. */
  mark(conversationId: Uint8Array, { credential }: KeyEvidence): void {
    const { store, runtime } = this.#parts;
    const subject = Buffer.from(conversationId).toString('hex');
    const atMs = runtime.clock.now();
    store.logs.addEvent({ atMs, type: sent, subject, reason: digestOf(credential) });
  }

  /** The own newest credential, and the heads of the logs of these users; undefined without one. */
  own(memberIds: readonly string[]): KeyEvidence | undefined {
    const { logs, userId } = this.#parts;
    const credential = this.#credential();
    if (credential === undefined) return undefined;
    const { domain } = parseUserId(userId);
    const domains = [domain, ...memberIds.map((member) => parseUserId(member).domain)];
    const heads = [...new Set(domains)]
      .slice(0, contentLimits.headsLogs)
      .flatMap((one) => logs.known(one)?.client.headsMessage() ?? [])
      .filter(({ length }) => length <= contentLimits.headsBytes);
    return { credential, heads };
  }

  /** Takes in what a member sent. Nothing of it is believed that does not prove itself. */
  async take({ credential, heads }: KeyEvidence): Promise<void> {
    for (const one of heads) this.#compare(one);
    if (credential.length > 0) await this.#open(credential);
  }

  /** Undefined: there is none, or none that fits. */
  #credential(): Uint8Array | undefined {
    const { logs, userId } = this.#parts;
    const { domain } = parseUserId(userId);
    const credential = logs.known(domain)?.client.credentials.own(labelOf(userId));
    const fits = credential !== undefined && credential.length <= contentLimits.credentialBytes;
    return fits ? credential : undefined;
  }

  #compare(heads: Uint8Array): void {
    const { logs, onFork, runtime } = this.#parts;
    try {
      const { origin } = decodeHeads(heads);
      const domain = logs.domains().find((one) => logs.known(one)?.client.origin === origin);
      if (domain === undefined) return;
      try {
        logs.known(domain)?.client.compareHeads(heads);
      } catch (error) {
        if (!(error instanceof ForkError)) throw error;
        onFork(domain, error);
      }
    } catch (error) {
      // Not signed by the log: it accuses nobody but its sender.
      if (!(error instanceof VerificationError)) throw error;
      runtime.log.info('heads of a member are refused', { reason: error.reason });
    }
  }

  async #open(credential: Uint8Array): Promise<void> {
    const { contacts, store, runtime, onKnown } = this.#parts;
    for (const domain of this.#parts.logs.domains()) {
      const log = this.#parts.logs.known(domain);
      const opened = log === undefined ? undefined : this.#openBy(log, credential);
      if (opened === undefined) continue;
      const userId = Buffer.from(opened.label).toString();
      const before = store.contacts.get(userId);
      if (before !== undefined && before.version > opened.version) return;
      try {
        await contacts.accept(
          userId,
          {
            version: opened.version,
            value: opened.value,
            treeSize: 0,
            source: 'credential',
            atMs: opened.entryTimeMs,
          },
          before,
        );
      } catch (error) {
        // The log vouches for keys that do not follow the known ones: its next answer says the same.
        if (!(error instanceof ContactError)) throw error;
        runtime.log.warn('a credential is refused', { reason: error.reason });
        return;
      }
      return onKnown(userId);
    }
  }

  /** Undefined for a credential of another log, or one that cannot be judged yet. */
  #openBy({ client, domain }: DomainLog, credential: Uint8Array): OpenedCredential | undefined {
    // What a convicted log vouches for is worth nothing, whoever passes it on.
    if (this.#parts.logs.isConvicted(domain)) return undefined;
    const { policy } = client.options;
    const recentMs = contactLimits.credentialMs;
    const stranger =
      policy === undefined ? undefined : { policy, auditorsMin: defaultAuditorsMin, recentMs };
    try {
      const opened = client.credentials.open(credential, stranger);
      const { pending } = opened;
      const isFinal = pending === undefined || client.credentials.settle(pending);
      return isFinal && !Buffer.from(opened.label).toString().startsWith('@') ? opened : undefined;
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      return undefined;
    }
  }
}

function digestOf(credential: Uint8Array): string {
  return createHash('sha256').update(credential).digest('hex');
}
