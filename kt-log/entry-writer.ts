/**
 * Makes log entries (kt-log/README.md): new versions of labels become leaves of the prefix tree, one
 * entry of both log trees, a signed TreeHead and a signed checkpoint, committed at once. What is in
 * memory follows the store: it changes after a commit, or is read again when one may have failed.
 * Decides nothing about batches.
 */
import type { Clock, Random } from '@quicprochat/proto';
import { UnavailableError } from '@quicprochat/proto/status';
import type { Configuration } from './codec.ts';
import { commitmentValue } from './codec.ts';
import type { Evaluations } from './evaluations.ts';
import type { Hash, TreeHasher } from './hash.ts';
import {
  commitmentOf,
  keytransHasher,
  logEntry,
  openingBytes,
  rfc6962Hasher,
  zeroHash,
} from './hash.ts';
import { Frontier, fullSubtrees } from './log-tree.ts';
import type { LogIdentity } from './note.ts';
import { formatCheckpoint, keytransExtension, signNote } from './note.ts';
import { encode } from './presentation.ts';
import type { StoredEntry } from './recorder.ts';
import { LogReader } from './snapshot.ts';
import type { LogTreeName, NewVersion, StoredHead, TreeStore } from './store.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { signTreeHead } from './tree-head.ts';
import type { VrfProver } from './vrf.ts';

/** The secret side of a log. */
export interface LogKeys {
  /** Signs TreeHeads; its public key is in the Configuration. */
  readonly treeHead: Signer;
  /** Signs checkpoints, under the identity's note key. */
  readonly note: Signer;
  readonly vrf: VrfProver;
}

export interface EntryWriterOptions {
  readonly config: Configuration;
  readonly identity: LogIdentity;
  readonly keys: LogKeys;
  readonly vrfs: Evaluations;
  readonly store: TreeStore;
  readonly suite: VerifierSuite;
  readonly clock: Clock;
  readonly random: Random;
  /** How far the clock may stand behind the newest entry before nothing is written. */
  readonly clockBackMs: number;
}

/** New versions of one label, in order. */
export interface LabelUpdate {
  readonly label: Uint8Array;
  readonly values: readonly Uint8Array[];
  /** The greatest version before them, -1 for none. */
  readonly greatestBefore: number;
  readonly effects: readonly unknown[];
}
/** The same with the VRF outputs of its versions, where their leaves go. */
export interface PlacedUpdate extends LabelUpdate {
  readonly outputs: readonly Hash[];
}

/** State after the newest entry. */
interface Tail {
  readonly reader: LogReader;
  readonly head: StoredHead | undefined;
  readonly entry: StoredEntry;
  readonly keytrans: Frontier;
  readonly rfc6962: Frontier;
}
const emptyEntry: StoredEntry = { timestampMs: 0, prefixRoot: zeroHash, rootTile: 0 };

/** Openings that are drawn together: a question to the system costs more than its answer. */
const openingsDrawn = 256;

export class EntryWriter {
  readonly #options: EntryWriterOptions;
  readonly #hashers: Readonly<Record<LogTreeName, TreeHasher>>;
  #tail: Tail;
  /** Random bytes of which no opening was made yet. */
  #unopened: Uint8Array = new Uint8Array();

  private constructor(options: EntryWriterOptions, tail: Tail) {
    const { sha256 } = options.suite;
    this.#options = options;
    this.#hashers = { keytrans: keytransHasher(sha256), rfc6962: rfc6962Hasher(sha256) };
    this.#tail = tail;
  }

  /** Continues the log that the store holds. Throws DataLossError when it is incomplete. */
  static async open(options: EntryWriterOptions): Promise<EntryWriter> {
    return new EntryWriter(options, await loadTail(options));
  }

  get reader(): LogReader {
    return this.#tail.reader;
  }
  /** The newest head; undefined for an empty log. */
  get head(): StoredHead | undefined {
    return this.#tail.head;
  }

  /** Takes what the store holds now for the log. */
  async reload(): Promise<void> {
    this.#tail = await loadTail(this.#options);
  }

  /** VRF outputs of new versions. */
  place({ label, greatestBefore, values }: LabelUpdate): Promise<readonly Hash[]> {
    const added = values.map((_, i) => greatestBefore + 1 + i);
    return this.#options.vrfs.place(label, added);
  }

  /** Which of the updates would give a label its version 0 that once had one and was erased. */
  async taken(updates: readonly PlacedUpdate[]): Promise<ReadonlySet<PlacedUpdate>> {
    const fresh = updates.filter((one) => one.greatestBefore < 0);
    if (fresh.length === 0) return new Set();
    const keys = fresh.map((one) => searchKeyOf(one, 0));
    const { reader, entry } = this.#tail;
    const held = await reader.prefixTree.commitments(entry.rootTile, keys);
    return new Set(fresh.filter((_, i) => held[i] !== undefined));
  }

  /**
   * Makes, signs and commits one entry; durable on return. Throws UnavailableError when the clock
   * stands too far behind, and what the store throws. Whatever it throws, nothing in memory has
   * changed; whether the store has, `hasChanged` tells.
   */
  async write(updates: readonly PlacedUpdate[]): Promise<StoredHead> {
    const { store, clock, clockBackMs } = this.#options;
    const { entry: last, reader, head: before } = this.#tail;
    const nowMs = clock.now();
    const timestampMs = Math.max(nowMs, last.timestampMs);
    if (timestampMs - nowMs > clockBackMs) {
      throw new UnavailableError('STORE_FULL', 'key log: the clock stands behind the newest entry');
    }
    const versions: NewVersion[] = [];
    const leaves: { vrfOutput: Uint8Array; commitment: Uint8Array }[] = [];
    for (const one of updates) {
      for (const made of this.#newVersions(one)) {
        versions.push(made);
        leaves.push({
          vrfOutput: searchKeyOf(one, made.version),
          commitment: made.commitment,
        });
      }
    }
    const inserted = await reader.prefixTree.insert(last.rootTile, leaves, last.rootTile + 1);
    const { rootHash: prefixRoot, root: rootTile } = inserted;
    const entry: StoredEntry = { timestampMs, prefixRoot, rootTile };
    const { head, frontiers, growths } = this.#grow(logEntry(timestampMs, prefixRoot));
    await store.commit({
      position: before?.size ?? 0,
      entry,
      head,
      tiles: inserted.written,
      superseded: inserted.superseded,
      logTiles: growths.flatMap(({ tree, tiles }) => tiles.map((tile) => ({ tree, tile }))),
      versions,
      effects: updates.flatMap((one) => one.effects),
    });
    for (const { keep } of growths) keep();
    this.#tail = { reader, head, entry, ...frontiers };
    return head;
  }

  /** Whether the store holds another log than the one in memory. */
  async hasChanged(): Promise<boolean> {
    const stored = await this.#options.store.newestHead();
    return stored?.size !== this.#tail.head?.size;
  }

  #opening(): Uint8Array {
    if (this.#unopened.length === 0) {
      this.#unopened = this.#options.random.bytes(openingsDrawn * openingBytes);
    }
    const opening = this.#unopened.slice(0, openingBytes);
    this.#unopened = this.#unopened.subarray(openingBytes);
    return opening;
  }

  #newVersions(one: LabelUpdate): NewVersion[] {
    const { config, suite } = this.#options;
    const structure = commitmentValue(config.mode);
    return one.values.map((value, i) => {
      const { label } = one;
      const version = one.greatestBefore + 1 + i;
      const opening = this.#opening();
      const bytes = encode(structure, { opening, label, version, update: { value } });
      return { label, version, commitment: commitmentOf(suite.sha256, bytes), opening, value };
    });
  }

  /** Signs the head of the tree with one entry more. */
  #grow(encoded: Uint8Array) {
    const { config, identity, keys } = this.#options;
    const { reader } = this.#tail;
    const hashers = this.#hashers;
    const grown = (tree: LogTreeName) => {
      const leaf = hashers[tree].leaf(encoded);
      const frontier = new Frontier(hashers[tree], this.#tail[tree].retained());
      frontier.append(leaf);
      return { frontier, growth: { tree, ...reader[tree].grow(leaf) } };
    };
    const [keytrans, rfc6962] = [grown('keytrans'), grown('rfc6962')];
    const { size } = keytrans.frontier;
    const root = keytrans.frontier.root();
    const rfc6962Root = rfc6962.frontier.root();
    const { signature } = signTreeHead(config, size, root, keys.treeHead);
    const text = checkpointText(identity, { size, root, rfc6962Root });
    const { signature: noteSignature } = signNote(text, identity.key, keys.note);
    const head: StoredHead = { size, root, signature, rfc6962Root, noteSignature };
    return {
      head,
      frontiers: { keytrans: keytrans.frontier, rfc6962: rfc6962.frontier },
      growths: [keytrans.growth, rfc6962.growth],
    };
  }
}

/** The text of the checkpoint of a head, as it was signed. */
export function checkpointText(
  identity: LogIdentity,
  head: Pick<StoredHead, 'size' | 'root' | 'rfc6962Root'>,
): string {
  return formatCheckpoint({
    origin: identity.origin,
    size: head.size,
    root: head.rfc6962Root,
    extensions: [keytransExtension(head.root)],
  });
}

/** Where a version stands in the prefix tree. */
function searchKeyOf(update: PlacedUpdate, version: number): Hash {
  const found = update.outputs[version - update.greatestBefore - 1];
  if (found === undefined) throw new TypeError(`no VRF output of version ${version}`);
  return found;
}

/** The state of the log that a store holds. */
async function loadTail({ store, suite }: EntryWriterOptions): Promise<Tail> {
  const head = await store.newestHead();
  const size = head?.size ?? 0;
  const reader = await LogReader.open(suite.sha256, store, size);
  const [entry] = size === 0 ? [emptyEntry] : await store.entries(size - 1, size);
  const ids = fullSubtrees(size);
  return {
    reader,
    head,
    entry: entry ?? emptyEntry,
    keytrans: new Frontier(keytransHasher(suite.sha256), {
      size,
      heads: await reader.keytrans.nodes(ids),
    }),
    rfc6962: new Frontier(rfc6962Hasher(suite.sha256), {
      size,
      heads: await reader.rfc6962.nodes(ids),
    }),
  };
}
