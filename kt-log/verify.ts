/**
 * Door `@quicprochat/kt-log/verify`: everything that a client or an auditor checks. Nothing that is
 * reachable from here touches a store, a network or a Node built-in, so it runs in a browser.
 */
export { VerificationError } from './verification-error.ts';
export type { VerificationReason } from './verification-error.ts';
export { verificationReasons } from './verification-error.ts';
export { portableSha256 } from './hash.ts';
export type { Hash, Sha256 } from './hash.ts';
export { portableSigner, portableSuite } from './suite.ts';
export type { Signer, VerifierSuite } from './suite.ts';
export { portableVrfVerifier } from './vrf.ts';
export type { VrfVerifier } from './vrf.ts';
export { decode, encode } from './presentation.ts';
export type { Structure } from './presentation.ts';
export * from './codec.ts';
export * from './operations.ts';
export type { KnownHeads } from './tree-head.ts';
export type { KnownVersion, KnownVersions, LogView, ViewEntry } from './replayer.ts';
export { logVerifier } from './verify-response.ts';
export type { LogVerifier, UserState } from './verify-response.ts';
export * from './verify-search.ts';
export * from './credential.ts';
export {
  applyAuditorUpdate,
  auditorUpdate,
  emptyAudit,
  leavesPerEntryMax,
} from './auditor-update.ts';
export type { AuditedLog, AuditorUpdate } from './auditor-update.ts';
export * from './auditor.ts';
export * from './note.ts';
export { meetsQuorum, parsePolicy } from './policy.ts';
export type { Policy } from './policy.ts';
export { verifyConsistency6962, verifyInclusion6962 } from './rfc6962.ts';
export { rfc6962Hasher, keytransHasher } from './hash.ts';
export { parseEntryBundle, parseTilePath, tilePath } from './tiles.ts';
export * from './verify-owner.ts';
export {
  decodeEvidence,
  encodeEvidence,
  evidenceKinds,
  evidenceLimits,
  isEvidence,
  signedHead,
} from './evidence.ts';
export type {
  Evidence,
  EvidenceBody,
  EvidenceKind,
  ShownEntry,
  ShownNode,
  ShownVersion,
  SignedHead,
  Statement,
} from './evidence.ts';
export type {
  CallOptions,
  CredentialUpdateRequest,
  LogAnswer,
  LogTransport,
  Send,
} from './client-transport.ts';
export type { LogClientStore } from './client-storage.ts';
export type { Witnessing } from './client-checkpoint.ts';
export { ForkError } from './client-checkpoint.ts';
export type { CheckValue, LogClientOptions, ValueToCheck, VerifiedHead } from './client-core.ts';
export type { DistinguishedRecord } from './client-records.ts';
export type { ClientCredentials } from './client-credentials.ts';
export type { ClientOwner, OwnerTransport, OwnUpdateResult, OwnVersion } from './client-owner.ts';
export { LogClient } from './log-client.ts';
export type { FoundValue, KnownValue } from './log-client.ts';
export type { ClientHeard } from './client-heard.ts';
export {
  defaultAuditorsMin,
  openWrapped,
  wrapCredential,
  wrappedCredential,
} from './wrapped-credential.ts';
export type {
  CredentialParts,
  OpenedCredential,
  StrangerRules,
  WrappedCredential,
} from './wrapped-credential.ts';
export type { ReplayedState } from './replayed-state.ts';
export {
  proveBadUpdate,
  proveBadValue,
  proveFork,
  proveInconsistent,
  proveSameSize,
  proveTime,
} from './evidence-proofs.ts';
export type { ForkItem, MadeEvidence } from './evidence-proofs.ts';
export { GrownTree } from './node-path.ts';
export { checkEvidence, isAgainst } from './evidence-check.ts';
export type { CheckedEvidence, EvidenceKeys, ValueRule } from './evidence-check.ts';
export { decodeHeads, headsLimits } from './heads-exchange.ts';
export type { HeadsCompared } from './heads-exchange.ts';
export { heartbeat, heartbeatLimits } from './heartbeat.ts';
export type { Heartbeat, PinnedLog } from './heartbeat.ts';
export { defaultMonitorLimits, LogMonitor } from './monitor.ts';
export type { MonitorEvent, MonitorLimits } from './monitor.ts';
export type { LogSource, PublishedLog, StatedKeys } from './log-source.ts';
