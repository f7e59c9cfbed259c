/**
 * How a log client reaches its log: KEYTRANS request bytes out, KEYTRANS response bytes and a C2SP
 * checkpoint back. The client library implements it over its RPCs; whatever comes back is verified.
 * Browser-safe.
 */

import type { CredentialParts } from './wrapped-credential.ts';

/** An answer of the log as it came over the wire; nothing in it is verified. */
export interface LogAnswer {
  /** A KEYTRANS response (protocol section 13). */
  readonly response: Uint8Array;
  /** The signed checkpoint of exactly the answer's tree size, with whatever cosignatures there are. */
  readonly checkpoint: Uint8Array;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Sends one request that was built by the client, and returns what came back. */
export type Send = (request: Uint8Array, options: CallOptions) => Promise<LogAnswer>;

/**
 * Every method rejects with a QpcError when there is no answer; NotFound for a label that the log
 * says it does not have. A proxy through another node passes the bytes on unchanged.
 */
export interface LogTransport {
  /** SearchRequest -> SearchResponse. */
  readonly search: Send;
  /** SearchRequest without version -> AbsenceProof. */
  readonly absence: Send;
  /** UpdateRequest -> one UpdateResponse; the checkpoint is of a size above its position. */
  readonly update: Send;
  /** ContactMonitorRequest -> ContactMonitorResponse. */
  readonly contactMonitor: Send;
  /** OwnerInitRequest -> OwnerInitResponse. */
  readonly ownerInit: Send;
  /** OwnerMonitorRequest -> OwnerMonitorResponse. */
  readonly ownerMonitor: Send;
  /** DistinguishedRequest -> DistinguishedResponse. */
  readonly distinguished: Send;
  /** The signed checkpoint of one size, as a C2SP note. */
  treeHead(size: number, options: CallOptions): Promise<Uint8Array>;
  /** The credential of a label's greatest version, with what shows its entry. */
  credential(label: Uint8Array, options: CallOptions): Promise<CredentialParts>;
  /**
   * CredentialUpdate bytes for a provisional credential made at size `last` that ended in `entry`.
   * Rejects with FailedPrecondition BAD_CURSOR while no later entry is distinguished.
   */
  credentialUpdate(request: CredentialUpdateRequest, options: CallOptions): Promise<Uint8Array>;
}

export interface CredentialUpdateRequest {
  readonly label: Uint8Array;
  readonly last: number;
  readonly entry: { readonly position: number; readonly version: number };
}
