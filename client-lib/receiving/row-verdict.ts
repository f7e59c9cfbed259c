/** What an error says about a row of the inbox (docs/protocol/delivery.md, "The client's rule"). */
import { createHash } from 'node:crypto';
import { QpcError } from '@quicprochat/proto';
import { EnvelopeError } from '../crypto/envelope.ts';
import { UnknownHubError } from '../groups/log/hub-keys.ts';
import { CredentialError, MlsError } from '../mls/index.ts';
import { ResendError } from '../sending/resend-request.ts';
import type { ParkReason } from '../store/inbox-rows.ts';

/** A row that has to wait, or that nothing will ever open. */
export type Verdict =
  | { readonly kind: 'park'; readonly reason: ParkReason; readonly waitsFor: string }
  | { readonly kind: 'never'; readonly reason: string }
  /** Ours, or here already: nothing to show. */
  | { readonly kind: 'known' };

/** Carries a verdict out of the nested steps. */
export class Unopened extends Error {
  readonly verdict: Verdict;
  constructor(verdict: Verdict) {
    super(verdict.kind);
    this.verdict = verdict;
  }
}

export function never(reason: string): Unopened {
  return new Unopened({ kind: 'never', reason });
}

export function park(reason: ParkReason, waitsFor: Uint8Array | string): Unopened {
  const text = typeof waitsFor === 'string' ? waitsFor : Buffer.from(waitsFor).toString('hex');
  return new Unopened({ kind: 'park', reason, waitsFor: text });
}

/** Undefined for an error that is not the row's fault. */
export function verdictOf(error: unknown): Verdict | undefined {
  if (error instanceof Unopened) return error.verdict;
  if (error instanceof UnknownHubError) return park('UNKNOWN_HUB', error.domain).verdict;
  if (error instanceof CredentialError && error.reason === 'UNKNOWN_CREDENTIAL') {
    return park('UNKNOWN_USER', usersOf(error)).verdict;
  }
  if (error instanceof MlsError) {
    switch (error.reason) {
      case 'BAD_STATE':
        return undefined;
      case 'DUPLICATE':
      case 'OWN_MESSAGE':
        return { kind: 'known' };
      default:
        return { kind: 'never', reason: error.reason };
    }
  }
  if (error instanceof EnvelopeError) return { kind: 'never', reason: error.reason };
  // Nobody's message: nothing is missing without it.
  if (error instanceof ResendError) return { kind: 'known' };
  if (error instanceof QpcError && error.reason === 'BAD_FIELD') {
    return { kind: 'never', reason: 'MALFORMED' };
  }
  return undefined;
}

/** As `waitsFor` of a parked row. */
export function usersOf({ failures }: CredentialError): string {
  return [...new Set(failures.map(({ userId }) => userId))].filter((one) => one !== '').join(' ');
}

/** 16 bytes of SHA-256 of the MLS bytes: the same message in another envelope has the same mark. */
export function markOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest().subarray(0, 16));
}
