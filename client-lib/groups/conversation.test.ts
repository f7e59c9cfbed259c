/** Creating conversations, adding members and sending, between devices with real keys. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hasReason, QpcError, TransportError } from '@quicprochat/proto';
import { contentLimits, parseContent } from '../content.ts';
import { parseEnvelope } from '../crypto/envelope.ts';
import { mandatorySuite, xwingSuite } from '../mls/index.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';

interface People {
  readonly directory: TestDirectory;
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly carol: TestDevice;
}

function people(bobOptions: ConstructorParameters<typeof TestDevice>[2] = {}): People {
  const directory = new TestDirectory();
  return {
    directory,
    alice: new TestDevice('alice@red.example', directory),
    bob: new TestDevice('bob@blue.example', directory, bobOptions),
    carol: new TestDevice('carol@red.example', directory),
  };
}

async function deliver(from: TestDevice, to: TestDevice): Promise<void> {
  for (const row of from.rowsFor(to)) await to.receive(row);
}

const rejection = async (work: Promise<unknown>): Promise<QpcError> => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert(error instanceof QpcError, 'it did not throw a QpcError');
  return error;
};

describe('a new conversation', () => {
  test('is the same at creator and members, and texts go both ways', async () => {
    const { alice, bob, carol } = people();
    const id = await alice.conversations.create('tea', [bob.userId, carol.userId, alice.userId]);
    await deliver(alice, bob);
    await deliver(alice, carol);
    const members = [alice.userId, bob.userId, carol.userId].sort();
    for (const device of [alice, bob, carol]) {
      assert.deepEqual(await device.conversations.members(id), members);
      const record = device.store.groups.conversation(id);
      assert.equal(record?.name, 'tea');
      assert.equal(record?.creator, alice.userId);
      assert.equal(record?.suite, xwingSuite);
    }
    await bob.conversations.send(id, 'hello');
    await deliver(bob, alice);
    await deliver(bob, carol);
    assert.deepEqual(
      alice
        .history(id)
        .map(({ text, senderUser, senderDevice }) => [text, senderUser, senderDevice]),
      [['hello', bob.userId, bob.deviceId]],
    );
    // The logical clock goes on from what was read.
    await alice.conversations.send(id, 'hello back');
    assert.deepEqual(
      alice.history(id).map(({ text, lamport, n }) => [text, lamport, n]),
      [
        ['hello', 1, 1],
        ['hello back', 2, 1],
      ],
    );
  });

  test('seals one ciphertext for all in suite 0xF00D and one for each in suite 0x0001', async () => {
    for (const suite of [xwingSuite, mandatorySuite]) {
      const suites = suite === xwingSuite ? [xwingSuite, mandatorySuite] : [mandatorySuite];
      const { alice, bob, carol } = people({ suites });
      const id = await alice.conversations.create('suites', [bob.userId, carol.userId]);
      assert.equal(alice.store.groups.conversation(id)?.suite, suite);
      await alice.conversations.send(id, 'text');
      const [toBob, toCarol] = [bob, carol].map((device) => alice.rowsFor(device).at(-1));
      assert(toBob !== undefined && toCarol !== undefined);
      const isChannel = suite === xwingSuite;
      assert.equal(parseEnvelope(toBob.payload).mode, isChannel ? 'channel' : 'hybrid');
      assert.equal(Buffer.compare(toBob.payload, toCarol.payload) === 0, isChannel);
      await deliver(alice, bob);
      assert.deepEqual(
        bob.history(id).map(({ text }) => text),
        ['text'],
      );
    }
  });

  test('asks again with the same claim after a lost answer, and with a new one afterwards', async () => {
    const { alice, bob, directory } = people();
    const claims: string[] = [];
    const call = directory.call.bind(directory);
    let isLosing = true;
    directory.call = async (method, request) => {
      const answer = await call(method, request);
      if (method.name === 'FetchKeyPackage') {
        const { claimId } = request as { claimId: Uint8Array };
        claims.push(Buffer.from(claimId).toString('hex'));
        if (isLosing) throw new TransportError('closed', 'gone');
      }
      return answer;
    };
    assert(
      hasReason(await rejection(alice.conversations.create('x', [bob.userId])), 'DISCONNECTED'),
    );
    alice.restart();
    isLosing = false;
    await alice.conversations.create('x', [bob.userId]);
    await alice.conversations.create('y', [bob.userId]);
    assert.equal(claims.length, 3);
    assert.equal(claims[0], claims[1]);
    assert.notEqual(claims[1], claims[2]);
  });

  test('is not made when somebody is unknown or has no package', async () => {
    const { alice, bob } = people({ suites: [] });
    assert.equal(
      (await rejection(alice.conversations.create('x', ['nobody@red.example']))).reason,
      'UNKNOWN_USER',
    );
    assert.equal(
      (await rejection(alice.conversations.create('x', [bob.userId]))).reason,
      'NO_KEY_PACKAGE',
    );
    assert.equal(
      (await rejection(alice.conversations.create('n'.repeat(257), [bob.userId]))).reason,
      'BAD_FIELD',
    );
    assert.deepEqual(alice.store.groups.conversations(), []);
    assert.equal(alice.store.outbox.openCount(), 0);
  });

  test('is not made with a package that is not the device’s', async () => {
    const { alice, bob, carol, directory } = people();
    const call = directory.call.bind(directory);
    // The node answers for bob with carol's package under bob's name.
    directory.call = async (method, request) => {
      if (method.name !== 'FetchKeyPackage') return call(method, request);
      const honest = await call(method, request);
      const other = await call(method, { ...request, userId: carol.userId });
      const [theirs] = (other as unknown as { packages: { keyPackage: Uint8Array }[] }).packages;
      const [mine] = (honest as unknown as { packages: { keyPackage: Uint8Array }[] }).packages;
      assert(theirs !== undefined && mine !== undefined);
      mine.keyPackage = theirs.keyPackage;
      return honest;
    };
    assert.equal(
      (await rejection(alice.conversations.create('x', [bob.userId]))).reason,
      'BAD_FIELD',
    );
  });
});

describe('members', () => {
  test('are added by owners and admins; the others learn it, the new one reads from then on', async () => {
    const { alice, bob, carol, directory } = people();
    const dave = new TestDevice('dave@red.example', directory);
    const id = await alice.conversations.create('grow', [bob.userId]);
    await alice.conversations.send(id, 'before');
    await alice.conversations.addMembers(id, [carol.userId]);
    await alice.conversations.send(id, 'after');
    await deliver(alice, bob);
    await deliver(alice, carol);
    assert.deepEqual(await bob.conversations.members(id), await carol.conversations.members(id));
    assert.deepEqual(
      bob.history(id).map(({ text }) => text),
      ['before', 'after'],
    );
    assert.deepEqual(
      carol.history(id).map(({ text }) => text),
      ['after'],
    );
    const refused = await rejection(bob.conversations.addMembers(id, [dave.userId]));
    assert.equal(refused.reason, 'NOT_ALLOWED');
    // Who is there already need not be added.
    await alice.conversations.addMembers(id, [bob.userId]);
  });
});

describe('a text', () => {
  test('has bounds, and needs a conversation', async () => {
    const { alice, bob } = people();
    const id = await alice.conversations.create('bounds', [bob.userId]);
    const most = 'x'.repeat(contentLimits.textBytes);
    await alice.conversations.send(id, most);
    assert.equal((await rejection(alice.conversations.send(id, `${most}x`))).reason, 'TOO_LARGE');
    assert.equal((await rejection(alice.conversations.send(id, ''))).reason, 'BAD_FIELD');
    assert.equal(
      (await rejection(alice.conversations.send(new Uint8Array(32), 'x'))).reason,
      'UNKNOWN_GROUP',
    );
    await deliver(alice, bob);
    assert.equal(bob.history(id)[0]?.text, most);
  });

  test('is parsed with the same bounds', () => {
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(3).fill(0xff),
      new Uint8Array(contentLimits.contentBytes + 1),
      Uint8Array.of(0x0a, 1, 7),
    ]) {
      assert.throws(
        () => parseContent(bytes),
        (error) => hasReason(error, 'BAD_CONTENT'),
      );
    }
  });
});
