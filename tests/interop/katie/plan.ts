/**
 * What a history is made of before it begins: keys, durations and configuration of its log; and the
 * root that an auditor's state has.
 */
import assert from 'node:assert/strict';
import {
  keytransHasher,
  nativeSigner,
  type AuditedLog,
  type Configuration,
} from '@quicprochat/kt-log';
import type { Dice } from '../../cluster/dice.ts';
import type { LogPlan } from './logs.ts';
import { suite, vrfProver, type Pool } from './primitives.ts';

export function pick<T>(list: readonly T[], dice: Dice): T {
  const one = list[dice.int(list.length)];
  assert.ok(one !== undefined, 'nothing to pick from');
  return one;
}

const windows = [0, 1, 400, 3000, 10_000, 60_000, 1e9];

export function planOf(dice: Dice, pool: Pool): LogPlan {
  const windowMs = pick(windows, dice);
  return {
    signatureSeed: dice.bytes(32),
    vrfSeed: pick(pool.vrfSeeds, dice),
    auditorSeed: dice.bytes(32),
    maxAheadMs: 10_000,
    maxBehindMs: 10_000,
    windowMs,
    lifetimeMs: dice.chance(0.3) ? windowMs + 1 + dice.int(20_000) : undefined,
  };
}

export function configOf(plan: LogPlan): Configuration {
  return {
    cipherSuite: 2,
    mode: 1,
    signaturePublicKey: nativeSigner(plan.signatureSeed).publicKey,
    vrfPublicKey: vrfProver(plan.vrfSeed).publicKey,
    maxAheadMs: plan.maxAheadMs,
    maxBehindMs: plan.maxBehindMs,
    reasonableMonitoringWindowMs: plan.windowMs,
    maximumLifetimeMs: plan.lifetimeMs,
  };
}

/** Root of the tree whose full subtrees an auditor keeps (protocol section 11.8). */
export function rootOf({ log }: AuditedLog): Uint8Array {
  const hasher = keytransHasher(suite.sha256);
  const widths: number[] = [];
  for (let rest = log.size; rest > 0; rest -= widths.at(-1) ?? rest) {
    widths.push(2 ** Math.floor(Math.log2(rest)));
  }
  let root = log.heads.at(-1) ?? new Uint8Array();
  let isLeaf = widths.at(-1) === 1;
  for (let i = log.heads.length - 2; i >= 0; i--) {
    root = hasher.parent(log.heads[i] ?? root, widths[i] === 1, root, isLeaf);
    isLeaf = false;
  }
  return root;
}
