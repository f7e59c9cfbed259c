/**
 * The combined tree's algorithms (protocol sections 4.2, 6 to 10, 12.3, Appendix C): transcripts
 * of the official vectors to exact consumption, the worked example, and random logs proved and
 * replayed against a model.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CombinedTreeProof } from './codec.ts';
import { combinedTreeProof } from './codec.ts';
import * as combined from './combined-tree.ts';
import { directPath, frontier } from './ladder.ts';
import { fullSubtrees } from './log-tree.ts';
import type { Algorithm, ModelEntry, Windows } from './model-log.ts';
import { ModelLog, record, replay } from './model-log.ts';
import { monitorContact, monitorOwner, ownerStartEntries, checkOwnerStart } from './monitoring.ts';
import { decode, encode } from './presentation.ts';
import type { KnownVersion } from './replayer.ts';
import { hex, vectorTest } from './spec-vectors.ts';
import type { NewVersions, OwnerKnowledge } from './updating.ts';
import { checkUpdate } from './updating.ts';

/** An algorithm after the view update that every response begins with. */
function after<T>(last: number | undefined, algorithm: Algorithm<T>): Algorithm<T> {
  return function* (tree) {
    yield* combined.updateView(tree, last);
    return yield* algorithm(tree);
  };
}
const isVerificationError = { name: 'VerificationError' };

interface DistinguishedCase {
  readonly input: {
    readonly size: number;
    readonly timestamps: readonly number[];
    readonly window: number;
  };
  readonly expect: {
    readonly rightmost?: number;
    readonly previous_rightmost?: number;
    readonly requested_rightmost: readonly number[];
  };
}
vectorTest<DistinguishedCase>('distinguished.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const { size, timestamps, window: windowMs } = input;
    if (size === 0) {
      // There is no tree to walk; the algorithms never run on one.
      assert.equal(expect.rightmost, undefined, name);
      continue;
    }
    const requested: number[] = [];
    const provider: combined.Provider = {
      isAtHand: () => true,
      timestamp(position) {
        if (!requested.includes(position)) requested.push(position);
        return timestamps[position] ?? assert.fail(`${name}: entry ${position}`);
      },
      searchLadder: () => assert.fail('no ladder'),
      monitoringLadder: () => assert.fail('no ladder'),
      lookUp: () => assert.fail('no lookup'),
      stopsBefore: () => false,
    };
    const tree = { provider, size, windowMs, lifetimeMs: undefined };
    assert.equal(combined.runNow(combined.rightmostDistinguished(tree)), expect.rightmost, name);
    assert.deepEqual(requested, expect.requested_rightmost, name);
    const isDistinguished = (position: number): boolean =>
      combined.runNow(combined.pathTo(tree, position)).isDistinguished;
    let previous: number | undefined;
    for (let position = 0; position < size - 1; position++) {
      if (isDistinguished(position)) previous = position;
    }
    assert.equal(previous, expect.previous_rightmost, name);
  }
  return cases.length;
});

interface ForeignCase {
  readonly kind: string;
  readonly expect: 'accept' | 'reject';
  readonly operation?: 'greatest-version' | 'fixed-version' | 'contact-monitor';
  readonly size: number;
  readonly greatest?: number;
  readonly map?: readonly { readonly position: number; readonly version: number }[];
  readonly versions?: readonly VersionText[];
  readonly keys?: readonly VersionText[];
  readonly owner?: OwnerText;
  readonly position?: number;
  readonly new_versions?: number;
  readonly proof: string;
}
interface VersionText {
  readonly version: number;
  readonly vrf_output: string;
  readonly commitment?: string;
}
interface OwnerText {
  readonly starting: number;
  readonly version_at_starting?: number;
  readonly upcoming: readonly number[];
}
const knownVersions = (list: readonly VersionText[]): Map<number, KnownVersion> =>
  new Map(
    list.map(({ version, vrf_output: key, commitment }) => [
      version,
      {
        vrfOutput: hex(key),
        commitment: commitment === undefined ? undefined : hex(commitment),
      },
    ]),
  );
/** `upcoming` lists the entries of the versions after the one at the starting position. */
function ownerOf(owner: OwnerText): OwnerKnowledge {
  const first = owner.version_at_starting ?? -1;
  const versionAt = (position: number): number =>
    first + owner.upcoming.filter((at) => at <= position).length;
  const greatest = first + owner.upcoming.length;
  return {
    greatestVersion: greatest < 0 ? undefined : greatest,
    greatestPosition: owner.upcoming.at(-1) ?? owner.starting,
    versionAt: (position) => {
      const version = versionAt(position);
      return version < 0 ? undefined : version;
    },
  };
}
function newVersions(owner: OwnerText, position: number, count: number): NewVersions {
  const first = (ownerOf(owner).greatestVersion ?? -1) + 1;
  return { position, first, greatest: first + count - 1 };
}
/** The window of the log that made them: a week, so that only the root is distinguished. */
const week = { windowMs: 604_800_000 };

vectorTest<ForeignCase>('from-kt.json', (cases) => {
  let ran = 0;
  for (const vector of cases) {
    if (vector.kind !== 'combined-search' && vector.kind !== 'owner-update') continue;
    ran++;
    const { size, greatest = -1, owner, map = [] } = vector;
    const algorithm: Algorithm<unknown> = (tree) => {
      if (owner !== undefined) {
        const added = newVersions(owner, vector.position ?? -1, vector.new_versions ?? 0);
        return checkUpdate(tree, ownerOf(owner), added);
      }
      if (vector.operation === 'greatest-version') return combined.searchGreatest(tree, greatest);
      if (vector.operation === 'fixed-version') return combined.searchFixed(tree, greatest);
      return monitorContact(tree, map);
    };
    const versions = knownVersions(vector.versions ?? vector.keys ?? []);
    const run = (): unknown => {
      const proof = decode(combinedTreeProof, hex(vector.proof));
      return replay({ size, ...week }, undefined, versions, proof, after(undefined, algorithm));
    };
    if (vector.expect === 'accept') run();
    else assert.throws(run, isVerificationError, vector.name);
  }
  return ran;
});

interface UpdateCase {
  readonly input: {
    readonly entry_timestamps: readonly number[];
    readonly last?: number;
    readonly ladder: readonly VersionText[];
    readonly monitoring_window: number;
    readonly owner: OwnerText;
    readonly position: number;
    readonly tree_size: number;
    readonly versions: number;
  };
  readonly expect: {
    readonly contact?: { readonly position: number; readonly version: number };
    readonly distinguished: boolean;
    readonly proof: string;
  };
}
/**
 * The retained state that a transcript implies but does not carry: frontier entries with their real
 * timestamps. Their roots and heads are unknown, so such a case proves order and counts only.
 */
function impliedView(last: number, timestamps: readonly number[]) {
  return {
    size: last,
    heads: fullSubtrees(last).map(() => new Uint8Array(32)),
    frontier: frontier(last).map((position) => ({
      position,
      timestampMs: timestamps[position] ?? -1,
      prefixRoot: new Uint8Array(32),
    })),
  };
}
vectorTest<UpdateCase>('update.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const { owner, position, last, tree_size: size } = input;
    const added = newVersions(owner, position, input.versions);
    const view = last === undefined ? undefined : impliedView(last, input.entry_timestamps);
    const at = { size, windowMs: input.monitoring_window };
    const proof = decode(combinedTreeProof, hex(expect.proof));
    const { result } = replay(
      at,
      view,
      knownVersions(input.ladder),
      proof,
      after(last, (tree) => checkUpdate(tree, ownerOf(owner), added)),
    );
    assert.equal(result.isDistinguished, expect.distinguished, name);
    if (expect.contact) {
      assert.deepEqual({ position, version: added.greatest }, expect.contact, name);
    }
    assert.deepEqual(encode(combinedTreeProof, proof), hex(expect.proof), name);
  }
  return cases.length;
});

test('Appendix C: the worked example gives exactly the fields that the text lists', async () => {
  const log = new ModelLog();
  for (let i = 0; i < 13; i++) {
    // T_12 - T_7 >= RMW > T_12 - T_11.
    const timestampMs = i < 11 ? 1000 + i : 1100 + i;
    await log.append({ timestampMs, adds: { alice: i === 2 ? 3 : 0, bob: 1 } });
  }
  const at = { size: 13, last: 4, windowMs: 50 };
  const algorithm = after(4, (tree) => combined.searchGreatest(tree, 2));
  const { proof, result } = await record(log, 'alice', at, algorithm);
  assert.deepEqual(proof.timestamps, [1007, 1111, 1112]);
  assert.deepEqual(
    proof.prefixProofs.map((p) => p.results.map((r) => r.type === 'inclusion')),
    [[true, true, false, true], [false]],
  );
  assert.deepEqual(proof.prefixRoots, log.entries[7]?.prefixRoot);
  const listed = await log.nodes([9, 12, 17, 20]);
  assert.deepEqual(proof.inclusion.elements, Uint8Array.from(listed.flatMap((h) => [...h])));
  assert.deepEqual(result, { terminal: 11, mustMonitor: false });
  const replayed = replay(at, log.view(4), log.versions('alice', 3), proof, algorithm);
  assert.deepEqual(replayed.tree.root, log.root(13));
  assert.deepEqual(replayed.tree.viewAt(13), log.view(13));
});

/** Random logs: up to 40 entries, gaps in time of any size, up to three labels at a time. */
const entryArbitrary = fc.record({
  gap: fc.oneof(fc.constant(0), fc.nat(20), fc.nat(200)),
  alice: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 3 })),
  bob: fc.nat(2),
});
const history = fc.array(entryArbitrary, { minLength: 1, maxLength: 40 }).map((list) => {
  let timestampMs = 1000;
  return list.map(({ gap, alice, bob }): ModelEntry => {
    timestampMs += gap;
    return { timestampMs, adds: { alice, bob } };
  });
});
const windows: fc.Arbitrary<Windows> = fc.oneof(
  fc.record({ windowMs: fc.nat(400) }),
  fc.nat(400).chain((windowMs) =>
    fc.record({
      windowMs: fc.constant(windowMs),
      lifetimeMs: fc.integer({ min: windowMs + 1, max: windowMs + 600 }),
    }),
  ),
);
const scene = fc.record({ entries: history, windows, seed: fc.nat(10_000) });

async function modelOf(entries: readonly ModelEntry[]): Promise<ModelLog> {
  const log = new ModelLog();
  for (const entry of entries) await log.append(entry);
  return log;
}
/** Picks a number below `bound` out of a scene's seed. */
const pick = (seed: number, bound: number): number => (seed * 7919 + 13) % bound;

test('greatest-version search finds the version of the model, from any earlier view', async () => {
  await fc.assert(
    fc.asyncProperty(scene, async ({ entries, windows: w, seed }) => {
      const log = await modelOf(entries);
      const size = entries.length;
      const last = seed % 3 === 0 ? undefined : 1 + pick(seed, size);
      const greatest = log.greatestAt('alice', size - 1);
      if (greatest < 0) return;
      const at = { size, last, ...w };
      const algorithm = after(last, (tree) => combined.searchGreatest(tree, greatest));
      const { proof } = await record(log, 'alice', at, algorithm);
      const bytes = encode(combinedTreeProof, proof);
      const decoded = decode(combinedTreeProof, bytes);
      const versions = log.versions('alice', greatest + 1);
      const { tree } = replay(at, log.view(last), versions, decoded, algorithm);
      assert.deepEqual(tree.root, log.root(size));
      assert.deepEqual(tree.viewAt(size), log.view(size));
      // The same proof for any other claim is refused.
      for (const other of [greatest - 1, greatest + 1].filter((v) => v >= 0)) {
        const lie = after(last, (t) => combined.searchGreatest(t, other));
        assert.throws(
          () => replay(at, log.view(last), log.versions('alice', greatest + 2), decoded, lie),
          isVerificationError,
        );
      }
    }),
    { numRuns: 150 },
  );
});

test('fixed-version search answers as the model and lets nothing else through', async () => {
  await fc.assert(
    fc.asyncProperty(scene, async ({ entries, windows: w, seed }) => {
      const log = await modelOf(entries);
      const size = entries.length;
      const last = seed % 2 === 0 ? undefined : 1 + pick(seed, size);
      const greatest = log.greatestAt('alice', size - 1);
      const version = pick(seed, greatest + 3);
      const at = { size, last, ...w };
      const algorithm = after(last, (tree) => combined.searchFixed(tree, version));
      const exists = version <= greatest;
      try {
        const { proof, result } = await record(log, 'alice', at, algorithm);
        assert.ok(exists);
        const versions = log.versions('alice', greatest + 1);
        const replayed = replay(at, log.view(last), versions, proof, algorithm);
        assert.deepEqual(replayed.result, result);
        assert.deepEqual(replayed.tree.root, log.root(size));
        assert.ok(log.greatestAt('alice', result.terminal) >= version);
      } catch (error) {
        const { name, reason } = error as { name: string; reason: string };
        assert.equal(name, 'VerificationError');
        // An entry that holds the version may have expired; it is not found only if none does.
        if (exists) assert.ok(reason === 'EXPIRED' || w.lifetimeMs !== undefined, reason);
        else assert.ok(reason === 'NOT_FOUND' || reason === 'EXPIRED', reason);
      }
    }),
    { numRuns: 150 },
  );
});

test('contact monitoring follows a search to a distinguished entry', async () => {
  await fc.assert(
    fc.asyncProperty(scene, async ({ entries, windows: { windowMs }, seed }) => {
      const log = await modelOf(entries);
      const size = entries.length;
      const w = { windowMs };
      const early = 1 + pick(seed, size);
      const version = log.greatestAt('alice', early - 1);
      if (version < 0) return;
      const search = (tree: combined.Tree) => combined.searchGreatest(tree, version);
      const { result: found } = await record(log, 'alice', { size: early, ...w }, search);
      if (!found.mustMonitor) return;
      const map = [{ position: found.terminal, version }];
      const at = { size, last: early, ...w };
      const algorithm = after(early, (tree) => monitorContact(tree, map));
      const { proof, result } = await record(log, 'alice', at, algorithm);
      const versions = log.versions('alice', version + 1);
      const replayed = replay(at, log.view(early), versions, proof, algorithm);
      assert.deepEqual(replayed.result, result);
      assert.deepEqual(replayed.tree.root, log.root(size));
      for (const { position, isSettled } of result) {
        // What is not settled lies on the frontier (section 8.2, last step).
        assert.ok(isSettled || frontier(size).includes(position));
        assert.ok([found.terminal, ...directPath(found.terminal, size)].includes(position));
      }
    }),
    { numRuns: 150 },
  );
});

test('an owner follows a label from a start through updates and monitoring', async () => {
  let updates = 0;
  await fc.assert(
    fc.asyncProperty(scene, async ({ entries, windows: { windowMs }, seed }) => {
      const log = await modelOf(entries);
      const size = entries.length;
      const w = { windowMs };
      const at = { size, ...w };
      // Start: some distinguished entry.
      const all = await record(log, 'alice', at, (t) =>
        combined.walkDistinguished(t, { recentMs: 2 ** 50, countMax: 1000 }),
      );
      const start = all.result[pick(seed, Math.max(1, all.result.length))]?.position;
      if (start === undefined) return;
      const listed = await record(log, 'alice', at, (t) => ownerStartEntries(t, start));
      const greatestVersions = listed.result
        .map((position) => log.greatestAt('alice', position))
        .filter((version) => version >= 0);
      const init: Algorithm<void> = after(undefined, function* (t) {
        const positions = yield* ownerStartEntries(t, start);
        yield* checkOwnerStart(t, positions, greatestVersions);
      });
      const versions = log.versions('alice', log.positions('alice').length);
      const initProof = await record(log, 'alice', at, init);
      const replayed = replay(at, undefined, versions, initProof.proof, init);
      assert.deepEqual(replayed.tree.root, log.root(size));

      // Every later entry with new versions is an update.
      const versionAt = (position: number): number | undefined => {
        const version = log.greatestAt('alice', position);
        return version < 0 ? undefined : version;
      };
      let known = versionAt(start);
      let knownPosition = start;
      for (let position = start + 1; position < size; position++) {
        const greatest = log.greatestAt('alice', position);
        if (greatest <= (known ?? -1)) continue;
        const owner = { greatestVersion: known, greatestPosition: knownPosition, versionAt };
        const added = { position, first: (known ?? -1) + 1, greatest };
        const algorithm = after(undefined, (t) => checkUpdate(t, owner, added));
        const { proof, result } = await record(log, 'alice', at, algorithm);
        const again = replay(at, undefined, versions, proof, algorithm);
        assert.deepEqual(again.result, result);
        assert.deepEqual(again.tree.root, log.root(size));
        updates++;
        known = greatest;
        knownPosition = position;
      }

      // Monitoring in rounds of a few ladders, until nothing distinguished is left.
      let from = start;
      const expected = all.result.map((entry) => entry.position).filter((p) => p > start);
      const seen: number[] = [];
      for (let round = 0; round < 100 && seen.length < expected.length; round++) {
        const position = from;
        const monitor = after(undefined, (t) => monitorOwner(t, position, versionAt));
        const { proof } = await record(log, 'alice', at, monitor, (_, proofs) => proofs >= 3);
        const { result, tree: shown } = replay(at, undefined, versions, proof, monitor);
        assert.deepEqual(shown.root, log.root(size));
        assert.ok(result.length > 0 && result.length <= 3);
        seen.push(...result);
        from = result.at(-1) ?? from;
      }
      assert.deepEqual(seen, expected.reverse());
    }),
    { numRuns: 200 },
  );
  assert.ok(updates > 50, `${updates} updates`);
});

/** Every proof that differs from `proof` in one element left out, doubled or exchanged. */
function* mutants(proof: CombinedTreeProof): Generator<CombinedTreeProof> {
  const { timestamps, prefixProofs, prefixRoots, inclusion } = proof;
  for (const [i, ms] of timestamps.entries()) {
    yield { ...proof, timestamps: timestamps.toSpliced(i, 1) };
    yield { ...proof, timestamps: timestamps.toSpliced(i, 0, ms) };
    yield { ...proof, timestamps: timestamps.with(i, ms + 1) };
  }
  for (const [i, one] of prefixProofs.entries()) {
    yield { ...proof, prefixProofs: prefixProofs.toSpliced(i, 1) };
    yield { ...proof, prefixProofs: prefixProofs.toSpliced(i, 0, one) };
    yield { ...proof, prefixProofs: prefixProofs.with(i, { ...one, results: [] }) };
  }
  for (const field of [prefixRoots, inclusion.elements]) {
    const make = (bytes: Uint8Array): CombinedTreeProof =>
      field === prefixRoots
        ? { ...proof, prefixRoots: bytes }
        : { ...proof, inclusion: { elements: bytes } };
    yield make(Uint8Array.of(...field, ...new Uint8Array(32)));
    if (field.length > 0) yield make(field.subarray(32));
  }
}

test('a proof with an element left out, doubled or changed never gives the same root', async () => {
  let tried = 0;
  await fc.assert(
    fc.asyncProperty(scene, async ({ entries, windows: w, seed }) => {
      const log = await modelOf(entries);
      const size = entries.length;
      const last = seed % 3 === 0 ? undefined : 1 + pick(seed, size);
      const greatest = log.greatestAt('alice', size - 1);
      if (greatest < 0) return;
      const at = { size, last, ...w };
      const algorithm = after(last, (tree) => combined.searchGreatest(tree, greatest));
      const { proof } = await record(log, 'alice', at, algorithm);
      const versions = log.versions('alice', greatest + 1);
      for (const mutant of mutants(proof)) {
        tried++;
        try {
          const { tree } = replay(at, log.view(last), versions, mutant, algorithm);
          assert.notDeepEqual(tree.root, log.root(size));
        } catch (error) {
          assert.equal((error as Error).name, 'VerificationError');
        }
      }
    }),
    { numRuns: 60 },
  );
  assert.ok(tried > 300, `${tried} mutants`);
});

test('the recent distinguished entries come with their timestamps, rightmost first', async () => {
  await fc.assert(
    fc.asyncProperty(scene, async ({ entries, windows: w, seed }) => {
      const log = await modelOf(entries);
      const size = entries.length;
      const last = seed % 3 === 0 ? undefined : 1 + pick(seed, size);
      const options = { recentMs: 1 + pick(seed, 900), countMax: 10 };
      const at = { size, last, ...w };
      const algorithm = after(last, (tree) => combined.walkDistinguished(tree, options));
      const { proof, result } = await record(log, 'alice', at, algorithm);
      const { result: again, tree } = replay(at, log.view(last), new Map(), proof, algorithm);
      assert.deepEqual(again, result);
      assert.deepEqual(tree.root, log.root(size));
      for (const { position, timestampMs } of result) {
        assert.equal(timestampMs, log.entries[position]?.timestampMs);
        // Section 14: the tree that ends at each of them can be told apart from any fork.
        assert.deepEqual(tree.rootAt(position + 1), log.root(position + 1));
        assert.deepEqual(tree.viewAt(position + 1), log.view(position + 1));
      }
      assert.deepEqual(
        result.map((entry) => entry.position),
        result.map((entry) => entry.position).sort((a, b) => b - a),
      );
    }),
    { numRuns: 150 },
  );
});
