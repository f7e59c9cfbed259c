/**
 * The key-transparency log of a node through its wire: what each method answers, to whom, and what
 * it refuses; how the log starts, stays young and is bounded in its growth.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  applyAuditBundle,
  contactMonitorRequest,
  decode,
  defaultRecency,
  distinguishedRequest,
  emptyAudit,
  encode,
  greatestKnown,
  heartbeat,
  monitorFound,
  nativeSuite,
  openCheckpoint,
  ownerInitRequest,
  ownerMonitorRequest,
  rfc6962Hasher,
  searchRequest,
  verifyContactMonitor,
  verifyCredential,
  verifyDistinguished,
  verifyInclusion6962,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifySearch,
} from '@quicprochat/kt-log';
import { call, hasReason, methods, QpcError, systemRandom } from '@quicprochat/proto';
import { fromBinary, NodeRecordSchema, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import { makeIdentity, memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, testRuntime } from '../cluster/local-node.ts';
import { Person, type PersonDevice } from './account-rig.ts';
import { LogView } from './log-view.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const now = (): number => testRuntime.clock.now();
const rates = ['auth', 'keys', 'lookup', 'audit']
  .map((name) => `[rates.${name}]\nper_second = 1000\nburst = 1000\n`)
  .join('');
const kt = (lines: string): string => `${rates}[kt]\nbatch_ms = 5\nvrf_threads = 0\n${lines}`;

suite('the log of a node', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let alice: Person;
  let device: PersonDevice;
  let bob: Person;
  let peer: PersonDevice;

  before(async () => {
    red = await LocalNode.create(network, 'red.example', rates);
    await red.start();
    [alice, device] = await Person.register('alice@red.example', (key) => red.dial(key));
    [bob, peer] = await Person.register('bob@red.example', (key) => red.dial(key));
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    await bob[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
  });

  const stranger = async () => red.dial(await makeIdentity(systemRandom));

  test('its first entry is the record of the node, which anybody reads', async () => {
    const anybody = await stranger();
    const { record } = await call(anybody, methods.getNodeRecord, { domain: 'red.example' });
    assert.ok(record !== undefined);
    const { seq, cosigners, kt: logs } = fromBinary(NodeRecordSchema, record.record);
    assert.equal(seq, 1n);
    assert.deepEqual(
      cosigners.map((vkey) => vkey.split('+')[0]),
      ['red.example/witness', 'red.example/auditor'],
    );
    assert.equal(logs.length, 1);
    const view = await LogView.of(anybody);
    const { version, value } = await view.search(device.connection, utf8('@red.example'));
    assert.equal(version, 0);
    assert.deepEqual(fromBinary(SignedNodeRecordSchema, value), record);
    await refused(call(anybody, methods.getNodeRecord, { domain: 'blue.example' }), 'PEER_DENIED');
    await anybody.close(0, 'done');
  });

  test('KtSearch: greatest and fixed version, absence proved, other domains elsewhere', async () => {
    const view = await LogView.of(device.connection);
    assert.equal((await view.manifestOf(peer.connection, alice.label)).version, 0);
    const fixed = encode(searchRequest, { last: view.last, label: alice.label, version: 0 });
    const { answer } = await device.call(methods.ktSearch, { request: fixed });
    assert.ok(answer.case === 'found');
    verifySearch(
      view.verifier,
      view.state,
      { label: alice.label, version: 0 },
      answer.value.response,
      now(),
    );
    const label = utf8('nobody@red.example');
    const request = view.request(label);
    await refused(device.call(methods.ktSearch, { request }), 'UNKNOWN_USER');
    const absent = await device.call(methods.ktSearch, { request, wantAbsence: true });
    assert.ok(absent.answer.case === 'absent');
    view.absent(label, absent.answer.value);
    const later = encode(searchRequest, { label: alice.label, version: 7 });
    await refused(
      device.call(methods.ktSearch, { request: later, wantAbsence: true }),
      'UNKNOWN_USER',
    );
    const bad: [object, string][] = [
      [{ request: view.request(utf8('bob@blue.example')) }, 'BAD_FIELD'],
      [{ request: view.request(utf8('red.example')) }, 'BAD_FIELD'],
      [{ request: request.subarray(1) }, 'BAD_FIELD'],
      [{ request: new Uint8Array([...request, 0]) }, 'BAD_FIELD'],
      [{ request: encode(searchRequest, { last: 1_000_000, label }) }, 'BAD_FIELD'],
      [
        { request: encode(searchRequest, { last: 1_000_000, label }), wantAbsence: true },
        'BAD_FIELD',
      ],
      [{ request: new Uint8Array(0) }, 'BAD_FIELD'],
      [{ request: bytes(256 * 1024 + 1) }, 'BAD_FRAME'],
      [{ domain: 'blue.example', request }, 'PEER_DENIED'],
    ];
    for (const [fields, reason] of bad) {
      const refusal = device.call(methods.ktSearch, fields).then(
        () => assert.fail(`expected ${reason}`),
        (error: unknown) => error,
      );
      const error = await refusal;
      assert.ok(error instanceof QpcError);
      // What is beyond the frame's bound ends the stream before anybody reads it.
      if (reason !== 'BAD_FRAME') assert.equal(error.reason, reason, error.message);
    }
  });

  test('500 proves its answer with the same bytes', async () => {
    const view = await LogView.of(device.connection);
    const { userId, label } = alice;
    const ktSearch = view.request(label);
    const { kt: answer } = await peer.call(methods.resolveUser, { userId, ktSearch });
    assert.equal(view.found(label, answer).version, 0);
    const other = view.request(bob.label);
    await refused(peer.call(methods.resolveUser, { userId, ktSearch: other }), 'BAD_FIELD');
    const unknown = { userId: 'nobody@red.example', ktSearch };
    await refused(peer.call(methods.resolveUser, unknown), 'UNKNOWN_USER');
  });

  test('KtMonitor: contacts for anybody of the node, owners for themselves', async () => {
    const view = await LogView.of(device.connection);
    const { last, label } = { last: undefined, label: alice.label };
    const { answer } = await peer.call(methods.ktSearch, { request: view.request(label) });
    assert.ok(answer.case === 'found');
    const found = verifySearch(view.verifier, undefined, { label }, answer.value.response, now());
    const contact = monitorFound(undefined, found.found);
    const entries = contact.map;
    const size = found.state.heads.treeHead.treeSize;
    const asked = encode(contactMonitorRequest, { last: size, label, entries });
    const monitored = await peer.call(methods.ktMonitor, {
      request: { case: 'contact', value: asked },
    });
    assert.ok(monitored.answer !== undefined);
    verifyContactMonitor(view.verifier, found.state, contact, monitored.answer.response, now());

    const init = encode(ownerInitRequest, { last, label, start: 0 });
    const own = { request: { case: 'ownerInit' as const, value: init } };
    const { answer: started } = await device.call(methods.ktMonitor, own);
    assert.ok(started !== undefined);
    const start = Number((await call(peer.connection, methods.ktTreeHead, {})).head?.size) - 1;
    const early = encode(ownerInitRequest, { last, label, start });
    // An owner begins where others meet: at an entry that is distinguished.
    await refused(
      device.call(methods.ktMonitor, { request: { case: 'ownerInit', value: early } }),
      'BAD_CURSOR',
    );
    const request = { label, start: 0 };
    const { state, owner } = verifyOwnerInit(
      view.verifier,
      undefined,
      request,
      started.response,
      now(),
    );
    await refused(peer.call(methods.ktMonitor, own), 'BAD_FIELD');
    const monitor = encode(ownerMonitorRequest, {
      last: state.heads.treeHead.treeSize,
      label,
      entries: owner.map,
      start: owner.start,
      greatestVersion: greatestKnown(owner),
    });
    const again = { request: { case: 'ownerMonitor' as const, value: monitor } };
    const { answer: seen } = await device.call(methods.ktMonitor, again);
    assert.ok(seen !== undefined);
    verifyOwnerMonitor(view.verifier, state, owner, seen.response, now());
    await refused(peer.call(methods.ktMonitor, again), 'BAD_FIELD');
    await refused(device.call(methods.ktMonitor, {}), 'BAD_FIELD');
    const broken = { request: { case: 'contact' as const, value: bytes(30) } };
    await refused(device.call(methods.ktMonitor, broken), 'BAD_FIELD');
  });

  test('KtDistinguished and KtCredential: an own credential stands on a known entry', async () => {
    const view = await LogView.of(device.connection);
    const request = encode(distinguishedRequest, {});
    const { answer } = await peer.call(methods.ktDistinguished, { request });
    assert.ok(answer !== undefined);
    const { heads } = verifyDistinguished(
      view.verifier,
      undefined,
      { ...defaultRecency },
      answer.response,
      now(),
    );
    const made = await device.call(methods.ktCredential, { request: { case: 'own', value: {} } });
    const { version, label, pending } = verifyCredential(view.verifier, heads, made.credential);
    assert.deepEqual([version, Buffer.from(label)], [0, Buffer.from(alice.label)]);
    const { checkpoint } = openCheckpoint(nativeSuite, made.checkpoint, view.identity);
    const hasher = rfc6962Hasher(nativeSuite.sha256);
    const position = heads[0]?.position ?? -1;
    verifyInclusion6962(
      hasher,
      position,
      checkpoint.size,
      hasher.leaf(made.entry),
      made.inclusion,
      checkpoint.root,
    );
    assert.ok(pending === undefined || pending.version === 0);
    const settle = { label, last: BigInt(checkpoint.size), entry: bytes(12).fill(0) };
    // No later entry is distinguished: the window of this log is a day.
    await refused(
      device.call(methods.ktCredential, { request: { case: 'settle', value: settle } }),
      'BAD_CURSOR',
    );
    const bad: [object, string][] = [
      [{ label: utf8('bob@blue.example') }, 'BAD_FIELD'],
      [{ last: 2n ** 60n }, 'BAD_FIELD'],
      [{ entry: bytes(11) }, 'BAD_FIELD'],
    ];
    for (const [change, reason] of bad) {
      const value = { ...settle, ...change };
      await refused(
        device.call(methods.ktCredential, { request: { case: 'settle', value } }),
        reason,
      );
    }
    await refused(device.call(methods.ktCredential, {}), 'BAD_FIELD');
    await refused(device.call(methods.ktDistinguished, { request: bytes(3) }), 'BAD_FIELD');
  });

  test('KtTreeHead: the newest and older heads, for anybody', async () => {
    const anybody = await stranger();
    const view = await LogView.of(anybody);
    const newest = await call(anybody, methods.ktTreeHead, {});
    const size = Number(newest.head?.size);
    assert.ok(size >= 3);
    for (const wanted of [1, size]) {
      const { head, checkpoint } = await call(anybody, methods.ktTreeHead, {
        size: BigInt(wanted),
      });
      const opened = openCheckpoint(nativeSuite, checkpoint, view.identity);
      assert.equal(opened.checkpoint.size, wanted);
      assert.equal(Number(head?.size), wanted);
      assert.equal(head?.signature.length, 64);
    }
    const above = { size: BigInt(size + 1) };
    await refused(call(anybody, methods.ktTreeHead, above), 'BAD_FIELD');
    await refused(call(anybody, methods.ktTreeHead, { domain: 'blue.example' }), 'NOT_LOGGED_IN');
    await refused(device.call(methods.ktTreeHead, { domain: 'blue.example' }), 'PEER_DENIED');
    await anybody.close(0, 'done');
  });

  test('AuditKeyTransparency: anybody replays every entry', async () => {
    const anybody = await stranger();
    const view = await LogView.of(anybody);
    const { config } = view.verifier;
    const identity = { config, identity: view.identity };
    let log = emptyAudit;
    const all = await call(anybody, methods.auditKeyTransparency, {});
    log = applyAuditBundle(nativeSuite, identity, log, all.bundle, now()).log;
    assert.equal(BigInt(log.log.size), all.size);
    // The same in steps of one.
    let stepwise = emptyAudit;
    for (let from = 0n; from < all.size; from += 1n) {
      const { bundle } = await call(anybody, methods.auditKeyTransparency, { from, max: 1 });
      stepwise = applyAuditBundle(nativeSuite, identity, stepwise, bundle, now()).log;
    }
    assert.deepEqual(stepwise, log);
    const end = await call(anybody, methods.auditKeyTransparency, { from: all.size, max: 256 });
    assert.deepEqual([end.bundle.length, end.size], [0, all.size]);
    const tooMany = { from: 0n, max: 257 };
    await refused(call(anybody, methods.auditKeyTransparency, tooMany), 'BAD_FIELD');
    await anybody.close(0, 'done');
  });
});

/** Waits for what the node does by itself. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadlineMs = testRuntime.clock.monotonic() + 10_000;
  while (!(await isSo())) {
    assert.ok(testRuntime.clock.monotonic() < deadlineMs, 'within 10 s');
    await testRuntime.clock.sleep(10);
  }
}

suite('the life of a log', () => {
  const network = memoryNetwork(testRuntime);

  test('a restart changes nothing; a new address is a new version of the record', async () => {
    await using red = await LocalNode.create(network, 'red.example', kt(''));
    await red.start();
    const keyLog = red.store?.keyLog;
    assert.ok(keyLog !== undefined);
    const label = utf8('@red.example');
    await red.restart();
    assert.deepEqual(await keyLog.positions(label), [0]);
    await red.restart({ advertise: { host: 'red.example', port: 4000 } });
    assert.equal((await keyLog.positions(label)).length, 2);
    const connection = await red.dial(await makeIdentity(systemRandom));
    const view = await LogView.of(connection);
    assert.equal(view.record.seq, 2n);
    assert.equal(view.record.endpoints[0]?.port, 4000);
    await connection.close(0, 'done');
  });

  test('a log is never served under another Configuration: the key to set back is named', async () => {
    await using red = await LocalNode.create(network, 'blue.example', kt(''));
    await red.start();
    const changes = {
      maxAheadMs: 'max_ahead_ms',
      maxBehindMs: 'max_behind_ms',
      reasonableMonitoringWindowMs: 'reasonable_monitoring_window_ms',
    } as const;
    for (const [field, key] of Object.entries(changes)) {
      const other = { kt: { ...red.config.kt, [field]: 7_000 } };
      await assert.rejects(red.restart(other), (error: Error) => error.message.includes(key));
    }
    const other = await LocalNode.create(network, 'blue.example', kt(''));
    const keys = other.secrets?.keyLog;
    await other[Symbol.asyncDispose]();
    assert.ok(keys !== undefined && red.secrets !== undefined);
    red.secrets = { ...red.secrets, keyLog: keys };
    await assert.rejects(red.restart(), /other keys/);
  });

  test('a log without changes stays young by heartbeats', async () => {
    await using red = await LocalNode.create(network, 'red.example', kt('max_behind_ms = 600\n'));
    await red.start();
    const store = red.store?.keyLog;
    assert.ok(store !== undefined);
    const label = utf8('@red.example/heads');
    const [person, device] = await Person.register('ann@red.example', (key) => red.dial(key));
    const view = await LogView.of(device.connection);
    await until(async () => {
      // A client refuses an answer whose newest entry is older than max_behind.
      await view.search(device.connection, person.label);
      return (await store.positions(label)).length >= 3;
    });
    const { value } = await view.search(device.connection, label);
    assert.deepEqual(decode(heartbeat, value), { logs: [] });
    await person[Symbol.asyncDispose]();
  });

  test('the values of a closed account are erased once a later entry is distinguished', async () => {
    const window = 'reasonable_monitoring_window_ms = 50\nmax_behind_ms = 600\n';
    await using red = await LocalNode.create(network, 'red.example', kt(window));
    await red.start();
    const [person, device] = await Person.register('ann@red.example', (key) => red.dial(key));
    const [reader, watching] = await Person.register('rea@red.example', (key) => red.dial(key));
    const { label } = person;
    await device.call(methods.deleteAccount, { manifest: person.closed() });
    const store = red.store;
    assert.ok(store !== undefined);
    await until(async () => (await store.closedLabels()).length === 0);
    assert.deepEqual(await store.keyLog.positions(label), []);
    const view = await LogView.of(watching.connection);
    await refused(view.search(watching.connection, label), 'UNKNOWN_USER');
    // The log cannot prove what is not so, and nobody gets the name again.
    const request = view.request(label);
    await refused(watching.call(methods.ktSearch, { request, wantAbsence: true }), 'UNKNOWN_USER');
    const heir = new Person(person.userId, (key) => red.dial(key));
    await refused((await heir.newDevice()).register(), 'NAME_TAKEN');
    for (const one of [person, reader, heir]) await one[Symbol.asyncDispose]();
  });

  test('a flood of registrations grows the log at its own pace, and others read on', async () => {
    const pace = '[kt.registrations]\nper_second = 5\nburst = 10\n';
    await using red = await LocalNode.create(network, 'red.example', kt(pace));
    await red.start();
    const [reader, device] = await Person.register('rea@red.example', (key) => red.dial(key));
    const view = await LogView.of(device.connection);
    const startMs = testRuntime.clock.monotonic();
    const crowd = Array.from(
      { length: 60 },
      (_, i) => new Person(`u${i}@red.example`, (key) => red.dial(key)),
    );
    const flood = Promise.all(
      crowd.map(async (person) => {
        const one = await person.newDevice();
        try {
          await one.register();
          return 'registered';
        } catch (error) {
          assert.ok(hasReason(error, 'RATE_LIMITED'), String(error));
          assert.ok((error.retryAfterMs ?? 0) > 0);
          return 'refused';
        }
      }),
    );
    let reads = 0;
    let isOver = false;
    const over = (): void => void (isOver = true);
    flood.then(over, over);
    while (!isOver) {
      await view.search(device.connection, reader.label);
      reads += 1;
      // A look-up in this thread waits for nothing else: everybody else gets a turn here.
      await testRuntime.clock.sleep(1);
    }
    const outcomes = await flood;
    const seconds = (testRuntime.clock.monotonic() - startMs) / 1000;
    const registered = outcomes.filter((one) => one === 'registered').length;
    // The reader took one of the burst.
    assert.ok(registered >= 9 && registered <= 10 + Math.ceil(5 * seconds), `${registered}`);
    assert.ok(reads > 0);
    const { length } = crowd;
    assert.equal(outcomes.length, length);
    const lucky = crowd[outcomes.indexOf('registered')];
    assert.ok(lucky !== undefined);
    await view.search(device.connection, lucky.label);
    for (const person of [...crowd, reader]) await person[Symbol.asyncDispose]();
  });
});
