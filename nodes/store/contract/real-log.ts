/** A real key log over a store, with the same keys each time, and an auditor that replays it. */
import assert from 'node:assert/strict';
import {
  applyAuditBundle,
  auditBundle,
  bundleEntriesMax,
  DeploymentMode,
  emptyAudit,
  encode,
  KtLog,
  nativeSigner,
  nativeSuite,
  nativeVrfProver,
  noteKey,
  SignatureType,
  type Configuration,
} from '@quicprochat/kt-log';
import type { Runtime } from '@quicprochat/proto';
import type { AccountEffect, NodeStore } from '../store.ts';
import { labelOf } from './log-batch.ts';

const seed = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
const keys = {
  treeHead: nativeSigner(seed(1)),
  note: nativeSigner(seed(2)),
  vrf: nativeVrfProver(seed(3)),
};
const config: Configuration = {
  cipherSuite: 2,
  mode: DeploymentMode.contactMonitoring,
  signaturePublicKey: keys.treeHead.publicKey,
  vrfPublicKey: keys.vrf.publicKey,
  maxAheadMs: 300_000,
  maxBehindMs: 3_600_000,
  reasonableMonitoringWindowMs: 60_000,
  maximumLifetimeMs: undefined,
};
const origin = 'red.example/kt';
const identity = {
  origin,
  key: noteKey(nativeSuite.sha256, origin, SignatureType.ed25519, keys.note.publicKey),
};

export function openLog(store: NodeStore, { clock, random }: Runtime): Promise<KtLog> {
  const sequencerLimits = { batchMs: 0 };
  const parts = { config, identity, keys, store: store.keyLog, suite: nativeSuite };
  return KtLog.open({ ...parts, clock, random, sequencerLimits });
}

/** One update of a user's account through the log. Resolves to the position of its entry. */
export function writeEffect(log: KtLog, effect: AccountEffect): Promise<number> {
  const { userId, manifestSeq, manifest } = effect.kind === 'register' ? effect.account : effect;
  const label = labelOf(userId);
  const values = [manifest.manifest];
  return log.append({ label, greatest: manifestSeq - 1, values }, { effects: [effect] });
}

/** Replays every entry as an auditor does; both roots have to be those of the signed checkpoints. */
export async function audit(log: KtLog, nowMs: number): Promise<void> {
  let state = emptyAudit;
  while (state.log.size < log.size) {
    const from = state.log.size;
    const to = Math.min(from + bundleEntriesMax, log.size);
    const bundle = encode(auditBundle, await log.auditBundle(from, to));
    state = applyAuditBundle(nativeSuite, { config, identity }, state, bundle, nowMs).log;
  }
  assert.deepEqual(state.rfc6962.size, log.size);
}
