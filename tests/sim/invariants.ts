/**
 * Invariants I1, I3 and I4 of the nodes' databases (docs/protocol/delivery.md): what a node said OK to
 * is in its log, was acked there, or stands in an outbox; what left an outbox is at the peer; seqs have
 * no holes. What was said is noted at each reply, what is there is read from the files.
 */
import {
  readOperations,
  type BatchOutcome,
  type OperationRequest,
  type OperationResult,
} from '@quicprochat/nodes/store/simulation';
import type { Fetched } from '@quicprochat/nodes';
import { hex } from '@quicprochat/proto';
import type { Violation } from '../checkers/index.ts';
import { LogWatch, type WrittenRow } from './log-watch.ts';
import { numberIn } from './memo.ts';
import { copyOf, heldBy, type Copy } from './node-held.ts';
import type { SimNode } from './node.ts';
import { isKept, isWithoutReaders, promisedBy, takenFrom, type Promised } from './promises.ts';
import { wronglyMarked } from './strangers.ts';

interface Said {
  /** Copies that the node took into its logs. */
  readonly here: Set<Copy>;
  /** Copies that it took for a peer. */
  readonly there: Map<string, Set<Copy>>;
}

export interface LedgerOptions {
  /** Messages live so shortly that rows go by themselves. */
  readonly mayExpire?: boolean;
  /** Inboxes are so small that some rows of a commit find no place. */
  readonly mayRefuse?: boolean;
}

export class NodeLedger {
  readonly violations: Violation[] = [];
  /** Full looks at a database. */
  looks = 0;
  /** Copies that a node had said OK to and that were not on its restored disk. */
  lost = 0;
  readonly #restored = new Set<string>();
  /** These: one node may still say that it passed them on. What becomes of them is judged end to end. */
  readonly #excused = new Set<Copy>();
  readonly #said = new Map<string, Said>();
  /** What transactions wrote whose callers have not been told. */
  readonly #unsaid = new WeakMap<BatchOutcome, readonly Promised[]>();
  /** `<store id> <log> <seq>` -> mid: what was written, and what readers were given. */
  readonly #messageAt = new Map<string, string>();
  /** `<node> <peer> <lane> <stream>` -> cursor: how far peers' batches were taken in. */
  readonly #takenUpTo = new Map<string, number>();
  readonly #logs: LogWatch;
  readonly #mayExpire: boolean;
  readonly #mayRefuse: boolean;

  constructor({ mayExpire = false, mayRefuse = false }: LedgerOptions = {}) {
    this.#logs = new LogWatch(mayExpire);
    this.#mayExpire = mayExpire;
    this.#mayRefuse = mayRefuse;
  }

  /** A transaction of the node is on its disk, and nobody has been told. Returns the rows that it wrote into logs. */
  committed(
    node: SimNode,
    requests: readonly OperationRequest[],
    outcome: BatchOutcome,
  ): readonly WrittenRow[] {
    if (requests.every(({ name }) => readOperations.has(name))) return [];
    // Now, and not when its callers are told: others may have come between.
    for (const text of wronglyMarked(node, requests, outcome)) this.#find('strangers', node, text);
    const { rows, relayed, faults } = this.#logs.written(node);
    for (const text of faults) this.#find('I3', node, text);
    for (const { log, seq, mid } of rows) this.#note(node, log, seq, mid);
    const promised = requests.flatMap((request, index) => {
      const one = outcome.outcomes[index];
      return one?.isOk === true ? this.#kept(node, request, one.value) : [];
    });
    const written = rows.map(({ log, tag }) => {
      return { peer: undefined, place: Buffer.from(log, 'hex'), tag };
    });
    this.#unsaid.set(outcome, [...promised, ...written, ...relayed]);
    return rows;
  }

  /** Its callers are told: what it wrote is promised from now on, also to who asked for something else. */
  replied(node: SimNode, requests: readonly OperationRequest[], outcome: BatchOutcome): void {
    const said = this.#of(node.domain);
    for (const { peer, place, tag } of this.#unsaid.get(outcome) ?? []) {
      const copies = peer === undefined ? said.here : (said.there.get(peer) ?? new Set());
      if (peer !== undefined) said.there.set(peer, copies);
      copies.add(copyOf(place, tag));
    }
    for (const [index, request] of requests.entries()) {
      const one = outcome.outcomes[index];
      if (one?.isOk === true) this.#compare(node, request, one.value);
    }
  }

  /** What the answer to a call promises, and the transaction wrote. */
  #kept(node: SimNode, request: OperationRequest, value: unknown): Promised[] {
    const isCommit = request.name === 'submitCommit' || request.name === 'acceptPrepared';
    const promised = [...promisedBy(request, value), ...this.#taken(node, request, value)];
    return promised.filter((one) => {
      if (isKept(node, one)) return true;
      const copy = copyOf(one.place, one.tag);
      if (one.peer === undefined && isWithoutReaders(node, one.place)) this.#excused.add(copy);
      else if (!(isCommit && this.#mayRefuse)) {
        const where = one.peer === undefined ? '' : ` for ${one.peer}`;
        this.#find('I1', node, `${request.name} was answered, and ${copy}${where} is not there`);
      }
      return false;
    });
  }

  #taken({ domain }: SimNode, request: OperationRequest, value: unknown): Promised[] {
    if (request.name !== 'applyRelay') return [];
    const [peer, { lane, streamId }] = request.args;
    const stream = [domain, peer, lane, hex(streamId)].join(' ');
    const start = (this.#takenUpTo.get(stream) ?? 0) + 1;
    this.#takenUpTo.set(stream, (value as OperationResult<'applyRelay'>).cursor);
    return takenFrom(request, value, start);
  }

  /** What a reader was given: a run of rows, each of them as it was written, for ever. */
  #compare(node: SimNode, request: OperationRequest, value: unknown): void {
    const compare = (log: Uint8Array, after: number, { rows }: Fetched): void => {
      const name = hex(log);
      for (const [index, { seq, mid }] of rows.entries()) {
        this.#note(node, name, seq, mid);
        const least = index === 0 ? after + 1 : (rows[index - 1]?.seq ?? 0) + 1;
        const isNext = index === 0 ? seq >= least : seq === least;
        if (!isNext) {
          this.#find('I3', node, `a reader of ${name.slice(0, 8)} was given ${seq}, not ${least}`);
        }
      }
    };
    switch (request.name) {
      case 'fetch':
        compare(request.args[0], request.args[1], value as Fetched);
        break;
      case 'fetchChannel': {
        const [, { cid, after }] = request.args;
        compare(cid, after, value as Fetched);
        break;
      }
      case 'fetchLogs': {
        const [rid, positions] = request.args;
        for (const { cid, fetched } of value as OperationResult<'fetchLogs'>) {
          const position = positions.find((one) => Buffer.compare(one.cid, cid) === 0);
          compare(cid.length === 0 ? rid : cid, position?.after ?? 0, fetched);
        }
        break;
      }
      default:
        break;
    }
  }

  /** A reader's cursor means one row for ever, as long as the store says that it is the same. */
  #note(node: SimNode, log: string, seq: number, mid: Uint8Array): void {
    const name = `${node.storeIdHex} ${log} ${seq}`;
    const text = hex(mid);
    const known = this.#messageAt.get(name) ?? text;
    if (known !== text) {
      this.#find('I3', node, `seq ${seq} of ${log.slice(0, 8)} is two messages`);
    }
    this.#messageAt.set(name, text);
  }

  /** Whether the node has promised this copy, to its device or to a peer. */
  wasSaid(domain: string, place: Uint8Array, tag: Uint8Array): boolean {
    const copy = copyOf(place, tag);
    const { here, there } = this.#of(domain);
    if (here.has(copy) || this.#excused.has(copy)) return true;
    return [...there.values()].some((copies) => copies.has(copy));
  }

  opened(node: SimNode): void {
    const isOlder = this.#restored.delete(node.domain);
    for (const text of this.#logs.opened(node, isOlder)) this.#find('I3', node, text);
    if (isOlder) this.#forget(node);
    this.look([node]);
  }

  /** The next life of a node begins on an older disk: what that lacks is for the clients to bring back. */
  restored(node: SimNode): void {
    this.#restored.add(node.domain);
    for (const stream of this.#takenUpTo.keys()) {
      if (stream.startsWith(`${node.domain} `)) this.#takenUpTo.delete(stream);
    }
  }

  #forget(node: SimNode): void {
    const held = heldBy(node, this.#mayExpire);
    const forget = (copies: Set<Copy>, isThere: (copy: Copy) => boolean): void => {
      for (const copy of copies) {
        if (isThere(copy)) continue;
        copies.delete(copy);
        this.#excused.add(copy);
        this.lost += 1;
      }
    };
    const { here, there } = this.#of(node.domain);
    const has = (copy: Copy): boolean => held.rows.has(copy) || held.gone.has(copy);
    forget(here, has);
    for (const copies of there.values()) forget(copies, () => false);
    for (const { there: sent } of this.#said.values()) {
      const copies = sent.get(node.domain);
      if (copies !== undefined) forget(copies, has);
    }
  }

  /** Whether nobody waits for anything at this node: inboxes acked, outboxes empty. */
  isIdle(node: SimNode): boolean {
    const rows = 'SELECT (SELECT count(*) FROM entry) + (SELECT count(*) FROM outbox)';
    return numberIn(node.path, rows) === 0;
  }

  /** Reads the files of all these nodes and compares them with what was said. */
  look(nodes: readonly SimNode[]): void {
    this.looks += 1;
    const held = new Map(nodes.map((node) => [node, heldBy(node, this.#mayExpire)]));
    for (const [node, { faults, rows, gone, waiting }] of held) {
      for (const text of faults) this.#find('I3', node, text);
      const { here, there } = this.#of(node.domain);
      for (const copy of here) {
        if (!rows.has(copy) && !gone.has(copy)) this.#find('I1', node, `lost ${copy}`);
      }
      for (const [peer, copies] of there) {
        const far = nodes.find(({ domain }) => domain === peer);
        const at = far && held.get(far);
        if (at === undefined) continue;
        for (const copy of copies) {
          const isHeld = waiting.get(peer)?.has(copy) === true;
          if (this.#excused.has(copy)) continue;
          if (!isHeld && !at.rows.has(copy) && !at.gone.has(copy)) {
            this.#find('I4', node, `${copy} is neither here nor at ${peer}`);
          }
        }
      }
    }
  }

  #find(checker: string, { domain }: SimNode, text: string): void {
    if (this.violations.length < 20) this.violations.push({ checker, text: `${domain}: ${text}` });
  }

  #of(domain: string): Said {
    const said = this.#said.get(domain) ?? { here: new Set(), there: new Map() };
    this.#said.set(domain, said);
    return said;
  }
}
