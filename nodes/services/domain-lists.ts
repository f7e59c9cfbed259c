/**
 * The lists of domains that posters named, by channel and hash; in memory, the least used go, and their
 * posters name them once more. Bounded by lists and by names, since one list may have 256 long ones.
 */

export const domainListsBounds = { lists: 4_096, names: 65_536 } as const;

export class DomainLists {
  readonly #bounds: { readonly lists: number; readonly names: number };
  /** In the order of their last use. */
  readonly #lists = new Map<string, readonly string[]>();
  #names = 0;

  constructor(bounds: { readonly lists: number; readonly names: number } = domainListsBounds) {
    this.#bounds = bounds;
  }

  get(key: string): readonly string[] | undefined {
    const known = this.#lists.get(key);
    if (known === undefined) return undefined;
    this.#lists.delete(key);
    this.#lists.set(key, known);
    return known;
  }

  put(key: string, domains: readonly string[]): void {
    this.#drop(key);
    this.#lists.set(key, [...domains]);
    this.#names += domains.length;
    for (const oldest of this.#lists.keys()) {
      const { lists, names } = this.#bounds;
      if (this.#lists.size <= lists && this.#names <= names) return;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    this.#names -= this.#lists.get(key)?.length ?? 0;
    this.#lists.delete(key);
  }
}
