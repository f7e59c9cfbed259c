/**
 * Whole responses of the reference implementation (protocol sections 13.1 to 13.4) through the
 * verifier, signatures and VRFs included. Where a transcript leaves out the state of a returning
 * user, its order and counts are replayed exactly and the head cannot be checked.
 */
import assert from 'node:assert/strict';
import type { Configuration } from './codec.ts';
import { DeploymentMode } from './codec.ts';
import { searchFixed, searchGreatest, updateView } from './combined-tree.ts';
import { prefixHasher } from './hash.ts';
import { baseLadder, frontier } from './ladder.ts';
import { fullSubtrees } from './log-tree.ts';
import { replay } from './model-log.ts';
import { monitorContact } from './monitoring.ts';
import { nativeSha256 } from './native-hash.ts';
import { nativeSuite } from './native-suite.ts';
import { contactMonitorResponse, searchResponse } from './operations.ts';
import { evaluatePrefixProof } from './prefix-proof.ts';
import { decode, encode } from './presentation.ts';
import type { KnownVersions, LogView } from './replayer.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { logVerifier, verifySearchLadder } from './verify-response.ts';
import { verifyOwnerInit, verifyOwnerMonitor } from './verify-owner.ts';
import { verifyContactMonitor, verifySearch } from './verify-search.ts';

interface LogInput {
  readonly entry_timestamps: readonly number[];
  readonly label: string;
  readonly last?: number;
  readonly maximum_lifetime: number;
  readonly max_ahead?: number;
  readonly max_behind?: number;
  readonly monitoring_window: number;
  readonly signature_public_key: string;
  readonly vrf_public_key: string;
}
function verifierOf(input: LogInput) {
  const config: Configuration = {
    cipherSuite: 2,
    mode: DeploymentMode.contactMonitoring,
    signaturePublicKey: hex(input.signature_public_key),
    vrfPublicKey: hex(input.vrf_public_key),
    maxAheadMs: input.max_ahead ?? 10_000,
    maxBehindMs: input.max_behind ?? 10_000,
    reasonableMonitoringWindowMs: input.monitoring_window,
    maximumLifetimeMs: input.maximum_lifetime === 0 ? undefined : input.maximum_lifetime,
  };
  return logVerifier(config, nativeSuite);
}
const nowOf = (input: LogInput): number => input.entry_timestamps.at(-1) ?? 0;

/** Frontier entries with their real times, heads of zeros; `root` for those that a proof is of. */
function impliedView(input: LogInput, last: number, root: Uint8Array): LogView {
  return {
    size: last,
    heads: fullSubtrees(last).map(() => new Uint8Array(32)),
    frontier: frontier(last).map((position) => ({
      position,
      timestampMs: input.entry_timestamps[position] ?? -1,
      prefixRoot: root,
    })),
  };
}

interface SearchCase {
  readonly input: LogInput & { readonly version?: number };
  readonly expect: {
    readonly error?: string;
    readonly response: string;
    readonly version?: number;
    readonly tree_size: number;
    readonly opening: string;
  };
}
/** Cases whose answer is negative: those are not encodable (section 13.1), so they are refused. */
const negative: Readonly<Record<string, string>> = {
  // kt-log/README.md: katie answers an unknown label with version 0 and one non-inclusion.
  'label-does-not-exist': 'COUNT',
  'fixed-version-above-the-greatest': 'LADDER',
};
const lacksRestart = 'fixed-version-with-advertised-size';
vectorTest<SearchCase>('search.json', (cases) => {
  for (const { name, input, expect } of cases) {
    if (expect.error !== undefined) {
      // The log itself refused: there is no response. Our log's refusal is in log.test.ts.
      assert.equal(expect.response, undefined, name);
      continue;
    }
    const log = verifierOf(input);
    const { version, last } = input;
    const label = hex(input.label);
    const bytes = hex(expect.response);
    const structure = searchResponse(log.config.mode, version !== undefined);
    const response = decode(structure, bytes);
    assert.equal(toHex(encode(structure, response)), expect.response, name);
    if (negative[name] !== undefined) {
      assert.throws(
        () => verifySearch(log, undefined, { label, version }, bytes, nowOf(input)),
        { name: 'VerificationError', reason: negative[name] },
        name,
      );
      continue;
    }
    if (last === undefined) {
      const { found, state } = verifySearch(
        log,
        undefined,
        { label, version },
        bytes,
        nowOf(input),
      );
      assert.equal(found.version, version ?? expect.version, name);
      assert.equal(toHex(found.opening), expect.opening, name);
      assert.equal(state.heads.treeHead.treeSize, expect.tree_size, name);
      continue;
    }
    const target = version ?? expect.version ?? -1;
    const ladder = baseLadder(target);
    const opened = { version: target, opening: response.opening, update: response.value };
    const versions = verifySearchLadder(
      log,
      label,
      opened,
      version === undefined,
      ladder,
      response.binaryLadder,
    );
    const view = impliedView(
      input,
      last,
      firstRoot(versions, ladder, response.search.prefixProofs),
    );
    const run = (restart: boolean): unknown =>
      replay(
        { size: expect.tree_size, windowMs: input.monitoring_window },
        view,
        versions,
        response.search,
        function* (tree) {
          yield* updateView(tree, last, restart);
          yield* version === undefined ? searchGreatest(tree, target) : searchFixed(tree, target);
        },
      );
    if (name === lacksRestart) {
      // Entries 1 and 2 lie inside the retained subtree, whose head the transcript does not tell:
      // all counts are right, and the recomputed head differs from our zeros.
      assert.throws(() => run(false), { reason: 'BAD_ROOT', checked: 'retained subtree' }, name);
      // kt-log/README.md: katie's UpdateView lacks the restart of section 4.2, so entry 5 is missing.
      assert.throws(() => run(true), { name: 'VerificationError', reason: 'COUNT' }, name);
    } else {
      run(false);
      run(true);
    }
  }
  return cases.length;
});

/** Root that the first proof gives: in these cases it is the one of the retained entry. */
function firstRoot(
  versions: KnownVersions,
  ladder: readonly number[],
  proofs: readonly Parameters<typeof evaluatePrefixProof>[2][],
): Uint8Array {
  const [proof] = proofs;
  assert.ok(proof);
  const lookups = ladder
    .slice(0, proof.results.length)
    .map((version) => versions.get(version) ?? assert.fail(`version ${version}`));
  return evaluatePrefixProof(prefixHasher(nativeSha256), lookups, proof);
}

interface MonitorCase {
  readonly input: LogInput & {
    readonly operation: 'contact' | 'owner-init' | 'owner-monitor';
    readonly entries: readonly { readonly position: number; readonly version: number }[];
    readonly greatest_version?: number;
    readonly start: number;
    readonly known_versions: readonly {
      readonly version: number;
      readonly vrf_output: string;
      readonly commitment?: string;
    }[];
  };
  readonly expect: {
    readonly response: string;
    readonly tree_size: number;
    readonly greatest_versions?: readonly number[];
  };
}
vectorTest<MonitorCase>('monitor.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const log = verifierOf(input);
    const { entries: map, last, start } = input;
    const label = hex(input.label);
    const bytes = hex(expect.response);
    const versions: KnownVersions = new Map(
      input.known_versions.map(({ version, vrf_output: key, commitment }) => [
        version,
        {
          vrfOutput: hex(key),
          commitment: commitment === undefined ? undefined : hex(commitment),
        },
      ]),
    );
    switch (input.operation) {
      case 'contact': {
        if (last !== undefined) {
          const response = decode(contactMonitorResponse(log.config.mode), bytes);
          const view = impliedView(input, last, new Uint8Array(32));
          const at = { size: expect.tree_size, windowMs: input.monitoring_window };
          replay(at, view, versions, response.proof, function* (tree) {
            yield* updateView(tree, last);
            yield* monitorContact(tree, map);
          });
          break;
        }
        const contact = { label, map, versions };
        const after = verifyContactMonitor(log, undefined, contact, bytes, nowOf(input));
        assert.equal(after.state.view.size, expect.tree_size, name);
        // What is left to monitor stands on the frontier (section 8.2).
        const left = after.contact.map.map((entry) => entry.position);
        assert.ok(
          left.every((position) => frontier(expect.tree_size).includes(position)),
          name,
        );
        break;
      }
      case 'owner-init': {
        const { owner } = verifyOwnerInit(log, undefined, { label, start }, bytes, nowOf(input));
        assert.equal(owner.versionAtStart, expect.greatest_versions?.[0], name);
        break;
      }
      case 'owner-monitor': {
        // Every entry of this log created one version, so version v was inserted in entry v.
        const greatest = input.greatest_version ?? -1;
        const updates = [];
        for (let v = start + 1; v <= greatest; v++)
          updates.push({ position: v, greatestVersion: v });
        const owner = { label, start, versionAtStart: start, updates, map, versions };
        const after = verifyOwnerMonitor(log, undefined, owner, bytes, nowOf(input));
        assert.equal(after.isCaughtUp, true, name);
        assert.equal(after.owner.start, input.monitoring_window === 50 ? 6 : start, name);
        break;
      }
    }
  }
  return cases.length;
});
