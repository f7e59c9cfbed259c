/**
 * Logs that lie with their own keys, and who catches them (protocol section 13; kt-log/README.md):
 * two logs with the same secret keys are the two faces of one liar.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KtLog } from './log.ts';
import { defaultRecency } from './log.ts';
import * as operations from './operations.ts';
import { encode } from './presentation.ts';
import { labelOf, testLog } from './test-log.ts';
import type { UserState } from './verify-response.ts';
import type { DistinguishedView } from './verify-search.ts';
import {
  monitorFound,
  verifyContactMonitor,
  verifyDistinguished,
  verifySameLog,
  verifySearch,
} from './verify-search.ts';
import {
  greatestKnown,
  ownerMonitorRequestOf,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifyUpdate,
} from './verify-owner.ts';

const mode = 1;
const alice = labelOf('alice@red.example');
const refused = { name: 'VerificationError' };
type Face = Awaited<ReturnType<typeof testLog>>;

async function put(face: Face, name: string, value: string, known?: number): Promise<void> {
  const request = { label: labelOf(name), greatestVersion: known, values: [labelOf(value)] };
  await face.log.update(request);
}
async function searchBytes(log: KtLog, last: number | undefined): Promise<Uint8Array> {
  const response = await log.search({ last, label: alice });
  return encode(operations.searchResponse(mode, false), response);
}
function check(face: Face, before: UserState | undefined, bytes: Uint8Array) {
  return verifySearch(face.verifier, before, { label: alice }, bytes, face.clock.now());
}

/** Two faces that tell the same for `common` entries, and then go apart. */
async function fork(common: number): Promise<{ honest: Face; liar: Face }> {
  const honest = await testLog();
  const liar = await testLog();
  for (let i = 0; i < common; i++) {
    for (const face of [honest, liar]) {
      await put(face, `user-${i}`, 'key');
      face.clock.advance(20_000);
    }
  }
  await put(honest, 'alice@red.example', 'her key');
  await put(liar, 'alice@red.example', 'the key of somebody else');
  for (let i = 0; i < 3; i++) {
    for (const face of [honest, liar]) {
      face.clock.advance(20_000);
      await put(face, `later-${i}`, 'key');
    }
  }
  return { honest, liar };
}

test('a swapped key: who saw the honest log does not accept the other one', async () => {
  const { honest, liar } = await fork(3);
  const { state } = check(honest, undefined, await searchBytes(honest.log, undefined));
  liar.clock.advance(1000);
  await put(liar, 'more', 'key');
  const bytes = await searchBytes(liar.log, state.view.size);
  assert.throws(() => check(liar, state, bytes), refused);
  // A new user cannot tell, which is why heads are compared (below).
  const fresh = check(liar, undefined, await searchBytes(liar.log, undefined));
  assert.deepEqual(fresh.found.value, labelOf('the key of somebody else'));
});

test('two forks: users who compare their distinguished heads find out', async () => {
  const { honest, liar } = await fork(6);
  const heads = async (face: Face): Promise<readonly DistinguishedView[]> => {
    const response = await face.log.distinguished({});
    const bytes = encode(operations.distinguishedResponse(mode), response);
    const now = face.clock.now();
    return verifyDistinguished(face.verifier, undefined, defaultRecency, bytes, now).heads;
  };
  const roots = (views: readonly DistinguishedView[]): Uint8Array[] =>
    views.toReversed().map((view) => view.root);
  const ours = roots(await heads(honest));
  verifySameLog(ours, roots(await heads(honest)));
  // Whatever the lists share, the newest that both have differs.
  const theirs = roots(await heads(liar));
  assert.notDeepEqual(ours.at(-1), theirs.at(-1));
  assert.throws(() => verifySameLog(ours.slice(-1), theirs.slice(-1)), { reason: 'FORK' });
  // And two signed heads of one size prove it to anybody.
  const [a, b] = [honest.log.head, liar.log.head];
  assert.equal(a?.size, b?.size);
  assert.notDeepEqual(a?.root, b?.root);
});

test('a rollback: an older tree is not accepted after a newer one', async () => {
  const face = await testLog();
  await put(face, 'alice@red.example', 'v0');
  const old = await searchBytes(face.log, undefined);
  const early = check(face, undefined, old);
  await put(face, 'alice@red.example', 'v1', 0);
  const { state } = check(face, early.state, await searchBytes(face.log, 1));
  assert.throws(() => check(face, state, old), { reason: 'ROLLBACK' });
});

test('a withheld version: a log that stands still is too old at the next look', async () => {
  const face = await testLog();
  await put(face, 'alice@red.example', 'v0');
  const { state } = check(face, undefined, await searchBytes(face.log, undefined));
  face.clock.advance(face.config.maxBehindMs + 1);
  const same = await searchBytes(face.log, 1);
  assert.throws(() => check(face, state, same), { reason: 'TOO_OLD' });
});

test('a wrong time: a head from the future, and times that go back', async () => {
  const face = await testLog();
  face.clock.advance(10_000_000);
  await put(face, 'alice@red.example', 'v0');
  const bytes = await searchBytes(face.log, undefined);
  const past = face.clock.now() - face.config.maxAheadMs - 1;
  const run = (): unknown => verifySearch(face.verifier, undefined, { label: alice }, bytes, past);
  assert.throws(run, { reason: 'TOO_NEW' });
  const response = await face.log.search({ label: alice });
  await put(face, 'more', 'key');
  const later = await face.log.search({ label: alice });
  const timestamps = later.search.timestamps.map((ms, i, all) =>
    i === all.length - 1 ? ms - 5 : ms,
  );
  const back = { ...later, search: { ...later.search, timestamps } };
  const lie = encode(operations.searchResponse(mode, false), back);
  assert.throws(() => check(face, undefined, lie), refused);
  assert.equal(response.fullTreeHead.type, 'updated');
});

test('a skipped distinguished head and a dropped entry leave the wrong counts', async () => {
  const { honest } = await fork(8);
  const response = await honest.log.distinguished({});
  const drop = (i: number): Uint8Array => {
    const timestamps = response.proof.timestamps.toSpliced(i, 1);
    return encode(operations.distinguishedResponse(mode), {
      ...response,
      proof: { ...response.proof, timestamps },
    });
  };
  for (let i = 0; i < response.proof.timestamps.length; i++) {
    const run = (): unknown =>
      verifyDistinguished(honest.verifier, undefined, defaultRecency, drop(i), honest.clock.now());
    assert.throws(run, refused, `timestamp ${i}`);
  }
});

test('a version that was made behind the owner’s back is in her next round', async () => {
  const face = await testLog();
  await put(face, '@red.example', 'record');
  const { verifier, log, clock } = face;
  const init = encode(
    operations.ownerInitResponse(mode),
    await log.ownerInit({ label: alice, start: 0 }),
  );
  let { owner, state } = verifyOwnerInit(
    verifier,
    undefined,
    { label: alice, start: 0 },
    init,
    clock.now(),
  );
  // The log inserts a key of its own before alice registers, and hides it from her.
  await put(face, 'alice@red.example', 'planted');
  clock.advance(100);
  const request = { last: state.view.size, label: alice, values: [labelOf('mine')] };
  const told = await log.update({ ...request, greatestVersion: greatestKnown(owner) });
  const bytes = encode(operations.updateResponse(mode), told);
  const after = verifyUpdate(verifier, state, owner, request, bytes, clock.now());
  assert.equal(after.isOwnRequest, false);
  assert.deepEqual(after.created[0]?.value, labelOf('planted'));
  ({ owner, state } = after);
  // Told of it as if it were hers: the entry is distinguished, so section 9.1 leaves the proof to the
  // next round of monitoring, where the commitment does not open to her value.
  const lie = encode(operations.updateResponse(mode), { ...told, values: [] });
  const initial = verifyOwnerInit(
    verifier,
    undefined,
    { label: alice, start: 0 },
    init,
    clock.now(),
  );
  const fooled = verifyUpdate(verifier, initial.state, initial.owner, request, lie, clock.now());
  const nextRound = encode(
    operations.ownerMonitorResponse(mode),
    await log.ownerMonitor(ownerMonitorRequestOf(fooled.owner, fooled.state.view.size)),
  );
  const caught = (): unknown =>
    verifyOwnerMonitor(verifier, fooled.state, fooled.owner, nextRound, clock.now());
  assert.throws(caught, refused);
  clock.advance(200_000);
  await put(face, 'alice@red.example', 'planted again', 0);
  for (let i = 0; i < 3; i++) {
    clock.advance(70_000);
    await put(face, `later-${i}`, 'key');
  }
  const round = encode(
    operations.ownerMonitorResponse(mode),
    await log.ownerMonitor(ownerMonitorRequestOf(owner, state.view.size)),
  );
  const monitored = verifyOwnerMonitor(verifier, state, owner, round, clock.now());
  assert.equal(monitored.isCaughtUp, false);
});

test('a contact notices when what it looked up is gone from later entries', async () => {
  const { honest, liar } = await fork(8);
  const { found, state } = check(honest, undefined, await searchBytes(honest.log, undefined));
  const contact = monitorFound(undefined, { ...found, mustMonitor: true });
  for (let i = 0; i < 8; i++) {
    liar.clock.advance(20_000);
    await put(liar, `more-${i}`, 'key');
  }
  const { map: entries } = contact;
  const response = await liar.log.contactMonitor({
    last: state.view.size,
    label: alice,
    entries,
  });
  const bytes = encode(operations.contactMonitorResponse(mode), response);
  const run = (): unknown =>
    verifyContactMonitor(liar.verifier, state, contact, bytes, liar.clock.now());
  assert.throws(run, refused);
});
