/** Narrows a call's caller to the class that the method table already demanded. */
import assert from 'node:assert';
import type { Caller } from '@quicprochat/proto';

/** The calling device. The middleware refused everyone else, so a failure here is our bug. */
export function deviceOf(context: {
  readonly caller: Caller;
}): Extract<Caller, { class: 'device' }> {
  assert(context.caller.class === 'device', 'a device method was dispatched for another caller');
  return context.caller;
}

/** The calling peer's domain. */
export function peerOf(context: { readonly caller: Caller }): string {
  assert(context.caller.class === 'peer', 'a peer method was dispatched for another caller');
  return context.caller.domain;
}
