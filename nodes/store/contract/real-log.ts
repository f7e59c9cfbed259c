/** A real key log over a store, with the same keys each time, and an auditor that replays it. */
import assert from 'node:assert/strict';
import {
  applyAuditBundle,
  auditBundle,
  bundleEntriesMax,
  emptyAudit,
  encode,
  KtLog,
  nativeSuite,
} from '@quicprochat/kt-log';
import { testLogKeys } from '@quicprochat/kt-log/test-keys';
import type { Runtime } from '@quicprochat/proto';
import type { AccountEffect } from '../account-store.ts';
import type { NodeStore } from '../store.ts';
import { labelOf } from './log-batch.ts';

const { keys, config, identity } = testLogKeys('red.example/kt', (n) =>
  new Uint8Array(32).fill(n + 1),
);

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
