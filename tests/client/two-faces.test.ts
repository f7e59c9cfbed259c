/**
 * A node built to lie: one key log with two histories, each shown to one client and to one peer. Once the
 * peers are connected, everybody has evidence: nodes, their clients, and the clients of the liar.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkEvidence, nativeSuite } from '@quicprochat/kt-log';
import { makePeer } from '@quicprochat/federation';
import { loadSecrets, openNodeStore } from '@quicprochat/nodes';
import { QpcError } from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';
import { inTime, RigClient } from './rig.ts';

const liar = 'red.example';
const origin = `${liar}/kt`;

/** A second node with the keys and the history of the first, at another address. */
async function secondFace(red: LocalNode): Promise<LocalNode> {
  await red.node?.stop();
  await red.store?.[Symbol.asyncDispose]();
  const { databasePath: from, store: limits } = red.config;
  const face = new LocalNode(red.network, 'red2.example');
  const { databasePath } = face.config;
  copyFileSync(from, databasePath);
  face.config = { ...red.config, databasePath };
  const open = (path: string) =>
    openNodeStore({ path, key: red.key.slice(), limits, runtime: testRuntime });
  red.store = await open(from);
  face.store = await open(databasePath);
  face.secrets = await loadSecrets(face.store, testRuntime.random);
  return face;
}

const peersFile = (...peers: readonly { domain: string; address: string }[]) => ({
  peers: peers.map(({ domain, address }) => makePeer(domain, [address])),
  deniedDomains: [],
  deniedPins: [],
});

test('a log with two faces is convicted at every honest node and client, as soon as two nodes meet', async (t) => {
  const network = memoryNetwork(testRuntime);
  const directory = mkdtempSync(join(tmpdir(), 'qpc-faces-'));
  await using red = await LocalNode.create(network, liar);
  await red.start();
  await using other = await secondFace(red);
  await using blue = await LocalNode.create(network, 'blue.example');
  await using green = await LocalNode.create(network, 'green.example');
  const shown = (face: LocalNode) => ({ domain: liar, address: face.address });
  await red.start([blue]);
  await other.start([green]);
  await blue.start([red]);
  await green.start([shown(other)]);

  const client = async (name: string, node: LocalNode): Promise<RigClient> => {
    const made = new RigClient(name, node, directory);
    await made.open();
    await made.register();
    await made.start();
    return made;
  };
  const [vera, bob] = [await client(`vera@${liar}`, red), await client('bob@blue.example', blue)];
  const [viktor, carol] = [
    await client(`viktor@${liar}`, other),
    await client('carol@green.example', green),
  ];
  // Somebody whom nobody here has met yet.
  const wanda = await client(`wanda@${liar}`, red);
  const everybody = [vera, bob, viktor, carol];
  try {
    const pairs = [
      [bob, vera],
      [carol, viktor],
    ] as const;
    const ids: Uint8Array[] = [];
    for (const [one, two] of pairs) {
      ids.push(await one.client.createConversation({ name: 'two', members: [two.userId] }));
      await two.joined();
    }
    for (const { client: one } of everybody) {
      assert(one.logs().every(({ isConvicted }) => !isConvicted));
    }

    const startMs = performance.now();
    await blue.node?.reloadPeers(peersFile(red, green));
    await green.node?.reloadPeers(peersFile(shown(other), blue));
    await Promise.all(
      everybody.map(({ events, userId }) =>
        events.first(
          (event) => event.type === 'logAlarm' && event.kind === 'fork' && event.domain === liar,
          `the alarm at ${userId}`,
        ),
      ),
    );
    const tookMs = Math.round(performance.now() - startMs);
    t.diagnostic(`all have evidence ${tookMs} ms after the peers were told of each other`);

    for (const { store } of [blue, green]) {
      const [record] = (await store?.audits.evidence(origin)) ?? [];
      assert(record !== undefined);
      assert.equal(await store?.audits.status(origin), 'forked');
    }
    for (const { client: one } of everybody) {
      const log = one.logs().find(({ domain }) => domain === liar);
      assert.equal(log?.isConvicted, true);
      const [evidence] = log.evidence;
      assert(evidence !== undefined);
      assert.equal(checkEvidence(nativeSuite, evidence).origin, origin);
    }

    // Anybody checks it, with the file alone.
    const [evidence] = bob.client.logs().find(({ domain }) => domain === liar)?.evidence ?? [];
    const file = join(directory, 'fork.evidence');
    writeFileSync(file, evidence ?? '');
    const audit = join(import.meta.dirname, '../../kt-log/main.ts');
    const checked = spawnSync(process.execPath, [audit, 'verify-fork', file], { encoding: 'utf8' });
    assert.equal(checked.status, 0, checked.stdout + checked.stderr);
    assert.match(checked.stdout, /red\.example\/kt/);

    // Those who know each other go on; new keys of that log are not believed until somebody decides.
    const [id] = ids;
    assert(id !== undefined);
    await bob.client.send(id, 'still here');
    assert.deepEqual(await vera.texts(1), ['still here']);
    const invite = () =>
      bob.client.createConversation({ name: 'new', members: [wanda.userId] }).then(
        () => 'made',
        (error: unknown) => (error instanceof QpcError ? error.reason : String(error)),
      );
    assert.equal(await invite(), 'LOG_CONVICTED');
    bob.client.trustLog(liar);
    assert.equal(bob.client.logs().find(({ domain }) => domain === liar)?.isConvicted, false);
    assert.equal(await invite(), 'made');
  } finally {
    const closing = [...everybody, wanda].map((one) => one.close());
    await inTime(Promise.all(closing), 'the clients to close');
    rmSync(directory, { recursive: true, force: true });
  }
});
