/**
 * Mailboxes at a node: who gets one, who writes to it and who reads it. Real nodes on a memory network; the
 * guests are devices of the peer's users, below the level of a client. Bounds and times are the store's own
 * tests.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  call,
  deliveryTokenHash,
  guestProofMs,
  messageTag,
  methods,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
  verifyDeliveryProof,
} from '@quicprochat/proto';
import { memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';
import {
  credentialFor,
  lineTo,
  mailboxRequest,
  quickLogs,
  type Line,
  type MailboxProof,
} from '../cluster/mailbox-guests.ts';

const token = systemRandom.bytes(16);
const empty = new Uint8Array(0);

describe('a mailbox', () => {
  let red: LocalNode;
  let blue: LocalNode;
  let bob: TestDevice;
  let credential: Uint8Array;

  before(async () => {
    const network = memoryNetwork(testRuntime);
    red = await LocalNode.create(network, 'red.example', `[mailboxes]\nplaces = 1\n${quickLogs}`);
    blue = await LocalNode.create(network, 'blue.example', quickLogs);
    await red.start([blue]);
    await blue.start([red]);
    bob = await TestDevice.register(blue, 'bob@blue.example');
    credential = await credentialFor(red, bob);
  });
  after(async () => {
    await bob[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  const dial = (node = red): Promise<Line> => lineTo(node);

  /** What a device asks for its mailbox with; `changes` are what it does wrong. */
  function asked(
    guest: Line,
    changes: Partial<MailboxProof> & { readonly nodeSpki?: Uint8Array } = {},
  ) {
    const { nodeSpki = red.identity.spkiSha256, ...wrong } = changes;
    const proof = { key: bob.identityKey, credential, ...wrong };
    const tokenHashes = [deliveryTokenHash(token)];
    return { ...mailboxRequest(nodeSpki, guest, proof), tokenHashes };
  }
  const giveBack = (guest: Line, changes: Parameters<typeof asked>[1] = {}) =>
    call(guest.connection, methods.requestMailbox, { ...asked(guest, changes), ends: true });
  const ask = (guest: Line, changes: Parameters<typeof asked>[1] = {}) =>
    call(guest.connection, methods.requestMailbox, asked(guest, changes));

  /** Without a login. */
  function send(connection: Connection, payload: Uint8Array, by = token) {
    const mid = systemRandom.bytes(16);
    const { rid } = bob;
    const request = { rid, domain: 'red.example', mid, payload, token: by };
    return { mid, sent: call(connection, methods.enqueue, request) };
  }

  test('is granted to a device that proves its key and stands in the log of its home', async () => {
    const guest = await dial();
    const { lifetimeMs, ...bounds } = await ask(guest);
    assert.equal(lifetimeMs, 7n * 24n * 3_600_000n);
    assert.deepEqual(
      [bounds.rows, bounds.strangerRows, bounds.bytes],
      [1_000, 100, BigInt(16 * 1024 ** 2)],
    );
    // Asked for again over the same connection, too.
    await ask(guest);
    const hello = { versionMin: 1, versionMax: 1 };
    const { callerClass } = await call(guest.connection, methods.hello, hello);
    assert.equal(callerClass, 'guest');
  });

  test('is refused to everybody else, with all that others may know of the device', async () => {
    const guest = await dial();
    const eve = signingKeyFromSeed(systemRandom.bytes(32));
    const day = guestProofMs + 60_000;
    const wrong = [
      // The credential is in every contact's hands; the key is not.
      { key: eve, device: bob.rid },
      { nodeSpki: blue.identity.spkiSha256 },
      { issuedMs: systemClock.now() - day },
      { issuedMs: systemClock.now() + day },
    ];
    for (const changes of wrong) await refused(ask(guest, changes), 'BAD_CREDENTIAL');
    // A proof that was seen says nothing of another connection.
    const other = await dial();
    await refused(call(other.connection, methods.requestMailbox, asked(guest)), 'BAD_CREDENTIAL');
    await refused(ask(guest, { key: eve }), 'BLOCKED');
    const damaged = Uint8Array.from(credential, (byte, i) => (i === 200 ? byte ^ 1 : byte));
    await refused(ask(guest, { credential: damaged }), 'BLOCKED');
    await refused(ask(guest, { credential: empty }), 'BAD_FIELD');
    await refused(ask(guest, { credential: systemRandom.bytes(40_000) }), 'BAD_FIELD');
    const elsewhere = await dial(blue);
    const { spkiSha256: nodeSpki } = blue.identity;
    await refused(ask(elsewhere, { nodeSpki }), 'FEATURE_OFF');
    await using kim = await TestDevice.register(red, 'kim@red.example');
    await refused(call(kim.connection, methods.requestMailbox, asked(guest)), 'CALLER_CLASS');
    const request = { log: {}, storeId: new Uint8Array(8) };
    await refused(call(guest.connection, methods.fetch, request), 'NOT_LOGGED_IN');
    await refused(call(guest.connection, methods.ack, request), 'NOT_LOGGED_IN');
  });

  test('thousands of mailboxes are not for one stranger: places are few and credentials are people', async () => {
    await using dora = await TestDevice.register(blue, 'dora@blue.example');
    const guest = await dial();
    const doras = await credentialFor(red, dora);
    const error = await refused(ask(guest, { key: dora.identityKey, credential: doras }), 'QUOTA');
    assert((error.retryAfterMs ?? 0) > 0);
    // Who was refused is nobody here.
    await refused(call(guest.connection, methods.fetch, { log: {} }), 'NOT_LOGGED_IN');
  });

  test('takes what a token opens, signs for it, and is read by its device alone', async () => {
    const guest = await dial();
    await ask(guest);
    const sender = await dial();
    const first = send(sender.connection, systemRandom.bytes(40));
    const stored = await first.sent;
    const target = { rid: bob.rid, domain: 'red.example' };
    const { tag, receivedMs, proof } = stored;
    const statement = { mid: first.mid, tag, target, receivedMs: Number(receivedMs) };
    const keys = [red.secrets?.signing.publicKey ?? empty];
    assert(verifyDeliveryProof(statement, proof, keys));
    await refused(send(sender.connection, empty.slice(), token).sent, 'BAD_FIELD');
    await refused(
      send(sender.connection, systemRandom.bytes(9), systemRandom.bytes(16)).sent,
      'BLOCKED',
    );
    // Devices of this node write to it as to anybody.
    await using kim = await TestDevice.register(red, 'lea@red.example');
    const second = send(kim.connection, systemRandom.bytes(40), empty);
    await second.sent;

    const { connection } = guest;
    const peeked = await call(connection, methods.peek, { log: {} });
    assert.deepEqual(
      peeked.rows.map(({ mid }) => mid),
      [first.mid, second.mid],
    );
    const { rows, storeId, head } = await call(connection, methods.fetch, { log: {}, maxRows: 1 });
    assert.deepEqual([rows.length, head], [1, 2n]);
    const row = rows[0];
    assert(row !== undefined);
    assert.deepEqual(messageTag(row.mid, row.payload), tag);
    const waited = await call(connection, methods.fetchWait, {
      cursors: [{ log: {}, after: 1n, storeId }],
    });
    assert.deepEqual(
      waited.logs[0]?.fetched?.rows.map(({ mid }) => mid),
      [second.mid],
    );
    await call(connection, methods.ack, { log: {}, storeId, upTo: 2n });
    const waiting = call(connection, methods.fetchWait, {
      cursors: [{ log: {}, after: 2n, storeId }],
      waitMs: 30_000,
    });
    const third = send(sender.connection, systemRandom.bytes(40));
    await third.sent;
    assert.deepEqual(
      (await waiting).logs[0]?.fetched?.rows.map(({ seq }) => seq),
      [3n],
    );

    const cid = systemRandom.bytes(32);
    const cursor = { log: {}, after: 0n, storeId: systemRandom.bytes(8) };
    const bad = [
      [() => call(connection, methods.fetch, { log: { cid } }), 'UNKNOWN_CHANNEL'],
      [() => call(connection, methods.fetch, { log: {}, after: 9n }), 'BAD_CURSOR'],
      [() => call(connection, methods.peek, { log: { cid } }), 'UNKNOWN_CHANNEL'],
      [() => call(connection, methods.ack, { log: {}, storeId, upTo: 9n }), 'BAD_CURSOR'],
      [() => call(connection, methods.ack, { ...cursor, upTo: 1n }), 'STORE_CHANGED'],
      [() => call(connection, methods.fetchWait, { cursors: [cursor] }), 'STORE_CHANGED'],
      [() => call(connection, methods.fetchWait, { cursors: [cursor, cursor] }), 'UNKNOWN_CHANNEL'],
      [
        () => call(connection, methods.fetchWait, { cursors: [{ log: { cid } }] }),
        'UNKNOWN_CHANNEL',
      ],
      [() => call(connection, methods.subscribe, { cursors: [cursor] }), 'CALLER_CLASS'],
      [() => call(connection, methods.setDeliveryTokens, { hashes: [] }), 'CALLER_CLASS'],
      [() => send(connection, systemRandom.bytes(9)).sent, 'CALLER_CLASS'],
    ] as const;
    for (const [refusal, reason] of bad) await refused(refusal(), reason);
  });

  test('is given back by its device alone, whatever its credential is worth', async () => {
    const guest = await dial();
    await ask(guest);
    const eve = signingKeyFromSeed(systemRandom.bytes(32));
    await refused(giveBack(await dial(), { key: eve, device: bob.rid }), 'BAD_CREDENTIAL');
    const { connection } = guest;
    assert.ok(await call(connection, methods.peek, { log: {} }));
    const stale = { credential: systemRandom.bytes(40) };
    assert.equal((await giveBack(guest, stale)).lifetimeMs, 0n);
    const cursor = { log: {}, storeId: new Uint8Array(8) };
    const gone = [
      call(connection, methods.peek, { log: {} }),
      call(connection, methods.fetch, { log: {} }),
      call(connection, methods.fetchWait, { cursors: [cursor] }),
      call(connection, methods.ack, cursor),
    ];
    for (const one of gone) await refused(one, 'UNKNOWN_DEVICE');
    await refused(send((await dial()).connection, systemRandom.bytes(9)).sent, 'BLOCKED');
    // Again, and by a device that never had one: nothing happens, and nothing is told.
    await giveBack(await dial(), { key: eve });
    await giveBack(guest);
    await ask(guest);
    assert.equal((await call(connection, methods.fetch, { log: {} })).head, 0n);
  });

  test('is refused where the disk is full, but not to who has one', async () => {
    await giveBack(await dial());
    await red.reopen({ disk: { redShare: 0, fullShare: 0, lastShare: 1, freeBytes: Infinity } });
    await red.start([blue]);
    await refused(ask(await dial()), 'STORE_FULL');
    await red.reopen();
    await red.start([blue]);
    await ask(await dial());
    await red.reopen({ disk: { redShare: 0, fullShare: 0, lastShare: 1, freeBytes: Infinity } });
    await red.start([blue]);
    await ask(await dial());
  });
});
