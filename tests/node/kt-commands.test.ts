/** `qpcd kt` as an operator runs it, on the database of a stopped node. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import {
  cipherSuiteEd25519,
  DeploymentMode,
  nativeSigner,
  nativeSuite,
  proveSameSize,
  signTreeHead,
} from '@quicprochat/kt-log';
import { loadConfig, openNodeStore, readKeyFile, type NodeStore } from '@quicprochat/nodes';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { NodeProcess, runQpcd, type CommandResult } from '../cluster/node-process.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const blue = 'blue.example/kt';

/** Two heads of one size by a log that nobody should believe. */
function forkOfBlue() {
  const signer = nativeSigner(systemRandom.bytes(32));
  const config = {
    cipherSuite: cipherSuiteEd25519,
    mode: DeploymentMode.contactMonitoring,
    signaturePublicKey: signer.publicKey,
    vrfPublicKey: signer.publicKey,
    maxAheadMs: 1,
    maxBehindMs: 1,
    reasonableMonitoringWindowMs: 1,
    maximumLifetimeMs: undefined,
  };
  const head = (byte: number) => {
    const root = new Uint8Array(32).fill(byte);
    const { signature } = signTreeHead(config, 7, root, signer);
    return { type: 'head', head: { size: 7, root, signature } } as const;
  };
  return proveSameSize(nativeSuite, { origin: blue, config }, head(1), head(2));
}

suite('qpcd kt', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-kt-'));
  let node: NodeProcess;
  before(async () => {
    node = await NodeProcess.init('red.example', join(directory, 'red'));
    writeFileSync(
      join(node.directory, 'peers'),
      `peer blue.example qpc://127.0.0.1:1#${'A'.repeat(43)}\n`,
    );
    await node.start();
  });
  after(async () => {
    await node.kill();
    rmSync(directory, { recursive: true, force: true });
  });
  const kt = (...args: string[]): Promise<CommandResult> =>
    runQpcd(['kt', ...args, '--config', node.configFile]);
  async function onStore(work: (store: NodeStore) => Promise<void>): Promise<void> {
    const { databasePath: path, databaseKeyPath, store: limits } = loadConfig(node.configFile);
    const key = readKeyFile(databaseKeyPath);
    await using store = await openNodeStore({ path, key, limits, runtime });
    await work(store);
  }

  test('is refused while the node runs', async () => {
    const { code, stderr } = await kt('check');
    assert.equal(code, 2);
    assert.match(stderr, /^qpcd: [^\n]+\n$/u);
    await node.stop();
  });

  test('check replays the whole log and says so', async () => {
    const { code, stdout, stderr } = await kt('check');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^entries +(\d+) of \1 replayed\naccounts +0 .*\nverdict +ok:/u);
  });

  test('peers lists verdicts and evidence; evidence is written whole; trust ends a verdict', async () => {
    const empty = await kt('peers');
    assert.equal(empty.stdout, `${blue}  not followed yet  0 entries\n`);
    const unknown = await kt('trust', blue);
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /has not judged such a log/u);

    const { bytes } = forkOfBlue();
    const hash = nativeSuite.sha256(bytes);
    await onStore((store) =>
      store.audits.putEvidence(
        { origin: blue, kind: 'same-size', hash, bytes, foundMs: 1 },
        'forked',
      ),
    );
    const hex = Buffer.from(hash).toString('hex');
    const { stdout } = await kt('peers');
    assert.match(
      stdout,
      new RegExp(`^${blue}  forked  0 entries\n  same-size: .*\\(${hex}\\)\n$`, 'u'),
    );
    assert.equal((await kt('evidence', hex)).code, 0);
    assert.equal((await kt('evidence', '00'.repeat(32))).code, 2);

    const trusted = await kt('trust', blue);
    assert.equal(trusted.code, 0, trusted.stderr);
    assert.match(trusted.stdout, /was forked, is followed again/u);
    const after = await kt('peers');
    assert.match(after.stdout, new RegExp(`^${blue}  behind  0 entries\n  same-size: `, 'u'));
  });
});
