/** Bounds of what travels: messages, batches, reads and waits. */

/** Largest envelope of an application message (bytes); padding and seals included. */
export const maxMessageBytes = 80 * 1024;
/** Largest envelope of a commit or Welcome (bytes). */
export const maxControlBytes = 512 * 1024;
/** Bounds of one relay batch. */
export const maxRelayItems = 256;
export const maxRelayBytes = 768 * 1024;
/** Bounds of one FedEphemeral, and of an item in it. */
export const maxEphemeralItems = 256;
export const maxEphemeralRids = 64;
export const maxEphemeralBytes = 512;
/** Part of a blob in one answer (bytes). */
export const maxBlobChunkBytes = 256 * 1024;
export const maxFetchRows = 256;
export const maxFetchBytes = 512 * 1024;
/** A node that says this in Hello has a lane of hints for those who ask for it. */
export const lanesCapability = 'lanes';
/** Bounds of one BatchEnqueue; the whole request has at most the bytes. */
export const maxBatchPayloads = 64;
/** A node that says this in Hello takes batches. */
export const batchCapability = 'batch';
export const maxBatchTargets = 2_048;
export const maxBatchBytes = 2 * 1024 * 1024;
/** Of a caller that nobody knows (bytes): a tenth. */
export const maxAnonymousBatchBytes = 204 * 1024;
/** Dead letters, or peers, of one AdminOutbox. */
export const maxAdminPage = 500;
/** Headers of one Peek. */
export const maxPeekRows = 1_000;
/** Largest KEYTRANS request (bytes): a monitor map of some thousand labels. */
export const maxKtRequestBytes = 256 * 1024;
/** Largest checkpoint with cosignatures, as C2SP signed notes bound it here (bytes). */
export const maxCheckpointBytes = 256 * 1024;
/** Entries of one audit bundle, and of one answer about heads. */
export const maxAuditEntries = 256;
export const maxKtHeads = 1024;
/** Largest wrapped credential of a user, as members and guests show it (bytes). */
export const maxCredentialBytes = 32 * 1024;
/** Logs of which a node says at once what it has heard. */
export const maxKtHeardLogs = 16;
/** Largest evidence that travels (bytes). */
export const maxEvidenceBytes = 512 * 1024;
export const maxRecoveryBundleBytes = 4096;
/** Longest hold of a FetchWait (ms). */
export const maxWaitMs = 30_000;
/** Longest and default ttl of a message (s): 30 days. */
export const maxTtlS = 30 * 24 * 3600;
