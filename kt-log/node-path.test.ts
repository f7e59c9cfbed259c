/** Paths of every balanced node in every small tree, for both tree hashes, and their refusals. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keytransHasher, logEntry, portableSha256, rfc6962Hasher } from './hash.ts';
import { Frontier, leavesOf } from './log-tree.ts';
import { GrownTree, hasNode, rootOverNode } from './node-path.ts';

const entries = Array.from({ length: 40 }, (_, i) =>
  logEntry(1000 + i, new Uint8Array(32).fill(i)),
);
const hashers = {
  rfc6962: rfc6962Hasher(portableSha256),
  keytrans: keytransHasher(portableSha256),
};

for (const [name, hasher] of Object.entries(hashers)) {
  test(`${name}: every node of every tree leads to the root, and nowhere else`, () => {
    const frontier = new Frontier(hasher);
    const whole = new GrownTree(hasher, { size: 0, heads: [] }, entries);
    let paths = 0;
    for (let size = 1; size <= entries.length; size++) {
      frontier.append(hasher.leaf(entries[size - 1] ?? new Uint8Array(40)));
      const root = frontier.root();
      assert.deepEqual(whole.rootAt(size), root);
      for (let node = 0; node < 2 * entries.length; node++) {
        const { start, length } = leavesOf(node);
        if (!hasNode(size, node)) continue;
        const value = whole.valueOver(start, length);
        const path = whole.pathOf(size, node);
        assert.ok(value && path);
        assert.deepEqual(rootOverNode(hasher, size, node, value, path), root);
        assert.notDeepEqual(rootOverNode(hasher, size, node, new Uint8Array(32), path), root);
        const count = { name: 'VerificationError', reason: 'COUNT' };
        assert.throws(() => rootOverNode(hasher, size, node, value, [...path, root]), count);
        if (path.length > 0) {
          assert.throws(() => rootOverNode(hasher, size, node, value, path.slice(1)), count);
        }
        paths++;
      }
    }
    assert.ok(paths > 1000);
  });

  test(`${name}: a tree grown from retained subtrees knows what is beside them`, () => {
    const whole = new GrownTree(hasher, { size: 0, heads: [] }, entries);
    for (const size of [1, 7, 8, 23]) {
      const frontier = new Frontier(hasher);
      for (const entry of entries.slice(0, size)) frontier.append(hasher.leaf(entry));
      const grown = new GrownTree(hasher, frontier.retained(), entries.slice(size));
      assert.deepEqual(grown.rootAt(40), whole.rootAt(40));
      for (let node = 0; node < 80; node++) {
        const { start, length } = leavesOf(node);
        if (!hasNode(40, node) || start + length <= size) continue;
        assert.deepEqual(grown.pathOf(40, node), whole.pathOf(40, node));
      }
    }
    // A leaf below a retained head of two has a sibling that nobody knows.
    const frontier = new Frontier(hasher);
    for (const entry of entries.slice(0, 2)) frontier.append(hasher.leaf(entry));
    const grown = new GrownTree(hasher, frontier.retained(), entries.slice(2));
    assert.equal(grown.pathOf(40, 0), undefined);
    assert.equal(grown.valueOver(0, 1), undefined);
  });
}

test('a node outside of the tree is refused', () => {
  const outside = { name: 'VerificationError', reason: 'COUNT', checked: 'tree node' };
  for (const [size, node] of [
    [1, 1],
    [3, 5],
    [5, 10],
    [4, 7],
  ] as const) {
    const run = () => rootOverNode(hashers.rfc6962, size, node, new Uint8Array(32), []);
    assert.throws(run, outside, `${size} ${node}`);
  }
});
