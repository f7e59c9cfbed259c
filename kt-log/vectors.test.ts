/**
 * The remaining kinds of the mixed vector files (VRF and commitment cases of tampered.json), and a
 * count of all cases: every kind of every file has to be claimed by a test.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { commitmentValue, DeploymentMode } from './codec.ts';
import { commitmentOf } from './hash.ts';
import { nativeSha256 } from './native-hash.ts';
import { encode } from './presentation.ts';
import { hex, toHex, vectorsDir, vectorTest } from './spec-vectors.ts';
import { portableVrfVerifier } from './vrf.ts';

interface TamperedCase {
  readonly input: {
    readonly kind: string;
    readonly label: string;
    readonly version: number;
    readonly proof: string;
    readonly public_key: string;
    readonly opening: string;
    readonly commitment: string;
    readonly update: { readonly value: string };
  };
}
vectorTest<TamperedCase>('tampered.json', (cases) => {
  let ran = 0;
  for (const { name, input } of cases) {
    const { kind, label, version } = input;
    if (kind === 'vrf') {
      const verifier = portableVrfVerifier(hex(input.public_key));
      const run = (): unknown => verifier.verify(hex(label), version, hex(input.proof));
      assert.throws(run, { name: 'VerificationError', reason: 'BAD_VRF' }, name);
      ran++;
    } else if (kind === 'commitment') {
      const value = {
        opening: hex(input.opening),
        label: hex(label),
        version,
        update: { value: hex(input.update.value) },
      };
      const bytes = encode(commitmentValue(DeploymentMode.contactMonitoring), value);
      assert.notEqual(toHex(commitmentOf(nativeSha256, bytes)), input.commitment, name);
      ran++;
    }
  }
  return ran;
});

/** Kinds of the mixed files; each is run by the test of its own subject. */
const claimed = new Set([
  ...['log-tree', 'prefix-tree', 'prefix-mutation', 'auditor-update', 'combined-search'],
  ...['owner-update', 'vrf', 'commitment', 'tree-head'],
]);

test('every case of every vector file belongs to a test', (context) => {
  if (vectorsDir === undefined) {
    context.diagnostic('vectors not found (set QPC_SPEC_DIR): 0 cases counted');
    return;
  }
  let total = 0;
  const tests = readdirSync(import.meta.dirname)
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => readFileSync(`${import.meta.dirname}/${file}`, 'utf8'))
    .join('');
  for (const file of readdirSync(vectorsDir).filter((name) => name.endsWith('.json'))) {
    const { cases } = JSON.parse(readFileSync(`${vectorsDir}/${file}`, 'utf8')) as {
      cases: { kind?: string; input?: { kind?: string } }[];
    };
    assert.ok(tests.includes(`'${file}'`), `${file} is read by a test`);
    if (file === 'from-kt.json' || file === 'tampered.json') {
      for (const { kind, input } of cases) assert.ok(claimed.has(kind ?? input?.kind ?? ''), file);
    }
    total += cases.length;
  }
  context.diagnostic(`${total} cases in all vector files`);
});
