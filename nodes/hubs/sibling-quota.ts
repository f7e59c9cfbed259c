/**
 * How many children of one entry come from one device or domain (docs/protocol/group-log.md, "What cannot be judged
 * alone"). A hub cannot see who in a group commits, nor whether it is MLS; it sees who brings it. Without a
 * bound, one member with junk would use up all that a later child may reject.
 */
import { groupLogLimits, ResourceExhaustedError, type ParsedEntry } from '@quicprochat/proto';

export const siblingLimits = {
  /** Honest ones need one, and another when somebody spoilt it. */
  perDevice: 3,
  /** Of one domain's members together, at a hub elsewhere: another domain finds room behind them. */
  perDomain: groupLogLimits.rejects / 2,
  /** Entries that are remembered with who brought children; the oldest go. */
  remembered: 16_384,
} as const;

/** Who brings a commit: a device of this node (32 bytes), or the domain of another node. */
export type Submitter = Uint8Array | string;

/** Members that nobody knows, together: they have as much as one device. */
export const strangers: Submitter = new Uint8Array(0);

export class SiblingQuota {
  /** Hashes of children, by group, parent and submitter. */
  readonly #children = new Map<string, Set<string>>();
  readonly #remembered: number;

  constructor(remembered: number = siblingLimits.remembered) {
    this.#remembered = remembered;
  }

  /**
   * Runs a submission, and counts it unless it fails; the same entry again is no other. Throws
   * ResourceExhaustedError QUOTA, and what `submit` throws.
   */
  async within<T>(
    { entry: { group, parent }, hash }: Pick<ParsedEntry, 'entry' | 'hash'>,
    submitter: Submitter,
    submit: () => Promise<T>,
  ): Promise<T> {
    const isDevice = typeof submitter !== 'string';
    const who = isDevice ? nameOf(submitter) : `@${submitter}`;
    const key = `${nameOf(group)} ${nameOf(parent)} ${who}`;
    const children = this.#children.get(key) ?? new Set<string>();
    const child = nameOf(hash);
    if (children.has(child)) return submit();
    const { perDevice, perDomain } = siblingLimits;
    if (children.size >= (isDevice ? perDevice : perDomain)) {
      throw new ResourceExhaustedError('QUOTA', 'too many commits behind one entry');
    }
    // Taken before the answer: many at once are no way round.
    children.add(child);
    this.#children.set(key, children);
    for (const oldest of this.#children.keys()) {
      if (this.#children.size <= this.#remembered) break;
      this.#children.delete(oldest);
    }
    try {
      return await submit();
    } catch (error) {
      children.delete(child);
      if (children.size === 0) this.#children.delete(key);
      throw error;
    }
  }
}

const nameOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
