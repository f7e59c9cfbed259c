/** Rows of keys that others claim: KeyPackages and hybrid prekeys. */
import * as m from '../messages.ts';
import { defaultMaxPayloadBytes } from '../frame.ts';
import {
  bytesBetween,
  every,
  exactBytes,
  itemsBetween,
  nested,
  present,
  userIdText,
} from '../field-rules.ts';
import { smallBytes, method, device } from './row.ts';
import { fetchKeyPackage, fromPeers } from './shared-rules.ts';

export const keysMethods = {
  uploadKeyPackage: method(300, m.UploadKeyPackageRequestSchema, m.UploadKeyPackageResponseSchema, {
    callers: device,
    rate: 'keys',
    maxRequestBytes: defaultMaxPayloadBytes,
    rules: { keyPackages: itemsBetween(1, 128, bytesBetween(1, smallBytes)) },
    refusals: ['BAD_SIGNATURE', 'QUOTA', 'STORE_FULL'],
  }),
  fetchKeyPackage: method(301, m.FetchKeyPackageRequestSchema, m.FetchKeyPackageResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: fetchKeyPackage,
    refusals: ['UNKNOWN_USER', 'NO_KEY_PACKAGE', ...fromPeers],
  }),
  uploadHybridKey: method(302, m.UploadHybridKeyRequestSchema, m.UploadHybridKeyResponseSchema, {
    callers: device,
    rate: 'keys',
    rules: {
      prekey: every(
        present,
        nested<m.SignedPrekey>({ prekey: bytesBetween(1, 2048), signature: exactBytes(64) }),
      ),
    },
    refusals: ['BAD_SIGNATURE'],
  }),
  fetchHybridKey: method(303, m.FetchHybridKeyRequestSchema, m.FetchHybridKeyResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userId: userIdText },
    refusals: ['UNKNOWN_USER', ...fromPeers],
  }),
  fetchHybridKeys: method(304, m.FetchHybridKeysRequestSchema, m.FetchHybridKeysResponseSchema, {
    callers: device,
    rate: 'lookup',
    rules: { userIds: itemsBetween(1, 16, userIdText) },
    // A user who is not found, or whose node does not answer, has an empty answer.
  }),
  keyPackageCount: method(305, m.KeyPackageCountRequestSchema, m.KeyPackageCountResponseSchema, {
    callers: device,
  }),
} as const;
