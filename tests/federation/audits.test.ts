/** Two real nodes: each follows the other's key log and cosigns it, and both keep what they saw. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  meetsQuorum,
  nativeSuite,
  openCheckpoint,
  parsePolicy,
  parseVkey,
  verifyNote,
} from '@quicprochat/kt-log';
import { call, methods, systemClock } from '@quicprochat/proto';
import { fromBinary, NodeRecordSchema } from '@quicprochat/proto/messages';
import { makeIdentity, memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, TestDevice, testRuntime } from '../cluster/local-node.ts';

const config = '[kt]\nbatch_ms = 5\n[rates.auth]\nper_second = 1000\nburst = 1000\n';

/** Asks again until the answer is there, at most 15 s. */
async function eventually<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const endMs = systemClock.monotonic() + 15_000;
  while (systemClock.monotonic() < endMs) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await systemClock.sleep(20);
  }
  return assert.fail(`not within 15 s: ${what}`);
}

async function cosignaturesOf(node: LocalNode): Promise<{ size: number; by: string[] }> {
  assert.ok(node.store);
  const head = await node.store.keyLog.newestHead();
  const size = head?.size ?? 0;
  const by = (await node.store.keyLog.cosignatures(size)).map(({ name }) => name);
  return { size, by: by.sort() };
}

suite('peers as auditors', () => {
  test('a head is cosigned by the peer, and its note satisfies the policy of the records', async () => {
    const network = memoryNetwork(testRuntime);
    await using red = await LocalNode.create(network, 'red.example', config);
    await using blue = await LocalNode.create(network, 'blue.example', config);
    await red.start([blue]);
    await blue.start([red]);
    await using alice = await TestDevice.register(red, 'alice@red.example');
    assert.ok(alice);
    const { size } = await eventually('cosignatures of blue', async () => {
      const seen = await cosignaturesOf(red);
      return seen.by.length === 2 && seen.size >= 2 ? seen : undefined;
    });

    const stranger = await red.dial(await makeIdentity(testRuntime.random));
    const { checkpoint } = await call(stranger, methods.ktTreeHead, { size: BigInt(size) });
    const recordOf = async (domain: string) => {
      const { record } = await call(stranger, methods.getNodeRecord, { domain });
      assert.ok(record);
      return fromBinary(NodeRecordSchema, record.record);
    };
    const key = parseVkey(nativeSuite.sha256, (await recordOf('')).kt.at(-1)?.vkey ?? '');
    const { note } = openCheckpoint(nativeSuite, checkpoint, { origin: 'red.example/kt', key });
    const { cosigners } = await recordOf('blue.example');
    const vkey = cosigners.find((one) => one.startsWith('blue.example/auditor+'));
    const policy = parsePolicy(nativeSuite.sha256, `witness blue ${vkey}\nquorum blue\n`);
    const verified = verifyNote(nativeSuite, note, [key, ...policy.witnesses]);
    assert.ok(meetsQuorum(policy, verified).ok);

    // And the other way round, with nobody registered at blue.
    const other = await eventually('cosignatures of red', async () => {
      const seen = await cosignaturesOf(blue);
      return seen.by.length === 2 ? seen : undefined;
    });
    assert.deepEqual(other.by, ['red.example/auditor', 'red.example/witness']);
    assert.equal(await blue.store?.audits.status('red.example/kt'), 'ok');
  });
});
