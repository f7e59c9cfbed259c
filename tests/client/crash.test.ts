/**
 * A client process that is killed again and again while messages arrive, above all between making
 * a row durable and acking it: each message is in its store exactly once (delivery.md section 4).
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
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

test('a client killed between commit and ack shows every message exactly once', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-crash-'));
  const storePath = join(directory, 'bob.db');
  const storeKey = new Uint8Array(randomBytes(32));
  const bobId = 'bob@red.example';
  try {
    await using node = await NodeProcess.init('red.example', join(directory, 'red'));
    await node.start();
    await using alice = await QpcClient.open({ storePath: ':memory:', storeKey });
    await alice.register({
      userId: 'alice@red.example',
      password: new TextEncoder().encode('correct horse'),
      nodeAddress: node.address,
    });
    alice.start();
    await using bob = new ClientProcess(bobId);
    const open = async (): Promise<void> => {
      bob.start();
      const storeKeyHex = Buffer.from(storeKey).toString('hex');
      await bob.ask({ do: 'open', storePath, storeKeyHex });
    };
    await open();
    const password = 'battery staple';
    await bob.ask({ do: 'register', userId: bobId, password, nodeAddress: node.address });
    const id = await alice.createConversation({ name: 'crash', members: [bobId] });

    const sent: string[] = [];
    let killsBeforeAck = 0;
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
      // At once after it was shown: acks wait up to 100 ms for company.
      await inTime(arrived.promise, `${wanted} messages in round ${round}`);
      await bob.kill();
      if ((await unackedRows(storePath, storeKey)) > 0) killsBeforeAck += 1;
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
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
