/**
 * Typing that peers bring: each peer has so many device copies a second, and what is above is dropped
 * like any hint. One call may name 16 384 devices, so counting calls would bound nothing.
 */
import { TokenBuckets, type Clock } from '@quicprochat/proto';
import type { EphemeralItem } from '@quicprochat/proto/messages';

/** Device copies of one peer: one full call at once, then 2 000 a second. */
export const peerTypingRate = { perSecond: 2_000, burst: 16_384 } as const;

export type TypingOfPeer = (
  domain: string,
  items: readonly Pick<EphemeralItem, 'rids' | 'payload'>[],
) => void;

/** `deliver` gets one device's copy, which may be of another node's device or nobody's. Never throws. */
export function typingOfPeers(
  clock: Clock,
  deliver: (rid: Uint8Array, payload: Uint8Array) => void,
): TypingOfPeer {
  const rate = new TokenBuckets(clock);
  return (domain, items) => {
    for (const { rids, payload } of items) {
      if (rate.take(domain, peerTypingRate, rids.length) > 0) continue;
      for (const rid of rids) deliver(rid, payload);
    }
  };
}
