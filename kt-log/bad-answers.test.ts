/**
 * What a verifier says to an answer that is not the one it asked for: cut, extended, with absurd counts,
 * or honest and about another label, version, log, size or time. Each is a VerificationError that names
 * what was checked and what was expected.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fieldsOf } from './mutants.ts';
import * as operations from './operations.ts';
import { encode } from './presentation.ts';
import { labelOf, testKeys, testLog } from './test-log.ts';
import type { VerificationReason } from './verification-error.ts';
import { VerificationError } from './verification-error.ts';
import type { LogVerifier, UserState } from './verify-response.ts';
import { logVerifier } from './verify-response.ts';
import { verifySearch } from './verify-search.ts';
import { nativeSuite } from './native-suite.ts';

const mode = 1;
const alice = labelOf('alice@red.example');
const bob = labelOf('bob@red.example');
const greatest = operations.searchResponse(mode, false);
const fixed = operations.searchResponse(mode, true);

/** Five versions of alice and one of bob, each in an entry of its own, 30 s apart. */
async function rig(seed = 40) {
  const made = await testLog(testKeys(seed));
  const { log, clock } = made;
  for (let version = 0; version < 5; version++) {
    await log.append({ label: alice, greatest: version - 1, values: [labelOf(`a${version}`)] });
    clock.advance(30_000);
  }
  await log.append({ label: bob, greatest: -1, values: [labelOf('b0')] });
  const ask = async (label: Uint8Array, version?: number, last?: number): Promise<Uint8Array> =>
    encode(version === undefined ? greatest : fixed, await log.search({ label, version, last }));
  const verifier = logVerifier(testKeys(seed).config, nativeSuite);
  return { ...made, ask, verifier };
}

/** Who asked what, and when. */
interface Asked {
  readonly as: LogVerifier;
  readonly before: UserState;
  readonly label: Uint8Array;
  readonly version: number;
  readonly at: number;
}

/** The error of an answer, which has to be one that says everything. */
function refusalOf(verify: () => unknown): VerificationError {
  try {
    verify();
  } catch (error) {
    assert.ok(error instanceof VerificationError, String(error));
    assert.ok(error.checked.length > 0 && error.expected.length > 0, error.message);
    assert.equal(error.message, `${error.checked}: expected ${error.expected}`);
    return error;
  }
  return assert.fail('the answer was accepted');
}

test('an answer that is cut anywhere, or longer than it says, is malformed', async () => {
  const { ask, verifier, clock } = await rig();
  const bytes = await ask(alice);
  const look = (given: Uint8Array) => (): unknown =>
    verifySearch(verifier, undefined, { label: alice }, given, clock.now());
  for (let length = 0; length < bytes.length; length++) {
    const { reason } = refusalOf(look(bytes.subarray(0, length)));
    assert.equal(reason, 'MALFORMED', `cut to ${length} of ${bytes.length} bytes`);
  }
  for (const more of [1, 32, 65_536]) {
    const { reason, expected } = refusalOf(look(Uint8Array.of(...bytes, ...new Uint8Array(more))));
    assert.equal(reason, 'MALFORMED');
    assert.match(expected, new RegExp(`found ${more}$`, 'u'));
  }
});

test('numbers and counts at their bounds are refused one by one', async () => {
  const { ask, verifier, clock } = await rig();
  const bytes = await ask(alice);
  const reasons = new Set<string>();
  const numbers = fieldsOf(greatest, bytes).filter((field) => field.isNumber);
  for (const { start, length } of numbers) {
    for (const byte of [0x00, 0x7f, 0xff]) {
      const mutant = bytes.slice().fill(byte, start, start + length);
      if (Buffer.compare(mutant, bytes) === 0) continue;
      const look = (): unknown =>
        verifySearch(verifier, undefined, { label: alice }, mutant, clock.now());
      reasons.add(refusalOf(look).reason);
    }
  }
  assert.ok(
    numbers.length > 20 && reasons.has('MALFORMED') && reasons.size > 2,
    [...reasons].join(),
  );
});

test('an honest answer to another question is refused, and for what it lacks', async () => {
  const { log, ask, verifier, clock, config } = await rig();
  const other = await rig(60);
  const stale = await ask(alice);
  const early = verifySearch(verifier, undefined, { label: alice }, stale, clock.now()).state;
  clock.advance(30_000);
  await log.append({ label: bob, greatest: 0, values: [labelOf('b1')] });
  const fresh = await ask(alice);
  const nowMs = clock.now();
  const later = verifySearch(verifier, undefined, { label: alice }, fresh, nowMs).state;

  const look = (bytes: Uint8Array, asked: Partial<Asked> = {}): VerificationError => {
    const { as, before, label, version, at } = { as: verifier, label: alice, at: nowMs, ...asked };
    return refusalOf(() => verifySearch(as, before, { label, version }, bytes, at));
  };
  const vrfKey = testKeys(60).config.vrfPublicKey;
  const otherVrf = logVerifier({ ...config, vrfPublicKey: vrfKey }, nativeSuite);
  const signatureKey = testKeys(60).config.signaturePublicKey;
  const otherSigner = logVerifier({ ...config, signaturePublicKey: signatureKey }, nativeSuite);
  const cases: readonly (readonly [VerificationError, VerificationReason, RegExp])[] = [
    // Another label, version or kind of question.
    [look(await ask(bob)), 'BAD_VRF', /^vrf proof/u],
    [look(await ask(alice, 2), { version: 3 }), 'COUNT', /^binary ladder: expected 6 steps/u],
    [look(fresh, { version: 4 }), 'MALFORMED', /^SearchResponse/u],
    // Another log, whole or in one key.
    [look(await other.ask(alice)), 'BAD_VRF', /^vrf proof/u],
    [look(fresh, { as: otherVrf }), 'BAD_VRF', /^vrf proof/u],
    [look(fresh, { as: otherSigner }), 'BAD_SIGNATURE', /^tree head of size 7: expected the log/u],
    // Another size than the one that was advertised.
    [look(await ask(alice, undefined, 3), { before: early }), 'BAD_ROOT', /^prefix tree of entry/u],
    [look(await ask(alice, undefined, log.size)), 'MALFORMED', /^full tree head: .* new user$/u],
    [look(stale, { before: later }), 'ROLLBACK', /^tree size: expected more than the 7/u],
    // Another time.
    [look(fresh, { at: nowMs + 3_600_001 }), 'TOO_OLD', /^newest entry: .* 3600000 ms old$/u],
    [look(fresh, { at: nowMs - 300_001 }), 'TOO_NEW', /^newest entry: .* 300000 ms ahead$/u],
  ];
  for (const [error, reason, message] of cases) {
    assert.equal(error.reason, reason, error.message);
    assert.match(error.message, message);
  }
});

test('a value beyond its bound is refused before anything is verified', async () => {
  const { log, verifier, clock } = await rig();
  const answer = await log.search({ label: alice });
  const bytes = encode(greatest, { ...answer, value: { value: new Uint8Array(65_537) } });
  const { message } = refusalOf(() =>
    verifySearch(verifier, undefined, { label: alice }, bytes, clock.now()),
  );
  assert.equal(message, 'SearchResponse.value: expected at most 65536 elements');
});
