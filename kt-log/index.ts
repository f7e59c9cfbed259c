/**
 * Door `@quicprochat/kt-log`: the log as a service on Node, with its store interface, and everything
 * of the `./verify` door.
 */
export * from './verify.ts';
export { defaultRecency, KtLog } from './log.ts';
export type { AuditedEntry, KtLogOptions, NewValues } from './log.ts';
export { cipherSuiteEd25519, logEntry } from './hash.ts';
export { defaultAnswerLimits } from './answers.ts';
export type { AnswerLimits } from './answers.ts';
export { defaultSequencerLimits } from './sequencer.ts';
export type { SequencerLimits, UpdateOptions } from './sequencer.ts';
export type { LogKeys } from './entry-writer.ts';
export { defaultServedHeadLimits } from './served-head.ts';
export type { Cosigners, ServedHeadLimits } from './served-head.ts';
export { MemoryTreeStore } from './store.ts';
export type {
  LogBatch,
  LogTreeName,
  NewEvaluation,
  NewVersion,
  StoredHead,
  StoredVersion,
  TreeStore,
} from './store.ts';
export type { StoredEntry } from './recorder.ts';
export type { TileReader, WrittenTile } from './prefix-tree.ts';
export type { LogTile } from './tiles.ts';
export { entryBundle } from './tiles.ts';
export { nativeSigner } from './native-signer.ts';
export { nativeSuite } from './native-suite.ts';
export { nativeSha256 } from './native-hash.ts';
export { nativeVrf, nativeVrfProver } from './native-vrf.ts';
export { vrfPool, vrfPoolLimits } from './vrf-pool.ts';
export { portableVrfProver } from './vrf.ts';
export type { ImmediateVrfProver, VrfEngine, VrfEvaluation, VrfProver } from './vrf.ts';
export { KtService, responseCacheLimits } from './serve.ts';
export type { KtServed, KtServedCredential } from './serve.ts';
export { signAuditorTreeHead, signTreeHead, verifyTreeHead } from './tree-head.ts';
export { Follower } from './follow.ts';
export { manifestRule } from './manifest-rule.ts';
export type { Cosigner, FollowerOptions, Observation, Pulled, PullOptions } from './follow.ts';
export { checkAdvance, isConvicted, logStatuses, MemoryAuditStore } from './audit-store.ts';
export type { AuditStore, EvidenceRecord, FollowedLog, LogStatus } from './audit-store.ts';
export { directoryReader } from './directory-source.ts';
export { httpReader, httpSourceLimits } from './http-source.ts';
export {
  keysOf,
  keysOfRecord,
  Mirror,
  mirrorFile,
  mirrorFiles,
  mirrorPaths,
  parseMirrorPath,
} from './mirror.ts';
export type { MirroredLog, MirrorFile, MirrorReader } from './mirror.ts';
