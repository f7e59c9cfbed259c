/**
 * Tree heads and auditor tree heads: what is signed, and the rules by which a user accepts a
 * FullTreeHead (protocol sections 4.2, 11.2 to 11.4). Browser-safe.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import type { AuditorTreeHead, Configuration, FullTreeHead, TreeHead } from './codec.ts';
import { auditorTreeHeadTbs, DeploymentMode, treeHeadTbs } from './codec.ts';
import type { Hash } from './hash.ts';
import { cipherSuiteEd25519 } from './hash.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { verify, VerificationError } from './verification-error.ts';

/** The heads that a user verified last (section 13). */
export interface KnownHeads {
  readonly treeHead: TreeHead;
  readonly auditorTreeHead?: AuditorTreeHead | undefined;
}

/** The tree that a response shows, as far as its head is judged by it. */
export interface ShownTree {
  readonly size: number;
  readonly root: Hash;
  /** Timestamp of the rightmost entry. */
  readonly newestMs: number;
  /** Root at an earlier size; undefined if the proof does not show it. */
  rootAt(size: number): Hash | undefined;
}

/**
 * Throws InvalidArgumentError unless a log may run with this configuration: the cipher suite is
 * ours, and a maximum lifetime exceeds the monitoring window (section 7.1).
 */
export function checkConfiguration(config: Configuration): void {
  if (config.cipherSuite !== cipherSuiteEd25519) {
    throw new InvalidArgumentError('BAD_FIELD', `ciphersuite: ${config.cipherSuite}, know only 2`);
  }
  const { maximumLifetimeMs: lifetime, reasonableMonitoringWindowMs: window } = config;
  if (lifetime !== undefined && (lifetime === 0 || lifetime <= window)) {
    throw new InvalidArgumentError('BAD_FIELD', 'maximum_lifetime: not greater than the window');
  }
}

/** Section 11.2: signs the head of the tree with `treeSize` entries. */
export function signTreeHead(
  config: Configuration,
  treeSize: number,
  root: Hash,
  signer: Signer,
): TreeHead {
  return { treeSize, signature: signer.sign(treeHeadTbs(config, treeSize, root)) };
}

/** Section 11.3: an auditor's head. */
export function signAuditorTreeHead(
  config: Configuration,
  timestampMs: number,
  treeSize: number,
  root: Hash,
  signer: Signer,
): AuditorTreeHead {
  const tbs = auditorTreeHeadTbs(config, timestampMs, treeSize, root);
  return { timestampMs, treeSize, signature: signer.sign(tbs) };
}

/** Throws VerificationError BAD_SIGNATURE unless the log signed this root for this size. */
export function verifyTreeHead(
  suite: VerifierSuite,
  config: Configuration,
  head: TreeHead,
  root: Hash,
): void {
  const tbs = treeHeadTbs(config, head.treeSize, root);
  verify(
    suite.verifySignature(config.signaturePublicKey, tbs, head.signature),
    'BAD_SIGNATURE',
    `tree head of size ${head.treeSize}`,
    "the log's signature over the computed root",
  );
}

/** Section 4.2: throws VerificationError TOO_NEW or TOO_OLD. */
export function verifyFreshness(config: Configuration, newestMs: number, nowMs: number): void {
  const { maxAheadMs, maxBehindMs } = config;
  verify(
    newestMs <= nowMs + maxAheadMs,
    'TOO_NEW',
    'newest entry',
    `at most ${maxAheadMs} ms ahead`,
  );
  verify(
    newestMs >= nowMs - maxBehindMs,
    'TOO_OLD',
    'newest entry',
    `at most ${maxBehindMs} ms old`,
  );
}

/** Section 11.3, steps 1 to 4. Nothing to do outside third-party auditing. */
function verifyAuditor(
  suite: VerifierSuite,
  config: Configuration,
  head: AuditorTreeHead | undefined,
  before: KnownHeads | undefined,
  tree: ShownTree,
): void {
  if (config.mode !== DeploymentMode.thirdPartyAuditing) return;
  verify(head !== undefined, 'BAD_SIGNATURE', 'auditor tree head', 'one in every updated head');
  const known = before?.auditorTreeHead;
  verify(
    known === undefined || known.treeSize >= config.auditorStartPosition,
    'ROLLBACK',
    'auditor start position',
    'no gap after the tree that the previous auditor saw',
  );
  const lagMs = tree.newestMs - head.timestampMs;
  verify(lagMs >= 0, 'TOO_NEW', 'auditor timestamp', 'not after the newest entry');
  verify(lagMs <= config.maxAuditorLagMs, 'TOO_OLD', 'auditor timestamp', 'within its lag');
  verify(head.treeSize <= tree.size, 'TOO_NEW', 'auditor tree size', 'not above the log');
  const root = tree.rootAt(head.treeSize);
  const isSigned =
    root !== undefined &&
    suite.verifySignature(
      config.auditorPublicKey,
      auditorTreeHeadTbs(config, head.timestampMs, head.treeSize, root),
      head.signature,
    );
  verify(isSigned, 'BAD_SIGNATURE', 'auditor tree head', "the auditor's signature over its root");
}

/** Size of the tree that a response is about. Throws VerificationError ROLLBACK, MALFORMED. */
export function sizeOf(head: FullTreeHead, before: KnownHeads | undefined): number {
  if (head.type === 'same') {
    verify(before !== undefined, 'MALFORMED', 'full tree head', 'an updated one for a new user');
    return before.treeHead.treeSize;
  }
  const { treeSize } = head.treeHead;
  verify(treeSize > 0, 'MALFORMED', 'tree size', 'at least one entry');
  const last = before?.treeHead.treeSize ?? 0;
  if (treeSize <= last) {
    throw new VerificationError('ROLLBACK', 'tree size', `more than the ${last} advertised`);
  }
  return treeSize;
}

/**
 * Section 11.4: accepts the head of a response whose proof gave `tree`. `before` is what the user
 * advertised. Returns the heads to retain. Throws VerificationError.
 */
export function verifyFullTreeHead(
  suite: VerifierSuite,
  config: Configuration,
  head: FullTreeHead,
  before: KnownHeads | undefined,
  tree: ShownTree,
  nowMs: number,
): KnownHeads {
  verify(sizeOf(head, before) === tree.size, 'MALFORMED', 'tree size', 'that of the proof');
  verifyFreshness(config, tree.newestMs, nowMs);
  if (head.type === 'same') {
    // Its root was verified when it was retained, and the proof was computed from those heads.
    verify(before !== undefined, 'MALFORMED', 'full tree head', 'an updated one for a new user');
    return before;
  }
  verifyTreeHead(suite, config, head.treeHead, tree.root);
  verifyAuditor(suite, config, head.auditorTreeHead, before, tree);
  return { treeHead: head.treeHead, auditorTreeHead: head.auditorTreeHead };
}
