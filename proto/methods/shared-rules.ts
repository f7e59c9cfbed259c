/** Field rules that rows of several services share. */
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

export const signedManifest = every(
  present,
  nested<m.SignedManifest>({
    manifest: bytesBetween(1, maxManifestBytes),
    signature: exactBytes(64),
    akPrevSignature: emptyOrBytes(64),
    approval: emptyOrBytes(64),
  }),
);
export const domainOrOwn: FieldRule = (value) => (value === '' ? undefined : domainName(value));
export const fetchKeyPackage: FieldRules<m.FetchKeyPackageRequest> = {
  userId: userIdText,
  claimId: exactBytes(16),
  suites: itemsBetween(1, 4, atMost(0xffff)),
};
