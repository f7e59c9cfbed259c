/**
 * One log of the bench `kt` in a process of its own: filled to a number of labels in the node's
 * SQLCipher store, with VRFs in threads and real signatures, then measured. Counted is the processor
 * time of the whole process, threads included, so that a busy machine hits no number.
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  applyAuditBundle,
  auditBundle,
  emptyAudit,
  encode,
  KtLog,
  logVerifier,
  nativeSigner,
  nativeSuite,
  noteKey,
  openCheckpoint,
  portableSuite,
  rfc6962Hasher,
  searchResponse,
  SignatureType,
  verifyInclusion6962,
  verifySearch,
  vrfPool,
  type AuditedLog,
  type Configuration,
  type VerifierSuite,
} from '@quicprochat/kt-log';
import { createNodeStore, openNodeStore, parseConfig } from '@quicprochat/nodes';
import { silentLog, systemClock, systemRandom, type Clock } from '@quicprochat/proto';
import { Dice } from '../cluster/dice.ts';
import type { Round } from './measure.ts';
import { answerParent } from './peer-process.ts';

export interface KtJob {
  readonly labels: number;
  /** Empty; the database is made there. */
  readonly directory: string;
}
/** Rounds by what was measured (kt.ts names them). */
export type KtAnswer = Readonly<Record<string, readonly Round[]>>;

const rounds = 3;
const vrfThreads = 2;
const valueBytes = 200;
/** Entries of the fill at least, and labels of one of them at most: some room is for `versioned`. */
const fillEntriesMin = 32;
const fillBatch = 238;
/** Of the bundles that the auditor gets, where the entries are full. */
const bundleEntries = 32;
/** Of one round. */
const loneUpdates = 256;
const batch = 100;
const batches = 4;
const searches = 1000;
const firstSearches = 100;
const verifications = 150;
const verificationsNoble = 30;
/** So many labels have 1, 2, 3 ... versions, spread over the whole log. */
const versioned = 16;

const seed = (n: number): Uint8Array => new Uint8Array(32).fill(n);
const labelOf = (name: string | number): Uint8Array => new TextEncoder().encode(`user-${name}`);
const origin = 'red.example/kt';
const keys = { treeHead: nativeSigner(seed(1)), note: nativeSigner(seed(2)) };
const { publicKey } = keys.note;
const identity = {
  origin,
  key: noteKey(nativeSuite.sha256, origin, SignatureType.ed25519, publicKey),
};
/** A node's limits; what they are is of no matter here. */
const limits = parseConfig(
  'domain = "red.example"\nlisten = "127.0.0.1:5001"\ndatabase = "x"\ndatabase_key_file = "y"\n',
  'bench',
).store;

/** Processor time of `work` in this process and its threads (us), and the time that passed (ms). */
async function costOf(
  work: () => Promise<void>,
): Promise<{ readonly cpuUs: number; readonly ms: number }> {
  const startMs = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { cpuUs: user + system, ms: performance.now() - startMs };
}

/** So many operations per second of a core. */
async function rate(operations: number, work: () => Promise<void>): Promise<Round> {
  const { cpuUs, ms } = await costOf(work);
  return {
    value: (operations / cpuUs) * 1e6,
    notes: { clientCpuUs: cpuUs / operations, wallUs: (ms / operations) * 1000 },
  };
}
const plain = (value: number, notes: Readonly<Record<string, number>> = {}): Round => ({
  value,
  notes,
});

class Bench {
  readonly #job: KtJob;
  readonly #dice: Dice;
  readonly #key = systemRandom.bytes(32);
  readonly #vrf = vrfPool(seed(3), vrfThreads);
  readonly #greatest = new Map<string, number>();
  readonly #rounds = new Map<string, Round[]>();
  /** Ends of the bundles that the auditor gets, ascending. */
  readonly #bundleEnds: number[] = [];
  readonly #config: Configuration;
  /** Labels that were searched for the first time. */
  #asked = 0;
  /** One second an entry, whatever the machine can do. */
  #nowMs = systemClock.now();
  readonly #clock: Clock = { ...systemClock, now: () => this.#nowMs };

  constructor(job: KtJob) {
    this.#job = job;
    this.#dice = new Dice(job.labels);
    this.#config = {
      cipherSuite: 2,
      mode: 1,
      signaturePublicKey: keys.treeHead.publicKey,
      vrfPublicKey: this.#vrf.publicKey,
      maxAheadMs: 300_000,
      maxBehindMs: 3_600_000,
      reasonableMonitoringWindowMs: 86_400_000,
      maximumLifetimeMs: undefined,
    };
  }

  async run(): Promise<KtAnswer> {
    const { path, key, runtime } = this.#storeOptions();
    await createNodeStore({ path, key, runtime });
    await this.#withLog((log) => this.#fill(log));
    const filledBytes = this.#diskBytes();
    for (let round = 0; round < rounds; round++) {
      await this.#updates('lone updates', 1, loneUpdates);
      await this.#updates('batched updates', batch, batches);
    }
    this.#take('disk', plain(filledBytes / this.#job.labels));
    await this.#withLog(async (log) => {
      // The first round warms up.
      for (let round = 0; round <= rounds; round++) await this.#reads(log, round > 0);
      await this.#answerBytes(log);
      this.#take('memory', plain(process.resourceUsage().maxRSS / 1024));
      await this.#audit(log);
    });
    await this.#vrf[Symbol.asyncDispose]();
    return Object.fromEntries(this.#rounds);
  }

  #take(name: string, round: Round): void {
    this.#rounds.set(name, [...(this.#rounds.get(name) ?? []), round]);
  }
  #storeOptions() {
    const runtime = { clock: this.#clock, random: systemRandom, log: silentLog };
    return { path: join(this.#job.directory, 'node.db'), key: this.#key, limits, runtime };
  }
  #diskBytes(): number {
    const { directory } = this.#job;
    return readdirSync(directory)
      .map((name) => statSync(join(directory, name)).size)
      .reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Opens store and log for `work`, and closes both: on disk is then all that it took. */
  async #withLog(work: (log: KtLog) => Promise<void>): Promise<void> {
    const startMs = performance.now();
    await using store = await openNodeStore(this.#storeOptions());
    const storeMs = performance.now() - startMs;
    await using log = await KtLog.open({
      config: this.#config,
      identity,
      keys: { ...keys, vrf: this.#vrf },
      store: store.keyLog,
      suite: nativeSuite,
      clock: this.#clock,
      random: systemRandom,
      sequencerLimits: { batchMs: 0, newLeavesPerSecond: 1e9, newLeavesBurst: 1e9 },
    });
    const restartMs = performance.now() - startMs;
    if (log.size > 0) {
      this.#take('restart', plain(restartMs));
      this.#take('restart, log alone', plain(restartMs - storeMs));
    }
    await work(log);
  }

  /** One entry with the next version of each label. */
  async #put(log: KtLog, names: readonly (string | number)[]): Promise<void> {
    this.#nowMs += 1000;
    const written = names.map((name) => {
      const greatest = this.#greatest.get(String(name)) ?? -1;
      this.#greatest.set(String(name), greatest + 1);
      const values = [systemRandom.bytes(valueBytes)];
      return log.append({ label: labelOf(name), greatest, values });
    });
    await Promise.all(written);
  }

  async #fill(log: KtLog): Promise<void> {
    const { labels } = this.#job;
    const perEntry = Math.min(fillBatch, Math.ceil(labels / fillEntriesMin));
    const entries = Math.ceil(labels / perEntry);
    const { cpuUs, ms } = await costOf(async () => {
      for (let entry = 0; entry < entries; entry++) {
        const first = entry * perEntry;
        const count = Math.min(perEntry, labels - first);
        const names: (string | number)[] = Array.from({ length: count }, (_, i) => first + i);
        for (let i = 0; i < versioned; i++) {
          const isDue = Math.floor(((entry + 1) * (i + 1)) / entries);
          if (isDue > Math.floor((entry * (i + 1)) / entries)) names.push(`versioned-${i}`);
        }
        await this.#put(log, names);
        if (log.size % bundleEntries === 0) this.#bundleEnds.push(log.size);
      }
    });
    if (this.#bundleEnds.at(-1) !== log.size) this.#bundleEnds.push(log.size);
    const notes = { clientCpuUs: cpuUs / labels, seconds: ms / 1000, entries };
    this.#take('fill', plain((labels / cpuUs) * 1e6, notes));
  }

  /**
   * `entries` entries, each with the next version of `count` labels, and as many before them that are
   * not counted: each round opens the store anew, and a node runs for longer than its compiler needs.
   */
  async #updates(name: string, count: number, entries: number): Promise<void> {
    const before = this.#diskBytes();
    await this.#withLog(async (log) => {
      const put = async (): Promise<void> => {
        for (let entry = 0; entry < entries; entry++) {
          // The other half is searched: a small log must not have greater versions than a large one.
          const half = Math.floor(this.#job.labels / 2);
          const start = this.#dice.int(half);
          const names = Array.from({ length: count }, (_, i) => (start + i) % half);
          await this.#put(log, names);
        }
      };
      await put();
      this.#bundleEnds.push(log.size);
      this.#take(name, await rate(count * entries, put));
      this.#bundleEnds.push(log.size);
    });
    const bytes = this.#diskBytes() - before;
    this.#take(`disk, ${name}`, plain(bytes / (2 * count * entries)));
  }

  /** Searches and RFC 6962 inclusion proofs, served and verified, in turn. */
  async #reads(log: KtLog, isKept: boolean): Promise<void> {
    const take = (name: string, round: Round): void => void (isKept && this.#take(name, round));
    const structure = searchResponse(1, false);
    const utf8 = new TextEncoder();
    const inclusions: { readonly position: number; readonly answer: Inclusion }[] = [];
    const served = await rate(searches, async () => {
      for (let i = 0; i < searches; i++) {
        const position = this.#dice.int(log.size);
        const note = utf8.encode(await log.checkpoint());
        const answer = { note, ...(await log.inclusion(position, log.size)) };
        if (i < verifications) inclusions.push({ position, answer });
      }
    });
    take('inclusion served', served);
    const answers: { readonly label: Uint8Array; readonly bytes: Uint8Array }[] = [];
    const search = async (number: number): Promise<void> => {
      const label = labelOf(number);
      const bytes = encode(structure, await log.search({ label }));
      if (answers.length < verifications) answers.push({ label, bytes });
    };
    const quarter = Math.floor(this.#job.labels / 4);
    // Labels that are never updated: the third quarter is asked again each round, the last one once.
    const searched = await rate(searches, async () => {
      for (let i = 0; i < searches; i++) await search(2 * quarter + (i % quarter));
    });
    take('search served', searched);
    const count = Math.min(firstSearches, Math.floor(quarter / (rounds + 1)));
    const first = await rate(count, async () => {
      for (let i = 0; i < count; i++) await search(3 * quarter + this.#asked++);
    });
    take('search served, first time', first);
    take(
      'inclusion verified',
      await rate(inclusions.length, async () => {
        for (const { position, answer } of inclusions) verifyPlain(position, answer);
      }),
    );
    for (const [name, suite, most] of [
      ['search verified', nativeSuite, verifications],
      ['search verified, noble', portableSuite, verificationsNoble],
    ] as const) {
      const chosen = answers.slice(0, most);
      take(
        name,
        await rate(chosen.length, async () => {
          this.#verifyAll(suite, chosen);
        }),
      );
    }
  }

  #verifyAll(
    suite: VerifierSuite,
    answers: readonly { readonly label: Uint8Array; readonly bytes: Uint8Array }[],
  ): void {
    const verifier = logVerifier(this.#config, suite);
    for (const { label, bytes } of answers) {
      verifySearch(verifier, undefined, { label }, bytes, this.#nowMs);
    }
  }

  async #answerBytes(log: KtLog): Promise<void> {
    const structure = searchResponse(1, false);
    const sizes: number[] = [];
    for (let i = 0; i < versioned; i++) {
      const response = await log.search({ label: labelOf(`versioned-${i}`) });
      if (response.version !== i) throw new Error(`bench: version ${response.version}, not ${i}`);
      // The value is the application's, not the proof's.
      sizes.push(encode(structure, response).length - valueBytes);
    }
    this.#take('answer, version 0', plain(sizes[0] ?? 0));
    this.#take('answer, version 15 at most', plain(Math.max(...sizes)));
  }

  /** Replays the whole log as an auditor does; the last bundle of the fill and the later ones count. */
  async #audit(log: KtLog): Promise<void> {
    let state: AuditedLog = emptyAudit;
    const counted = this.#bundleEnds.slice(-1 - 4 * rounds);
    for (const end of this.#bundleEnds) {
      const from = state.log.size;
      const made = await log.auditBundle(from, end);
      const bytes = encode(auditBundle, made);
      const leaves = made.updates.reduce((sum, update) => sum + update.added.length, 0);
      const audited = await rate(end - from, async () => {
        const known = { config: this.#config, identity };
        state = applyAuditBundle(nativeSuite, known, state, bytes, this.#nowMs).log;
      });
      if (!counted.includes(end)) continue;
      const perEntry = leaves / (end - from);
      if (perEntry === 1) this.#take('audited, one leaf an entry', audited);
      else this.#take('audited leaves', { ...audited, value: audited.value * perEntry });
    }
  }
}

interface Inclusion {
  readonly note: Uint8Array;
  readonly entry: Uint8Array;
  readonly proof: readonly Uint8Array[];
}

/** What a client of a log without key transparency checks. */
function verifyPlain(position: number, { note, entry, proof }: Inclusion): void {
  const { checkpoint } = openCheckpoint(nativeSuite, note, identity);
  const hasher = rfc6962Hasher(nativeSuite.sha256);
  const { size, root } = checkpoint;
  verifyInclusion6962(hasher, position, size, hasher.leaf(entry), proof, root);
}

answerParent((job: KtJob) => new Bench(job).run());
