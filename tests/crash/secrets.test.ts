/**
 * Secrets stay where they belong: after a run of two nodes at log level debug, no password, key,
 * message text or conversation name stands in any log or file in any encoding, and the databases
 * cannot be read without their keys.
 */
import assert from 'node:assert/strict';
import { createPrivateKey, randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, suite, test, type TestContext } from 'node:test';
import { login } from '@quicprochat/client-lib/account';
import { openStore } from '@quicprochat/client-lib/store';
import { loadConfig, loadSecrets, openNodeStore, readKeyFile } from '@quicprochat/nodes';
import {
  hasReason,
  seedOf,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { CloseCode, makeIdentity } from '@quicprochat/proto/transport';
import { ClientProcess } from '../cluster/client-process.ts';
import { dialNode } from '../cluster/crashing-node.ts';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';
import {
  filesBelow,
  findMarks,
  markParts,
  textMark,
  type Haystack,
  type Mark,
} from './secret-search.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const settleMs = 30_000;
const messages = 12;

/** Printable, and found nowhere by chance. */
function planted(what: string): string {
  return `${what}-${randomBytes(12).toString('base64url')}`;
}

suite('secrets of a run', { timeout: 120_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-secrets-'));
  /** Copies that the test opens, so that it changes nothing of the evidence. */
  const copies = mkdtempSync(join(tmpdir(), 'qpc-secrets-copies-'));
  const nodes: NodeProcess[] = [];
  const clients: ClientProcess[] = [];
  const storeKeys = [0, 1].map(() => new Uint8Array(randomBytes(32)));
  const passwords = ['password', 'passphrase'].map(planted);
  const wrongPassword = planted('wrong-password');
  const conversationName = planted('conversation');
  const text = planted('message');
  const people = ['alice', 'bob'].map((name) => planted(name).toLowerCase().replace(/_/g, '-'));
  const storePaths = [0, 1].map((index) => join(directory, 'clients', `${index}.db`));

  before(async () => {
    nodes.push(...(await initCluster(directory, ['red.example', 'blue.example'])));
    for (const { configFile } of nodes) {
      const config = readFileSync(configFile, 'utf8');
      const debug = config.replace('log_level = "info"', 'log_level = "debug"');
      assert.notEqual(debug, config);
      writeFileSync(configFile, debug);
    }
    await runCluster();
    cpSync(directory, copies, { recursive: true });
  });
  after(async () => {
    for (const process of [...clients, ...nodes]) await process.kill();
    rmSync(directory, { recursive: true, force: true });
    rmSync(copies, { recursive: true, force: true });
  });

  /** A run with everything in it: registration, a wrong password, messages both ways, crashes. */
  async function runCluster(): Promise<void> {
    await Promise.all(nodes.map((node) => node.start()));
    const [red, blue] = nodes;
    assert.ok(red !== undefined && blue !== undefined);
    mkdirSync(join(directory, 'clients'));
    for (const [index, node] of [red, blue].entries()) {
      const client = new ClientProcess(`${people[index]}@${node.domain}`);
      clients.push(client);
      client.start();
      await client.ask({
        do: 'open',
        storePath: storePaths[index] ?? '',
        storeKeyHex: Buffer.from(storeKeys[index] ?? []).toString('hex'),
      });
      await client.ask({
        do: 'register',
        userId: client.userId,
        password: passwords[index] ?? '',
        nodeAddress: node.address,
      });
      await client.ask({ do: 'start' });
    }
    const [alice, bob] = clients;
    assert.ok(alice !== undefined && bob !== undefined);
    for (const userId of [alice.userId, `${planted('nobody').toLowerCase()}@red.example`]) {
      await wrongLogin(red, userId.replace(/_/g, '-'));
    }
    const conversationHex = String(
      await alice.ask({ do: 'create', name: conversationName, members: [bob.userId] }),
    );
    const say = (client: ClientProcess): Promise<unknown> =>
      client.ask({ do: 'send', conversationHex, prefix: text, count: messages, everyMs: 5 });
    await Promise.all([say(alice), reached(bob, messages)]);
    // Node blue dies and comes back, then everybody else dies too: write-ahead logs stay behind.
    await Promise.all([say(bob), reached(alice, messages)]);
    const late = say(alice);
    await blue.kill();
    await late;
    await blue.start();
    await reached(bob, 2 * messages);
    await bob.close();
    await alice.kill();
    await Promise.all(nodes.map((node) => node.kill()));
  }

  async function wrongLogin(node: NodeProcess, userId: string): Promise<void> {
    const transport = await makeIdentity(systemRandom);
    const connection = await dialNode(node.address, transport);
    const keys = {
      accountKey: undefined,
      identityKey: signingKeyFromSeed(systemRandom.bytes(32)),
      transport,
    };
    const password = new TextEncoder().encode(wrongPassword);
    try {
      await assert.rejects(
        login(connection, { userId, password, keys, pinnedServerKey: undefined }),
        (error) => hasReason(error, 'AUTH_FAILED'),
      );
    } finally {
      await connection.close(CloseCode.Normal, 'done');
    }
  }

  /** What the processes wrote. */
  function logs(): Haystack[] {
    const written = [
      ...nodes.map(({ domain, logLines }) => ({ place: `log of ${domain}`, lines: logLines })),
      ...clients.map(({ userId, stderrLines }) => ({ place: userId, lines: stderrLines })),
    ];
    return written.map(({ place, lines }) => ({ place, bytes: Buffer.from(lines.join('\n')) }));
  }

  /** Every secret of the run that the test can get hold of, read from copies. */
  async function marks(): Promise<Mark[]> {
    const found = [
      ...passwords.map((password, index) => textMark(`password ${index}`, password)),
      textMark('wrong password', wrongPassword),
      textMark('conversation name', conversationName),
      textMark('message text', text),
    ];
    for (const { domain } of nodes) found.push(...(await nodeMarks(domain)));
    for (const [index, key] of storeKeys.entries()) found.push(...clientMarks(index, key));
    return found;
  }

  async function nodeMarks(domain: string): Promise<Mark[]> {
    const config = loadConfig(join(copies, domain, 'qpcd.toml'));
    const key = readKeyFile(config.databaseKeyPath);
    const options = { path: config.databasePath, limits: config.store, runtime };
    await using store = await openNodeStore({ ...options, key: key.slice() });
    const secrets = await loadSecrets(store, systemRandom);
    const logSeeds = ['tree-head', 'note', 'vrf', 'witness', 'auditor'].map(async (name) => {
      const bytes = await store.secret(`kt-${name}-seed`);
      assert.ok(bytes !== undefined, name);
      return { name: `${domain}: ${name} seed of the log`, bytes };
    });
    return [
      ...(await Promise.all(logSeeds)),
      { name: `${domain}: database key`, bytes: key },
      { name: `${domain}: TLS key`, bytes: seedOfPem(secrets.identity.privateKeyPem) },
      { name: `${domain}: signing seed`, bytes: seedOf(secrets.signing) },
      ...markParts(`${domain}: OPAQUE setup`, secrets.opaqueSetup),
      { name: `${domain}: pseudonym key`, bytes: secrets.pseudonymKey },
    ];
  }

  function clientMarks(index: number, key: Uint8Array): Mark[] {
    using store = openStore(join(copies, 'clients', `${index}.db`), key);
    const record = store.account.get();
    const hybridKey = store.keys.newestHybridKey();
    assert.ok(record?.accountSeed !== undefined && hybridKey !== undefined);
    return [
      { name: `client ${index}: store key`, bytes: key },
      { name: `client ${index}: account seed`, bytes: record.accountSeed },
      { name: `client ${index}: identity seed`, bytes: record.identitySeed },
      { name: `client ${index}: TLS key`, bytes: seedOfPem(record.privateKeyPem) },
      { name: `client ${index}: X-Wing seed`, bytes: hybridKey.seed },
    ];
  }

  test('no log and no file holds one, in any encoding', async (t: TestContext) => {
    const secrets = await marks();
    const files = filesBelow(directory);
    const written = logs();
    t.diagnostic(
      `${secrets.length} secrets, ${files.length} files, ${nodes.map(({ logLines }) => logLines.length).join(' + ')} log lines`,
    );

    // The search is worth something only if there is something to search.
    for (const { domain, logLines } of nodes) {
      assert.ok(logLines.length < 10_000, `${domain}: the log was cut`);
      for (const event of ['"method":"Enqueue"', '"method":"OpaqueRegisterFinish"']) {
        assert.ok(
          logLines.some((line) => line.includes(event)),
          `${domain}: no ${event} at debug`,
        );
      }
    }
    for (const name of ['node.db', 'node.db-wal', '0.db', '0.db-wal', '1.db', 'qpcd.toml']) {
      assert.ok(
        files.some(({ place }) => place.endsWith(`/${name}`)),
        `no file ${name}`,
      );
    }

    const hits = findMarks([...files, ...written], secrets);
    const expected = nodes.map(({ domain, directory: home }) => ({
      mark: `${domain}: database key`,
      form: 'hex',
      place: join(home, 'database.key'),
    }));
    assert.deepEqual(hits, expected, 'the database key in its own file, and nothing else');
  });

  test('no log names a person', () => {
    const names = people.map((name) => textMark(name, name));
    assert.deepEqual(findMarks(logs(), names), []);
  });

  const databases = [
    ...['red.example', 'blue.example'].map((domain) => join(domain, 'node.db')),
    ...[0, 1].map((index) => join('clients', `${index}.db`)),
  ];
  for (const name of databases) {
    test(`${name} cannot be read without its key`, () => {
      const path = join(copies, name);
      const home = join(path, '..');
      const was = filesBelow(home);
      assert.throws(() => readPlain(path), /file is not a database/);
      // The lock file holds nothing at all, on purpose.
      const isDatabase = ({ place }: Haystack): boolean =>
        place.startsWith(path) && place !== `${path}-lock`;
      assertNoSchema(was.filter(isDatabase));
      for (const { place, bytes } of was.filter((file) => file.place === path)) {
        assert.deepEqual(readFileSync(place), bytes, 'the attempt changed the file');
      }
    });
  }

  test('a wrong key opens no database', async () => {
    const key = systemRandom.bytes(32);
    for (const domain of ['red.example', 'blue.example']) {
      const config = loadConfig(join(copies, domain, 'qpcd.toml'));
      const options = { path: config.databasePath, limits: config.store, runtime, key };
      await assert.rejects(openNodeStore(options), (error) => hasReason(error, 'STORE_KEY'));
    }
    for (const index of [0, 1]) {
      const path = join(copies, 'clients', `${index}.db`);
      assert.throws(
        () => openStore(path, key),
        (error) => hasReason(error, 'STORE_KEY'),
      );
    }
  });

  test('these checks find a database that is not encrypted', () => {
    const path = join(copies, 'plain.db');
    const plain = new DatabaseSync(path);
    plain.exec('CREATE TABLE message (text TEXT)');
    plain.close();
    assert.deepEqual(readPlain(path), ['message']);
    assert.throws(() => assertNoSchema(filesBelow(copies).filter((file) => file.place === path)));
  });
});

/** Names of the tables, by an SQLite that knows no encryption. Throws when it reads no page. */
function readPlain(path: string): unknown[] {
  const database = new DatabaseSync(path);
  try {
    return database
      .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
      .all()
      .map((row) => row['name']);
  } finally {
    database.close();
  }
}

/** Neither the file header of SQLite nor a statement of the schema is in a file. */
function assertNoSchema(files: readonly Haystack[]): void {
  assert.ok(files.length > 0);
  for (const { place, bytes } of files) {
    assert.ok(bytes.length > 0, `${place} is empty`);
    for (const word of ['SQLite format 3', 'CREATE TABLE', 'CREATE INDEX']) {
      assert.ok(!bytes.includes(word), `${place} holds "${word}"`);
    }
  }
}

/** Resolves when a client has read `count` messages. */
async function reached(client: ClientProcess, count: number): Promise<void> {
  const done = Promise.withResolvers<void>();
  const look = (): void => {
    if (client.received >= count) done.resolve();
  };
  client.onProgress = look;
  look();
  const timer = setTimeout(
    () => done.reject(new Error(`${client.received} of ${count} messages in ${settleMs} ms`)),
    settleMs,
  );
  await done.promise;
  clearTimeout(timer);
}

/** The raw Ed25519 seed (32 bytes) in a PKCS#8 PEM. */
function seedOfPem(pem: string): Uint8Array {
  const { d = '' } = createPrivateKey(pem).export({ format: 'jwk' });
  return new Uint8Array(Buffer.from(d, 'base64url'));
}
