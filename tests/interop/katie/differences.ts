/**
 * The differences between katie and the pinned text that this harness meets, each by its name in
 * docs/reference/katie-differences.md. What is not here fails the test.
 */
import type { Kind } from './logs.ts';

/** One response that one of the two clients refuses, or both. */
export interface Disputed {
  readonly kind: Kind;
  readonly log: 'katie' | 'ours';
  /** An honest log has something to show. */
  readonly exists: boolean;
  /** The two view updates ask for the same. */
  readonly agree: boolean;
  /** The user has seen this very head. */
  readonly isSame: boolean;
  /** An update: the first entry that section 9.1, step 2.1 passes over lacks the version before. */
  readonly isAssumed: boolean;
  /** Why it was refused; undefined: it was accepted. */
  readonly ours: string | undefined;
  readonly katie: string | undefined;
}

interface Difference {
  readonly name: string;
  /** Whose answers show it; undefined: both logs' do. */
  readonly log?: 'katie' | 'ours';
  when(disputed: Disputed): boolean;
}

const oneLookup = 'unexpected number of results present in prefix proof';

/** The first one that explains a dispute names it. */
const differences: readonly Difference[] = [
  {
    name: 'section 13.1: negative answers',
    log: 'katie',
    when: ({ exists, ours, katie }) => !exists && ours !== undefined && katie !== undefined,
  },
  {
    name: "section 12.1: katie's Tree does not count on what a user of the same head retained",
    log: 'katie',
    when: ({ isSame, ours, katie }) => isSame && ours !== undefined && katie === 'malformed proof',
  },
  {
    name: 'section 4.2: katie lacks the restart, entries of the frontier are missing',
    log: 'katie',
    when: ({ agree, ours, katie }) =>
      !agree &&
      ours !== undefined &&
      (katie === 'expected timestamp not retained' || katie === oneLookup),
  },
  {
    name: "section 13.1: katie's Tree leaves out commitments of versions that its proof did not look up",
    log: 'katie',
    when: ({ kind, ours, katie }) =>
      kind === 'search' &&
      katie === undefined &&
      ours === 'LADDER: binary ladder: expected a commitment below',
  },
  {
    name: 'section 9.1: katie takes the version before to be in an entry that was passed over',
    log: 'katie',
    when: ({ isAssumed, ours, katie }) =>
      isAssumed &&
      // The lookups are taken for others, so the proof fails in one of several ways.
      /^(COUNT|LADDER|BAD_ROOT): /.test(ours ?? '') &&
      (katie === undefined || katie === oneLookup),
  },
  {
    name: 'section 9.1: katie takes the version before to be in an entry that was passed over',
    log: 'ours',
    when: ({ isAssumed, ours, katie }) =>
      isAssumed && ours === undefined && katie === 'unexpected number of results in prefix proof',
  },
  {
    name: 'section 9.1: katie takes one lookup only where several new versions need one',
    when: ({ kind, ours, katie }) => kind === 'update' && ours === undefined && katie === oneLookup,
  },
];

/** The name of a difference; undefined for one that nobody has explained. */
export function known(disputed: Disputed): string | undefined {
  return differences.find((one) => (one.log ?? disputed.log) === disputed.log && one.when(disputed))
    ?.name;
}

/** Those that show in the states after a response that both accept. */
export const mapDifferences = {
  forgets:
    'section 8.2: katie forgets a monitored version whose distinguished entry is yet to come',
  lesser: 'section 8.2: katie keeps the lesser of two monitored versions that meet at one entry',
} as const;

/** Mutants that we refuse and katie takes for the original, by what we say of them. */
const laxer: readonly (readonly [RegExp, string])[] = [
  [
    /^LADDER: (prefix proof results: expected one node at each place|non-inclusion leaf)/,
    'section 12.2: katie ignores what a second lookup says of the leaf where both end',
  ],
  [/^MALFORMED: .*\btimestamp: expected at most/, 'section 11.8: we take times below 2^52 ms only'],
];

/** The name of a difference in the verdicts on a mutant; undefined for an unexplained one. */
export function knownMutant(ours: string | undefined): string | undefined {
  return laxer.find(([pattern]) => ours !== undefined && pattern.test(ours))?.[1];
}

/**
 * What katie's own Client says to responses that its algorithms accept: it works for a head that the
 * user has seen. `seen`: size of that, undefined for somebody new.
 */
export function knownOfClient(
  kind: Kind,
  verdict: string,
  seen: number | undefined,
  size: number,
): string | undefined {
  const isNilPointer = /^panic: .*nil pointer/.test(verdict);
  if (seen === undefined) {
    return isNilPointer ? "section 13: katie's Client panics after a first response" : undefined;
  }
  if (seen < size) {
    const isRefused = verdict === 'provided tree size is not greater than advertised';
    return isRefused ? "section 4.2: katie's Client takes no larger head" : undefined;
  }
  return kind === 'contactMonitor' && isNilPointer
    ? "section 13.2: katie's Client panics when nothing is left to monitor"
    : undefined;
}
