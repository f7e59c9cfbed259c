/** A log client against a real log: what it finds, keeps and refuses, over lags, crashes and damage. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditorOf, device, pass, put, transportOf } from './client-fixture.ts';
import type { LogAnswer } from './client-transport.ts';
import { nativeSuite } from './native-suite.ts';
import { parsePolicy } from './policy.ts';
import { labelOf, testLog } from './test-log.ts';
import { VerificationError } from './verification-error.ts';

const alice = labelOf('alice@red.example');
const bob = labelOf('bob@red.example');

test('a search is verified, kept, and tells when a version is new', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await put(face, 'alice@red.example', 'one');
  const first = await client.search(transport, alice);
  assert.equal(first.version, 0);
  assert.deepEqual(first.value, labelOf('one'));
  assert.equal(first.previousVersion, undefined);
  assert.equal(first.size, 1);
  assert.equal(first.entryTimeMs, face.clock.now());
  assert.equal(first.witnessed, 'none-required');
  face.clock.advance(1000);
  await put(face, 'alice@red.example', 'two', 0);
  const second = await client.search(transport, alice);
  assert.deepEqual([second.version, second.previousVersion, second.position], [1, 0, 1]);
  assert.deepEqual(client.known(alice)?.value, labelOf('two'));
  // The same head once more, and an old version beside the newest.
  const again = await client.search(transport, alice);
  assert.deepEqual([again.version, again.previousVersion], [1, 1]);
  const old = await client.search(transport, alice, { version: 0 });
  assert.deepEqual(old.value, labelOf('one'));
  assert.equal(client.known(alice)?.version, 1);
  await client.absence(transport, bob);
  await assert.rejects(client.search(transport, bob), { name: 'NotFoundError' });
});

test('what was looked up is monitored until a distinguished entry covers it', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await pass(face, 4);
  await put(face, 'alice@red.example', 'one');
  await client.search(transport, alice);
  const [duty] = client.watched();
  assert.deepEqual(duty?.label, alice);
  const window = face.config.reasonableMonitoringWindowMs;
  const inMs = (duty?.dueMs ?? 0) - face.clock.now();
  assert.ok(inMs > window / 4 && inMs <= window / 2, `${inMs} ms`);
  assert.deepEqual(client.dueMonitoring(), []);
  let rounds = 0;
  while (client.watched().length > 0) {
    assert.ok(rounds++ < 20, 'a covered label is let go');
    await pass(face, 2);
    await client.monitor(transport);
  }
  assert.ok(rounds > 1);
  // Nothing is asked for a label that stands in a distinguished entry.
  await client.search(transport, alice);
  assert.deepEqual(client.watched(), []);
});

test('requests that are under way together lose nothing and refuse nothing', async () => {
  const face = await testLog();
  const { client } = device(face);
  const names = Array.from({ length: 12 }, (_, i) => `user-${i}@red.example`);
  for (const name of names) await put(face, name, `key of ${name}`);
  const transport = transportOf(face);
  // The log grows between any two answers, and answers take different times.
  let asked = 0;
  const slow = {
    ...transport,
    async search(request: Uint8Array): Promise<LogAnswer> {
      for (let i = 0; i < (asked++ * 7) % 5; i++) await Promise.resolve();
      const answer = await transport.search(request, {});
      await put(face, `between-${asked}`, 'key');
      return answer;
    },
  };
  const found = await Promise.all([
    ...names.map((name) => client.search(slow, labelOf(name))),
    client.distinguished(transport),
    ...names.map((name) => client.carrySearch(labelOf(name), (request) => slow.search(request))),
  ]);
  assert.equal(found.length, 25);
  for (const name of names) {
    assert.deepEqual(client.known(labelOf(name))?.value, labelOf(`key of ${name}`));
  }
  assert.equal(client.watched().length + client.distinguishedHeads().length > 0, true);
});

test('an answer out of turn is not joined to a state that moved on', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client, store } = device(face);
  await put(face, 'alice@red.example', 'one');
  const request = client.searchRequest(alice);
  const late = await transport.search(request, {});
  await client.search(transport, alice);
  const before = store.copy();
  assert.throws(() => client.acceptSearch(alice, request, late), { reason: 'SEQ_CONFLICT' });
  assert.deepEqual(store.blobs, before);
});

test('a failed call does not stop those that wait behind it', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await put(face, 'alice@red.example', 'one');
  const broken = client.carrySearch(alice, () => Promise.reject(new Error('no route')));
  const next = client.search(transport, alice);
  await assert.rejects(broken, { message: 'no route' });
  assert.equal((await next).version, 0);
});

test('the application refuses a value, and nothing is kept of the answer', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const seen: unknown[] = [];
  const { client, store } = device(face, {
    checkValue({ version, previous }) {
      seen.push([version, previous?.version]);
      if (version === 1) throw new VerificationError('CHAIN', 'manifest', 'a signature');
    },
  });
  await put(face, 'alice@red.example', 'one');
  await client.search(transport, alice);
  const before = store.copy();
  await put(face, 'alice@red.example', 'two', 0);
  await assert.rejects(client.search(transport, alice), { reason: 'CHAIN', checked: 'manifest' });
  assert.deepEqual(store.blobs, before);
  assert.deepEqual(seen, [
    [0, undefined],
    [1, 0],
  ]);
});

test('a crash between verifying and saving loses the answer and nothing else', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client, store, options } = device(face);
  await pass(face, 5);
  await put(face, 'alice@red.example', 'one');
  await client.owner.start(transport, bob);
  const calls = [
    () => client.search(transport, alice),
    () => client.owner.update(transport, bob, [labelOf('bob one')]),
    () => client.owner.monitor(transport, bob),
    () => client.distinguished(transport),
    () => client.monitor(transport, { label: alice }),
    () => client.credentials.refresh(transport, bob),
  ];
  for (const call of calls) {
    await pass(face, 1);
    const before = store.copy();
    store.crashesAtSave = true;
    await assert.rejects(call(), { message: 'the store is gone' });
    assert.deepEqual(store.blobs, before);
    store.crashesAtSave = false;
    // Another process goes on with what is stored.
    const { client: restarted } = device(face, { store: options.store });
    assert.equal(restarted.head()?.size, client.head()?.size);
    await call();
  }
  assert.equal(client.owner.greatest(bob), 0);
});

test('an update that was made before a crash is one’s own afterwards', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await pass(face, 3);
  await client.owner.start(transport, alice);
  const lost = {
    ...transport,
    async update(request: Uint8Array): Promise<LogAnswer> {
      await transport.update(request, {});
      throw new Error('connection lost');
    },
  };
  await assert.rejects(client.owner.update(lost, alice, [labelOf('mine')]));
  assert.equal(client.owner.greatest(alice), undefined);
  const [mine, ...more] = await client.owner.updates(transport, alice);
  assert.deepEqual([mine?.version, mine?.isAnnounced, more.length], [0, true, 0]);
  assert.deepEqual(client.owner.alarms(alice), []);
});

test('an owner is told of versions that she did not make, until she has dealt with them', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await pass(face, 3);
  await client.owner.start(transport, alice);
  const made = await client.owner.update(transport, alice, [labelOf('mine')]);
  assert.deepEqual([made.isMade, made.created[0]?.isAnnounced], [true, true]);
  await pass(face, 2);
  await put(face, 'alice@red.example', 'planted', 0);
  await put(face, 'alice@red.example', 'planted again', 1);
  await pass(face, 9);
  const refused = await client.owner.update(transport, alice, [labelOf('my next')]);
  assert.equal(refused.isMade, false);
  // The first one is in a distinguished entry already, so the round that shows it follows at once.
  const values = refused.created.map((one) => [one.value, one.isAnnounced]);
  assert.deepEqual(values, [
    [labelOf('planted'), false],
    [labelOf('planted again'), false],
  ]);
  await put(face, 'alice@red.example', 'and again', 2);
  const news = await client.owner.monitor(transport, alice);
  assert.deepEqual(
    news.map((one) => [one.version, one.isAnnounced]),
    [[3, false]],
  );
  assert.deepEqual(
    client.owner.alarms(alice).map((one) => one.version),
    [1, 2, 3],
  );
  client.owner.acknowledge(alice, 2);
  assert.deepEqual(
    client.owner.alarms(alice).map((one) => one.value),
    [labelOf('and again')],
  );
  assert.deepEqual(await client.owner.updates(transport, alice), []);
});

test('a new device of an old account starts without alarms', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  await pass(face, 3);
  await put(face, 'alice@red.example', 'one');
  await pass(face, 9);
  await put(face, 'alice@red.example', 'two', 0);
  const { client } = device(face);
  const news = await client.owner.start(transport, alice);
  assert.deepEqual(
    news.map((one) => one.version),
    [1],
  );
  assert.deepEqual(client.owner.alarms(alice), []);
  assert.deepEqual(await client.owner.start(transport, alice), []);
  assert.equal(client.owner.greatest(alice), 1);
});

test('quorum, pending, and a quorum that comes later', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const auditors = [auditorOf('blue.example', 90), auditorOf('green.example', 91)];
  const lines = auditors.map(({ name, vkey }) => `witness ${name} ${vkey}\n`).join('');
  const names = auditors.map(({ name }) => name).join(' ');
  const text = `${lines}group all 2 ${names}\nquorum all\n`;
  const { client } = device(face, { policy: parsePolicy(nativeSuite.sha256, text) });
  const signedBy = (count: number) => ({
    ...transport,
    async search(request: Uint8Array): Promise<LogAnswer> {
      const answer = await transport.search(request, {});
      const signers = auditors.slice(0, count);
      const checkpoint = signers.reduce((note, one) => one.cosigned(note), answer.checkpoint);
      return { ...answer, checkpoint };
    },
  });
  await put(face, 'alice@red.example', 'one');
  const alone = await client.search(signedBy(1), alice);
  assert.deepEqual([alone.witnessed, alone.byWitnesses], ['pending', ['blue.example/auditor']]);
  const sinceMs = face.clock.now();
  assert.equal(client.head()?.unwitnessedSinceMs, sinceMs);
  face.clock.advance(1000);
  await pass(face, 1, 1000);
  await client.search(signedBy(0), alice);
  // The oldest head without quorum counts, and one with it covers all before it.
  assert.equal(client.head()?.unwitnessedSinceMs, sinceMs);
  const both = await client.search(signedBy(2), alice);
  assert.equal(both.witnessed, 'quorum');
  assert.equal(client.head()?.unwitnessedSinceMs, undefined);
  // A head that had the quorum once keeps it.
  assert.equal((await client.search(signedBy(0), alice)).witnessed, 'quorum');
  assert.equal(client.head()?.unwitnessedSinceMs, undefined);
});

test('damaged state is told as damage, never as a lie and never as a crash', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client, store } = device(face);
  await pass(face, 5);
  await client.owner.start(transport, bob);
  await client.owner.update(transport, bob, [labelOf('bob one')]);
  await put(face, 'alice@red.example', 'one');
  await client.search(transport, alice);
  await client.credentials.refresh(transport, bob);
  const reads = (): void => {
    client.head();
    client.known(alice);
    client.distinguishedHeads();
    client.watched();
    client.owner.labels();
    client.owner.greatest(bob);
    client.credentials.own(bob);
    client.evidence();
  };
  reads();
  assert.ok(store.blobs.size >= 7, [...store.blobs.keys()].join());
  const damaged = { name: 'DataLossError', reason: 'STORE_CHANGED' };
  let tried = 0;
  for (const [key, blob] of store.copy()) {
    if (key === 'label/' + Buffer.from(bob).toString('hex')) continue;
    const mutants = [
      blob.subarray(0, 0),
      blob.subarray(0, -1),
      Uint8Array.from([...blob, 0]),
      ...Array.from({ length: 12 }, (_, i) => {
        const mutant = blob.slice();
        const at = Math.floor((i * blob.length) / 12);
        mutant[at] = (mutant[at] ?? 0) ^ (1 << (i % 8));
        return mutant;
      }),
    ];
    for (const mutant of mutants) {
      store.blobs.set(key, mutant);
      assert.throws(reads, damaged, key);
      tried++;
    }
    store.blobs.set(key, blob);
  }
  // A blob under another key is damage too.
  const [own, hers] = [bob, alice].map((label) => `label/${Buffer.from(label).toString('hex')}`);
  store.blobs.set(hers ?? '', store.blobs.get(own ?? '') ?? assert.fail());
  assert.throws(() => client.known(alice), damaged);
  assert.ok(tried > 100);
});
