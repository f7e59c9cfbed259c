/** Prekeys of other people's devices, fetched and checked against their verified manifests. */
import { InvalidArgumentError, methods, sameBytes } from '@quicprochat/proto';
import type { SignedPrekey } from '@quicprochat/proto/messages';
import type { Contacts } from '../contacts/contacts.ts';
import { PrekeyError } from '../sending/fan-out.ts';
import type { Caller } from '../dial.ts';

/** Users that one call may ask for. */
const usersPerCall = 16;

/**
 * Fetches the prekeys of these users' devices; what is not theirs, or no prekey, is left out, and so are users whose keys
 * were refused: returns what Contacts.verified threw of them. Throws what the call throws.
 */
export async function fetchPrekeys(
  { contacts, caller }: { readonly contacts: Contacts; readonly caller: Caller },
  userIds: readonly string[],
  signal?: AbortSignal,
): Promise<readonly unknown[]> {
  const refused: unknown[] = [];
  for (let from = 0; from < userIds.length; from += usersPerCall) {
    const { users } = await caller.call(
      methods.fetchHybridKeys,
      { userIds: userIds.slice(from, from + usersPerCall) },
      signal === undefined ? {} : { signal },
    );
    for (const { userId, keys } of users) {
      if (keys?.manifest === undefined || !userIds.includes(userId)) continue;
      try {
        const { devices } = await contacts.verified(userId, keys.manifest, caller, signal);
        for (const { identityPub, prekey } of keys.prekeys) {
          const isTheirs = devices.some((device) => sameBytes(device.identityPub, identityPub));
          if (isTheirs && prekey !== undefined) takeIn(contacts, identityPub, prekey);
        }
      } catch (error) {
        signal?.throwIfAborted();
        refused.push(error);
      }
    }
  }
  return refused;
}

/** One that breaks a rule is none. */
function takeIn(contacts: Contacts, identityPub: Uint8Array, prekey: SignedPrekey): void {
  try {
    contacts.acceptPrekey(identityPub, prekey);
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
  }
}

/** How it went when prekeys were asked for: all that there are came, keys of somebody were refused, or no answer came. */
export type Fetched = 'whole' | 'partly' | 'not';

/** Whether prekeys that are missing may come with the next question; else whoever has none goes without. */
export const mayCome = (fetched: Fetched | undefined): boolean =>
  fetched === undefined || fetched === 'not';

/**
 * Runs `seal`, and once more when it lacks prekeys and these were asked for: with all that came, and knowing how that
 * went. `isFrequent`: users who had none a minute ago are not asked again. Throws what `seal` throws the second time; why
 * prekeys did not come, rather than that they are missing.
 */
export async function withPrekeys<T>(
  parts: { readonly contacts: Contacts; readonly caller: Caller },
  seal: (fetched: Fetched | undefined) => Promise<T>,
  { signal, isFrequent = false }: { signal?: AbortSignal | undefined; isFrequent?: boolean } = {},
): Promise<T> {
  const { contacts } = parts;
  let fetched: Fetched = 'not';
  let failure: unknown;
  try {
    return await seal(undefined);
  } catch (error) {
    // Nothing was used up: a ratchet moves only with the transaction.
    if (!(error instanceof PrekeyError)) throw error;
    const userIds = error.userIds.filter(
      (userId) => !(isFrequent && contacts.lacksPrekeys(userId)),
    );
    try {
      [failure] = await fetchPrekeys(parts, userIds, signal);
      contacts.noteAsked(userIds);
      fetched = failure === undefined ? 'whole' : 'partly';
    } catch (cause) {
      signal?.throwIfAborted();
      failure = cause;
    }
  }
  try {
    return await seal(fetched);
  } catch (error) {
    throw error instanceof PrekeyError && failure !== undefined ? failure : error;
  }
}
