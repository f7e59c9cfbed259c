/**
 * Credentials: proofs that users hand to each other and check without the log (protocol section
 * 14). Codec and verification; the log makes them in answers.ts. Verifying one changes no state of
 * the user's own dealings with the log. Pure; browser-safe.
 */
import type { CombinedTreeProof, PrefixProof, TreeHead, UpdateValue } from './codec.ts';
import {
  combinedTreeProof,
  DeploymentMode,
  maxLabelBytes,
  maxTreeSize,
  prefixProof,
  treeHead,
  updateValue,
  writeLabel,
} from './codec.ts';
import { runNow, searchGreatest, updateView } from './combined-tree.ts';
import type { Hash } from './hash.ts';
import { openingBytes, prefixHasher, sameBytes } from './hash.ts';
import { baseLadder, runSearchLadder } from './ladder.ts';
import { monitorContact } from './monitoring.ts';
import type { BinaryLadderStep } from './operations.ts';
import { readLadder, writeLadder } from './operations.ts';
import { evaluatePrefixProof } from './prefix-proof.ts';
import type { Structure } from './presentation.ts';
import { decode, maxUint8 } from './presentation.ts';
import type { KnownVersions, LogView } from './replayer.ts';
import { Replayer } from './replayer.ts';
import { verifyTreeHead } from './tree-head.ts';
import { verify, VerificationError } from './verification-error.ts';
import type { LogVerifier } from './verify-response.ts';
import { treeOf, verifySearchLadder, verifyUpdateValue } from './verify-response.ts';
import type { DistinguishedView } from './verify-search.ts';

/** `position` is a recent distinguished entry; `standard`: it holds the version itself. */
export interface Credential {
  readonly label: Uint8Array;
  readonly version: number;
  readonly opening: Uint8Array;
  readonly value: UpdateValue;
  readonly binaryLadder: readonly BinaryLadderStep[];
  readonly position: number;
  readonly proof:
    | { readonly type: 'standard'; readonly distinguished: PrefixProof }
    | {
        readonly type: 'provisional';
        readonly treeHead: TreeHead;
        readonly search: CombinedTreeProof;
      };
}
export function credential(mode: DeploymentMode): Structure<Credential> {
  const value = updateValue(mode);
  return {
    name: 'Credential',
    write(w, c) {
      writeLabel(w, c.label);
      w.u32(c.version, 'version').fixed(c.opening, openingBytes, 'opening');
      value.write(w, c.value);
      writeLadder(w, c.binaryLadder, maxUint8);
      w.u64(c.position, 'position').u8(c.proof.type === 'standard' ? 1 : 2, 'credential_type');
      if (c.proof.type === 'standard') {
        prefixProof.write(w, c.proof.distinguished);
      } else {
        treeHead.write(w, c.proof.treeHead);
        combinedTreeProof.write(w, c.proof.search);
      }
    },
    read(r) {
      const common = {
        label: r.opaque(maxLabelBytes, 'label'),
        version: r.u32('version'),
        opening: r.fixed(openingBytes, 'opening'),
        value: value.read(r),
        binaryLadder: readLadder(r, maxUint8),
        position: r.u64('position', maxTreeSize),
      };
      const type = r.u8('credential_type');
      if (type === 1) {
        return { ...common, proof: { type: 'standard', distinguished: prefixProof.read(r) } };
      }
      if (type !== 2) throw r.malformed('credential_type', 'standard (1) or provisional (2)');
      const head = treeHead.read(r);
      const search = combinedTreeProof.read(r);
      return { ...common, proof: { type: 'provisional', treeHead: head, search } };
    },
  };
}

export interface CredentialUpdate {
  readonly monitor: CombinedTreeProof;
}
export const credentialUpdate: Structure<CredentialUpdate> = {
  name: 'CredentialUpdate',
  write: (w, update) => combinedTreeProof.write(w, update.monitor),
  read: (r) => ({ monitor: combinedTreeProof.read(r) }),
};

/** What a provisional credential still has to be checked against. */
export interface PendingCredential {
  readonly label: Uint8Array;
  readonly version: number;
  readonly versions: KnownVersions;
  /** Leftmost entry that the proof shows to hold the version, and its prefix root. */
  readonly terminal: number;
  readonly terminalRoot: Hash;
  /** The tree of the credential. */
  readonly view: LogView;
}
export interface VerifiedCredential {
  readonly label: Uint8Array;
  readonly version: number;
  readonly value: Uint8Array;
  /** Undefined: final. Else to be settled by a later distinguished entry or a CredentialUpdate. */
  readonly pending: PendingCredential | undefined;
}

/** The entries that a user knows to be distinguished, in any order. */
export type KnownDistinguished = readonly DistinguishedView[];

function prefixRootOf(view: DistinguishedView): Hash | undefined {
  return view.view.frontier.at(-1)?.prefixRoot;
}

/**
 * Section 14, initial verification. `known` are the recent distinguished entries that the user
 * already has: never ask the log for more because of a failure here. Throws VerificationError
 * NOT_FOUND for an entry that is not among them.
 */
export function verifyCredential(
  log: LogVerifier,
  known: KnownDistinguished,
  bytes: Uint8Array,
): VerifiedCredential {
  const given = decode(credential(log.config.mode), bytes);
  const { label, version, opening, value: update, position, proof } = given;
  const base = known.find((one) => one.position === position);
  verify(base !== undefined, 'NOT_FOUND', 'credential position', 'a known distinguished entry');
  verifyUpdateValue(log, label, version, update);
  const opened = { version, opening, update };
  const ladder = baseLadder(version);
  const versions = verifySearchLadder(log, label, opened, true, ladder, given.binaryLadder);
  const verified = { label, version, value: update.value };
  if (proof.type === 'standard') {
    verifyStandard(log, base, version, versions, proof.distinguished);
    return { ...verified, pending: undefined };
  }
  const { treeSize } = proof.treeHead;
  verify(treeSize > position, 'CHAIN', 'credential tree size', `more than ${position}`);
  const replayer = new Replayer(log.suite.sha256, treeSize, base.view, versions, proof.search);
  const tree = treeOf(log, replayer, treeSize);
  runNow(updateView(tree, position + 1));
  const { terminal } = runNow(searchGreatest(tree, version));
  verify(terminal > position, 'CHAIN', 'provisional credential', 'a version newer than its entry');
  const replayed = replayer.finish();
  verifyTreeHead(log.suite, log.config, proof.treeHead, replayed.root);
  const view = replayed.viewAt(treeSize);
  const terminalRoot = replayed.entry(terminal)?.prefixRoot;
  verify(view !== undefined && terminalRoot !== undefined, 'COUNT', 'frontier', 'its entries');
  return { ...verified, pending: { label, version, versions, terminal, terminalRoot, view } };
}

/** Section 14.1: a search ladder in the distinguished entry, whose prefix root is known. */
function verifyStandard(
  log: LogVerifier,
  base: DistinguishedView,
  version: number,
  versions: KnownVersions,
  proof: PrefixProof,
): void {
  let used = 0;
  const run = runSearchLadder(version, base.position, undefined, () => {
    const result = proof.results[used++];
    verify(result !== undefined, 'COUNT', 'search ladder', 'one result per lookup');
    return result.type === 'inclusion';
  });
  verify(run.comparison === 0, 'LADDER', 'standard credential', 'the greatest version there');
  const lookups = run.lookups.flatMap((one) => versions.get(one) ?? []);
  const root = evaluatePrefixProof(prefixHasher(log.suite.sha256), lookups, proof);
  const expected = prefixRootOf(base);
  const isSame = expected !== undefined && sameBytes(root, expected);
  verify(isSame, 'BAD_ROOT', 'standard credential', 'the prefix root of the distinguished entry');
}

/**
 * Section 14.2, first way: true once the credential's own entry is known to be distinguished and
 * holds the tree that the credential showed; false while it is not. Throws VerificationError FORK
 * when it holds another: evidence against the log.
 */
export function settleByEntry(pending: PendingCredential, known: KnownDistinguished): boolean {
  const view = known.find((one) => one.position === pending.terminal);
  if (view === undefined) return false;
  const root = prefixRootOf(view);
  const isSame = root !== undefined && sameBytes(root, pending.terminalRoot);
  verify(isSame, 'FORK', `prefix tree of entry ${pending.terminal}`, 'what the credential showed');
  return true;
}

/**
 * Section 14.2, second way: finally verifies a provisional credential by an update from its sender.
 * The update does not say which distinguished entry it leads to, so the known ones that it can be
 * are tried. Throws VerificationError: NOT_FOUND when no known entry is late enough (keep the update
 * and try later), else why the last one did not fit.
 */
export function verifyCredentialUpdate(
  log: LogVerifier,
  pending: PendingCredential,
  known: KnownDistinguished,
  bytes: Uint8Array,
): void {
  const { monitor } = decode(credentialUpdate, bytes);
  const { terminal, version, view } = pending;
  const candidates = known.filter(
    ({ position }) => position >= terminal && position + 1 >= view.size,
  );
  let failure: unknown = new VerificationError(
    'NOT_FOUND',
    'credential update',
    'a known distinguished entry at or after the credential',
  );
  for (const candidate of candidates.toSorted((a, b) => a.position - b.position)) {
    const size = candidate.position + 1;
    try {
      const replayer = new Replayer(log.suite.sha256, size, view, pending.versions, monitor);
      const tree = treeOf(log, replayer, size);
      runNow(updateView(tree, view.size));
      if (log.config.mode === DeploymentMode.contactMonitoring) {
        const [entry] = runNow(monitorContact(tree, [{ position: terminal, version }]));
        const isSettled = entry?.isSettled === true || entry?.position === candidate.position;
        verify(isSettled, 'LADDER', 'credential update', 'a path to the distinguished entry');
      }
      const { root } = replayer.finish();
      verify(
        sameBytes(root, candidate.root),
        'FORK',
        'credential update',
        'the root that is known',
      );
      return;
    } catch (error) {
      if (!(error instanceof VerificationError)) throw error;
      failure = error;
    }
  }
  throw failure as VerificationError;
}
