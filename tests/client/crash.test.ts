/**
 * A client process that is killed again and again: while messages arrive, above all between making
 * a row durable and acking it, and while its own are leaving. Each message arrives exactly once
 * (docs/protocol/delivery.md).
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { QpcClient } from '@quicprochat/client-lib';
import { openStore, type AccountRecord } from '@quicprochat/client-lib/store';
import {
  call,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  loadIdentity,
  quicTransport,
} from '@quicprochat/proto/transport';
import { ClientProcess } from '../cluster/client-process.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { inTime } from './rig.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const aliceId = 'alice@red.example';
const bobId = 'bob@red.example';
const alicePassword = new TextEncoder().encode('correct horse');
const kills = 12;
const messagesPerKill = 6;

/** What the killed client had made durable, and what its node still holds of that: unacked rows. */
async function unackedRows(path: string, key: Uint8Array): Promise<number> {
  let record: AccountRecord | undefined;
  let seq: number;
  {
    using store = openStore(path, key);
    record = store.account.get();
    seq = store.inbox.cursor(new Uint8Array(0))?.seq ?? 0;
  }
  assert(record !== undefined);
  const { host, port, pin } = parseNodeAddress(record.nodeAddress);
  const connection = await quicTransport(runtime).dial(
    { host, port },
    {
      identity: loadIdentity(record.certificatePem, record.privateKeyPem),
      limits: defaultLimits,
      maxRequestBytes,
      pins: [pin],
    },
  );
  try {
    const { rows } = await call(connection, methods.fetch, { log: {}, after: 0n });
    return rows.filter((row) => Number(row.seq) <= seq).length;
  } finally {
    await connection.close(CloseCode.Normal, 'done');
  }
}

/** What the killed client knew of the log and of keys: sizes and versions, which never go back. */
async function knownOfLog(storePath: string, storeKey: Uint8Array): Promise<readonly number[]> {
  await using client = await QpcClient.open({ storePath, storeKey });
  const sizes = client.logs().map(({ size }) => size);
  const contacts = [aliceId, bobId].map((userId) => client.contact(userId));
  return [...sizes, ...contacts.flatMap((one) => [one?.version ?? 0, one?.treeSize ?? 0])];
}

interface Pair extends AsyncDisposable {
  /** In the test's process. */
  readonly alice: QpcClient;
  /** A process of its own, its store open, registered. */
  readonly bob: ClientProcess;
  readonly storePath: string;
  readonly storeKey: Uint8Array;
  /** Starts bob's process again and opens its store. */
  readonly open: () => Promise<void>;
}

async function makePair(): Promise<Pair> {
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'qpc-crash-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const storePath = join(directory, 'bob.db');
  const storeKey = systemRandom.bytes(32);
  const node = stack.use(await NodeProcess.init('red.example', join(directory, 'red')));
  await node.start();
  const alice = stack.use(await QpcClient.open({ storePath: ':memory:', storeKey }));
  await alice.register({
    userId: aliceId,
    password: alicePassword,
    nodeAddress: node.address,
  });
  alice.start();
  const bob = stack.use(new ClientProcess(bobId));
  const open = async (): Promise<void> => {
    bob.start();
    const storeKeyHex = Buffer.from(storeKey).toString('hex');
    await bob.ask({ do: 'open', storePath, storeKeyHex });
  };
  await open();
  const password = 'battery staple';
  await bob.ask({ do: 'register', userId: bobId, password, nodeAddress: node.address });
  const all = stack.move();
  const dispose = (): Promise<void> => all.disposeAsync();
  return { alice, bob, storePath, storeKey, open, [Symbol.asyncDispose]: dispose };
}

test('a client killed between commit and ack shows every message exactly once', async () => {
  await using pair = await makePair();
  const { alice, bob, storePath, storeKey, open } = pair;
  const id = await alice.createConversation({ name: 'crash', members: [bobId] });

  const sent: string[] = [];
  let killsBeforeAck = 0;
  let known: readonly number[] = [0, 0, 0, 0, 0];
  for (let round = 0; round < kills; round += 1) {
    const wanted = 1 + (round % messagesPerKill);
    const arrived = Promise.withResolvers<void>();
    bob.onProgress = () => {
      if (bob.received >= wanted) arrived.resolve();
    };
    await bob.ask({ do: 'start' });
    for (let n = 0; n < messagesPerKill; n += 1) {
      const text = `round ${round} message ${n}`;
      sent.push(text);
      await alice.send(id, text);
    }
    // A version of keys that the client may be looking up when it dies.
    if (round % 4 === 0) await alice.rotateAccountKey({ password: alicePassword });
    // At once after it was shown: acks wait up to 100 ms for company.
    await inTime(arrived.promise, `${wanted} messages in round ${round}`);
    await bob.kill();
    if ((await unackedRows(storePath, storeKey)) > 0) killsBeforeAck += 1;
    const after = await knownOfLog(storePath, storeKey);
    assert.equal(after.length, known.length);
    assert(
      after.every((one, index) => one >= (known[index] ?? 0)),
      `${after.join()} after ${known.join()}`,
    );
    known = after;
    await open();
  }
  assert(killsBeforeAck > 0, 'no kill fell between a commit and its ack');

  await bob.close();
  await using again = await QpcClient.open({ storePath, storeKey });
  again.start();
  await alice.flush(AbortSignal.timeout(20_000));
  const complete = (async () => {
    while (again.history(id).length < sent.length) {
      for await (const _message of again.messages()) {
        if (again.history(id).length >= sent.length) break;
      }
    }
  })();
  await inTime(complete, 'the last messages');
  assert.deepEqual(
    again
      .history(id)
      .map(({ text }) => text)
      .sort(),
    [...sent].sort(),
  );
  assert.deepEqual(again.undecryptable(), []);
});

test('a message whose send was answered survives the sender, and arrives once', async () => {
  await using pair = await makePair();
  const { alice, bob, open } = pair;
  await bob.ask({ do: 'start' });
  const members = [aliceId];
  const conversationHex = String(await bob.ask({ do: 'create', name: 'crash', members }));
  await bob.ask({ do: 'flush', timeoutMs: 20_000 });

  const sent: string[] = [];
  for (let round = 0; round < kills / 2; round += 1) {
    const prefix = `round ${round}`;
    const count = 1 + (round % 3);
    await bob.ask({ do: 'send', conversationHex, prefix, count, everyMs: 0 });
    // The answer means: sealed on disk. What the node has of it by now is left to chance.
    await bob.kill();
    for (let index = 1; index <= count; index += 1) sent.push(`${prefix} ${index}`);
    await open();
    await bob.ask({ do: 'start' });
  }
  await bob.ask({ do: 'flush', timeoutMs: 20_000 });
  const received: string[] = [];
  const reading = (async () => {
    for await (const { text } of alice.messages()) {
      received.push(text);
      if (received.length === sent.length) return;
    }
  })();
  await inTime(reading, 'all messages');
  assert.deepEqual(received, sent);
  assert.deepEqual(alice.undecryptable(), []);
});
