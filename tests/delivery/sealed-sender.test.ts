/**
 * Sealed sender: messages reach their devices over connections that say nothing of who sends, with a
 * proof of the recipient's node; and no file and no log of a node holds who it was.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openForReading } from '@quicprochat/nodes';
import { verifyDeliveryProof, type Log, type LogFields } from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { RigClient } from '../client/rig.ts';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';
import { filesBelow, findMarks, type Haystack, type Mark } from '../crash/secret-search.ts';

/** Everything that a node writes to its log, down to debug. */
function recorder(): { readonly log: Log; readonly text: () => string } {
  const lines: string[] = [];
  const add = (event: string, fields: LogFields = {}): void =>
    void lines.push(JSON.stringify([event, fields]));
  return { log: { debug: add, info: add, warn: add, error: add }, text: () => lines.join('\n') };
}

/** Every value of every table of a node, decrypted. */
function dump({ config, key }: LocalNode): Haystack[] {
  const db = openForReading(config.databasePath, key);
  try {
    const tables = db
      .prepare<[], string>(`SELECT name FROM sqlite_schema WHERE type = 'table'`)
      .pluck()
      .all();
    return tables.map((name) => {
      const rows = db.prepare<[], Record<string, unknown>>(`SELECT * FROM "${name}"`).all();
      const values = rows
        .flatMap((row) => Object.values(row))
        .map((value) =>
          value instanceof Uint8Array ? Buffer.from(value) : Buffer.from(String(value)),
        );
      return { place: `${config.domain}: table ${name}`, bytes: Buffer.concat(values) };
    });
  } finally {
    db.close();
  }
}

const count = ({ config, key }: LocalNode, sql: string, mid: Uint8Array): number => {
  const db = openForReading(config.databasePath, key);
  try {
    return db.prepare<[Uint8Array], number>(sql).pluck().get(mid) ?? -1;
  } finally {
    db.close();
  }
};

test('nodes take sealed messages with proof, and hold nothing of their sender', async () => {
  const network = memoryNetwork(testRuntime);
  const directory = mkdtempSync(join(tmpdir(), 'qpc-sealed-'));
  const [red, blue] = [
    await LocalNode.create(network, 'red.example'),
    await LocalNode.create(network, 'blue.example'),
  ];
  const logs = { red: recorder(), blue: recorder() };
  red.log = logs.red.log;
  blue.log = logs.blue.log;
  const clients: RigClient[] = [];
  const sealed = { sealedSender: true };
  const clientOf = async (userId: string, node: LocalNode): Promise<RigClient> => {
    const client = new RigClient(userId, node, directory);
    clients.push(client);
    await client.open(sealed);
    await client.register();
    await client.start();
    await client.logged.first(({ event }) => event === 'delivery token told', 'its token');
    return client;
  };
  try {
    await red.start([blue]);
    await blue.start([red]);
    // All of them: what others write to her names her as the recipient.
    const alice = await clientOf('alice@red.example', red);
    const bob = await clientOf('bob@blue.example', blue);
    const dave = await clientOf('dave@red.example', red);
    const members = [bob.userId, dave.userId];
    const id = await alice.client.createConversation({ name: 'sealed', members });
    await alice.client.flush();
    await Promise.all([bob.joined(), dave.joined()]);
    for (const wanted of [1, 2]) {
      const tokens = (): number =>
        alice.logged.all().filter(({ event }) => event === 'delivery token taken').length;
      await alice.logged.first(() => tokens() >= wanted, `token ${wanted}`);
    }
    await bob.close();
    await dave.close();

    const sent = [];
    for (const text of ['one', 'two', 'three']) sent.push(await alice.client.send(id, text));
    await alice.client.flush();
    const proofs = sent.flatMap((message) => alice.client.proofs(id, message.id));
    assert.equal(proofs.length, 6);
    for (const { rid, domain, proof, ...statement } of proofs) {
      const node = domain === red.domain ? red : blue;
      const signKey = node.secrets?.signing.publicKey ?? new Uint8Array(32);
      assert.ok(verifyDeliveryProof({ ...statement, target: { rid, domain } }, proof, [signKey]));
    }
    for (const { mid, domain } of proofs) {
      if (domain === red.domain) {
        const known = 'SELECT count(*) FROM entry WHERE mid = ? AND sender IS NULL';
        assert.equal(count(red, known, mid), 1);
        assert.equal(count(red, 'SELECT count(*) FROM entry WHERE mid = ?', mid), 1);
      }
      // The own node does not learn that somebody else's node got something.
      for (const table of ['outbox', 'outbox_tomb', 'dead_letter']) {
        assert.equal(count(red, `SELECT count(*) FROM ${table} WHERE mid = ?`, mid), 0);
      }
    }

    const { identityPub, deviceId } = alice.client.whoami();
    const marks: Mark[] = [
      { name: 'device key', bytes: identityPub },
      { name: 'device id', bytes: Buffer.from(deviceId) },
      { name: 'user id', bytes: Buffer.from(alice.userId) },
    ];
    const logTexts = Object.entries(logs).map(([name, { text }]) => ({
      place: `log of ${name}`,
      bytes: Buffer.from(text()),
    }));
    assert.ok(logTexts.every(({ bytes }) => bytes.includes('Enqueue')));
    const places = [...dump(blue), ...filesBelow(blue.directory), ...logTexts];
    assert.deepEqual(findMarks(places, marks), []);
    // The search finds what is there: the node where she has her account.
    assert.ok(findMarks(dump(red), marks).length > 0);
    assert.deepEqual(findMarks(filesBelow(red.directory), marks), []);

    for (const client of [bob, dave]) {
      await client.open(sealed);
      await client.start();
      assert.deepEqual(await client.texts(3), ['one', 'two', 'three']);
    }
  } finally {
    for (const client of clients) await client.close();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  }
});
