/** Test support: the keys of a log, with the configuration and the identity that name them. */
import { DeploymentMode, type Configuration } from './codec.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { nativeVrfProver } from './native-vrf.ts';
import { noteKey, SignatureType } from './note.ts';

/** Limits of a log in ms: wide enough for tests that stand still. */
const testLogTimes = {
  maxAheadMs: 300_000,
  maxBehindMs: 3_600_000,
  reasonableMonitoringWindowMs: 60_000,
} as const;

/** `seedOf`: 32 bytes for each of 0, 1 and 2; the same ones give the same log again. */
export function testLogKeys(
  origin: string,
  seedOf: (n: number) => Uint8Array,
  times: Partial<Pick<Configuration, keyof typeof testLogTimes>> = {},
) {
  const keys = {
    treeHead: nativeSigner(seedOf(0)),
    note: nativeSigner(seedOf(1)),
    vrf: nativeVrfProver(seedOf(2)),
  };
  const config: Configuration = {
    cipherSuite: 2,
    mode: DeploymentMode.contactMonitoring,
    signaturePublicKey: keys.treeHead.publicKey,
    vrfPublicKey: keys.vrf.publicKey,
    ...testLogTimes,
    ...times,
    maximumLifetimeMs: undefined,
  };
  const { publicKey } = keys.note;
  const key = noteKey(nativeSuite.sha256, origin, SignatureType.ed25519, publicKey);
  return { keys, config, identity: { origin, key } };
}
