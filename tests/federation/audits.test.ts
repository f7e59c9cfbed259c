/** Two real nodes: each follows the other's key log and cosigns it, and both keep what they saw. */
import assert from 'node:assert/strict';
import { copyFileSync, rmSync } from 'node:fs';
import { suite, test } from 'node:test';
import {
  checkEvidence,
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
import { openNodeStore } from '@quicprochat/nodes';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';
import { Person, writesOf, type PersonDevice } from '../node/account-rig.ts';

const config =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\n[rates.auth]\nper_second = 1000\nburst = 1000\n';

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

/** With two devices; the first one. */
async function registered(person: Person): Promise<PersonDevice> {
  const first = await person.newDevice();
  await first.register();
  await person.addDevice();
  return first;
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

  test('a node restored from a backup signs nothing beside what its peers have seen', async () => {
    const network = memoryNetwork(testRuntime);
    await using red = await LocalNode.create(network, 'red.example', config);
    await using blue = await LocalNode.create(network, 'blue.example', config);
    await red.start([blue]);
    await blue.start([red]);
    await using dora = new Person('dora@red.example', (key) => red.dial(key));
    const { transport } = await registered(dora);
    const size = (await red.store?.keyLog.newestHead())?.size ?? 0;
    const backup = await copyOf(red);
    await red.start([blue]);
    {
      await using alice = await TestDevice.register(red, 'alice@red.example');
      assert.ok(alice);
    }
    const before = await eventually('the head at blue', async () => {
      const followed = await blue.store?.audits.followed('red.example/kt');
      return (followed?.size ?? 0) > size ? followed : undefined;
    });

    await restore(red, backup);
    await red.start([blue]);
    await using bob = await TestDevice.dial(red, 'bob@red.example');
    const error = await refused(bob.register(), 'FEATURE_OFF');
    assert.match(error.message, /read-only: blue\.example holds a head of size \d+/);
    // Accounts that it has change as little as new ones come.
    const device = await red.dial(transport);
    const writes = await writesOf(dora, device, (key) => red.dial(key));
    for (const write of writes) await refused(write(), 'FEATURE_OFF');
    await device.close(0, 'done');
    assert.equal((await red.store?.keyLog.newestHead())?.size, size);
    // A smaller log than before is a rollback: visible, not cosigned, and no proof of a lie.
    await eventually('the verdict of blue', async () => {
      const status = await blue.store?.audits.status('red.example/kt');
      return status === 'suspect' ? status : undefined;
    });
    assert.deepEqual(await blue.store?.audits.evidence(), []);
    assert.equal((await blue.store?.audits.followed('red.example/kt'))?.size, before.size);
  });

  test('a forked log is convicted: evidence on disk, no cosignature, and the others hear of it', async () => {
    const network = memoryNetwork(testRuntime);
    await using red = await LocalNode.create(network, 'red.example', config);
    await using blue = await LocalNode.create(network, 'blue.example', config);
    await using green = await LocalNode.create(network, 'green.example', config);
    const everybody = [red, blue, green];
    const peersOf = (one: LocalNode): LocalNode[] => everybody.filter((other) => other !== one);
    for (const node of everybody) await node.start(peersOf(node));
    const backup = await copyOf(red);
    await red.start(peersOf(red));
    {
      await using alice = await TestDevice.register(red, 'alice@red.example');
      assert.ok(alice);
    }
    for (const node of [blue, green]) {
      await eventually('the first branch', async () => {
        const followed = await node.store?.audits.followed('red.example/kt');
        return (followed?.size ?? 0) >= 2 ? followed : undefined;
      });
    }

    // The liar keeps its peers out while it writes another history under the same keys...
    await restore(red, backup);
    await red.start();
    {
      await using mallory = await TestDevice.register(red, 'mallory@red.example');
      assert.ok(mallory);
      await using other = await TestDevice.register(red, 'other@red.example');
      assert.ok(other);
    }
    // ...and comes back to one of them.
    await red.node?.stop();
    await red.start([blue]);
    for (const node of [blue, green]) {
      const { audits } = node.store ?? assert.fail('a store');
      const [record] = await eventually('evidence', async () => {
        const all = await audits.evidence('red.example/kt');
        return all.length > 0 ? all : undefined;
      });
      assert.ok(record);
      const checked = checkEvidence(nativeSuite, record.bytes);
      assert.equal(checked.origin, 'red.example/kt');
      assert.equal(await audits.status('red.example/kt'), 'forked', checked.explain);
      // For whoever asks, byte for byte.
      const anybody = await node.dial(await makeIdentity(testRuntime.random));
      const show = (offset: number) =>
        call(anybody, methods.ktEvidence, { hash: record.hash, offset: BigInt(offset) });
      const { evidence, total } = await show(0);
      assert.deepEqual([evidence, Number(total)], [record.bytes, record.bytes.length]);
      assert.deepEqual((await show(9)).evidence, record.bytes.subarray(9));
      await refused(show(record.bytes.length + 1), 'BAD_CURSOR');
      await anybody.close(0, 'done');
    }
    const size = (await red.store?.keyLog.newestHead())?.size ?? 0;
    assert.ok(size >= 3);
    assert.deepEqual((await cosignaturesOf(red)).by, []);
    assert.equal((await blue.store?.audits.followed('red.example/kt'))?.size, 2);
  });
});

/** Stops the node and returns a copy of its database; it is open again, and not started. */
async function copyOf(node: LocalNode): Promise<string> {
  const { databasePath } = node.config;
  await close(node);
  copyFileSync(databasePath, `${databasePath}.copy`);
  await open(node);
  return `${databasePath}.copy`;
}

/** Stops the node and puts the copy back. */
async function restore(node: LocalNode, copy: string): Promise<void> {
  await close(node);
  for (const end of ['-wal', '-shm']) rmSync(node.config.databasePath + end, { force: true });
  copyFileSync(copy, node.config.databasePath);
  await open(node);
}

async function close(node: LocalNode): Promise<void> {
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
}

async function open(node: LocalNode): Promise<void> {
  const { databasePath: path, store: limits } = node.config;
  node.store = await openNodeStore({ path, key: node.key.slice(), limits, runtime: testRuntime });
}
