/** What the node's log does with a database that is older than itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode, heartbeat, nativeSigner } from '@quicprochat/kt-log';
import {
  firstManifest,
  manifestValue,
  signingKeyFromSeed,
  systemRandom,
  type Runtime,
} from '@quicprochat/proto';
import { parseConfig } from './config.ts';
import { KeyLog, recordLabel, userLabel } from './key-log.ts';
import { openDatabase } from './store/database.ts';
import { openNodeStoreInThread } from './store/open.ts';
import { StoreFixture } from './store/contract/fixture.ts';
import type { NodeStore } from './store/store.ts';

const domain = 'red.example';
const seed = (): Uint8Array => systemRandom.bytes(32);

test('accounts of a database that is older than its log get their version 0, once', async () => {
  await using fixture = new StoreFixture();
  await fixture.create();
  const accounts = ['ann', 'bob', 'cat'].map((name) => {
    const key = signingKeyFromSeed(seed());
    const userId = `${name}@${domain}`;
    return { userId, manifest: firstManifest(userId, key, key.publicKey, fixture.nowMs) };
  });
  const db = openDatabase(fixture.path, fixture.key, {});
  for (const { userId, manifest } of accounts) {
    db.prepare(
      `INSERT INTO account
         (user_id, setup_id, opaque_record, manifest, manifest_signature, manifest_seq)
       VALUES (?, 1, zeroblob(192), ?, ?, 0)`,
    ).run(userId, manifest.manifest, manifest.signature);
  }
  db.close();
  const store = await fixture.open(openNodeStoreInThread);
  const open = opener(store);
  for (let start = 0; start < 2; start += 1) {
    const keyLog = await open(fixture.runtime);
    assert.equal(keyLog.log.size, 2, 'the record, and one entry for all of them');
    await keyLog[Symbol.asyncDispose]();
  }
  assert.deepEqual(await store.keyLog.positions(recordLabel(domain)), [0]);
  for (const { userId, manifest } of accounts) {
    const [version] = await store.keyLog.versions(userLabel(userId), [0]);
    assert.deepEqual(version && Buffer.from(version.value), Buffer.from(manifestValue(manifest)));
  }
});

test('a clock that stands behind the log is told, and nothing is written until it has come', async () => {
  await using fixture = new StoreFixture();
  await fixture.create();
  const store = await fixture.open(openNodeStoreInThread);
  const lines: unknown[] = [];
  const error = (event: string, fields: unknown): void => void lines.push([event, fields]);
  const runtime = { ...fixture.runtime, log: { ...fixture.runtime.log, error } };
  const open = opener(store);
  await (await open(runtime))[Symbol.asyncDispose]();
  assert.deepEqual(lines, []);
  fixture.nowMs -= 7_200_000;
  await using keyLog = await open(runtime);
  assert.deepEqual(lines, [['clock stands behind the own key log', { behindMs: 7_200_000 }]]);
  const label = userLabel(`ann@${domain}`);
  const refused = keyLog.log.append({ label, greatest: -1, values: [seed()] });
  await assert.rejects(refused, /the clock stands behind the newest entry/);
  assert.match(JSON.stringify(lines[1]), /key log entry not written.*the clock stands behind/);
  assert.equal(keyLog.log.size, 1);
  fixture.nowMs += 7_200_001;
  await keyLog.log.append({ label, greatest: -1, values: [seed()] });
});

/** Opens the log of a store, again and again with the same keys. */
function opener(store: NodeStore): (runtime: Runtime) => Promise<KeyLog> {
  const { kt } = parseConfig(
    `domain = "${domain}"\nlisten = "127.0.0.1:1"\ndatabase = "d"\ndatabase_key_file = "k"
     [kt]\nbatch_ms = 5\nvrf_threads = 0`,
    'qpcd.toml',
  );
  const secrets = {
    treeHead: nativeSigner(seed()),
    note: nativeSigner(seed()),
    vrfSeed: seed(),
    witness: nativeSigner(seed()),
    auditor: nativeSigner(seed()),
  };
  const signing = signingKeyFromSeed(seed());
  const facts = {
    domain,
    keys: [{ spkiSha256: seed(), signing, fromMs: 0, toMs: 0 }],
    endpoints: [{ host: domain, port: 5001 }],
    versionMin: 1,
    versionMax: 1,
    capabilities: [],
  };
  return (runtime) =>
    KeyLog.open({
      domain,
      config: kt,
      secrets,
      store,
      runtime,
      facts,
      heartbeat: async () => encode(heartbeat, { logs: [] }),
    });
}
