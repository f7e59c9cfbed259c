/**
 * The typed errors of the MLS adapter. None crosses the wire; callers switch on `reason`.
 * The state passed in is unchanged whenever one of these is thrown.
 */
import { QpcError, Status } from '@quicprochat/proto';
import type { ErrorOptions } from '@quicprochat/proto';

/** Every reason of an {@link MlsError}, with its status. */
export const mlsReasons = {
  /** Not a well-formed, canonical encoding of what was expected. */
  MALFORMED: Status.InvalidArgument,
  /** For another group. */
  WRONG_GROUP: Status.InvalidArgument,
  /** Of an epoch whose keys are gone (more than eight epochs back, and not recent; past-epochs.ts). */
  EPOCH_GONE: Status.FailedPrecondition,
  /** Of an epoch not reached yet: park it until the commits between have been processed. */
  EPOCH_AHEAD: Status.FailedPrecondition,
  /** A commit of an epoch already left: a lost race, or one processed before. */
  STALE_COMMIT: Status.FailedPrecondition,
  /** This message has been opened before. */
  DUPLICATE: Status.Conflict,
  /** Opened before, or overtaken by more than the 256 kept generations. */
  GENERATION_GONE: Status.FailedPrecondition,
  /** More than 4096 generations ahead of its sender's last known one. */
  GENERATION_AHEAD: Status.InvalidArgument,
  /** Sent by this member itself; only its author knows what it said. */
  OWN_MESSAGE: Status.InvalidArgument,
  /** Not authentic, whatever check said so. A forged message burns no key. */
  DECRYPT_FAILED: Status.InvalidArgument,
  /** A commit that RFC 9420 section 12.4.2 refuses. */
  INVALID_COMMIT: Status.InvalidArgument,
  /** A commit that this member cannot apply, and others perhaps can; see {@link DoubtError}. */
  DOUBTFUL_COMMIT: Status.FailedPrecondition,
  /** A well-formed handshake that the group's rules do not allow its author, this device included. */
  NOT_ALLOWED: Status.PermissionDenied,
  /** A group has an owner: the last one makes somebody else one first. */
  LAST_OWNER: Status.FailedPrecondition,
  /** A credential is known to be wrong; see {@link CredentialError}. */
  BAD_CREDENTIAL: Status.Unauthenticated,
  /** Manifests are missing: fetch them and try again; see {@link CredentialError}. */
  UNKNOWN_CREDENTIAL: Status.FailedPrecondition,
  /** A KeyPackage that RFC 9420 section 10.1 or our policy refuses. */
  BAD_KEY_PACKAGE: Status.InvalidArgument,
  /** No row given fits this Welcome. */
  NO_KEY_PACKAGE: Status.NotFound,
  /** A Welcome that does not lead into a group of ours. */
  INVALID_WELCOME: Status.InvalidArgument,
  /** A GroupInfo that does not lead back into its group. */
  INVALID_GROUP_INFO: Status.InvalidArgument,
  /** No suite that every initial device offers. */
  NO_COMMON_SUITE: Status.FailedPrecondition,
  /** More Adds than one commit may carry. */
  TOO_MANY_ADDS: Status.InvalidArgument,
  /** The client is in the group already. */
  ALREADY_MEMBER: Status.Conflict,
  /** No member at that leaf. */
  UNKNOWN_MEMBER: Status.NotFound,
  /** This member has been removed; the group can only be read. */
  REMOVED: Status.FailedPrecondition,
  /** Stored rows that do not belong together or cannot be read. */
  BAD_STATE: Status.DataLoss,
} as const;
export type MlsReason = keyof typeof mlsReasons;

/** An error of the adapter; `reason` tells which. */
export class MlsError extends QpcError {
  override name = 'MlsError';
  declare readonly reason: MlsReason;
  /** User id of who signed the commit that this is about, once that is certain. */
  author: string | undefined;
  constructor(reason: MlsReason, message: string, options?: ErrorOptions) {
    super(mlsReasons[reason], reason, message, options);
  }
}

/** What every member of the parent epoch sees of a commit that was signed by one of them. */
export interface SeenCommit {
  /** User id of its committer; undefined: not known. */
  readonly by: string | undefined;
  /** User ids of the other members that are in the group before it and after it. */
  readonly voters: readonly string[];
}

/** What is wrong with a commit is in what it says to this member alone: others may have been told better. */
export class DoubtError extends MlsError {
  override name = 'DoubtError';
  readonly commit: SeenCommit;
  constructor(commit: SeenCommit, options?: ErrorOptions) {
    super('DOUBTFUL_COMMIT', 'commit: its secrets do not open here', options);
    this.commit = commit;
  }
}

/** Why one credential was refused. */
export type CredentialFailure = {
  readonly reason:
    | 'malformed'
    | 'unknown_user'
    | 'unknown_device'
    | 'wrong_key'
    | 'revoked'
    /** It is said to be, by who takes its place in a group. */
    | 'not_revoked';
  /** Empty when the identity is malformed. */
  readonly userId: string;
  readonly deviceId: string;
};

/**
 * Credentials that the manifests do not vouch for. Reason UNKNOWN_CREDENTIAL: every failure is
 * `unknown_user`, all of this message are listed, and fetching their manifests may cure it.
 * Reason BAD_CREDENTIAL: at least one is wrong whatever is fetched.
 */
export class CredentialError extends MlsError {
  override name = 'CredentialError';
  readonly failures: readonly CredentialFailure[];
  /** Of the commit that brings them; undefined when it is about something else. */
  readonly commit: SeenCommit | undefined;
  constructor(failures: readonly CredentialFailure[], commit?: SeenCommit) {
    const curable = failures.every((failure) => failure.reason === 'unknown_user');
    const reasons = [...new Set(failures.map((failure) => failure.reason))].join(', ');
    super(
      curable ? 'UNKNOWN_CREDENTIAL' : 'BAD_CREDENTIAL',
      `credentials: ${failures.length} refused (${reasons})`,
    );
    this.failures = failures;
    this.commit = commit;
  }
}
