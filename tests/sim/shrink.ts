/**
 * Finds a smaller run that fails: parts of a list of operations and faults are left out, halves first and
 * then ever smaller pieces, for as long as what is left fails too.
 */
export interface Shrunk {
  /** What is left, in the order of the list. */
  readonly kept: readonly string[];
  /** Runs that it took. */
  readonly runs: number;
}

/** `fails` makes a run with these alone. At most `runsMax` runs. */
export async function shrink(
  all: readonly string[],
  fails: (kept: ReadonlySet<string>) => Promise<boolean>,
  runsMax: number,
): Promise<Shrunk> {
  let kept = all;
  let runs = 0;
  for (let size = Math.ceil(kept.length / 2); ; size = Math.ceil(size / 2)) {
    // From the end: what came after the failure is not needed for it.
    for (let to = kept.length; to > 0; to -= size) {
      if (runs >= runsMax) return { kept, runs };
      const from = Math.max(0, to - size);
      const fewer = [...kept.slice(0, from), ...kept.slice(to)];
      runs += 1;
      if (await fails(new Set(fewer))) kept = fewer;
    }
    if (size <= 1) return { kept, runs };
  }
}
