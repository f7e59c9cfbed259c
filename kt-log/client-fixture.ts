/**
 * Test support: devices whose clients talk to a real log through its byte service, with a place
 * where a test can put a lie. Not library code.
 */
import type { LogClientOptions } from './client-core.ts';
import type { LogClientStore } from './client-storage.ts';
import type { LogAnswer, LogTransport, Send } from './client-transport.ts';
import { sameBytes } from './hash.ts';
import { LogClient } from './log-client.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { cosign, formatNote, formatVkey, noteKey, parseNote, SignatureType } from './note.ts';
import * as operations from './operations.ts';
import { encode } from './presentation.ts';
import { KtService } from './serve.ts';
import { MemoryTreeStore } from './store.ts';
import { labelOf, testLog, testRandom } from './test-log.ts';

export type Face = Awaited<ReturnType<typeof testLog>>;

/** A client's store in memory; a test may let its next save fail as a crash would. */
export class MemoryClientStore implements LogClientStore {
  readonly blobs = new Map<string, Uint8Array>();
  crashesAtSave = false;
  saves = 0;

  get(key: string): Uint8Array | undefined {
    return this.blobs.get(key)?.slice();
  }
  save(changes: ReadonlyMap<string, Uint8Array | undefined>): void {
    if (this.crashesAtSave) throw new Error('the store is gone');
    this.saves++;
    for (const [key, blob] of changes) {
      if (blob === undefined) this.blobs.delete(key);
      else this.blobs.set(key, blob.slice());
    }
  }
  /** Everything that is stored, to compare. */
  copy(): Map<string, Uint8Array> {
    return new Map([...this.blobs].map(([key, blob]) => [key, blob.slice()]));
  }
}

/** What a log serves, as a transport. */
export function transportOf(face: Face): LogTransport {
  const service = new KtService(face.log);
  const send =
    (serve: (request: Uint8Array) => Promise<LogAnswer>): Send =>
    async (request) =>
      serve(request);
  return {
    search: send((request) => service.search(request)),
    absence: send((request) => service.absence(request)),
    update: send((request) => service.update(request)),
    contactMonitor: send((request) => service.contactMonitor(request)),
    ownerInit: send((request) => service.ownerInit(request)),
    ownerMonitor: send((request) => service.ownerMonitor(request)),
    distinguished: send((request) => service.distinguished(request)),
    treeHead: async (size) => new TextEncoder().encode(await face.log.checkpoint(size)),
    credential: (label) => service.credential(label),
    async credentialUpdate({ label, last, entry }) {
      const bytes = encode(operations.monitorMapEntry, entry);
      return (await service.credentialUpdate(label, last, bytes)).response;
    },
  };
}

/** A device of some user of the log. */
export function device(face: Face, options: Partial<LogClientOptions> = {}) {
  const { identity, config, clock } = face;
  const store = new MemoryClientStore();
  const all: LogClientOptions = {
    identity,
    config,
    suite: nativeSuite,
    store,
    clock,
    random: testRandom,
    ...options,
  };
  return { client: new LogClient(all), store, options: all };
}

/** Has a version made by whoever runs the log. */
export async function put(face: Face, name: string, value: string, known?: number): Promise<void> {
  const request = { label: labelOf(name), greatestVersion: known, values: [labelOf(value)] };
  await face.log.update(request);
}

/** Lets time pass with an entry every `stepMs`. */
export async function pass(face: Face, steps: number, stepMs = 20_000): Promise<void> {
  for (let i = 0; i < steps; i++) {
    face.clock.advance(stepMs);
    await put(face, `filler-${face.log.size}-${i}`, 'key');
  }
}

/** A log and a liar with its keys: the same for `common` entries, then apart. */
export async function twoFaces(common: number): Promise<{ honest: Face; liar: Face }> {
  const honest = await testLog();
  const liar = await testLog();
  for (let i = 0; i < common; i++) {
    for (const face of [honest, liar]) {
      await put(face, `user-${i}`, 'key');
      face.clock.advance(20_000);
    }
  }
  return { honest, liar };
}

/** A root tile that the liar's next entry is built on; far above all that are written. */
const forgedTile = 1_000_000;

/** A store that lets the next entry follow another prefix tree than the newest entry's. */
class RewritingStore extends MemoryTreeStore {
  /** What the forged tile is a copy of. */
  rootTile = 0;
  /** Positions of the erased label's versions, to answer as if they were still there. */
  claimed: { readonly label: Uint8Array; readonly positions: readonly number[] } | undefined;
  #position: number | undefined;

  rewriteAt(position: number | undefined): void {
    this.#position = position;
  }
  override async entries(from: number, to: number) {
    const entries = await super.entries(from, to);
    return entries.map((entry, i) =>
      from + i === this.#position ? { ...entry, rootTile: forgedTile } : entry,
    );
  }
  override async positions(label: Uint8Array) {
    const { claimed } = this;
    const isClaimed = claimed !== undefined && sameBytes(claimed.label, label);
    return isClaimed ? claimed.positions : super.positions(label);
  }
  override tiles(ids: readonly number[]) {
    return super.tiles(ids.map((id) => (id === forgedTile ? this.rootTile : id)));
  }
}

/**
 * A log that changes its past where auditors alone would see it: its log tree only grows, but on
 * demand it goes on from the prefix tree of its first `keep` entries, as if `label` and all later
 * ones had never been. Returns the log as it was, and how to make it lie.
 */
export async function rewritingLog(
  keep: number,
  label: Uint8Array,
): Promise<{
  face: Face;
  readonly lie: (put: (face: Face) => Promise<void>) => Promise<Face>;
  /** From now on, answers speak of the versions that were there. */
  readonly claim: () => void;
}> {
  const store = new RewritingStore();
  const face = await testLog({ store });
  let positions: readonly number[] = [];
  const reopened = async (): Promise<Face> => {
    const again = await testLog({ store, clock: face.clock });
    return { ...again, clock: face.clock };
  };
  return {
    face,
    claim() {
      store.claimed = { label, positions };
    },
    async lie(put) {
      await face.log[Symbol.asyncDispose]();
      const [base] = await store.entries(keep - 1, keep);
      if (base === undefined) throw new Error('the log is too short');
      store.rootTile = base.rootTile;
      store.rewriteAt(face.log.size - 1);
      positions = await store.positions(label);
      await store.erase(label);
      const forger = await reopened();
      await put(forger);
      await forger.log[Symbol.asyncDispose]();
      store.rewriteAt(undefined);
      return reopened();
    },
  };
}

/** An auditor of another operator. */
export function auditorOf(operator: string, seed: number) {
  const signer = nativeSigner(new Uint8Array(32).fill(seed));
  const name = `${operator}/auditor`;
  const key = noteKey(nativeSuite.sha256, name, SignatureType.cosignatureV1, signer.publicKey);
  return {
    name: operator,
    vkey: formatVkey(key),
    key,
    /** The note with this auditor's cosignature. */
    cosigned(note: Uint8Array, timeSeconds = 1_700_000_000): Uint8Array {
      const { text, signatures } = parseNote(note);
      const cosignature = cosign(text, key, signer, timeSeconds);
      return new TextEncoder().encode(
        formatNote({ text, signatures: [...signatures, cosignature] }),
      );
    },
  };
}
