/**
 * Narrows a call's caller to the class that the method table already demanded, and names it to
 * peers.
 */
import assert from 'node:assert';
import { createHmac } from 'node:crypto';
import type { Caller } from '@quicprochat/proto';

/** The calling device. The middleware refused everyone else, so a failure here is our bug. */
export function deviceOf(context: {
  readonly caller: Caller;
}): Extract<Caller, { class: 'device' }> {
  assert(context.caller.class === 'device', 'a device method was dispatched for another caller');
  return context.caller;
}

/** The calling device that is about to be registered. */
export function enrollingOf(context: {
  readonly caller: Caller;
}): Extract<Caller, { class: 'enrolling' }> {
  assert(context.caller.class === 'enrolling', 'registerDevice was dispatched for another caller');
  return context.caller;
}

/** The device of another node that calls for its mailbox. */
export function guestOf(context: { readonly caller: Caller }): Extract<Caller, { class: 'guest' }> {
  assert(context.caller.class === 'guest', 'a guest method was dispatched for another caller');
  return context.caller;
}

/** The account whose device calls, which may not be in its manifest yet. */
export function accountOf({ caller }: { readonly caller: Caller }): string {
  const isOfAccount = caller.class === 'device' || caller.class === 'enrolling';
  assert(isOfAccount, 'an account method was dispatched for another caller');
  return caller.userId;
}

/**
 * The pseudonym under which a peer knows the calling device: stable, meaningless elsewhere
 * (16 bytes).
 */
export function requesterOf(
  pseudonymKey: Uint8Array,
  { caller }: { readonly caller: Caller },
): Uint8Array {
  const isDevice = caller.class === 'device' || caller.class === 'enrolling';
  assert(isDevice, 'a device method was dispatched for another caller');
  const mac = createHmac('sha256', pseudonymKey).update(caller.identityPub).digest();
  return new Uint8Array(mac.subarray(0, 16));
}

/** The calling peer's domain. */
export function peerOf(context: { readonly caller: Caller }): string {
  assert(context.caller.class === 'peer', 'a peer method was dispatched for another caller');
  return context.caller.domain;
}
