/** Search tree and ladders (protocol sections 4 to 6, 8.1, Appendices A, B) against the vectors. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { maxTreeSize } from './codec.ts';
import * as ladder from './ladder.ts';
import { vectorTest } from './spec-vectors.ts';

interface TreeCase {
  readonly input: { readonly size: number };
  readonly expect: {
    readonly root: number;
    readonly frontier: readonly number[];
    readonly nodes: readonly {
      readonly index: number;
      readonly left: number | null;
      readonly right: number | null;
    }[];
  };
}
vectorTest<TreeCase>('ibst.json', (cases) => {
  for (const { name, input, expect } of cases) {
    if (input.size > maxTreeSize) {
      // Sizes from 2^62 on: positions are numbers here, bounded at 2^52 by the codec.
      assert.throws(() => ladder.searchRoot(input.size), { name: 'InvalidArgumentError' });
      continue;
    }
    assert.equal(ladder.searchRoot(input.size), expect.root, name);
    assert.deepEqual(ladder.frontier(input.size), expect.frontier, name);
    for (const { index, left, right } of expect.nodes) {
      assert.equal(ladder.leftChild(index) ?? null, left, `${name} left of ${index}`);
      assert.equal(
        ladder.rightChild(index, input.size) ?? null,
        right,
        `${name} right of ${index}`,
      );
    }
  }
  return cases.length;
});

interface ViewCase {
  readonly input: { readonly size: number; readonly advertised?: number };
  readonly expect: {
    readonly entries: readonly number[];
    readonly frontier?: readonly number[];
    readonly right_edge_unchecked?: boolean;
  };
}
vectorTest<ViewCase>('update-view.json', (cases, context) => {
  let restarted = 0;
  for (const { name, input, expect } of cases) {
    // kt-log/README.md: katie's UpdateView lacks the restart of section 4.2 of the pinned text.
    assert.deepEqual(ladder.viewUpdate(input.size, input.advertised, false), expect.entries, name);
    if (expect.frontier) assert.deepEqual(ladder.frontier(input.size), expect.frontier, name);
    const byText = ladder.viewUpdate(input.size, input.advertised);
    if (expect.right_edge_unchecked === true) {
      restarted++;
      const rest = ladder.frontier(input.size).filter((p) => p >= (input.advertised ?? 0));
      assert.deepEqual(byText, rest, `${name}: from the last known entry down the frontier`);
      assert.ok(byText.length > 0, name);
    } else {
      assert.deepEqual(byText, expect.entries, name);
    }
  }
  context.diagnostic(`update-view.json: ${restarted} cases differ by the restart of section 4.2`);
  return cases.length;
});

interface LadderCase {
  readonly input: {
    readonly kind: 'base' | 'search' | 'monitoring';
    readonly greatest?: number;
    readonly target?: number;
    readonly left_inclusion?: readonly number[];
    readonly right_non_inclusion?: readonly number[];
  };
  readonly expect: { readonly versions: readonly number[] };
}
vectorTest<LadderCase>('binary-ladder.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const { greatest = -1, target = -1 } = input;
    switch (input.kind) {
      case 'base':
        assert.deepEqual(ladder.baseLadder(greatest), expect.versions, name);
        break;
      case 'search': {
        // Entry 1 is searched: what was shown lies to the left at 0 or to the right at 2.
        const history = new ladder.LadderHistory();
        for (const version of input.left_inclusion ?? []) history.note(version, 0, true);
        for (const version of input.right_non_inclusion ?? []) history.note(version, 2, false);
        const run = ladder.runSearchLadder(target, 1, history, (version) => version <= greatest);
        assert.deepEqual(run.lookups, expect.versions, name);
        break;
      }
      case 'monitoring':
        assert.deepEqual(ladder.monitoringLadder(target), expect.versions, name);
        break;
    }
  }
  return cases.length;
});

interface InterpretationCase {
  readonly input: {
    readonly target: number;
    readonly greatest: number;
    readonly ladder: readonly number[];
    readonly results: readonly boolean[];
  };
  readonly expect: { readonly verdict: number };
}
vectorTest<InterpretationCase>('ladder-interpretation.json', (cases) => {
  for (const { name, input, expect } of cases) {
    let index = 0;
    const run = ladder.runSearchLadder(input.target, 0, undefined, (version) => {
      assert.equal(version, input.ladder[index], name);
      return input.results[index++] ?? assert.fail(`${name}: a lookup after the ladder's end`);
    });
    assert.equal(run.lookups.length, input.ladder.length, name);
    assert.equal(run.comparison, expect.verdict, name);
  }
  return cases.length;
});

test('kt-log/README.md: ladders end from version 2^31 - 1 on, where katie does not', () => {
  for (const greatest of [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1]) {
    const versions = ladder.baseLadder(greatest);
    assert.ok(versions.length <= 64, `${versions.length} lookups`);
    assert.ok(versions.includes(greatest));
    assert.ok(versions.every((version) => version <= ladder.maxVersion));
  }
});

test('a ladder tells every greatest version apart from its target', () => {
  fc.assert(
    fc.property(fc.nat(300), fc.nat(300), (target, greatest) => {
      const run = ladder.runSearchLadder(target, 0, undefined, (version) => version <= greatest);
      assert.equal(run.comparison, Math.sign(greatest - target));
    }),
  );
});

test('paths and children agree on the shape of the search tree', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 600 }), (size) => {
      const seen = new Set<number>();
      const visit = (position: number | undefined, path: number[]): void => {
        if (position === undefined) return;
        assert.deepEqual(ladder.directPath(position, size), path);
        seen.add(position);
        visit(ladder.leftChild(position), [...path, position]);
        visit(ladder.rightChild(position, size), [...path, position]);
      };
      visit(ladder.searchRoot(size), []);
      assert.equal(seen.size, size);
    }),
    { numRuns: 40 },
  );
  assert.throws(() => ladder.directPath(5, 5), { name: 'InvalidArgumentError' });
});

test('a view update lists ascending entries that end at the last one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 0, max: 500 }),
      (last, more) => {
        const size = last + more;
        const entries = ladder.viewUpdate(size, last);
        assert.deepEqual(
          entries,
          [...entries].sort((a, b) => a - b),
        );
        assert.equal(entries.at(-1), more === 0 ? undefined : size - 1);
        assert.ok(entries.every((position) => position >= last));
        const known = new Set([...ladder.frontier(last), ...entries]);
        assert.ok(ladder.frontier(size).every((position) => known.has(position)));
      },
    ),
  );
});
