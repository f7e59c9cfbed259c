/** Which of three nodes leads their one group now: whoever took over last, as its log says; before that the first. */
import type { NodeProcess } from '../cluster/node-process.ts';

export class LeaderWatch {
  readonly #nodes: readonly NodeProcess[];
  #leader: NodeProcess | undefined;
  /** Of the newest takeover that was seen; 0: none. */
  term = 0;

  /** `nodes`: the one first on which the group was made. */
  constructor(nodes: readonly NodeProcess[]) {
    this.#nodes = nodes;
    [this.#leader] = nodes;
  }

  /** Of what the nodes logged up to now. */
  look(): NodeProcess | undefined {
    for (const node of this.#nodes) {
      for (const line of node.logLines) {
        if (!line.includes('"msg":"hub takes over"')) continue;
        const { term } = JSON.parse(line) as { readonly term: number };
        if (term > this.term) [this.term, this.#leader] = [term, node];
      }
    }
    return this.#leader;
  }
}
