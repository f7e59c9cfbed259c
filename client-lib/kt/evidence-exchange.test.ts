/**
 * What members pass on from logs (docs/developer/verification.md): keys by a credential while no log
 * can be asked, a log with two faces found out by heads, and nothing believed that proves nothing.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { firstManifest, parseUserId, signingKeyFromSeed, TransportError } from '@quicprochat/proto';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { labelOf } from './logs.ts';

/** Every entry is distinguished, so a credential is final as soon as the next entry stands. */
const times = { reasonableMonitoringWindowMs: 1 };

/** Something that is logged, so that time passes in the log of a domain. */
async function pass(directory: TestDirectory, domain: string): Promise<void> {
  await testRuntime.clock.sleep(5);
  const { publicKey } = signingKeyFromSeed(testRuntime.random.bytes(32));
  const userId = `${Buffer.from(publicKey.subarray(0, 8)).toString('hex')}@${domain}`;
  const accountKey = signingKeyFromSeed(testRuntime.random.bytes(32));
  directory.logVersion(userId, firstManifest(userId, accountKey, publicKey, 0));
  await testRuntime.clock.sleep(5);
}

/** A device that keeps its own credential fresh, as the guardian does. */
async function withCredential(device: TestDevice): Promise<void> {
  const { directory, userId } = device;
  const { domain } = parseUserId(userId);
  await pass(directory, domain);
  const log = await device.logs.of(domain, directory);
  (await directory.log(domain)).owner = userId;
  const transport = log.transport(directory);
  await log.client.owner.start(transport, labelOf(userId));
  await log.client.credentials.refresh(transport, labelOf(userId));
}

/** Knows the newest distinguished heads of a log. */
async function follow(device: TestDevice, domain: string): Promise<void> {
  const log = await device.logs.of(domain, device.directory);
  await log.client.distinguished(log.transport(device.directory));
}

/** From now on no log and no node answers. */
function goDark(directory: TestDirectory): void {
  directory.call = () => Promise.reject(new TransportError('closed', 'gone'));
}

const evidenceOf = (device: TestDevice) => {
  const evidence = device.evidence.own([]);
  assert(evidence !== undefined, `${device.userId} has no credential`);
  return evidence;
};

describe('a credential', () => {
  test('in a Welcome lets somebody in while no log answers', async () => {
    const directory = new TestDirectory(times);
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@red.example', directory);
    await withCredential(alice);
    await bob.knowItself();
    const id = await alice.conversations.create('dark', [bob.userId]);
    await alice.conversations.send(id, 'can you read this?');
    await follow(bob, 'red.example');
    goDark(directory);
    for (const row of alice.rowsFor(bob)) await bob.receive(row);
    assert.deepEqual(
      bob.history(id).map(({ text }) => text),
      ['can you read this?'],
    );
    const contact = bob.contacts.get(alice.userId);
    assert.equal(contact?.verification, 'credential');
    assert.deepEqual(
      contact?.devices.map(({ deviceId }) => deviceId),
      [alice.deviceId],
    );
  });

  test('goes with the first message of a conversation, and again when it is another one', async () => {
    const directory = new TestDirectory(times);
    const alice = new TestDevice('alice@red.example', directory);
    await withCredential(alice);
    const id = new Uint8Array(32).fill(7);
    const first = alice.evidence.next(id, []);
    assert(first !== undefined);
    alice.evidence.mark(id, first);
    assert.equal(alice.evidence.next(id, []), undefined);
    assert.notEqual(alice.evidence.next(new Uint8Array(32), []), undefined);
    alice.restart();
    assert.equal(alice.evidence.next(id, []), undefined);
    await pass(directory, 'red.example');
    await withCredential(alice);
    assert.notEqual(alice.evidence.next(id, []), undefined);
  });

  test('shows nothing when it is damaged, of an unknown log, or behind what is known', async () => {
    const directory = new TestDirectory(times);
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@blue.example', directory);
    await withCredential(alice);
    const { credential } = evidenceOf(alice);
    // bob never met the log of red.example.
    await bob.logs.of('blue.example', directory);
    await bob.evidence.take({ credential, heads: [] });
    assert.equal(bob.contacts.get(alice.userId), undefined);
    await follow(bob, 'red.example');
    for (let at = 0; at < credential.length; at += 97) {
      const damaged = Uint8Array.from(credential);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      await bob.evidence.take({ credential: damaged, heads: [] });
      const taken = bob.contacts.get(alice.userId);
      // A flip in what only strangers look at leaves the proof as it was.
      if (taken !== undefined) assert.deepEqual(taken.devices[0]?.identityPub, alice.rid);
    }
    await bob.evidence.take({ credential: credential.slice(0, -1), heads: [] });
    await bob.evidence.take({ credential: testRuntime.random.bytes(3_000), heads: [] });
    await bob.evidence.take({ credential, heads: [] });
    assert.equal(bob.contacts.get(alice.userId)?.version, 0);
  });
});

describe('heads', () => {
  test('of a log with two faces convict it, and its new keys are not believed any more', async () => {
    const [one, other] = [new TestDirectory(times), new TestDirectory(times)];
    const alice = new TestDevice('alice@red.example', one);
    const bob = new TestDevice('bob@red.example', other);
    const carol = new TestDevice('carol@red.example', one);
    await withCredential(alice);
    await withCredential(carol);
    await withCredential(bob);
    await pass(one, 'red.example');
    await pass(other, 'red.example');
    await follow(alice, 'red.example');
    await follow(bob, 'red.example');
    const { heads } = evidenceOf(bob);
    await alice.evidence.take({ credential: new Uint8Array(0), heads });
    assert.deepEqual(alice.lies, ['FORK']);
    const log = alice.logs.known('red.example');
    assert((log?.client.evidence().length ?? 0) > 0, 'no evidence was kept');
    await assert.rejects(
      alice.contacts.resolve('carol@red.example', one),
      (error: { reason?: string }) => error.reason === 'LOG_CONVICTED',
    );
    // Nor by what that log signed for somebody who passes it on.
    const { credential } = evidenceOf(carol);
    await alice.evidence.take({ credential, heads: [] });
    assert.equal(alice.contacts.get(carol.userId), undefined);
  });

  test('of an honest log agree, and those that no log signed accuse nobody', async () => {
    const directory = new TestDirectory(times);
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@red.example', directory);
    await withCredential(alice);
    await withCredential(bob);
    const { heads } = evidenceOf(bob);
    const credential = new Uint8Array(0);
    await alice.evidence.take({ credential, heads });
    const [forged] = heads.map((one) =>
      Uint8Array.from(one, (byte, i) => (i > 200 ? byte ^ 1 : byte)),
    );
    assert(forged !== undefined);
    await alice.evidence.take({ credential, heads: [forged, testRuntime.random.bytes(100)] });
    assert.deepEqual(alice.lies, []);
  });
});
