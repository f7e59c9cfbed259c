/**
 * What a run has seen: histories per direction, answers per operation, refusals and differences by
 * name. Whatever has no name fails the run where it is found.
 */
export class Tally {
  readonly #counts = new Map<string, number>();

  add(name: string, count = 1): void {
    this.#counts.set(name, this.of(name) + count);
  }
  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }
  /** All counts whose name starts so, as `name count` by name. */
  lines(prefix: string): string[] {
    return [...this.#counts]
      .filter(([name]) => name.startsWith(prefix))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, count]) => `${name}: ${count}`);
  }
}
