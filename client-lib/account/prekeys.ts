/** Prekeys of other people's devices, fetched and checked against their verified manifests. */
import { methods } from '@quicprochat/proto';
import type { Contacts } from '../contacts/contacts.ts';
import { PrekeyError } from '../sending/fan-out.ts';
import type { Caller } from '../dial.ts';

/** Users that one call may ask for. */
const usersPerCall = 16;

/**
 * Fetches the prekeys of these users' devices; what is not theirs is left out. Throws what
 * Contacts.verified and the call throw.
 */
export async function fetchPrekeys(
  { contacts, caller }: { readonly contacts: Contacts; readonly caller: Caller },
  userIds: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  for (let from = 0; from < userIds.length; from += usersPerCall) {
    const { users } = await caller.call(
      methods.fetchHybridKeys,
      { userIds: userIds.slice(from, from + usersPerCall) },
      signal === undefined ? {} : { signal },
    );
    for (const { userId, keys } of users) {
      if (keys?.manifest === undefined || !userIds.includes(userId)) continue;
      const { devices } = await contacts.verified(userId, keys.manifest, caller, signal);
      for (const { identityPub, prekey } of keys.prekeys) {
        const isTheirs = devices.some(
          (device) => Buffer.compare(device.identityPub, identityPub) === 0,
        );
        if (isTheirs && prekey !== undefined) contacts.acceptPrekey(identityPub, prekey);
      }
    }
  }
}

/** Runs `seal`, and once more with fresh prekeys when it lacks some. Throws what both throw. */
export async function withPrekeys<T>(
  parts: { readonly contacts: Contacts; readonly caller: Caller },
  seal: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  try {
    return await seal();
  } catch (error) {
    // Nothing was used up: a ratchet moves only with the transaction.
    if (!(error instanceof PrekeyError)) throw error;
    await fetchPrekeys(parts, error.userIds, signal);
    return seal();
  }
}
