/**
 * The mailboxes of this device, for people: which there are, and giving one back. What keeps them is
 * mailboxes.ts, where devices deliver to each other; this works without it too, so that whoever switched that
 * off can still leave.
 */
import { FailedPreconditionError, hasReason, NotFoundError } from '@quicprochat/proto';
import { knownRecordOf } from '../kt/log-record.ts';
import { endMailbox, type VisitParts } from './visit.ts';

export interface OwnMailbox {
  /** Of the node that keeps it. */
  readonly domain: string;
  /** When it ends unless this device visits it before (Unix ms, by this device's clock). */
  readonly expiresMs: number;
}

export interface OwnMailboxesParts extends VisitParts {
  /** The own user's credential (KT), if the log made one. */
  readonly credential: () => Uint8Array | undefined;
  /** Contacts are told no longer that it is there, and it is visited no more. Resolves when nobody is at it. */
  readonly onLeaving: (domain: string) => Promise<void>;
}

export class OwnMailboxes {
  readonly #parts: OwnMailboxesParts;

  constructor(parts: OwnMailboxesParts) {
    this.#parts = parts;
  }

  /** Sorted by domain. */
  list(): readonly OwnMailbox[] {
    const { store, runtime } = this.#parts;
    return store.mailboxes
      .own()
      .map(({ domain, expiresMs }) => ({ domain, expiresMs }))
      .filter(({ expiresMs }) => expiresMs > runtime.clock.now());
  }

  /**
   * Takes in what lies there, as far as the node still shows it, and gives the mailbox back: the node deletes it. Copies that
   * contacts send there later are refused, and come by other ways. Throws NotFoundError UNKNOWN_DEVICE,
   * FailedPreconditionError BAD_CURSOR where there is no credential, and the node's refusals and TransportError:
   * then this device has it still, unless it is over by itself meanwhile.
   */
  async giveBack(domain: string, signal: AbortSignal): Promise<void> {
    const { store, credential, onLeaving } = this.#parts;
    const mailbox = store.mailboxes.own().find((one) => one.domain === domain);
    if (mailbox === undefined)
      throw new NotFoundError('UNKNOWN_DEVICE', `${domain}: no mailbox there`);
    const shown = credential();
    if (shown === undefined) {
      throw new FailedPreconditionError('BAD_CURSOR', 'the log has made no credential yet');
    }
    await onLeaving(domain);
    const { record: node } = knownRecordOf(mailbox.record);
    try {
      await endMailbox(this.#parts, { domain, node, credential: shown }, signal);
    } catch (error) {
      // A node that keeps none any more has none of this device.
      if (!hasReason(error, 'FEATURE_OFF', 'UNIMPLEMENTED')) throw error;
    }
    store.transaction(() => store.mailboxes.delete(domain));
  }
}
