/** AuditorUpdates (protocol section 15.2) against the official vectors. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditedLog } from './auditor-update.ts';
import { applyAuditorUpdate, auditorUpdate, emptyAudit } from './auditor-update.ts';
import { keytransHasher } from './hash.ts';
import { rootOfHeads } from './log-tree.ts';
import { nativeSha256 } from './native-hash.ts';
import { decode, encode } from './presentation.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';

interface LeafText {
  readonly vrf_output: string;
  readonly commitment: string;
}
interface Case {
  readonly input: {
    readonly log_full_subtrees: readonly string[];
    readonly log_size: number;
    readonly prefix_root: string;
    readonly previous_timestamp: number;
    readonly removed: readonly LeafText[];
    readonly first_entry?: boolean;
  };
  readonly expect: {
    readonly encoding: string;
    readonly log_root?: string;
    readonly verdict: 'accepted' | 'rejected';
  };
}
const hasher = keytransHasher(nativeSha256);

vectorTest<Case>('auditor-update.json', (cases, context) => {
  let removals = 0;
  for (const { name, input, expect } of cases) {
    const update = decode(auditorUpdate, hex(expect.encoding));
    assert.equal(toHex(encode(auditorUpdate, update)), expect.encoding, name);
    const log = { size: input.log_size, heads: input.log_full_subtrees.map(hex) };
    const before: AuditedLog = {
      log,
      rfc6962: log,
      newestMs: input.first_entry === true ? 0 : input.previous_timestamp,
      prefixRoot: hex(input.prefix_root),
    };
    const apply = (): AuditedLog => applyAuditorUpdate(nativeSha256, before, update);
    if (input.removed.length > 0) {
      // kt-log/README.md: the peer accepts some removals; ours refuses all of them.
      removals++;
      assert.throws(apply, { name: 'VerificationError', checked: 'removed leaves' }, name);
    } else if (expect.verdict === 'rejected') {
      assert.throws(apply, { name: 'VerificationError' }, name);
    } else {
      const after = apply();
      const root = rootOfHeads(hasher, after.log.size, after.log.heads);
      assert.equal(toHex(root), expect.log_root, name);
    }
  }
  context.diagnostic(`auditor-update.json: ${removals} cases remove leaves, which we refuse`);
  return cases.length;
});

vectorTest<{ readonly kind: string; readonly encoding: string }>('from-kt.json', (cases) => {
  const ours = cases.filter((vector) => vector.kind === 'auditor-update');
  for (const { name, encoding } of ours) {
    const update = decode(auditorUpdate, hex(encoding));
    assert.equal(toHex(encode(auditorUpdate, update)), encoding, name);
  }
  return ours.length;
});

test('an update whose entry is another one is refused, and nothing is remembered of it', () => {
  const leaf = { vrfOutput: nativeSha256(new Uint8Array(1)), commitment: new Uint8Array(32) };
  const proof = {
    results: [{ type: 'nonInclusionParent' as const, depth: 0 }],
    elements: new Uint8Array(),
  };
  const update = { timestampMs: 5, added: [leaf], removed: [], proof };
  const after = applyAuditorUpdate(nativeSha256, emptyAudit, update);
  assert.equal(after.log.size, 1);
  assert.throws(() => applyAuditorUpdate(nativeSha256, emptyAudit, update, new Uint8Array(40)), {
    reason: 'BAD_ROOT',
    checked: 'log entry',
  });
  assert.equal(emptyAudit.log.size, 0);
  // The same leaf again: the proof of its absence no longer matches the state.
  assert.throws(() => applyAuditorUpdate(nativeSha256, after, update), { reason: 'BAD_ROOT' });
});
