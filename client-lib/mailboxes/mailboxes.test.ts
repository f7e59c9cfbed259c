/**
 * Mailboxes at a node that does what it likes: rows are taken in once and only where they prove themselves,
 * whatever order or number they come under, and a node that keeps no mailbox is given up. The node is told
 * what to answer; device, store and receiver are real.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import {
  errorToWire,
  FailedPreconditionError,
  methodById,
  methods,
  NotFoundError,
  PermissionDeniedError,
  RowKind,
  signingKeyFromSeed,
  signNodeRecord,
  TransportError,
  UnavailableError,
  verifyGuestProof,
  type Clock,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  NodeRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
  type RequestMailboxRequest,
} from '@quicprochat/proto/messages';
import type { Connection, Transport } from '@quicprochat/proto/transport';
import { sealChannel } from '../crypto/envelope.ts';
import { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import { receiverLimits } from '../receiving/receiver.ts';
import { mailboxLog } from '../store/mailbox-rows.ts';
import { assertHas, TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { mailboxLimits, Mailboxes } from './mailboxes.ts';
import { OwnMailboxes } from './own-mailboxes.ts';
import { visitMailbox } from './visit.ts';

const { random, clock } = testRuntime;
const green = 'green.example';
const nodeSpki = random.bytes(32);

type Sent = Pick<TestRow, 'mid' | 'payload'>;
interface TestRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly kind?: number;
}

/** A node that keeps a mailbox, as well as it is told to. */
class LyingNode {
  rows: readonly TestRow[] = [];
  storeId: Uint8Array = random.bytes(8);
  acked: number[] = [];
  visits = 0;
  lifetimeMs = 7n * 24n * 3_600_000n;
  waits = 0;
  /** What a wait gets, at once. */
  waited = (): readonly TestRow[] => [];
  /** Instead of the answer of the method with this id. */
  failing: { readonly id: number; readonly error: Error } | undefined;
  /** What a fetch after `after` gets; unless told, what lies behind it. */
  fetched = (after: number): readonly TestRow[] => this.rows.filter(({ seq }) => seq > after);
  clientSpki: Uint8Array = new Uint8Array(0);
  asked: RequestMailboxRequest | undefined;
  /** How often it was given its mailbox back. */
  ends = 0;

  readonly transport: Transport = {
    name: 'lying',
    listen: () => Promise.reject(new Error('it does not listen')),
    dial: async (_endpoint, { identity }) => {
      this.visits += 1;
      this.clientSpki = identity.spkiSha256;
      // Only what a visit uses of it.
      return {
        peer: { spkiSha256: nodeSpki, host: green },
        call: (request: Parameters<Connection['call']>[0]) =>
          Promise.resolve(this.#answer(request)),
        close: () => Promise.resolve(),
      } as unknown as Connection;
    },
  };

  #answer({ methodId, requestId, payload }: Parameters<Connection['call']>[0]) {
    const method = methodById(methodId)?.row;
    assert(method !== undefined);
    const { failing } = this;
    if (failing?.id === methodId) {
      if (failing.error instanceof TransportError) throw failing.error;
      const [status, wire] = errorToWire(failing.error, { ...testRuntime, method: method.name });
      return { status, requestId, payload: wire };
    }
    const answer = create(method.response, this.#fields(methodId, payload));
    return { status: 0, requestId, payload: toBinary(method.response, answer) };
  }

  #fields(methodId: number, payload: Uint8Array): Record<string, unknown> {
    switch (methodId) {
      case methods.requestMailbox.id:
        this.asked = fromBinary(methods.requestMailbox.request, payload);
        if (this.asked.ends) this.ends += 1;
        return { lifetimeMs: this.asked.ends ? 0n : this.lifetimeMs };
      case methods.fetch.id:
        return this.#log(Number(fromBinary(methods.fetch.request, payload).after));
      case methods.fetchWait.id:
        this.waits += 1;
        return { logs: [{ log: {}, fetched: this.#answerOf(this.waited()) }] };
      case methods.ack.id:
        this.acked.push(Number(fromBinary(methods.ack.request, payload).upTo));
        return {};
      default:
        return {};
    }
  }

  #log(after: number): Record<string, unknown> {
    return this.#answerOf(this.fetched(after));
  }

  #answerOf(from: readonly TestRow[]): Record<string, unknown> {
    const rows = from.map((row) => ({
      ...{ ...row, seq: BigInt(row.seq), kind: row.kind ?? RowKind.Envelope },
    }));
    const head = BigInt(Math.max(0, ...this.rows.map(({ seq }) => seq)));
    return { storeId: this.storeId, floor: 1n, head, rows };
  }
}

let alice: TestDevice;
let bob: TestDevice;
let id: Uint8Array;
let node: LyingNode;
const open: Mailboxes[] = [];
let renewals = 0;

beforeEach(async () => {
  const directory = new TestDirectory();
  alice = new TestDevice('alice@red.example', directory);
  bob = new TestDevice('bob@blue.example', directory);
  id = await alice.conversations.create('mail', [bob.userId]);
  for (const row of alice.rowsFor(bob)) await bob.receive(row);
  node = new LyingNode();
  renewals = 0;
});
afterEach(async () => {
  for (const mailboxes of open.splice(0)) await mailboxes.stop();
});

/** What alice sends now. */
async function sent(...texts: readonly string[]): Promise<readonly Sent[]> {
  const before = alice.rowsFor(bob).length;
  for (const text of texts) await alice.conversations.send(id, text);
  return alice.rowsFor(bob).slice(before);
}
const numbered = (rows: readonly Sent[], from = 1): readonly TestRow[] =>
  rows.map(({ mid, payload }, index) => ({ mid, payload, seq: from + index }));

function record(): Uint8Array {
  const signing = signingKeyFromSeed(random.bytes(32));
  return toBinary(
    SignedNodeRecordSchema,
    signNodeRecord({
      ...{ domain: green, seq: 1, versionMin: 1, versionMax: 1, capabilities: [] },
      keys: [{ spkiSha256: nodeSpki, signing, fromMs: 0, toMs: 0 }],
      endpoints: [{ host: green, port: 5001 }],
    }),
  );
}
const parts = () => ({
  ...{ store: bob.store, runtime: testRuntime, transport: node.transport },
  identityKey: bob.identityKey,
  receive: bob.receiver.receiveMailbox.bind(bob.receiver),
});
interface VisitOptions {
  readonly isWanted?: () => boolean;
  readonly rowsMax?: number;
}
function visit({ isWanted = () => false, rowsMax }: VisitOptions = {}): Promise<void> {
  const signed = fromBinary(SignedNodeRecordSchema, record());
  return visitMailbox(
    { ...parts(), ...(rowsMax !== undefined && { rowsMax }) },
    {
      ...{ domain: green, node: fromBinary(NodeRecordSchema, signed.record) },
      ...{ credential: random.bytes(9), token: random.bytes(16) },
      ...{ onGranted: () => undefined, isWanted },
    },
    new AbortController().signal,
  );
}
const cursor = (): number | undefined => bob.store.inbox.cursor(mailboxLog(green))?.seq;

test('a visit proves the device to this node alone, takes everything in, and then says so', async () => {
  const rows = await sent('one', 'two');
  node.rows = numbered(rows);
  await visit();
  assertHas(bob, id, ['one', 'two']);
  assert.deepEqual([node.acked.at(-1), cursor()], [2, 2]);
  assert(node.asked !== undefined);
  const { issuedMs, signature, device } = node.asked;
  const binding = { clientSpki: node.clientSpki, nodeSpki, issuedMs: Number(issuedMs) };
  assert.deepEqual(device, bob.rid);
  assert(verifyGuestProof(binding, signature, bob.rid, clock.now()));
  assert(!verifyGuestProof({ ...binding, nodeSpki: bob.rid }, signature, bob.rid, clock.now()));
  const vias = bob.history(id).map(({ via }) => via);
  assert.deepEqual(vias, ['mailbox', 'mailbox']);
  // The own node brings the same bytes: they are known.
  for (const row of rows) await bob.receive(row);
  assertHas(bob, id, ['one', 'two']);
});

test('rows that are doubled, reordered, missing or old do no harm, and make no circle', async () => {
  const [one, two, three] = numbered(await sent('one', 'two', 'three'));
  assert(one !== undefined && two !== undefined && three !== undefined);
  node.rows = [three];
  node.fetched = (after) => (after < 3 ? [three, one, one, three] : []);
  await visit();
  assertHas(bob, id, ['three']);
  // What was left out comes by another way; numbers that were passed are no new rows.
  node.fetched = () => [one, two];
  await assert.rejects(visit(), { failure: 'protocol' });
  assertHas(bob, id, ['three']);
  for (const row of [one, two, three]) await bob.receive(row);
  assertHas(bob, id, ['one', 'two', 'three']);
});

test('what is not for this device, or is no message, leaves nothing but a cursor', async () => {
  const [one] = await sent('one');
  assert(one !== undefined);
  const junk = (): Sent => ({ mid: random.bytes(16), payload: random.bytes(200) });
  const broken = one.payload.map((byte, at) => (at === one.payload.length - 1 ? byte ^ 1 : byte));
  const foreign = numbered([junk(), { mid: one.mid, payload: broken }, junk()]);
  // Notices and commits are words of the own node and of hubs.
  const official = [RowKind.Notice, RowKind.GroupControl, RowKind.ChannelUpdate, 99].map(
    (kind, index) => ({ ...junk(), kind, seq: 4 + index }),
  );
  node.rows = [...foreign, ...official];
  await visit();
  assert.equal(cursor(), 7);
  assert.deepEqual(bob.store.inbox.undecryptable(), []);
  assert.equal(bob.store.inbox.parkedSize('all').rows, 0);
  await bob.receive(one);
  assertHas(bob, id, ['one']);
});

test('what would wait for keys for ever has few places, and takes none from devices or the node', async () => {
  const unknown = (): Sent => ({
    mid: random.bytes(16),
    payload: sealChannel({
      content: { kind: 'mlsMessage', bytes: random.bytes(40) },
      ...{ key: random.bytes(32), random },
    }),
  });
  const { peerRows } = receiverLimits;
  const many = Array.from({ length: peerRows + 20 }, unknown);
  const [real] = await sent('still there');
  assert(real !== undefined);
  node.rows = numbered([...many, real]);
  await visit();
  assert.equal(bob.store.inbox.parkedSize('mailbox').rows, peerRows);
  assert.equal(bob.store.inbox.parkedSize('peers').rows, 0);
  const texts = bob.history(id).map(({ text }) => text);
  assert.deepEqual(texts, ['still there']);
});

test('rows without end and changing ids end the visit', async () => {
  let seq = 0;
  node.fetched = () => [{ mid: random.bytes(16), payload: random.bytes(9), seq: (seq += 1) }];
  await assert.rejects(visit({ rowsMax: 20 }), { failure: 'limit' });
  assert.equal(cursor(), 20);
  Object.defineProperty(node, 'storeId', { get: () => random.bytes(8) });
  await assert.rejects(visit(), { failure: 'protocol' });
});

test('a wait that has rows which are not there makes no circle', async () => {
  const [one, two] = numbered(await sent('one', 'two'));
  assert(one !== undefined && two !== undefined);
  node.waited = () => [one];
  // Enough for a circle to show, and not for ever where there is one.
  const isWanted = (): boolean => node.waits < 9;
  await visit({ isWanted });
  assert.equal(node.waits, 1);
  // Rows that are there end no visit.
  node.waits = 0;
  node.waited = () => {
    node.rows = node.waits === 1 ? [one] : [one, two];
    return node.waits < 3 ? node.rows : [];
  };
  await visit({ isWanted });
  assert.equal(node.waits, 3);
  assertHas(bob, id, ['one', 'two']);
});

test('a row under no message id is passed by', async () => {
  const [one] = await sent('one');
  assert(one !== undefined);
  node.rows = numbered([{ ...one, mid: random.bytes(3) }, one]);
  await visit();
  assert.equal(cursor(), 2);
  assertHas(bob, id, ['one']);
});

test('a crash after taking in costs one acknowledgement more; a mailbox made anew is read from its start', async () => {
  const [one, two] = numbered(await sent('one', 'two'));
  assert(one !== undefined && two !== undefined);
  node.rows = [one];
  const gone = new TransportError('closed', 'the device died here');
  node.failing = { id: methods.ack.id, error: gone };
  await assert.rejects(visit(), { failure: 'closed' });
  bob.restart();
  node.failing = undefined;
  await visit();
  assert.deepEqual(node.acked, [1]);
  assertHas(bob, id, ['one']);
  node.storeId = random.bytes(8);
  node.rows = [{ ...two, seq: 1 }];
  await visit();
  assert.deepEqual([cursor(), node.acked.at(-1)], [1, 1]);
  assertHas(bob, id, ['one', 'two']);
});

/** That is at one node already, and its changes of mind. */
async function keeping(): Promise<{ mailboxes: Mailboxes; told: (readonly string[])[] }> {
  const told: (readonly string[])[] = [];
  const { store } = bob;
  store.transaction(() => {
    store.tokens.putOwn(random.bytes(16), clock.now());
    store.tokens.markAtNode(store.tokens.own()?.id ?? 0);
    store.mailboxes.put({ domain: green, record: record(), expiresMs: clock.now() + 3_600_000 });
  });
  const mailboxes: Mailboxes = new Mailboxes({
    ...{ ...parts(), events: new EventBus(), ownDomain: 'blue.example' },
    credential: () => random.bytes(9),
    renewCredential: async () => void (renewals += 1),
    onChange: () => void told.push(mailboxes.domains),
  });
  open.push(mailboxes);
  mailboxes.start();
  return { mailboxes, told };
}
async function until(holds: () => boolean): Promise<void> {
  const endMs = clock.monotonic() + 5_000;
  while (!holds()) {
    assert(clock.monotonic() < endMs, 'it takes too long');
    await clock.sleep(2);
  }
}

test('a node that keeps it no longer is given up at once, one that is away is not', async () => {
  node.failing = {
    id: methods.requestMailbox.id,
    error: new UnavailableError('DRAINING', 'stops'),
  };
  const { mailboxes, told } = await keeping();
  await until(() => node.visits === 1);
  await clock.sleep(5);
  assert.deepEqual([told, mailboxes.domains], [[[green]], [green]]);
  node.failing = { id: 0, error: new NotFoundError('UNKNOWN_DEVICE', '') };
  mailboxes.networkChanged();
  await until(() => node.visits === 2);
  const off = new FailedPreconditionError('FEATURE_OFF', 'no mailboxes any more');
  node.failing = { id: methods.requestMailbox.id, error: off };
  await clock.sleep(20);
  mailboxes.networkChanged();
  await until(() => told.length === 2);
  assert.deepEqual([told[1], bob.store.mailboxes.own(), renewals], [[], [], 0]);
  // Named again by the own node, it is not asked again soon.
  const session = { signal: new AbortController().signal } as Session;
  mailboxes.offered([green, 'blue.example'], session);
  await clock.sleep(20);
  assert.equal(node.visits, 3);
  assert.equal(mailboxes.isSettling, false);
});

test('a credential that says nothing to the node is made anew: it may be older than the node’s word', async () => {
  const blocked = new PermissionDeniedError('BLOCKED', 'of no user whom it can verify');
  node.failing = { id: methods.requestMailbox.id, error: blocked };
  await keeping();
  await until(() => renewals > 0);
  assert.deepEqual([renewals, node.visits], [1, 1]);
});

test('one that is given back is emptied, deleted, named to nobody, and not asked for again', async () => {
  const { mailboxes, told } = await keeping();
  const own = new OwnMailboxes({
    ...{ ...parts(), credential: () => random.bytes(9) },
    onLeaving: (domain) => mailboxes.leave(domain),
  });
  await until(() => told.length === 1);
  assert.deepEqual(
    own.list().map(({ domain }) => domain),
    [green],
  );
  const never = new AbortController().signal;
  await assert.rejects(own.giveBack('grey.example', never), { reason: 'UNKNOWN_DEVICE' });
  // A node that is away has it still, and so has this device.
  const away = new TransportError('unreachable', 'nobody there');
  node.failing = { id: methods.requestMailbox.id, error: away };
  await assert.rejects(own.giveBack(green, never), { reason: 'DISCONNECTED' });
  assert.equal(own.list().length, 1);
  node.failing = undefined;
  node.rows = numbered(await sent('last'));
  await own.giveBack(green, never);
  assert.deepEqual([bob.history(id).map(({ text }) => text), cursor()], [['last'], undefined]);
  assert.deepEqual([node.ends, node.asked?.tokenHashes], [1, []]);
  assert.deepEqual([own.list(), mailboxes.domains, told.at(-1)], [[], [], []]);
  const { visits } = node;
  const session = { signal: new AbortController().signal } as Session;
  mailboxes.offered([green], session);
  mailboxes.networkChanged();
  await clock.sleep(20);
  assert.equal(node.visits, visits);
});

test('a node that shows nothing more, or keeps none, lets a device leave all the same', async () => {
  const own = new OwnMailboxes({
    ...{ ...parts(), credential: () => random.bytes(9) },
    onLeaving: () => Promise.resolve(),
  });
  const keep = (): void =>
    bob.store.transaction(() => {
      const expiresMs = clock.now() + 1_000_000;
      bob.store.mailboxes.put({ domain: green, record: record(), expiresMs });
    });
  keep();
  node.failing = { id: methods.fetch.id, error: new NotFoundError('UNKNOWN_DEVICE', '') };
  await own.giveBack(green, new AbortController().signal);
  assert.deepEqual([own.list(), node.ends], [[], 1]);
  keep();
  const off = new FailedPreconditionError('FEATURE_OFF', 'no mailboxes any more');
  node.failing = { id: methods.requestMailbox.id, error: off };
  await own.giveBack(green, new AbortController().signal);
  assert.deepEqual(own.list(), []);
});

test('nobody keeps one for ever: a node that says so is believed for a month', async () => {
  node.lifetimeMs = BigInt(Number.MAX_SAFE_INTEGER);
  await keeping();
  const expiresMs = () => bob.store.mailboxes.own()[0]?.expiresMs ?? 0;
  await until(() => node.visits === 1 && bob.store.inbox.cursor(mailboxLog(green)) !== undefined);
  assert(expiresMs() <= clock.now() + mailboxLimits.lifetimeMaxMs);
});

test('a new token is told at once: whoever was blocked goes on by none', async () => {
  const { mailboxes } = await keeping();
  await until(() => node.visits === 1 && bob.store.inbox.cursor(mailboxLog(green)) !== undefined);
  await clock.sleep(20);
  const before = node.asked?.tokenHashes;
  const { tokens } = bob.store;
  bob.store.transaction(() => {
    tokens.putOwn(random.bytes(16), clock.now());
    tokens.markAtNode(tokens.own()?.id ?? 0);
  });
  mailboxes.look();
  await until(() => node.visits === 2 && node.asked?.tokenHashes !== before);
  assert.notDeepEqual(node.asked?.tokenHashes, before);
});

test('a timer that fires a moment early delays a node’s next question by no round', async () => {
  const timers: { readonly ms: number; readonly fire: () => void }[] = [];
  let nowMs = 1_000;
  const stepping: Clock = {
    now: () => clock.now(),
    // Each look at it takes a little, so that a rest ends between two of them.
    monotonic: () => (nowMs += 0.2),
    sleep: (ms, signal) => clock.sleep(ms, signal),
    timer: (ms, fire) => {
      timers.push({ ms, fire });
      return { cancel: () => undefined };
    },
  };
  const mailboxes = new Mailboxes({
    ...{ ...parts(), events: new EventBus(), ownDomain: 'blue.example' },
    runtime: { ...testRuntime, clock: stepping },
    credential: () => random.bytes(9),
    renewCredential: async () => undefined,
    onChange: () => undefined,
  });
  open.push(mailboxes);
  let asked = 0;
  const session = {
    signal: new AbortController().signal,
    call: async () => {
      asked += 1;
      throw new UnavailableError('PEER_UNREACHABLE', 'nobody knows it yet');
    },
  } as unknown as Session;
  mailboxes.offered([green], session);
  for (let round = 1; round <= 5; round += 1) {
    await until(() => asked === round && timers.length > 0);
    // Whatever of the round's own time is left, and less by what timers are early.
    for (let last = timers.splice(0).at(-1); last !== undefined; last = timers.splice(0).at(-1)) {
      assert(last.ms <= 1_000 * 2 ** round + 1, `${last.ms} ms until it is asked again`);
      nowMs += Math.max(0, last.ms - 0.3);
      const before = asked;
      last.fire();
      await clock.sleep(5);
      if (asked > before) break;
    }
  }
});
