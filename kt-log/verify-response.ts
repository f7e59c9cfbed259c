/**
 * What the verification of every response shares (protocol section 13): the user's state, the
 * replay of a proof, the head, ladders of VRF proofs, values and their commitments. Pure: state in,
 * state out, nothing changed when something fails. Browser-safe.
 */
import type { CombinedTreeProof, Configuration, FullTreeHead, UpdateValue } from './codec.ts';
import { commitmentValue, DeploymentMode, updateTbs } from './codec.ts';
import type { Steps, Tree } from './combined-tree.ts';
import { runNow, updateView } from './combined-tree.ts';
import type { Hash } from './hash.ts';
import { commitmentOf, zeroHash } from './hash.ts';
import type { BinaryLadderStep } from './operations.ts';
import { encode } from './presentation.ts';
import type { KnownVersion, KnownVersions, LogView, ReplayedTree } from './replayer.ts';
import { Replayer } from './replayer.ts';
import type { VerifierSuite } from './suite.ts';
import type { KnownHeads } from './tree-head.ts';
import { checkConfiguration, sizeOf, verifyFullTreeHead } from './tree-head.ts';
import { verify, VerificationError } from './verification-error.ts';
import type { VrfVerifier } from './vrf.ts';

/** One log as its users check it. Made once per configuration. */
export interface LogVerifier {
  readonly config: Configuration;
  readonly suite: VerifierSuite;
  readonly vrf: VrfVerifier;
}

/**
 * Throws InvalidArgumentError for a configuration that no log may have, VerificationError BAD_VRF
 * for a VRF key that is none.
 */
export function logVerifier(config: Configuration, suite: VerifierSuite): LogVerifier {
  checkConfiguration(config);
  return { config, suite, vrf: suite.vrfVerifier(config.vrfPublicKey) };
}

/** What a user retains of a log between responses (sections 4.2, 13). */
export interface UserState {
  readonly heads: KnownHeads;
  readonly view: LogView;
}

/** The tree under a log's configuration, for the algorithms. */
export function treeOf(log: LogVerifier, provider: Replayer, size: number): Tree {
  return {
    provider,
    size,
    windowMs: log.config.reasonableMonitoringWindowMs,
    lifetimeMs: log.config.maximumLifetimeMs,
  };
}

export interface Verified<T> {
  readonly result: T;
  readonly state: UserState;
  readonly tree: ReplayedTree;
}

/**
 * Replays a response: view update, then `algorithm`, then exact counts, then the head. Returns the
 * state to retain. `viewRestart` as in viewUpdate (kt-log/README.md). Throws VerificationError.
 */
export function verifyResponse<T>(
  log: LogVerifier,
  before: UserState | undefined,
  response: { readonly fullTreeHead: FullTreeHead; readonly proof: CombinedTreeProof },
  versions: KnownVersions,
  nowMs: number,
  algorithm: (tree: Tree) => Steps<T>,
  viewRestart = true,
): Verified<T> {
  const { fullTreeHead, proof } = response;
  const size = sizeOf(fullTreeHead, before?.heads);
  const provider = new Replayer(log.suite.sha256, size, before?.view, versions, proof);
  const tree = treeOf(log, provider, size);
  runNow(updateView(tree, before?.view.size, viewRestart));
  const result = runNow(algorithm(tree));
  const auditor = fullTreeHead.type === 'updated' ? fullTreeHead.auditorTreeHead : undefined;
  // A lying size must not decide the shape of the proof; verifyFullTreeHead refuses it by name.
  const auditorSize = Math.min(Math.max(auditor?.treeSize ?? size, 1), size);
  const replayed = provider.finish(auditor === undefined ? undefined : auditorSize);
  const newestMs = replayed.entry(size - 1)?.timestampMs ?? 0;
  const shown = {
    size,
    root: replayed.root,
    newestMs,
    rootAt: (at: number) => (at > 0 ? replayed.rootAt(at) : undefined),
  };
  const { suite, config } = log;
  const heads = verifyFullTreeHead(suite, config, fullTreeHead, before?.heads, shown, nowMs);
  const view = replayed.viewAt(size);
  verify(view !== undefined, 'COUNT', 'frontier', 'all of its entries');
  return { result, state: { heads, view }, tree: replayed };
}

/** A version whose value the user has: what its commitment has to open to. */
export interface OpenedVersion {
  readonly version: number;
  readonly opening: Uint8Array;
  readonly update: UpdateValue;
}

/** Section 11.6. */
export function commitmentTo(log: LogVerifier, label: Uint8Array, opened: OpenedVersion): Hash {
  const { version, opening, update } = opened;
  const bytes = encode(commitmentValue(log.config.mode), { label, version, opening, update });
  return commitmentOf(log.suite.sha256, bytes);
}

/**
 * Section 11.5: under third-party management the operator signed the value; else nothing is to be
 * checked. Throws VerificationError BAD_SIGNATURE.
 */
export function verifyUpdateValue(
  log: LogVerifier,
  label: Uint8Array,
  version: number,
  update: UpdateValue,
): void {
  const { config, suite } = log;
  if (config.mode !== DeploymentMode.thirdPartyManagement) return;
  const tbs = updateTbs(config, label, version, update.value);
  const isSigned = suite.verifySignature(config.leafPublicKey, tbs, update.suffix ?? zeroHash);
  verify(isSigned, 'BAD_SIGNATURE', 'update value', "the operator's signature");
}

/** Verifies the VRF proof of one version; its commitment is taken as given. */
export function knownVersion(
  log: LogVerifier,
  label: Uint8Array,
  version: number,
  step: BinaryLadderStep,
): KnownVersion {
  return { vrfOutput: log.vrf.verify(label, version, step.proof), commitment: step.commitment };
}

/** Pairs the steps of a ladder with their versions. Throws VerificationError COUNT. */
export function pairLadder(
  versions: readonly number[],
  steps: readonly BinaryLadderStep[],
): [number, BinaryLadderStep][] {
  return versions.map((version, i) => {
    const step = steps[i];
    if (step === undefined || steps.length !== versions.length) {
      const expected = `${versions.length} steps, found ${steps.length}`;
      throw new VerificationError('COUNT', 'binary ladder', expected);
    }
    return [version, step];
  });
}

/**
 * Section 13.1, steps 2 and 3: the versions of a search's binary ladder, the target's commitment
 * computed from its value. `isGreatest`: no version above the target may claim to exist. Throws
 * VerificationError COUNT, LADDER, BAD_VRF.
 */
export function verifySearchLadder(
  log: LogVerifier,
  label: Uint8Array,
  target: OpenedVersion,
  isGreatest: boolean,
  versions: readonly number[],
  steps: readonly BinaryLadderStep[],
): Map<number, KnownVersion> {
  const pairs = pairLadder(versions, steps);
  for (const [version, { commitment }] of pairs) {
    const mustLack = version === target.version || (isGreatest && version > target.version);
    verify(
      !(mustLack && commitment !== undefined),
      'LADDER',
      'binary ladder',
      'no commitment there',
    );
    const mustHave = version < target.version;
    verify(
      !(mustHave && commitment === undefined),
      'LADDER',
      'binary ladder',
      'a commitment below',
    );
  }
  const known = new Map(
    pairs.map(([version, step]) => [version, knownVersion(log, label, version, step)]),
  );
  const commitment = commitmentTo(log, label, target);
  known.set(target.version, { vrfOutput: zeroHash, ...known.get(target.version), commitment });
  return known;
}
