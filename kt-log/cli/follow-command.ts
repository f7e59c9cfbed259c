/** `qpc-audit follow`: pull, report, again; evidence goes to a file, and the exit code says it all. */
import { join } from 'node:path';
import { DataLossError, QpcError } from '@quicprochat/proto/status';
import type { Runtime } from '@quicprochat/proto';
import type { EvidenceRecord, LogStatus } from '../audit-store.ts';
import { checkEvidence } from '../evidence-check.ts';
import type { Pulled } from '../follow.ts';
import { Follower } from '../follow.ts';
import type { LogSource } from '../log-source.ts';
import { nativeSuite } from '../native-suite.ts';
import type { NoteKey, VerifiedSignature } from '../note.ts';
import { keytransRoot, openCheckpoint, parseNote, SignatureType, verifyNote } from '../note.ts';
import { meetsQuorum, type Policy } from '../policy.ts';
import { decode } from '../presentation.ts';
import { entryTimeMs, replayedState } from '../replayed-state.ts';
import { VerificationError } from '../verification-error.ts';
import { Activity } from './activity.ts';
import type { AuditFacts, CosignerFact, EvidenceFact } from './audit-report.ts';
import { jsonReport, peoplesReport, visible } from './audit-report.ts';
import { makeDirectory, readIfThere, writeDurably } from './durable-file.ts';
import { manifestRule } from '../manifest-rule.ts';
import { openTarget, type OpenedTarget } from './open-target.ts';
import { pinKeys, vkeyOf, type PinnedKeys } from './pinned-keys.ts';
import { DirectoryAuditStore } from './state-directory.ts';
import type { ExitCode } from './usage.ts';
import { policyOf } from './credential-command.ts';
import { exitCodes } from './usage.ts';

export interface FollowArguments {
  readonly target: string;
  readonly isOnce: boolean;
  readonly isJson: boolean;
  readonly stateDirectory: string;
  readonly outDirectory: string;
  readonly from: number | undefined;
  readonly intervalMs: number;
  readonly vkey: string | undefined;
  readonly policyFile: string | undefined;
}

export interface CommandParts {
  readonly runtime: Runtime;
  /** Aborted when the process is to end. */
  readonly stopped: AbortSignal;
  /** Takes whole lines. */
  print(text: string): void;
}

export async function follow(args: FollowArguments, parts: CommandParts): Promise<ExitCode> {
  const policy = args.policyFile === undefined ? undefined : await policyOf(args.policyFile);
  const vkey = args.vkey === undefined ? undefined : vkeyOf(args.vkey);
  const store = await DirectoryAuditStore.open(args.stateDirectory);
  const session = new FollowSession(args, parts, store, policy, vkey);
  for (;;) {
    const code = await session.round();
    if (args.isOnce || code === exitCodes.evidence || parts.stopped.aborted) return code;
    try {
      await parts.runtime.clock.sleep(args.intervalMs, parts.stopped);
    } catch {
      // Told to end while waiting.
      return code;
    }
  }
}

class FollowSession {
  readonly #args: FollowArguments;
  readonly #parts: CommandParts;
  readonly #store: DirectoryAuditStore;
  readonly #policy: Policy | undefined;
  readonly #vkey: NoteKey | undefined;
  readonly #activity = new Activity();
  #checkpoint: Uint8Array | undefined;

  constructor(
    args: FollowArguments,
    parts: CommandParts,
    store: DirectoryAuditStore,
    policy: Policy | undefined,
    vkey: NoteKey | undefined,
  ) {
    this.#args = args;
    this.#parts = parts;
    this.#store = store;
    this.#policy = policy;
    this.#vkey = vkey;
  }

  /** One pull and its report. */
  async round(): Promise<ExitCode> {
    const { runtime, stopped } = this.#parts;
    const { sha256 } = nativeSuite;
    try {
      await using opened = await openTarget(this.#args.target, { runtime, sha256 }, stopped);
      const stated = await opened.source.keys(stopped);
      const keys = await pinKeys(stated, this.#store.folder(stated.origin), this.#vkey);
      return await this.#pull(opened, keys);
    } catch (error) {
      if (!(error instanceof QpcError) || error instanceof DataLossError) throw error;
      const status = error instanceof VerificationError ? 'suspect' : 'behind';
      this.#tell(
        { type: 'failure', target: this.#args.target, status, failure: error.message },
        `${visible(this.#args.target)}: ${status}: ${visible(error.message)}\n`,
      );
      return exitCodes.failed;
    }
  }

  async #pull(opened: OpenedTarget, keys: PinnedKeys): Promise<ExitCode> {
    const { runtime, stopped } = this.#parts;
    const { origin, config, key } = keys;
    const follower = new Follower({
      suite: nativeSuite,
      log: { config, identity: { origin, key } },
      store: this.#store,
      clock: runtime.clock,
      valueRule: manifestRule,
    });
    const source = this.#activity.watch(this.#remembering(opened.source));
    const { from } = this.#args;
    let done = await follower.size();
    if (done === 0) {
      // First: a run that is killed in between starts over, and says where.
      await this.#store.setStartSize(origin, from ?? 0);
      if (from !== undefined && from > 0) await follower.startAt(source, from, stopped);
      done = from ?? 0;
    }
    const onProgress = (size: number): void => {
      this.#activity.replayed(done);
      done = size;
    };
    const pulled = await follower.pull(source, { signal: stopped, onProgress });
    const facts = await this.#facts(opened, keys, pulled);
    this.#tell(jsonReport(facts), peoplesReport(facts));
    if (facts.evidence.length > 0) return exitCodes.evidence;
    return pulled.status === 'ok' ? exitCodes.ok : exitCodes.failed;
  }

  #tell(record: Readonly<Record<string, unknown>>, text: string): void {
    this.#parts.print(this.#args.isJson ? `${JSON.stringify(record)}\n` : text);
  }

  /** The same source; its checkpoint is kept for the cosignatures on it. */
  #remembering(source: LogSource): LogSource {
    return {
      bundle: (from, max, signal) => source.bundle(from, max, signal),
      heads: (from, max, signal) => source.heads(from, max, signal),
      checkpoint: async (signal) => (this.#checkpoint = await source.checkpoint(signal)),
    };
  }

  async #facts(opened: OpenedTarget, keys: PinnedKeys, pulled: Pulled): Promise<AuditFacts> {
    const { origin, key, config, pinnedBy } = keys;
    const followed = await this.#store.followed(origin);
    const newestEntryMs = followed && entryTimeMs(decode(replayedState, followed.state).entry);
    const held = followed && openCheckpoint(nativeSuite, followed.checkpoint, { origin, key });
    const keytrans = held && keytransRoot(held.checkpoint);
    const { cosigners, hasQuorum } = this.#cosigners(keys);
    const status: LogStatus = pulled.status;
    return {
      target: this.#args.target,
      origin,
      status,
      failure: pulled.failure?.message,
      key,
      config,
      pinnedBy,
      startSize: await this.#store.startSize(origin),
      replayedSize: pulled.size,
      newestSize: pulled.target,
      newestEntryMs,
      ageMs:
        newestEntryMs === undefined ? undefined : this.#parts.runtime.clock.now() - newestEntryMs,
      roots:
        held === undefined || keytrans === undefined
          ? undefined
          : { rfc6962: held.checkpoint.root, keytrans },
      perHour: this.#activity.perHour(),
      cosigners,
      hasQuorum,
      evidence: await this.#evidence(origin),
      baseUrl: opened.baseUrl,
    };
  }

  /** Who signed the newest checkpoint beside the log. */
  #cosigners({ key }: PinnedKeys): Pick<AuditFacts, 'cosigners' | 'hasQuorum'> {
    const witnesses = this.#policy?.witnesses ?? [];
    let signatures: readonly VerifiedSignature[] = [];
    const unknown: CosignerFact[] = [];
    try {
      const note = parseNote(this.#checkpoint ?? new Uint8Array());
      signatures = verifyNote(nativeSuite, note, [key, ...witnesses]);
      for (const { name, keyId } of note.signatures) {
        const isKnown = [key, ...witnesses].some((one) => one.name === name && one.keyId === keyId);
        if (!isKnown) unknown.push({ name, algorithm: 'other', state: 'unknown', ageS: undefined });
      }
    } catch (error) {
      // No checkpoint, or one that a known key did not sign: nobody vouches for it.
      if (!(error instanceof VerificationError)) throw error;
    }
    const nowS = this.#parts.runtime.clock.now() / 1000;
    const known = witnesses.map((witness): CosignerFact => {
      const signed = signatures.find((one) => one.key === witness);
      return {
        name: witness.name,
        algorithm: witness.type === SignatureType.mlDsa44 ? 'ML-DSA-44' : 'Ed25519',
        state: signed === undefined ? 'missing' : 'signed',
        ageS: signed?.timeSeconds === undefined ? undefined : Math.round(nowS - signed.timeSeconds),
      };
    });
    const hasQuorum = this.#policy && meetsQuorum(this.#policy, signatures).ok;
    return { cosigners: [...known, ...unknown], hasQuorum };
  }

  /** All that is held against the log, each record in its file. */
  async #evidence(origin: string): Promise<EvidenceFact[]> {
    const facts: EvidenceFact[] = [];
    for (const record of await this.#store.evidence(origin)) {
      const { explain, heads } = checkEvidence(nativeSuite, record.bytes, manifestRule);
      facts.push({ kind: record.kind, explain, heads, file: await this.#file(record) });
    }
    return facts;
  }

  async #file({ origin, kind, hash, bytes }: EvidenceRecord): Promise<string> {
    const short = Buffer.from(hash).toString('hex').slice(0, 12);
    const name = `${encodeURIComponent(origin)}-${kind}-${short}.evidence`;
    const path = join(this.#args.outDirectory, name);
    if ((await readIfThere(path)) === undefined) {
      await makeDirectory(this.#args.outDirectory);
      await writeDurably(path, bytes);
    }
    return path;
  }
}
