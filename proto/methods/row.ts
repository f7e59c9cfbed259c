/** What a row of the method table says, and the classes of callers. */
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { defaultMaxPayloadBytes } from '../frame.ts';
import type { FieldRules } from '../field-rules.ts';
import type { Reason } from '../status.ts';

/**
 * Who may call: nobody known yet, a device that has logged in but is not in its account's manifest
 * yet, a logged-in device, a device of another node that has a mailbox here, a federation peer, the
 * operator by the admin door.
 */
export const callerClasses = ['anyone', 'enrolling', 'device', 'guest', 'peer', 'admin'] as const;
export type CallerClass = (typeof callerClasses)[number];

/** Token bucket that a call draws from; the node's configuration gives each its numbers. */
export type RateClass =
  | 'cheap'
  | 'auth'
  | 'send'
  /** Of `send`, and as many of `read`, for callers that nobody knows; of `send`, for guests too. */
  | 'sendAnonymous'
  | 'ephemeral'
  | 'read'
  | 'keys'
  | 'lookup'
  | 'audit'
  | 'relay'
  /** What a peer asks for its users: however much they ask, its messages are not held up. */
  | 'peerUsers';

export interface Method<I extends DescMessage = DescMessage, O extends DescMessage = DescMessage> {
  readonly id: number;
  readonly name: string;
  readonly request: I;
  readonly response: O;
  readonly callers: readonly CallerClass[];
  readonly rate: RateClass;
  /** Handler's time (ms); the caller waits a little longer. */
  readonly deadlineMs: number;
  readonly maxRequestBytes: number;
  /** The same for a caller without login: protobuf can decode to 100 times its bytes. */
  readonly maxAnonymousBytes: number;
  readonly maxResponseBytes: number;
  /** True when a repeat of the same request has the effect of one. */
  readonly isIdempotent: boolean;
  readonly rules: FieldRules<MessageShape<I>>;
  /** What its handler refuses with, beside what `refusals.ts` derives for every row. */
  readonly refusals: readonly Reason[];
}

export interface MethodOptions<I extends DescMessage> {
  /** Unless told: the request's, without the word. */
  readonly name?: string;
  readonly callers: readonly CallerClass[];
  readonly rate?: RateClass;
  readonly deadlineMs?: number;
  readonly maxRequestBytes?: number;
  readonly maxAnonymousBytes?: number;
  readonly maxResponseBytes?: number;
  readonly isIdempotent?: boolean;
  readonly rules?: FieldRules<MessageShape<I>>;
  readonly refusals?: readonly Reason[];
}

/** Bound of a request that says no other (bytes). */
export const smallBytes = 16 * 1024;

/** A row: what is not said is the default. */
export function method<I extends DescMessage, O extends DescMessage>(
  id: number,
  request: I,
  response: O,
  options: MethodOptions<I>,
): Method<I, O> {
  return {
    id,
    name: options.name ?? request.name.replace(/Request$/, ''),
    request,
    response,
    callers: options.callers,
    rate: options.rate ?? 'cheap',
    deadlineMs: options.deadlineMs ?? 30_000,
    maxRequestBytes: options.maxRequestBytes ?? smallBytes,
    maxAnonymousBytes: options.maxAnonymousBytes ?? options.maxRequestBytes ?? smallBytes,
    maxResponseBytes: options.maxResponseBytes ?? defaultMaxPayloadBytes,
    isIdempotent: options.isIdempotent ?? true,
    rules: options.rules ?? {},
    refusals: options.refusals ?? [],
  };
}

export const anyone = ['anyone', 'enrolling', 'device', 'peer'] as const;
export const device = ['device'] as const;
/** Reads a log of its own: an inbox, a channel or a mailbox. */
export const reader = ['device', 'guest'] as const;
/** Guests too. */
export const everyone = [...anyone, 'guest'] as const;
/** Nobody needs to be known who has a delivery token for every target. */
export const sender = ['anyone', 'device'] as const;
/** Nobody needs to be known who signs with a key of the group. */
export const member = ['anyone', 'device', 'guest'] as const;
/** Reads of the log and what brings a new device in. */
export const enrolling = ['enrolling', 'device'] as const;
export const peer = ['peer'] as const;
export const admin = ['admin'] as const;
