/** Tree heads (protocol sections 11.2 to 11.4) against the official vectors, and each refusal. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditorTreeHead, Configuration } from './codec.ts';
import {
  auditorTreeHead,
  auditorTreeHeadTbs,
  configuration,
  DeploymentMode,
  fullTreeHead,
  treeHead,
  treeHeadTbs,
} from './codec.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { decode, encode } from './presentation.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { portableSigner, portableSuite } from './suite.ts';
import type { KnownHeads, ShownTree } from './tree-head.ts';
import {
  checkConfiguration,
  signAuditorTreeHead,
  signTreeHead,
  verifyFullTreeHead,
  verifyTreeHead,
} from './tree-head.ts';

interface HeadInput {
  readonly kind?: string;
  readonly mode: number;
  readonly max_ahead: number;
  readonly max_behind: number;
  readonly reasonable_monitoring_window: number;
  readonly signature_public_key: string;
  readonly vrf_public_key: string;
  readonly leaf_public_key?: string;
  readonly auditor_public_key?: string;
  readonly auditor_start_pos?: number;
  readonly auditor_timestamp?: number;
  readonly max_auditor_lag?: number;
  readonly root: string;
  readonly tree_size: number;
  readonly signature?: string;
}
interface HeadCase {
  readonly input: HeadInput;
  readonly expect: {
    readonly configuration: string;
    readonly full_tree_head_same: string;
    readonly full_tree_head_updated: string;
    readonly signature: string;
    readonly tree_head: string;
    readonly tree_head_tbs: string;
    readonly auditor_tree_head?: string;
    readonly auditor_tree_head_tbs?: string;
  };
}
function configOf(input: HeadInput): Configuration {
  const common = {
    cipherSuite: 2,
    signaturePublicKey: hex(input.signature_public_key),
    vrfPublicKey: hex(input.vrf_public_key),
    maxAheadMs: input.max_ahead,
    maxBehindMs: input.max_behind,
    reasonableMonitoringWindowMs: input.reasonable_monitoring_window,
    maximumLifetimeMs: undefined,
  };
  switch (input.mode) {
    case DeploymentMode.thirdPartyManagement:
      return {
        ...common,
        mode: DeploymentMode.thirdPartyManagement,
        leafPublicKey: hex(input.leaf_public_key ?? ''),
      };
    case DeploymentMode.thirdPartyAuditing:
      return {
        ...common,
        mode: DeploymentMode.thirdPartyAuditing,
        maxAuditorLagMs: input.max_auditor_lag ?? -1,
        auditorStartPosition: input.auditor_start_pos ?? -1,
        auditorPublicKey: hex(input.auditor_public_key ?? ''),
      };
    default:
      return { ...common, mode: DeploymentMode.contactMonitoring };
  }
}

vectorTest<HeadCase>('tree-head.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const config = configOf(input);
    const { mode } = config;
    const root = hex(input.root);
    const size = input.tree_size;
    assert.equal(toHex(encode(configuration, config)), expect.configuration, name);
    assert.deepEqual(decode(configuration, hex(expect.configuration)), config, name);
    assert.equal(toHex(treeHeadTbs(config, size, root)), expect.tree_head_tbs, name);
    const head = decode(treeHead, hex(expect.tree_head));
    assert.equal(toHex(head.signature), expect.signature, name);
    for (const suite of [nativeSuite, portableSuite]) verifyTreeHead(suite, config, head, root);
    const same = decode(fullTreeHead(mode), hex(expect.full_tree_head_same));
    assert.deepEqual(same, { type: 'same' }, name);
    const updated = decode(fullTreeHead(mode), hex(expect.full_tree_head_updated));
    assert.equal(toHex(encode(fullTreeHead(mode), updated)), expect.full_tree_head_updated, name);
    let auditor: AuditorTreeHead | undefined;
    if (expect.auditor_tree_head !== undefined) {
      auditor = decode(auditorTreeHead, hex(expect.auditor_tree_head));
      const tbs = auditorTreeHeadTbs(config, input.auditor_timestamp ?? -1, size, root);
      assert.equal(toHex(tbs), expect.auditor_tree_head_tbs, name);
    }
    const newestMs = auditor?.timestampMs ?? 1_700_000_000_000;
    const shown: ShownTree = { size, root, newestMs, rootAt: () => root };
    const heads = verifyFullTreeHead(nativeSuite, config, updated, undefined, shown, newestMs);
    assert.deepEqual(heads, { treeHead: head, auditorTreeHead: auditor }, name);
  }
  return cases.length;
});

vectorTest<{ readonly input: HeadInput }>('tampered.json', (cases) => {
  const ours = cases.filter((vector) => vector.input.kind === 'tree-head');
  for (const { name, input } of ours) {
    const head = { treeSize: input.tree_size, signature: hex(input.signature ?? '') };
    for (const suite of [nativeSuite, portableSuite]) {
      assert.throws(
        () => verifyTreeHead(suite, configOf(input), head, hex(input.root)),
        { name: 'VerificationError', reason: 'BAD_SIGNATURE' },
        name,
      );
    }
  }
  return ours.length;
});

const signer = nativeSigner(new Uint8Array(32).fill(1));
const auditor = portableSigner(new Uint8Array(32).fill(2));
const root = new Uint8Array(32).fill(5);
const now = 1_700_000_000_000;
const config: Configuration = {
  cipherSuite: 2,
  mode: DeploymentMode.thirdPartyAuditing,
  signaturePublicKey: signer.publicKey,
  vrfPublicKey: signer.publicKey,
  maxAuditorLagMs: 60_000,
  auditorStartPosition: 3,
  auditorPublicKey: auditor.publicKey,
  maxAheadMs: 1000,
  maxBehindMs: 2000,
  reasonableMonitoringWindowMs: 5000,
};
const tree: ShownTree = { size: 8, root, newestMs: now, rootAt: () => root };
const updated = (timestampMs: number, auditedSize: number, size = 8) => ({
  type: 'updated' as const,
  treeHead: signTreeHead(config, size, root, signer),
  auditorTreeHead: signAuditorTreeHead(config, timestampMs, auditedSize, root, auditor),
});
const knownAt = (treeSize: number, auditedSize: number): KnownHeads => ({
  treeHead: { treeSize, signature: new Uint8Array(64) },
  auditorTreeHead: { timestampMs: 0, treeSize: auditedSize, signature: new Uint8Array(64) },
});
const accept = (
  head: ReturnType<typeof updated> | { type: 'same' },
  before: KnownHeads | undefined,
  nowMs = now,
  shown = tree,
): KnownHeads => verifyFullTreeHead(nativeSuite, config, head, before, shown, nowMs);

test('a head is accepted inside its bounds and refused one step outside', () => {
  const head = updated(now, 8);
  accept(head, undefined);
  accept(head, knownAt(7, 3));
  accept(head, undefined, now + 2000);
  accept(head, undefined, now - 1000);
  assert.throws(() => accept(head, undefined, now + 2001), { reason: 'TOO_OLD' });
  assert.throws(() => accept(head, undefined, now - 1001), { reason: 'TOO_NEW' });
  assert.throws(() => accept(head, knownAt(8, 8)), { reason: 'ROLLBACK' });
  assert.throws(() => accept(updated(now, 8, 9), undefined), { reason: 'MALFORMED' });
});

test('section 11.3: the auditor may lag a little, never lead, and leaves no gap', () => {
  accept(updated(now - 60_000, 8), undefined);
  assert.throws(() => accept(updated(now - 60_001, 8), undefined), {
    checked: 'auditor timestamp',
  });
  assert.throws(() => accept(updated(now + 1, 8), undefined), { checked: 'auditor timestamp' });
  assert.throws(() => accept(updated(now, 9), undefined), { checked: 'auditor tree size' });
  assert.throws(() => accept(updated(now, 8), knownAt(7, 2)), {
    checked: 'auditor start position',
  });
  const { treeHead: head } = updated(now, 8);
  const unsigned = { type: 'updated' as const, treeHead: head } as ReturnType<typeof updated>;
  assert.throws(() => accept(unsigned, undefined), { checked: 'auditor tree head' });
});

test('the same head is for a user who has one, as long as it is fresh', () => {
  const before = knownAt(8, 8);
  assert.equal(accept({ type: 'same' }, before), before);
  assert.throws(() => accept({ type: 'same' }, undefined), { reason: 'MALFORMED' });
  assert.throws(() => accept({ type: 'same' }, before, now + 2001), { reason: 'TOO_OLD' });
});

test('a maximum lifetime has to exceed the monitoring window', () => {
  checkConfiguration({ ...config, maximumLifetimeMs: 5001 });
  for (const maximumLifetimeMs of [0, 5000]) {
    assert.throws(() => checkConfiguration({ ...config, maximumLifetimeMs }), {
      name: 'InvalidArgumentError',
    });
  }
  assert.throws(() => checkConfiguration({ ...config, cipherSuite: 1 }), { reason: 'BAD_FIELD' });
});
