/** What every part of a device works with that seals for groups by itself and fills the outbox. */
import type { Runtime } from '@quicprochat/proto';
import type { Contacts } from '../contacts/contacts.ts';
import type { Caller } from '../dial.ts';
import type { Mls } from '../mls/index.ts';
import type { ClientStore } from '../store/store.ts';
import type { Writer } from '../writer.ts';

export interface SendingParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly contacts: Contacts;
  /** Asks the own node for prekeys that are missing. */
  readonly caller: Caller;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
}
