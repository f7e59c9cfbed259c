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
  /** Since when heads are used that no quorum has cosigned (ms); undefined: there are none. */
  readonly unwitnessedSinceMs: number | undefined;
  /** Entries of the newest checkpoint that others showed since the start; above `size`: it lags here. */
  readonly heardSize: number;
  /** Pieces of evidence against the log. */
  readonly evidence: readonly Uint8Array[];
  /** New keys of it are refused: there is evidence that nobody has decided about. */
  readonly isConvicted: boolean;
}

export function logStatuses(
  logs: Logs,
  heardSize: (domain: string) => number,
): readonly LogStatus[] {
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
      unwitnessedSinceMs: head.unwitnessedSinceMs,
      heardSize: heardSize(domain),
      evidence: client.evidence(),
      isConvicted: logs.isConvicted(domain),
    };
  });
}
