/** Field rules and refusals that rows of several services share. */
import type * as m from '../messages.ts';
import {
  atMost,
  bytesBetween,
  domainName,
  emptyOrBytes,
  every,
  exactBytes,
  itemsBetween,
  nested,
  present,
  userIdText,
  type FieldRule,
  type FieldRules,
} from '../field-rules.ts';
import { maxManifestBytes } from '../manifest.ts';
import type { Reason } from '../status.ts';

export const signedManifest = every(
  present,
  nested<m.SignedManifest>({
    manifest: bytesBetween(1, maxManifestBytes),
    signature: exactBytes(64),
    akPrevSignature: emptyOrBytes(64),
    approval: emptyOrBytes(64),
  }),
);
/** Of what another node has to answer, or has to have answered before. */
export const fromPeers = ['PEER_DENIED', 'PEER_UNREACHABLE'] as const satisfies readonly Reason[];
/** Of what the key log writes: not on a full disk, not while peers know heads that it lost, nor faster than it can. */
export const ofKeyLog = [
  'STORE_FULL',
  'FEATURE_OFF',
  'QUEUE_FULL',
] as const satisfies readonly Reason[];
/** Of an account's next manifest. */
export const ofChange = ['BAD_SIGNATURE', 'SEQ_CONFLICT', ...ofKeyLog] as const;
/** Of hubs that lost what they accepted, and learn it again from each other or from members. */
export const ofRestoredHub = [
  'HUB_UNAVAILABLE',
  'HUB_RESTORED',
] as const satisfies readonly Reason[];
/** Of a commit, at its hub. */
export const ofSubmit: readonly Reason[] = [
  'UNKNOWN_GROUP',
  'EPOCH_CONFLICT',
  'EPOCH_FULL',
  'BAD_SIGNATURE',
  'UNKNOWN_CHANNEL',
  'PEER_DENIED',
  'QUOTA',
  'STORE_FULL',
  ...ofRestoredHub,
];
export const domainOrOwn: FieldRule = (value) => (value === '' ? undefined : domainName(value));
export const fetchKeyPackage: FieldRules<m.FetchKeyPackageRequest> = {
  userId: userIdText,
  claimId: exactBytes(16),
  suites: itemsBetween(1, 4, atMost(0xffff)),
};
