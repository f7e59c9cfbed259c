/** Verified keys of users, looked up again where they are too old for MLS to go by them. */
import { hasReason } from '@quicprochat/proto';
import { ContactError } from '../contacts/contact.ts';
import type { Contacts } from '../contacts/contacts.ts';
import type { Caller } from '../dial.ts';

/** Looks up the users whose verified keys are too old, or not there. Throws as Contacts.resolve. */
export async function refreshKeys(
  { contacts, caller }: { readonly contacts: Contacts; readonly caller: Caller },
  userIds: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  for (const userId of userIds) {
    if (contacts.lookup(userId) === undefined)
      await resolveKeys({ contacts, caller }, userId, signal);
  }
}

/** Looks a user up now; keys up to a week old may be used where that cannot be. Throws as Contacts.resolve. */
export async function resolveKeys(
  { contacts, caller }: { readonly contacts: Contacts; readonly caller: Caller },
  userId: string,
  signal?: AbortSignal,
): Promise<void> {
  try {
    await contacts.resolve(userId, caller, signal);
  } catch (error) {
    const isOver = error instanceof ContactError || hasReason(error, 'CLOSED');
    if (isOver || !contacts.passUnreached(userId)) throw error;
  }
}
