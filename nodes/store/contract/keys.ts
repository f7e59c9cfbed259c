/** Contract of a NodeStore: KeyPackages and prekeys (RFC 9420 section 10). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import type { ClaimKeyPackages, NewKeyPackage } from '../key-store.ts';
import type { NodeStore } from '../store.ts';
import {
  addDevice,
  dayMs,
  hex,
  hourMs,
  minuteMs,
  newAccount,
  storeFixture,
  type OpenStore,
  type StoreFixture,
} from './fixture.ts';
import { registerAccount } from './log-batch.ts';

const classic = 1;
const hybrid = 77;

export function keyContract(open: OpenStore): void {
  test('a package is known once, also after it was consumed', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const [one, two] = [newPackage(fixture), newPackage(fixture)];
    assert.equal((await store.addKeyPackages(alice, [one])).stored, 1);
    assert.deepEqual(await store.addKeyPackages(alice, [one, two, two]), {
      stored: 1,
      counts: [{ suite: classic, singleUse: 2, hasLastResort: false, lastResortUsed: false }],
    });
    await take(store, 2);
    assert.equal((await store.addKeyPackages(alice, [one, two])).stored, 0);
    fixture.nowMs += 89 * dayMs;
    await store.sweep();
    assert.equal((await store.addKeyPackages(alice, [one])).stored, 0, 'known for 90 days');
    fixture.nowMs += 2 * dayMs;
    await store.sweep();
    assert.equal((await store.addKeyPackages(alice, [one])).stored, 1);
  });

  test('packages go out oldest first and once each', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const packages = [newPackage(fixture), newPackage(fixture), newPackage(fixture)];
    await store.addKeyPackages(alice, packages);
    const taken = await take(store, 4);
    assert.deepEqual(
      taken.map((claimed) => claimed.packages.map(({ bytes }) => hex(bytes))),
      [...packages.map(({ bytes }) => [hex(bytes)]), []],
    );
  });

  test('a package outside of its lifetime is not handed out', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const [early, late, good] = [newPackage(fixture), newPackage(fixture), newPackage(fixture)];
    await store.addKeyPackages(alice, [
      { ...early, notBeforeMs: fixture.nowMs + 1 },
      { ...late, notAfterMs: fixture.nowMs },
      good,
    ]);
    const [claimed] = await take(store, 1);
    assert.deepEqual(claimed?.packages[0]?.bytes, good.bytes);
    assert.equal((await take(store, 1))[0]?.packages.length, 0);
    fixture.nowMs += 1;
    assert.deepEqual((await take(store, 1))[0]?.packages[0]?.bytes, early.bytes);
  });

  test('each device answers with the best suite that it has', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const plain = newPackage(fixture);
    const strong = newPackage(fixture, { suite: hybrid });
    await store.addKeyPackages(alice, [plain, strong]);
    const claimed = await store.claimKeyPackages(newClaim({ suites: [hybrid, classic] }));
    assert.equal(claimed?.packages[0]?.suite, hybrid);
    const next = await store.claimKeyPackages(newClaim({ suites: [hybrid, classic] }));
    assert.equal(next?.packages[0]?.suite, classic);
    const none = await store.claimKeyPackages(newClaim({ suites: [5] }));
    assert.deepEqual(none?.packages, []);
  });

  test('the last-resort package stays, is marked, and is replaced by its successor', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const spare = newPackage(fixture, { lastResort: true });
    const single = newPackage(fixture);
    await store.addKeyPackages(alice, [spare, single]);
    assert.deepEqual(
      (await take(store, 3)).map(({ packages }) => packages[0]?.lastResort),
      [false, true, true],
    );
    assert.deepEqual(await store.keyPackageCounts(alice), [
      { suite: classic, singleUse: 0, hasLastResort: true, lastResortUsed: true },
    ]);
    const successor = newPackage(fixture, { lastResort: true });
    const { counts } = await store.addKeyPackages(alice, [successor]);
    assert.deepEqual(counts, [
      { suite: classic, singleUse: 0, hasLastResort: true, lastResortUsed: false },
    ]);
    assert.deepEqual((await take(store, 1))[0]?.packages[0]?.bytes, successor.bytes);
    assert.equal((await store.addKeyPackages(alice, [spare])).stored, 0, 'the old one is known');
  });

  test('a repeated claim answers the same for ten minutes', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    await store.addKeyPackages(alice, [newPackage(fixture), newPackage(fixture)]);
    const claim = newClaim();
    const first = await store.claimKeyPackages(claim);
    fixture.nowMs += 10 * minuteMs - 1;
    assert.deepEqual(await store.claimKeyPackages(claim), first);
    const other = await store.claimKeyPackages({ ...claim, requester: 'carol' });
    assert.notDeepEqual(other?.packages, first?.packages, "another requester's id is another");
    fixture.nowMs += 1;
    await store.sweep();
    assert.deepEqual((await store.claimKeyPackages(claim))?.packages, [], 'nothing is left');
  });

  test('above the hourly limit a requester gets the last-resort package', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    await store.addKeyPackages(alice, [
      newPackage(fixture, { lastResort: true }),
      ...Array.from({ length: 4 }, () => newPackage(fixture)),
    ]);
    const kinds = async (requester: string, count: number): Promise<(boolean | undefined)[]> =>
      (await take(store, count, { requester, singleUsePerRequesterPerHour: 2 })).map(
        ({ packages }) => packages[0]?.lastResort,
      );
    assert.deepEqual(await kinds('bob', 3), [false, false, true]);
    assert.deepEqual(await kinds('carol', 1), [false]);
    // Claims of last-resort packages cost nothing, so they do not count.
    fixture.nowMs += hourMs / 2;
    assert.deepEqual(await kinds('bob', 2), [true, true]);
    fixture.nowMs -= hourMs / 2;
    fixture.nowMs += hourMs;
    await store.sweep();
    assert.deepEqual(await kinds('bob', 2), [false, true], 'one package was left');
  });

  test('a peer cannot drain a user under many names', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    await store.addKeyPackages(alice, [
      newPackage(fixture, { lastResort: true }),
      ...Array.from({ length: 4 }, () => newPackage(fixture)),
    ]);
    const kind = async (scope: string, requester: string): Promise<boolean | undefined> => {
      const fields = { scope, requester, singleUsePerTargetPerHour: 2 };
      const [claimed] = await take(store, 1, fields);
      return claimed?.packages[0]?.lastResort;
    };
    assert.equal(await kind('peer blue', 'peer blue 1'), false);
    assert.equal(await kind('peer blue', 'peer blue 2'), false);
    assert.equal(await kind('peer blue', 'peer blue 3'), true);
    assert.equal(await kind('peer green', 'peer green 1'), false, 'another peer has its own share');
    fixture.nowMs += hourMs;
    assert.equal(await kind('peer blue', 'peer blue 3'), false);
  });

  test('100 claims at once never hand out a package twice', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const packages = Array.from({ length: 90 }, () => newPackage(fixture));
    await store.addKeyPackages(alice, packages);
    const claims = await Promise.all(
      Array.from({ length: 100 }, () => store.claimKeyPackages(newClaim())),
    );
    const taken = claims.flatMap((claimed) => claimed?.packages ?? []);
    assert.equal(taken.length, 90);
    assert.equal(new Set(taken.map(({ bytes }) => hex(bytes))).size, 90);
  });

  test('an unknown user is undefined, an unknown device a typed error', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    assert.equal(await store.claimKeyPackages(newClaim()), undefined);
    assert.equal(await store.prekeys('alice'), undefined);
    const unknown = { reason: 'UNKNOWN_DEVICE' };
    const rid = systemRandom.bytes(32);
    await assert.rejects(store.addKeyPackages(rid, []), unknown);
    await assert.rejects(store.keyPackageCounts(rid), unknown);
    await assert.rejects(store.putPrekey(rid, newPrekey(), fixture.nowMs + 1), unknown);
  });

  test('a device holds at most 512 packages', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const packages = Array.from({ length: 512 }, () => newPackage(fixture));
    await store.addKeyPackages(alice, packages.slice(1));
    const tooMany = store.addKeyPackages(alice, [newPackage(fixture), newPackage(fixture)]);
    await assert.rejects(tooMany, { name: 'ResourceExhaustedError', reason: 'QUOTA' });
    assert.equal((await store.addKeyPackages(alice, packages.slice(0, 1))).stored, 1);
  });

  test('the newest prekey rides along until it expires', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const account = newAccount('alice');
    await registerAccount(store, account);
    const { identityPub } = account.device;
    await store.addKeyPackages(identityPub, [newPackage(fixture, { lastResort: true })]);
    const prekey = newPrekey();
    await store.putPrekey(identityPub, newPrekey(), fixture.nowMs + dayMs);
    await store.putPrekey(identityPub, prekey, fixture.nowMs + hourMs);
    const [claimed] = await take(store, 1);
    assert.deepEqual(claimed?.packages[0]?.prekey, prekey);
    assert.deepEqual(claimed?.manifest, account.manifest);
    assert.deepEqual(await store.prekeys('alice'), {
      manifest: account.manifest,
      prekeys: [{ identityPub, prekey }],
    });
    fixture.nowMs += hourMs;
    assert.equal((await take(store, 1))[0]?.packages[0]?.prekey, undefined);
    assert.deepEqual((await store.prekeys('alice'))?.prekeys, []);
  });
}

function newPackage(fixture: StoreFixture, fields: Partial<NewKeyPackage> = {}): NewKeyPackage {
  return {
    ref: systemRandom.bytes(32),
    suite: classic,
    bytes: systemRandom.bytes(344),
    notBeforeMs: fixture.nowMs - dayMs,
    notAfterMs: fixture.nowMs + 28 * dayMs,
    lastResort: false,
    ...fields,
  };
}

function newPrekey(): { readonly prekey: Uint8Array; readonly signature: Uint8Array } {
  return { prekey: systemRandom.bytes(80), signature: systemRandom.bytes(64) };
}

function newClaim(fields: Partial<ClaimKeyPackages> = {}): ClaimKeyPackages {
  return {
    userId: 'alice',
    claimId: systemRandom.bytes(16),
    scope: 'local',
    requester: 'bob',
    suites: [classic],
    singleUsePerRequesterPerHour: 1_000,
    singleUsePerTargetPerHour: 1_000,
    ...fields,
  };
}

/** Claims of alice, one after the other. */
async function take(
  store: NodeStore,
  count: number,
  fields: Partial<ClaimKeyPackages> = {},
): Promise<NonNullable<Awaited<ReturnType<NodeStore['claimKeyPackages']>>>[]> {
  const taken = [];
  for (let index = 0; index < count; index += 1) {
    const claimed = await store.claimKeyPackages(newClaim(fields));
    assert.ok(claimed);
    taken.push(claimed);
  }
  return taken;
}
