/**
 * How long to wait before the next try (docs/protocol/federation.md): full jitter below a doubling
 * bound, with a cap that grows with the age of the failure but never above 30 minutes.
 */
import { jitter, type Random } from '@quicprochat/proto';

const minuteMs = 60_000;
const firstMs = 1_000;

/** Bound of one wait (ms) after failing for `failingForMs`: 1, 10, then 30 minutes. */
export function retryCapMs(failingForMs: number): number {
  if (failingForMs < 10 * minuteMs) return minuteMs;
  if (failingForMs < 24 * 60 * minuteMs) return 10 * minuteMs;
  return 30 * minuteMs;
}

/** rand(0, min(cap, 1 s x 2^n)), in whole ms; `tries` = n counts from 0. */
export function retryDelayMs(tries: number, capMs: number, random: Random): number {
  // Above 2^21 s the cap has long decided; the bound keeps the power finite.
  const boundMs = Math.min(capMs, firstMs * 2 ** Math.min(tries, 21));
  return jitter(random, boundMs + 1);
}
