/**
 * Mutants of everything that a log says or that is said about it: none that is accepted may say
 * anything else. `QPC_MUTANTS` sets how many are tried (20 000 by default, a million in `.ci/run`),
 * `QPC_SEED` repeats a run; the seed is printed.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { sameBytes } from './hash.ts';
import { dice, mutate, mutationKinds } from './mutants.ts';
import { evidenceScenes } from './mutation-evidence.ts';
import type { Scene } from './mutation-scenes.ts';
import { faceOf, userScenes } from './mutation-scenes.ts';
import { statementScenes } from './mutation-statements.ts';
import { MutationSuite, TooDear } from './mutation-suite.ts';
import { VerificationError } from './verification-error.ts';

const mutantsMax = Number(process.env['QPC_MUTANTS'] ?? 20_000);
const seed = Number(process.env['QPC_SEED'] ?? randomInt(2 ** 32));
/** One new VRF proof for so many mutants: more would take hours, and these tell as much. */
const mutantsPerVrfProof = 200;

const suite = new MutationSuite();
const next = dice(seed);
const random = { bytes: (length: number) => Uint8Array.from({ length }, next) };
const face = await faceOf(suite, random);
const answers: readonly Scene[] = await userScenes(face);
const others: readonly Scene[] = [
  ...(await statementScenes(face)),
  ...(await evidenceScenes(suite, random)),
];

/** Why a mutant was refused, or undefined where it says the same. Throws for any other. */
function judge(scene: Scene, bytes: Uint8Array): string | undefined {
  let said: unknown;
  try {
    said = scene.check(bytes);
  } catch (error) {
    if (error instanceof VerificationError) return error.reason;
    throw error;
  }
  assert.ok(!scene.isExact, 'accepted, though every byte counts');
  scene.compare(said, scene.says);
  return undefined;
}

class Tally {
  readonly counts = new Map<string, number>();
  count(name: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }
  get text(): string {
    return [...this.counts].map(([name, count]) => `${name} ${count}`).join(', ');
  }
}

test('no accepted mutant of a proof says anything else', (context) => {
  const scenes = answers.length + others.length;
  context.diagnostic(`seed ${seed}, ${mutantsMax} mutants of ${scenes} messages`);
  const [tried, same, kinds, reasons] = [new Tally(), new Tally(), new Tally(), new Tally()];
  let tooDear = 0;
  suite.vrfBudget = 1;
  // Nobody looks at where a mutant was refused.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  for (let count = 0; count < mutantsMax;) {
    const choice = next() % 2 === 0 ? answers : others;
    const scene = choice[next() % choice.length] ?? assert.fail('no scene');
    const mutant = mutate(scene, next);
    if (mutant === undefined || sameBytes(mutant.bytes, scene.bytes)) continue;
    // The whole of another message says what that one says.
    if (scene.donors.some((donor) => sameBytes(donor, mutant.bytes))) continue;
    let reason: string | undefined;
    try {
      reason = judge(scene, mutant.bytes);
    } catch (error) {
      if (error instanceof TooDear) {
        tooDear++;
        continue;
      }
      const bytes = Buffer.from(mutant.bytes).toString('hex');
      const which = `seed ${seed}, mutant ${count}, ${mutant.kind} of ${scene.name}`;
      throw new Error(`${which}: ${String(error)}\n${bytes}`, { cause: error });
    }
    tried.count(scene.name);
    kinds.count(mutant.kind);
    if (reason === undefined) same.count(scene.name);
    else reasons.count(reason);
    count++;
    if (count % mutantsPerVrfProof === 0) suite.vrfBudget = 1;
  }
  Error.stackTraceLimit = stackTraceLimit;
  const { vrfProofs, signatures } = suite.verified;
  context.diagnostic(`refused: ${reasons.text}`);
  context.diagnostic(`accepted, as they say the same: ${same.text}`);
  context.diagnostic(`kinds: ${kinds.text}`);
  context.diagnostic(`verified anew: ${vrfProofs} VRF proofs, ${signatures} signatures`);
  context.diagnostic(`${tooDear} more had a new VRF proof beyond those, and do not count`);
  if (mutantsMax < 5000) return;
  assert.equal(tried.counts.size, scenes, 'every message had mutants');
  assert.equal(kinds.counts.size, mutationKinds.length, 'every kind of mutation was tried');
  // Decoders alone do not refuse them: a good part gets as far as what is proved or signed.
  const deep = ['BAD_ROOT', 'BAD_SIGNATURE', 'BAD_VRF', 'FORK', 'NOT_FOUND', 'LADDER'];
  const reached = deep.reduce((sum, reason) => sum + (reasons.counts.get(reason) ?? 0), 0);
  assert.ok(reached > mutantsMax / 5, `${reached} of ${mutantsMax} got past the decoders`);
});
