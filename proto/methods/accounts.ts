/** Rows of accounts and devices: OPAQUE, manifests, recovery. */
import * as m from '../messages.ts';
import { bytesBetween, exactBytes, userIdText } from '../field-rules.ts';
import { opaqueBytes } from '../opaque-parameters.ts';
import { maxRecoveryBundleBytes } from '../limits.ts';
import { method, anyone, device, enrolling } from './row.ts';
import { ofChange, ofKeyLog, signedManifest } from './shared-rules.ts';

export const accountsMethods = {
  opaqueRegisterStart: method(
    100,
    m.OpaqueRegisterStartRequestSchema,
    m.OpaqueRegisterStartResponseSchema,
    {
      callers: anyone,
      rate: 'auth',
      rules: {
        userId: userIdText,
        registrationRequest: exactBytes(opaqueBytes.registrationRequest),
      },
      refusals: ['AUTH_FAILED'],
    },
  ),
  opaqueRegisterFinish: method(
    101,
    m.OpaqueRegisterFinishRequestSchema,
    m.OpaqueRegisterFinishResponseSchema,
    {
      callers: anyone,
      rate: 'auth',
      isIdempotent: false,
      rules: {
        handle: exactBytes(16),
        registrationRecord: exactBytes(opaqueBytes.registrationRecord),
        manifest: signedManifest,
        deviceProof: exactBytes(64),
      },
      refusals: ['AUTH_FAILED', 'BAD_SIGNATURE', 'NAME_TAKEN', ...ofKeyLog],
    },
  ),
  opaqueLoginStart: method(102, m.OpaqueLoginStartRequestSchema, m.OpaqueLoginStartResponseSchema, {
    callers: anyone,
    rate: 'auth',
    rules: { userId: userIdText, ke1: exactBytes(opaqueBytes.ke1) },
    refusals: ['AUTH_FAILED'],
  }),
  opaqueLoginFinish: method(
    103,
    m.OpaqueLoginFinishRequestSchema,
    m.OpaqueLoginFinishResponseSchema,
    {
      callers: anyone,
      rate: 'auth',
      isIdempotent: false,
      rules: {
        handle: exactBytes(16),
        ke3: exactBytes(opaqueBytes.ke3),
        identityPub: exactBytes(32),
        deviceProof: exactBytes(64),
        sessionMac: exactBytes(32),
      },
      refusals: ['AUTH_FAILED', 'BAD_SIGNATURE', 'UNKNOWN_DEVICE'],
    },
  ),
  logout: method(104, m.LogoutRequestSchema, m.LogoutResponseSchema, { callers: device }),
  deleteAccount: method(950, m.DeleteAccountRequestSchema, m.DeleteAccountResponseSchema, {
    callers: device,
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
    refusals: ofChange,
  }),
  revokeKey: method(510, m.RevokeKeyRequestSchema, m.RevokeKeyResponseSchema, {
    callers: device,
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
    refusals: ofChange,
  }),
  registerDevice: method(700, m.RegisterDeviceRequestSchema, m.RegisterDeviceResponseSchema, {
    callers: ['enrolling'],
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
    refusals: ['NAME_TAKEN', ...ofChange],
  }),
  listDevices: method(701, m.ListDevicesRequestSchema, m.ListDevicesResponseSchema, {
    callers: enrolling,
    rate: 'read',
  }),
  revokeDevice: method(702, m.RevokeDeviceRequestSchema, m.RevokeDeviceResponseSchema, {
    callers: device,
    rate: 'keys',
    isIdempotent: false,
    rules: { manifest: signedManifest },
    refusals: ofChange,
  }),
  storeRecoveryBundle: method(
    750,
    m.StoreRecoveryBundleRequestSchema,
    m.StoreRecoveryBundleResponseSchema,
    {
      callers: device,
      rate: 'keys',
      rules: { bundle: bytesBetween(1, maxRecoveryBundleBytes) },
      refusals: ['STORE_FULL'],
    },
  ),
  fetchRecoveryBundle: method(
    751,
    m.FetchRecoveryBundleRequestSchema,
    m.FetchRecoveryBundleResponseSchema,
    { callers: enrolling, rate: 'keys' },
  ),
  deleteRecoveryBundle: method(
    752,
    m.DeleteRecoveryBundleRequestSchema,
    m.DeleteRecoveryBundleResponseSchema,
    { callers: device, rate: 'keys' },
  ),
} as const;
