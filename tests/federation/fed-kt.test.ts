/** Method 916 between two real nodes: look-ups for a user of the other one, and what strangers to it get. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  configuration,
  decode,
  distinguishedRequest,
  encode,
  encodeEvidence,
  logVerifier,
  nativeSuite,
  openCheckpoint,
  ownerInitRequest,
  parseVkey,
  searchRequest,
  verifySearch,
} from '@quicprochat/kt-log';
import { call, methods, systemClock } from '@quicprochat/proto';
import {
  fromBinary,
  NodeRecordSchema,
  type FedKtRequestSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const rates = '[rates.auth]\nper_second = 1000\nburst = 1000\n';
const config = `[kt]\nbatch_ms = 5\nvrf_threads = 0\n${rates}`;
const label = new TextEncoder().encode('bob@blue.example');
const search = encode(searchRequest, { last: undefined, label, version: undefined });

suite('method 916', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let blue: LocalNode;
  let alice: TestDevice;
  let bob: TestDevice;
  /** Speaks to blue as red's node. */
  let peer: Connection;

  before(async () => {
    red = await LocalNode.create(network, 'red.example', config);
    blue = await LocalNode.create(
      network,
      'blue.example',
      `${config}[rates.lookup]\nper_second = 1\nburst = 4\n`,
    );
    await blue.start([red]);
    await red.start([blue]);
    alice = await TestDevice.register(red, 'alice@red.example');
    bob = await TestDevice.register(blue, 'bob@blue.example');
    peer = await blue.dial(red.identity, 'red.example');
    await call(peer, methods.fedHello, { domain: 'red.example', versionMin: 1, versionMax: 1 });
  });
  after(async () => {
    for (const one of [alice, bob, red, blue]) await one[Symbol.asyncDispose]();
  });

  type Op = NonNullable<MessageInitShape<typeof FedKtRequestSchema>['op']>;
  const ask = (op: Op, requester = new Uint8Array(16)) =>
    call(peer, methods.fedKt, { op, requester });

  /** Keys of blue's log, as blue's record names them. */
  async function keysOfBlue() {
    const { record } = await call(bob.connection, methods.getNodeRecord, { domain: '' });
    const named = fromBinary(NodeRecordSchema, record?.record ?? new Uint8Array()).kt.at(-1);
    assert.ok(named);
    const key = parseVkey(nativeSuite.sha256, named.vkey);
    const identity = { origin: 'blue.example/kt', key };
    return { identity, config: decode(configuration, named.config) };
  }

  test("a user's look-up in the peer's log comes back as the peer's own bytes", async () => {
    const { answer } = await call(alice.connection, methods.ktSearch, {
      domain: 'blue.example',
      request: search,
    });
    assert.ok(answer.case === 'found');
    const keys = await keysOfBlue();
    const verifier = logVerifier(keys.config, nativeSuite);
    const { response, checkpoint } = answer.value;
    const { found } = verifySearch(verifier, undefined, { label }, response, systemClock.now());
    assert.equal(found.version, 0);
    openCheckpoint(nativeSuite, checkpoint, keys.identity);

    const treeHead = await call(alice.connection, methods.ktTreeHead, { domain: 'blue.example' });
    openCheckpoint(nativeSuite, treeHead.checkpoint, keys.identity);
    const request = encode(distinguishedRequest, { last: undefined, stop: undefined });
    const walk = await call(alice.connection, methods.ktDistinguished, {
      domain: 'blue.example',
      request,
    });
    assert.ok(walk.answer);
  });

  test("nobody owns a label in another node's log, and unknown domains are no peers", async () => {
    const domain = 'blue.example';
    const ownerInit = encode(ownerInitRequest, { last: undefined, label, start: 0 });
    const owner = { case: 'ownerInit' as const, value: ownerInit };
    const { connection } = alice;
    await refused(call(connection, methods.ktMonitor, { domain, request: owner }), 'BAD_FIELD');
    const own = { case: 'own' as const, value: {} };
    await refused(call(connection, methods.ktCredential, { domain, request: own }), 'BAD_FIELD');
    const green = { domain: 'green.example', request: search };
    await refused(call(connection, methods.ktSearch, green), 'PEER_DENIED');
    // The same, said by a peer that does not keep to its part.
    const monitor = { case: 'monitor' as const, value: { domain: '', request: owner } };
    await refused(ask(monitor, new Uint8Array(16).fill(1)), 'CALLER_CLASS');
    const credential = { case: 'credential' as const, value: { domain: '', request: own } };
    await refused(ask(credential, new Uint8Array(16).fill(1)), 'CALLER_CLASS');
  });

  test('what is not in its log, or not settled yet, is refused as to its own users', async () => {
    const asker = new Uint8Array(16).fill(4);
    const unknown = new TextEncoder().encode('nobody@blue.example');
    const request = encode(searchRequest, { last: undefined, label: unknown, version: undefined });
    await refused(ask({ case: 'search', value: { domain: '', request } }, asker), 'UNKNOWN_USER');
    // Where a credential is to be settled in a tree that the log has not grown to.
    const settle = { label, last: 99n, entry: new Uint8Array(12) };
    const value = { domain: '', request: { case: 'settle' as const, value: settle } };
    await refused(ask({ case: 'credential', value }, asker), 'BAD_CURSOR');
  });

  test('one hop, a requester, and a rate for each of them', async () => {
    const op = (domain: string): Op => ({ case: 'search', value: { domain, request: search } });
    await refused(ask(op('green.example')), 'PEER_DENIED');
    await refused(ask(op('red.example')), 'PEER_DENIED');
    await refused(ask(op(''), new Uint8Array()), 'BAD_FIELD');
    const greedy = new Uint8Array(16).fill(2);
    for (let n = 0; n < 4; n++) await ask(op('blue.example'), greedy);
    const error = await refused(ask(op(''), greedy), 'RATE_LIMITED');
    assert.ok((error.retryAfterMs ?? 0) > 0);
    await ask(op(''), new Uint8Array(16).fill(3));
    const stranger = bob.connection;
    await refused(call(stranger, methods.fedKt, { op: op('') }), 'CALLER_CLASS');
  });

  test('heads are those of known logs, and checkpoints have to be signed by the peer', async () => {
    const heads = async (origin: string) => {
      const { op } = await ask({ case: 'heads', value: { origin, fromSize: 0n, max: 2 } });
      assert.ok(op.case === 'heads');
      return op.value;
    };
    const own = await heads('');
    assert.deepEqual(
      own.heads.map(({ size }) => size),
      [1n, 2n],
    );
    assert.deepEqual(await heads('blue.example/kt'), own);
    const value = { origin: 'green.example/kt', fromSize: 0n, max: 2 };
    await refused(ask({ case: 'heads', value }), 'BAD_FIELD');
    // Blue's own checkpoint, pushed as if it were red's.
    const { checkpoint } = own;
    await refused(ask({ case: 'checkpoint', value: { checkpoint } }), 'BAD_SIGNATURE');
    const noise = new Uint8Array(99);
    await refused(ask({ case: 'checkpoint', value: { checkpoint: noise } }), 'BAD_SIGNATURE');
  });

  test('junk evidence is refused, kept nowhere, and soon not even looked at', async () => {
    const { identity, config: pinned } = await keysOfBlue();
    const { checkpoint } = await call(bob.connection, methods.ktTreeHead, { size: 1n });
    const head = { size: 1, root: new Uint8Array(32), signature: new Uint8Array(64) };
    const body = { kind: 'note-vs-head', note: checkpoint, head } as const;
    const keys = { key: identity.key, config: pinned };
    const aboutBlue = encodeEvidence({ origin: identity.origin, ...keys, body });
    const push = (evidence: Uint8Array) => ask({ case: 'evidence', value: { evidence } });
    await refused(push(aboutBlue), 'BAD_FIELD');
    await refused(push(new Uint8Array(1000)), 'BAD_FIELD');
    const reasons = new Set<string>();
    for (let n = 0; n < 12; n++) {
      const error = await push(aboutBlue).then(
        () => assert.fail('junk was taken'),
        (thrown: unknown) => thrown,
      );
      assert.ok(error instanceof Error && 'reason' in error);
      reasons.add(String(error.reason));
    }
    assert.ok(reasons.has('RATE_LIMITED'));
    assert.deepEqual(await blue.store?.audits.evidence(), []);
    assert.notEqual(await blue.store?.audits.status(identity.origin), 'forked');
  });
});
