/**
 * How many children of one entry come from one device or domain (docs/protocol/group-log.md, "What cannot be judged
 * alone"). A hub cannot see who in a group commits, nor whether it is MLS; it sees who brings it. Without a
 * bound, one member with junk would use up all that a later child may reject.
 */
import { groupLogLimits, ResourceExhaustedError, type ParsedEntry } from '@quicprochat/proto';

export const siblingLimits = {
  /** Honest ones need one, and another when somebody spoilt it. */
  perDevice: 3,
  /** Of one domain's members together, this node's or another one's: another domain finds room behind them. */
  perDomain: groupLogLimits.rejects / 2,
  /** Of this node's devices, where one that brought none yet still finds room: not all members have somebody elsewhere. */
  perHome: (groupLogLimits.rejects * 3) / 4,
  /** Entries that are remembered with who brought children; the oldest go. */
  remembered: 16_384,
} as const;

/** Who brings a commit: a device of this node (32 bytes), or the domain of another node. */
export type Submitter = Uint8Array | string;

/** Members that nobody knows, together: they have as much as one device. */
export const strangers: Submitter = new Uint8Array(0);

/**
 * Hashes of an entry's children, and whether each was accepted, by who brought them: a device of this node, or `@` and a
 * domain.
 */
type Children = Map<string, Map<string, boolean>>;

export class SiblingQuota {
  /** By group and parent. */
  readonly #entries = new Map<string, Children>();
  readonly #remembered: number;

  constructor(remembered: number = siblingLimits.remembered) {
    this.#remembered = remembered;
  }

  /**
   * Runs a submission, and counts it unless it fails; the same entry again is no other. `isRepeat`: it was
   * accepted before; one that is still open may be refused yet. Throws ResourceExhaustedError QUOTA, and what `submit` throws.
   */
  async within<T>(
    { entry: { group, parent }, hash }: Pick<ParsedEntry, 'entry' | 'hash'>,
    submitter: Submitter,
    submit: (isRepeat: boolean) => Promise<T>,
  ): Promise<T> {
    const who = typeof submitter === 'string' ? `@${submitter}` : nameOf(submitter);
    const key = `${nameOf(group)} ${nameOf(parent)}`;
    const children: Children = this.#entries.get(key) ?? new Map();
    const own = children.get(who) ?? new Map<string, boolean>();
    const child = nameOf(hash);
    const before = own.get(child);
    if (before !== undefined) return submit(before);
    if (isOver(children, who, own.size)) {
      throw new ResourceExhaustedError('QUOTA', 'too many commits behind one entry');
    }
    // Taken before the answer: many at once are no way round.
    own.set(child, false);
    children.set(who, own);
    this.#entries.set(key, children);
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#remembered) break;
      this.#entries.delete(oldest);
    }
    try {
      const done = await submit(false);
      own.set(child, true);
      return done;
    } catch (error) {
      own.delete(child);
      if (own.size === 0) children.delete(who);
      if (children.size === 0 && this.#entries.get(key) === children) this.#entries.delete(key);
      throw error;
    }
  }
}

function isOver(children: Children, who: string, own: number): boolean {
  const { perDevice, perDomain, perHome } = siblingLimits;
  if (who.startsWith('@')) return own >= perDomain;
  let home = 0;
  for (const [other, { size }] of children) home += other.startsWith('@') ? 0 : size;
  return own >= perDevice || home >= (own === 0 ? perHome : perDomain);
}

const nameOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
