/**
 * Mutants of encoded proofs: bits flipped, bytes cut, doubled and exchanged. None that is accepted
 * may change what it says. `QPC_MUTANTS` sets how many are tried (3 000 by default, a million in CI),
 * `QPC_SEED` repeats a run; the seed is printed. VRFs and signatures are left out for speed: they
 * only ever refuse more.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { combinedTreeProof } from './codec.ts';
import type { Algorithm } from './model-log.ts';
import { ModelLog, record, replay } from './model-log.ts';
import * as combined from './combined-tree.ts';
import { sameBytes } from './hash.ts';
import { monitorContact, monitorOwner } from './monitoring.ts';
import { decode, encode } from './presentation.ts';
import type { LogView } from './replayer.ts';
import { checkUpdate } from './updating.ts';

const mutantsMax = Number(process.env['QPC_MUTANTS'] ?? 3000);
const seed = Number(process.env['QPC_SEED'] ?? 20_261_124);

/** An algorithm with its honest proof, and who replays it. */
interface Scene {
  readonly whole: Algorithm<unknown>;
  readonly at: { readonly size: number; readonly windowMs: number };
  readonly bytes: Uint8Array;
  readonly result: unknown;
  readonly view: LogView | undefined;
}

/** mulberry32: small, and the same everywhere. */
function* numbers(start: number): Generator<number, never, void> {
  for (let state = start >>> 0; ;) {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    yield (z ^ (z >>> 14)) >>> 0;
  }
}

function mutate(bytes: Uint8Array, next: () => number): Uint8Array {
  const at = next() % bytes.length;
  const other = next() % bytes.length;
  const length = 1 + (next() % 40);
  switch (next() % 6) {
    case 0:
      return bytes.with(at, (bytes[at] ?? 0) ^ (1 << (next() % 8)));
    case 1:
      return bytes.with(at, next() & 255);
    case 2:
      return Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(at + length));
    case 3:
      return Uint8Array.of(...bytes.subarray(0, at + length), ...bytes.subarray(at));
    case 4: {
      const mutant = bytes.slice();
      mutant.copyWithin(at, other, other + length);
      return mutant;
    }
    default:
      return bytes.subarray(0, at);
  }
}

test('no accepted mutant of a proof says anything else', async (context) => {
  context.diagnostic(`seed ${seed}, ${mutantsMax} mutants`);
  const random = numbers(seed);
  const next = (): number => random.next().value;
  const log = new ModelLog();
  for (let i = 0; i < 37; i++) {
    const alice = i % 5 === 2 ? 1 + (i % 2) : 0;
    await log.append({ timestampMs: 1000 + 10 * i, adds: { alice, bob: 1 } });
  }
  const size = 37;
  const windowMs = 60;
  const count = log.positions('alice').length;
  const positions = log.positions('alice');
  const greatest = count - 1;
  const versionAt = (position: number): number | undefined => {
    const version = log.greatestAt('alice', position);
    return version < 0 ? undefined : version;
  };
  const last = positions.at(-1) ?? 0;
  const first = positions.indexOf(last);
  const owner = {
    greatestVersion: first - 1,
    greatestPosition: positions[first - 1] ?? -1,
    versionAt,
  };
  const algorithms: Algorithm<unknown>[] = [
    (tree) => combined.searchGreatest(tree, greatest),
    (tree) => combined.searchFixed(tree, 1),
    (tree) => monitorContact(tree, [{ position: last, version: greatest }]),
    (tree) => monitorOwner(tree, 7, versionAt),
    (tree) => checkUpdate(tree, owner, { position: last, first, greatest }),
    (tree) => combined.walkDistinguished(tree, { recentMs: 1e9, countMax: 10 }),
  ];
  const versions = log.versions('alice', count, 40);
  const scenes: Scene[] = [];
  for (const algorithm of algorithms) {
    for (const known of [undefined, 20]) {
      const whole: Algorithm<unknown> = function* (tree) {
        yield* combined.updateView(tree, known);
        return yield* algorithm(tree);
      };
      const at = { size, last: known, windowMs };
      const { proof, result } = await record(log, 'alice', at, whole);
      const bytes = encode(combinedTreeProof, proof);
      scenes.push({ whole, at, bytes, result, view: log.view(known) });
    }
  }
  const root = log.root(size);
  const verdicts = { unchanged: 0, accepted: 0, otherRoot: 0, refused: 0 };
  for (let i = 0; i < mutantsMax; i++) {
    const scene = scenes[i % scenes.length] ?? assert.fail('no scene');
    const mutant = mutate(scene.bytes, next);
    try {
      const proof = decode(combinedTreeProof, mutant);
      const { tree, result } = replay(scene.at, scene.view, versions, proof, scene.whole);
      if (sameBytes(tree.root, root)) {
        assert.deepEqual(result, scene.result, `mutant ${i}`);
        assert.deepEqual(tree.viewAt(size), log.view(size), `mutant ${i}`);
        if (sameBytes(mutant, scene.bytes)) verdicts.unchanged++;
        else verdicts.accepted++;
      } else {
        verdicts.otherRoot++;
      }
    } catch (error) {
      if ((error as Error).name !== 'VerificationError') throw error;
      verdicts.refused++;
    }
  }
  context.diagnostic(JSON.stringify(verdicts));
  // Encodings are canonical: a proof that is accepted is the proof that was made.
  assert.equal(verdicts.accepted, 0);
  assert.ok(verdicts.refused > mutantsMax / 2);
});
