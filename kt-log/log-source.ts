/**
 * Where a follower reads a log: a node, its HTTP door, a mirrored directory. A source is trusted with
 * nothing: all that comes from it is verified against the log's keys. Browser-safe.
 */
import type { Configuration } from './codec.ts';
import type { SignedHead } from './evidence.ts';
import type { NoteKey } from './note.ts';

export interface LogSource {
  /** The newest checkpoint, a C2SP note. Throws QpcError when it cannot be had. */
  checkpoint(signal?: AbortSignal): Promise<Uint8Array>;
  /**
   * A signed audit bundle that holds entry `from`; undefined when the source has none. It may start
   * before `from`, as the bundles of mirrors do, and `max` entries from there on are enough.
   */
  bundle(from: number, max: number, signal?: AbortSignal): Promise<Uint8Array | undefined>;
  /** At most `max` signed heads of size `from` and above, ascending; none where it keeps none. */
  heads(from: number, max: number, signal?: AbortSignal): Promise<readonly SignedHead[]>;
}

/** A log's keys as a source states them: to be pinned, or compared with what is pinned. */
export interface StatedKeys {
  readonly origin: string;
  readonly config: Configuration;
  /** Of its checkpoints and bundles. */
  readonly key: NoteKey;
  /** The keys under which its node cosigns other logs. */
  readonly cosigners: readonly NoteKey[];
}

/** A source that tells the log's keys too. */
export interface PublishedLog extends LogSource {
  keys(signal?: AbortSignal): Promise<StatedKeys>;
}
