/** The logs that a device relies on, as it saw them last: for people and programs. */
import type { Logs } from './logs.ts';

export interface LogStatus {
  readonly domain: string;
  readonly origin: string;
  /** Entries of the newest verified head, and when the newest of them was made (ms). */
  readonly size: number;
  readonly newestMs: number;
  /** When the log answered last (ms). */
  readonly answeredMs: number;
  /** Entries that a quorum of auditors has cosigned; undefined: no auditor is known. */
  readonly witnessedSize: number | undefined;
  /** Labels that are monitored besides the own one. */
  readonly watched: number;
  /** Pieces of evidence against the log. */
  readonly evidence: readonly Uint8Array[];
}

export function logStatuses(logs: Logs): readonly LogStatus[] {
  return logs.domains().flatMap((domain) => {
    const log = logs.known(domain);
    const head = log?.client.head();
    if (log === undefined || head === undefined) return [];
    const { client } = log;
    return {
      domain,
      origin: client.origin,
      size: head.size,
      newestMs: head.timestampMs,
      answeredMs: head.answeredMs,
      witnessedSize: client.options.policy === undefined ? undefined : head.witnessedSize,
      watched: client.watched().length,
      evidence: client.evidence(),
    };
  });
}
