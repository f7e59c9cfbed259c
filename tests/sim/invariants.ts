/**
 * Invariants I1, I3 and I4 of the nodes' databases (docs/protocol/delivery.md): what a node said OK to
 * is in its log, was acked there, or stands in an outbox; what left an outbox is at the peer; seqs have
 * no holes. What was said is noted at each reply, what is there is read from the files.
 */
import type { BatchOutcome, OperationRequest } from '@quicprochat/nodes/store/simulation';
import { openForReading } from '@quicprochat/nodes/store/simulation';
import type { Fetched, TargetOutcome } from '@quicprochat/nodes';
import { messageTag } from '@quicprochat/proto';
import type { Violation } from '../checkers/index.ts';
import { numberIn } from './memo.ts';
import type { NodeObserver, SimNode } from './node.ts';
import { wronglyMarked } from './strangers.ts';

/** A message in one inbox: `<rid> <tag>` in hex. */
type Copy = string;

interface Said {
  /** Copies that the node took into inboxes. */
  readonly here: Set<Copy>;
  /** Copies that it took for a peer. */
  readonly there: Map<string, Set<Copy>>;
}

/** What a database holds. */
interface Held {
  readonly inbox: ReadonlySet<Copy>;
  /** Taken and gone again: acked or expired. */
  readonly gone: ReadonlySet<Copy>;
  /** By peer: waiting, and given up. */
  readonly waiting: ReadonlyMap<string, ReadonlySet<Copy>>;
  readonly faults: readonly string[];
}

export class NodeLedger implements NodeObserver {
  readonly violations: Violation[] = [];
  /** Full looks at a database. */
  looks = 0;
  /** Copies that a node had said OK to and that were not on its restored disk. */
  lost = 0;
  readonly #restored = new Set<string>();
  /** These: one node may still say that it passed them on. What becomes of them is judged end to end. */
  readonly #excused = new Set<Copy>();
  readonly #said = new Map<string, Said>();
  /** `<store id> <rid> <seq>` -> mid: what readers were given. */
  readonly #read = new Map<string, string>();
  readonly #mayExpire: boolean;

  /** `mayExpire`: messages live so shortly that rows go by themselves. */
  constructor(mayExpire = false) {
    this.#mayExpire = mayExpire;
  }

  committed(
    node: SimNode,
    requests: readonly OperationRequest[],
    outcome: BatchOutcome,
    isReplied: boolean,
  ): void {
    if (!isReplied) {
      // Now, and not when its callers are told: others may have come between.
      for (const text of wronglyMarked(node, requests, outcome)) {
        this.#find('strangers', `${node.domain}: ${text}`);
      }
      return;
    }
    const said = this.#of(node.domain);
    for (const [index, request] of requests.entries()) {
      const one = outcome.outcomes[index];
      if (one?.isOk !== true) continue;
      this.#note(said, request, one.value);
      if (request.name === 'fetch') this.#compare(node, request.args[0], one.value as Fetched);
    }
  }

  /** What an answered call promised. */
  #note(said: Said, request: OperationRequest, value: unknown): void {
    const promise = (peer: string | undefined, rid: Uint8Array, tag: Uint8Array): void => {
      const copies = peer === undefined ? said.here : (said.there.get(peer) ?? new Set());
      if (peer !== undefined) said.there.set(peer, copies);
      copies.add(copyOf(rid, tag));
    };
    switch (request.name) {
      case 'enqueue': {
        const [{ rid, mid, payload }] = request.args;
        promise(undefined, rid, messageTag(mid, payload));
        break;
      }
      case 'enqueueRemote': {
        const [peer, { rid, mid, payload }] = request.args;
        promise(peer, rid, messageTag(mid, payload));
        break;
      }
      case 'enqueueBatch': {
        const [{ payloads, targets }] = request.args;
        // The operation of this name returned them.
        const outcomes = value as readonly TargetOutcome[];
        for (const [index, { peer, rid, payload }] of targets.entries()) {
          const sealed = payloads[payload];
          if (sealed === undefined || outcomes[index]?.outcome === 'refused') continue;
          promise(peer, rid, messageTag(sealed.mid, sealed.payload));
        }
        break;
      }
      default:
        break;
    }
  }

  /** A reader's cursor means one row for ever, as long as the store says that it is the same. */
  #compare(node: SimNode, rid: Uint8Array, { rows }: Fetched): void {
    const log = `${node.storeIdHex} ${Buffer.from(rid).toString('hex')}`;
    for (const { seq, mid } of rows) {
      const name = `${log} ${seq}`;
      const text = Buffer.from(mid).toString('hex');
      const known = this.#read.get(name);
      if (known !== undefined && known !== text) {
        this.#find('I3', `${node.domain}: seq ${seq} of ${log.slice(17, 25)} is two messages`);
      }
      this.#read.set(name, text);
    }
  }

  /** Whether the node has promised this copy, to its device or to a peer. */
  wasSaid(domain: string, rid: Uint8Array, tag: Uint8Array): boolean {
    const copy = copyOf(rid, tag);
    const { here, there } = this.#of(domain);
    if (here.has(copy) || this.#excused.has(copy)) return true;
    return [...there.values()].some((copies) => copies.has(copy));
  }

  opened(node: SimNode): void {
    if (this.#restored.delete(node.domain)) this.#forget(node);
    this.look([node]);
  }

  /** The next life of a node begins on an older disk: what that lacks is for the clients to bring back. */
  restored(node: SimNode): void {
    this.#restored.add(node.domain);
  }

  #forget(node: SimNode): void {
    const held = read(node, this.#mayExpire);
    const forget = (copies: Set<Copy>, isThere: (copy: Copy) => boolean): void => {
      for (const copy of copies) {
        if (isThere(copy)) continue;
        copies.delete(copy);
        this.#excused.add(copy);
        this.lost += 1;
      }
    };
    const { here, there } = this.#of(node.domain);
    const has = (copy: Copy): boolean => held.inbox.has(copy) || held.gone.has(copy);
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
    const held = new Map(nodes.map((node) => [node.domain, read(node, this.#mayExpire)]));
    for (const [domain, { faults, inbox, gone, waiting }] of held) {
      for (const text of faults) this.#find('I3', `${domain}: ${text}`);
      const { here, there } = this.#of(domain);
      for (const copy of here) {
        if (!inbox.has(copy) && !gone.has(copy)) this.#find('I1', `${domain} lost ${copy}`);
      }
      for (const [peer, copies] of there) {
        const at = held.get(peer);
        if (at === undefined) continue;
        for (const copy of copies) {
          const isHeld = waiting.get(peer)?.has(copy) === true;
          if (this.#excused.has(copy)) continue;
          if (!isHeld && !at.inbox.has(copy) && !at.gone.has(copy)) {
            this.#find('I4', `${copy} is neither at ${domain} nor at ${peer}`);
          }
        }
      }
    }
  }

  #find(checker: string, text: string): void {
    if (this.violations.length < 20) this.violations.push({ checker, text });
  }

  #of(domain: string): Said {
    const said = this.#said.get(domain) ?? { here: new Set(), there: new Map() };
    this.#said.set(domain, said);
    return said;
  }
}

interface LogRow {
  readonly id: number;
  readonly kind: number;
  readonly key: Buffer;
  readonly head: number;
  readonly acked: number;
}

function read(node: SimNode, mayExpire: boolean): Held {
  const db = openForReading(node.path, node.parts.key);
  try {
    const logs = db.prepare<[], LogRow>('SELECT id, kind, key, head, acked FROM log').all();
    const keys = new Map(logs.map(({ id, key }) => [id, key.toString('hex')]));
    const copy = (log: number, tag: Buffer): Copy => `${keys.get(log)} ${tag.toString('hex')}`;
    const entries = db
      .prepare<[], { readonly log: number; readonly seq: number; readonly tag: Buffer }>(
        'SELECT log, seq, tag FROM entry ORDER BY log, seq',
      )
      .all();
    const tombs = db
      .prepare<[], { readonly log: number; readonly tag: Buffer }>('SELECT log, tag FROM tomb')
      .all();
    const waiting = new Map<string, Set<Copy>>();
    const wait = (peer: string, rids: Buffer, tag: Buffer): void => {
      const copies = waiting.get(peer) ?? new Set();
      waiting.set(peer, copies);
      for (let at = 0; at < rids.length; at += 32)
        copies.add(copyOf(rids.subarray(at, at + 32), tag));
    };
    const outbox = db.prepare<
      [],
      { readonly domain: string; readonly rids: Buffer; readonly tag: Buffer }
    >(`SELECT domain, rids, tag FROM outbox JOIN peer ON peer.id = outbox.peer
       UNION ALL
       SELECT domain, rid, tag FROM dead_letter JOIN peer ON peer.id = dead_letter.peer`);
    for (const { domain, rids, tag } of outbox.all()) wait(domain, rids, tag);
    return {
      inbox: new Set(entries.map(({ log, tag }) => copy(log, tag))),
      gone: new Set(tombs.map(({ log, tag }) => copy(log, tag))),
      waiting,
      faults: [...seqFaults(logs, entries, mayExpire), ...doubles(entries, tombs, copy)],
    };
  } finally {
    db.close();
  }
}

/** Where nothing expires an inbox holds exactly what is not acked, and else a part of it. */
function seqFaults(
  logs: readonly LogRow[],
  entries: readonly { readonly log: number; readonly seq: number }[],
  mayExpire: boolean,
): string[] {
  const faults: string[] = [];
  for (const { id, kind, key, head, acked } of logs) {
    if (kind !== 1) continue;
    const seqs = entries.filter(({ log }) => log === id).map(({ seq }) => seq);
    const isGapless = mayExpire
      ? seqs.every((seq) => acked < seq && seq <= head)
      : seqs.every((seq, index) => seq === acked + 1 + index) && seqs.length === head - acked;
    if (!isGapless) {
      faults.push(
        `inbox ${key.toString('hex').slice(0, 8)}: acked ${acked}, head ${head}, rows ${seqs.join()}`,
      );
    }
  }
  return faults;
}

/** Rows with the bytes of another row of the same log, also of one that is acked. */
function doubles(
  entries: readonly { readonly log: number; readonly tag: Buffer }[],
  tombs: readonly { readonly log: number; readonly tag: Buffer }[],
  copy: (log: number, tag: Buffer) => Copy,
): string[] {
  const seen = new Set<Copy>();
  return [...entries, ...tombs].flatMap(({ log, tag }) => {
    const one = copy(log, tag);
    if (seen.has(one)) return [`two rows of ${one}`];
    seen.add(one);
    return [];
  });
}

function copyOf(rid: Uint8Array, tag: Uint8Array): Copy {
  return `${Buffer.from(rid).toString('hex')} ${Buffer.from(tag).toString('hex')}`;
}
