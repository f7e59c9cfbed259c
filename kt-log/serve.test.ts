/** The log as bytes: what goes in and out verifies, malformed requests are refused by field. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditBundle } from './auditor.ts';
import * as credentials from './credential.ts';
import { hashBytes, rfc6962Hasher } from './hash.ts';
import { defaultRecency } from './log.ts';
import { nativeSuite } from './native-suite.ts';
import { keytransRoot, openCheckpoint } from './note.ts';
import * as operations from './operations.ts';
import type { Structure } from './presentation.ts';
import { decode, encode } from './presentation.ts';
import { verifyInclusion6962 } from './rfc6962.ts';
import type { KtServed } from './serve.ts';
import { KtService } from './serve.ts';
import { labelOf, testLog } from './test-log.ts';
import type { OwnerState } from './verify-owner.ts';
import {
  greatestKnown,
  ownerMonitorRequestOf,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifyUpdate,
} from './verify-owner.ts';
import type { UserState } from './verify-response.ts';
import {
  monitorFound,
  verifyAbsence,
  verifyContactMonitor,
  verifyDistinguished,
  verifySearch,
} from './verify-search.ts';

const alice = labelOf('alice@red.example');

async function testService() {
  const made = await testLog();
  const service = new KtService(made.log);
  const { log, clock } = made;
  for (let i = 0; i < 6; i++) {
    await log.update({ label: labelOf(`label-${i}`), values: [labelOf('value')] });
    clock.advance(30_000);
  }
  return { ...made, service };
}

test('every operation goes through as bytes, with the checkpoint of its tree', async () => {
  const { service, verifier, clock, identity, log } = await testService();
  let state: UserState | undefined;
  let owner: OwnerState | undefined;
  const accept = (served: KtServed, verified: { readonly state: UserState }): void => {
    const { checkpoint } = openCheckpoint(nativeSuite, served.checkpoint, identity);
    assert.equal(served.size, verified.state.view.size);
    assert.equal(checkpoint.size, served.size);
    const { root } = log.head ?? assert.fail();
    assert.deepEqual(keytransRoot(checkpoint), root);
    ({ state } = verified);
  };
  const last = (): number | undefined => state?.view.size;
  const now = (): number => clock.now();

  const init = { label: alice, start: 0 };
  let served = await service.ownerInit(encode(operations.ownerInitRequest, init));
  const started = verifyOwnerInit(verifier, state, init, served.response, now());
  accept(served, started);
  ({ owner } = started);
  const absent = encode(operations.searchRequest, { label: alice, last: last() });
  served = await service.absence(absent);
  accept(served, verifyAbsence(verifier, state, alice, served.response, now()));

  for (const value of ['one', 'two']) {
    const greatestVersion = greatestKnown(owner);
    const request = { last: last(), label: alice, greatestVersion, values: [labelOf(value)] };
    served = await service.update(encode(operations.updateRequest, request));
    const updated = verifyUpdate(verifier, state, owner, request, served.response, now());
    accept(served, updated);
    ({ owner } = updated);
    clock.advance(30_000);
  }
  const search = encode(operations.searchRequest, { label: alice, last: last() });
  for (let twice = 0; twice < 2; twice++) {
    served = await service.search(search);
    assert.equal(served.size, last());
  }
  const found = verifySearch(verifier, state, { label: alice }, served.response, now());
  accept(served, found);
  const old = encode(operations.searchRequest, { label: alice, version: 0 });
  served = await service.search(old);
  const version = verifySearch(
    verifier,
    undefined,
    { label: alice, version: 0 },
    served.response,
    now(),
  );
  assert.deepEqual(version.found.value, labelOf('one'));

  const contact = monitorFound(undefined, found.found);
  const map = { label: alice, last: last(), entries: contact.map };
  served = await service.contactMonitor(encode(operations.contactMonitorRequest, map));
  accept(served, verifyContactMonitor(verifier, state, contact, served.response, now()));
  const mine = ownerMonitorRequestOf(owner, last());
  served = await service.ownerMonitor(encode(operations.ownerMonitorRequest, mine));
  accept(served, verifyOwnerMonitor(verifier, state, owner, served.response, now()));
  served = await service.distinguished(encode(operations.distinguishedRequest, { last: last() }));
  accept(served, verifyDistinguished(verifier, state, defaultRecency, served.response, now()));
});

test('a credential comes with the inclusion of its entry in the checkpoint', async () => {
  const { service, identity, log, clock } = await testService();
  await log.update({ label: labelOf('fresh'), values: [alice] });
  const served = await service.credential(labelOf('fresh'));
  const made = decode(credentials.credential(1), served.response);
  assert.equal(made.position, served.position);
  const { checkpoint } = openCheckpoint(nativeSuite, served.checkpoint, identity);
  const hasher = rfc6962Hasher(nativeSuite.sha256);
  const leaf = hasher.leaf(served.entry);
  const { position, size, inclusion } = served;
  verifyInclusion6962(hasher, position, size, leaf, inclusion, checkpoint.root);
  assert.ok(inclusion.every((one) => one.length === hashBytes));
  assert.ok(made.proof.type === 'provisional');
  const { treeSize } = made.proof.treeHead;
  const entry = encode(operations.monitorMapEntry, { position: 6, version: 0 });
  const early = { name: 'FailedPreconditionError', reason: 'BAD_CURSOR' };
  await assert.rejects(service.credentialUpdate(made.label, treeSize, entry), early);
  clock.advance(600_000);
  await log.update({ label: alice, values: [alice] });
  const settled = await service.credentialUpdate(made.label, treeSize, entry);
  assert.equal(settled.size, 8);
  decode(credentials.credentialUpdate, settled.response);
});

test('audit bundles end with the log, with the count or with their bytes', async () => {
  const { service, log } = await testService();
  const bundle = async (from: number, max: number, bytesMax?: number) =>
    decode(auditBundle, await service.auditBundle(from, max, bytesMax)).entries.length;
  assert.equal(await bundle(0, 256), 6);
  assert.equal(await bundle(2, 3), 3);
  assert.equal(await bundle(0, 256, 1), 1);
  const whole = await service.auditBundle(0, 2);
  const { checkpoint, signature } = decode(auditBundle, whole);
  // Behind the entries: position, four counts, checkpoint, signature.
  const bytes = whole.length - checkpoint.length - signature.length - 18;
  assert.equal(await bundle(0, 256, bytes), 2);
  assert.equal(await bundle(0, 256, bytes - 1), 1);
  await assert.rejects(service.auditBundle(log.size, 1), { name: 'InvalidArgumentError' });
});

test('malformed requests are refused by field, and a size that the log never had', async () => {
  const { service } = await testService();
  const fields = { label: alice, entries: [], start: 0, values: [alice] };
  const request =
    <T>(structure: Structure<T>) =>
    (message: T): Uint8Array =>
      encode(structure, message);
  const requests = [
    [request(operations.searchRequest), (bytes) => service.search(bytes)],
    [request(operations.searchRequest), (bytes) => service.absence(bytes)],
    [request(operations.contactMonitorRequest), (bytes) => service.contactMonitor(bytes)],
    [request(operations.ownerInitRequest), (bytes) => service.ownerInit(bytes)],
    [request(operations.ownerMonitorRequest), (bytes) => service.ownerMonitor(bytes)],
    [request(operations.distinguishedRequest), (bytes) => service.distinguished(bytes)],
    [request(operations.updateRequest), (bytes) => service.update(bytes)],
  ] as const satisfies [unknown, (bytes: Uint8Array) => Promise<KtServed>][];
  const refused = { name: 'InvalidArgumentError', reason: 'BAD_FIELD' };
  for (const [made, run] of requests) {
    const bytes = made({ ...fields, last: 7 });
    await assert.rejects(run(bytes), refused);
    for (let length = 0; length < bytes.length; length++) {
      await assert.rejects(run(bytes.subarray(0, length)), refused);
    }
    await assert.rejects(run(Uint8Array.of(...made(fields), 0)), refused);
  }
  const noEntry = service.credentialUpdate(alice, 1, new Uint8Array(3));
  await assert.rejects(noEntry, { name: 'InvalidArgumentError' });
});

test('a response that is kept is forgotten with its label', async () => {
  const { service, log, clock } = await testService();
  const request = encode(operations.searchRequest, { label: labelOf('label-0') });
  clock.advance(600_000);
  await log.update({ label: alice, values: [alice] });
  const first = await service.search(request);
  assert.deepEqual(await service.search(request), first);
  await log.eraseClosed(labelOf('label-0'));
  await assert.rejects(service.search(request), { name: 'NotFoundError' });
  service[Symbol.dispose]();
});
