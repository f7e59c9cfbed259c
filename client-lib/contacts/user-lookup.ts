/**
 * Finds the people that parked rows wait for, in the background and for as long as it takes; then
 * the rows are tried again (docs/protocol/cryptography.md: a message that waits for a manifest is parked).
 */
import {
  hasReason,
  InvalidArgumentError,
  jitter,
  NotFoundError,
  PermissionDeniedError,
  QpcError,
  type Runtime,
} from '@quicprochat/proto';
import { VerificationError } from '@quicprochat/kt-log/verify';
import { ContactError } from './contact.ts';
import type { Contacts } from './contacts.ts';
import { LogError } from '../kt/log-record.ts';
import type { Caller } from '../dial.ts';

export const lookupLimits = {
  /** First and longest wait after a failed look-up (ms). */
  backOffMinMs: 500,
  backOffMaxMs: 60_000,
} as const;

export interface UserLookupParts {
  readonly runtime: Runtime;
  readonly contacts: Contacts;
  readonly caller: Caller;
  /** These users' manifests are pinned now. */
  readonly onFound: (userIds: readonly string[]) => Promise<void>;
  /** Waiting is in vain: there is no such user, or its keys are refused. */
  readonly onRefused: (userIds: readonly string[], reason: string) => Promise<void>;
}

export class UserLookup {
  readonly #parts: UserLookupParts;
  readonly #wanted = new Set<string>();
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  constructor(parts: UserLookupParts) {
    this.#parts = parts;
  }

  want(userIds: readonly string[]): void {
    for (const userId of userIds) this.#wanted.add(userId);
    if (this.#stop.signal.aborted || this.#wanted.size === 0) return;
    this.#running ??= this.#run();
  }

  /**
   * Whether a row that waits for these people (user ids, separated by spaces) may be tried again: none of them is
   * still to be looked up. A Welcome to a thousand would be opened a thousand times otherwise.
   */
  isThrough(waitsFor: string): boolean {
    return !waitsFor.split(' ').some((userId) => this.#wanted.has(userId));
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }
  /** Resolves when nobody is looked up. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.idle();
  }

  async #run(): Promise<void> {
    const { clock, random, log } = this.#parts.runtime;
    const { signal } = this.#stop;
    let failures = 0;
    while (this.#wanted.size > 0 && !signal.aborted) {
      try {
        for (const userId of this.#wanted) {
          // Taken out first: a row that is parked while the answer is under way asks once more.
          this.#wanted.delete(userId);
          await this.#lookUp(userId, signal).catch((error: unknown) => {
            this.#wanted.add(userId);
            throw error;
          });
          failures = 0;
        }
      } catch (error) {
        if (signal.aborted) break;
        log.info('user look-up failed', {
          reason: error instanceof QpcError ? error.reason : 'INTERNAL',
        });
        const { backOffMinMs, backOffMaxMs } = lookupLimits;
        const boundMs = Math.min(backOffMaxMs, backOffMinMs * 2 ** failures);
        failures = Math.min(failures + 1, 16);
        // Half of the bound at least: without a connection each try fails at once.
        await clock.sleep(boundMs / 2 + jitter(random, boundMs / 2), signal).catch(() => undefined);
      }
    }
    this.#running = undefined;
  }

  async #lookUp(userId: string, signal: AbortSignal): Promise<void> {
    const { contacts, caller, onFound, onRefused } = this.#parts;
    try {
      await contacts.resolve(userId, caller, signal);
    } catch (error) {
      if (!(error instanceof QpcError) || signal.aborted) throw error;
      // Rows wait until people have decided; then they are tried again.
      const { reason } = error;
      if (reason === 'IDENTITY_RESET') return;
      if (isFinal(error)) return onRefused([userId], reason);
      // Whatever keeps the log from vouching anew: what it showed lately may be used a while.
      if (!contacts.passUnreached(userId)) throw error;
    }
    await onFound([userId]);
  }
}

/** Whether asking again is in vain. A log that lies or is not believed may be mended. */
function isFinal(error: QpcError): boolean {
  if (error instanceof VerificationError || error instanceof LogError) return false;
  return (
    error instanceof ContactError ||
    error instanceof NotFoundError ||
    error instanceof InvalidArgumentError ||
    error instanceof PermissionDeniedError ||
    hasReason(error, 'UNKNOWN_USER', 'BAD_FIELD', 'BAD_SIGNATURE', 'PEER_DENIED', 'BLOCKED')
  );
}
