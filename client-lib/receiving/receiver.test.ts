/** The client's rule of docs/protocol/delivery.md, on real MLS messages in any order of arrival. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DataLossError, hasReason, RowKind } from '@quicprochat/proto';
import { openChannel, parseEnvelope, sealChannel } from '../crypto/envelope.ts';
import { mandatorySuite } from '../mls/index.ts';
import { parkedLimits } from './parked-room.ts';
import { assertHas, TestDevice, testStoreId, type TestRow } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { writerLimits } from '../writer.ts';

type Sent = TestRow;

interface Story {
  readonly bob: TestDevice;
  readonly conversationId: Uint8Array;
  /** Welcome, a commit, messages of both epochs, for bob. */
  readonly rows: readonly Sent[];
  readonly texts: readonly string[];
}

/** alice makes a group with bob, both epochs get messages of everybody but bob. */
async function makeStory(suites?: ConstructorParameters<typeof TestDevice>[2]): Promise<Story> {
  const directory = new TestDirectory();
  const alice = new TestDevice('alice@red.example', directory);
  const bob = new TestDevice('bob@blue.example', directory, suites);
  const carol = new TestDevice('carol@red.example', directory);
  const conversationId = await alice.conversations.create('story', [bob.userId]);
  const texts: string[] = [];
  const say = async (who: TestDevice, text: string): Promise<void> => {
    await who.conversations.send(conversationId, text);
    texts.push(text);
  };
  for (const n of [1, 2, 3]) await say(alice, `alice ${n}`);
  await alice.conversations.addMembers(conversationId, [carol.userId]);
  for (const row of alice.rowsFor(carol)) await carol.receive(row);
  for (const n of [4, 5]) await say(alice, `alice ${n}`);
  if (suites === undefined) for (const n of [1, 2]) await say(carol, `carol ${n}`);
  const rows = [...alice.rowsFor(bob), ...carol.rowsFor(bob)];
  return { bob, conversationId, rows, texts };
}

/** The MLS message in a channel envelope whose key the device has. */
function openedBytes(device: TestDevice, row: Sent): Uint8Array {
  const envelope = parseEnvelope(row.payload);
  assert(envelope.mode === 'channel');
  const [key] = device.store.groups.envelopeKeys(envelope.keyId);
  return openChannel(envelope, () => key?.key).bytes;
}

/** The same MLS message in a new envelope, as another path would bring it. */
function resealed(bob: TestDevice, row: Sent): Sent {
  if (row.kind === RowKind.GroupControl) return row;
  const envelope = parseEnvelope(row.payload);
  if (envelope.mode !== 'channel') return row;
  const [key] = bob.store.groups.envelopeKeys(envelope.keyId);
  if (key === undefined) return row;
  const content = openChannel(envelope, () => key.key);
  const { random } = testRuntime;
  return { mid: random.bytes(16), payload: sealChannel({ content, key: key.key, random }) };
}

describe('rows of an inbox', () => {
  test('give each message once, whatever order, repetition and restarts they come with', async () => {
    const { bob, conversationId, rows, texts } = await makeStory();
    const indexes = rows.map((_, index) => index);
    await fc.assert(
      fc.asyncProperty(
        fc.shuffledSubarray(indexes, { minLength: indexes.length }),
        fc.array(fc.record({ again: fc.nat(rows.length - 1), at: fc.nat(rows.length) }), {
          maxLength: 8,
        }),
        fc.array(fc.nat(rows.length), { maxLength: 4 }),
        async (order, repeats, restarts) => {
          bob.fresh();
          for (const [step, index] of order.entries()) {
            if (restarts.includes(step)) bob.restart();
            for (const { again, at } of repeats) {
              const repeated = rows[again];
              if (at === step && repeated !== undefined) await bob.receive(repeated);
            }
            const row = rows[index];
            assert(row !== undefined);
            await bob.receive(row);
          }
          for (const row of rows) await bob.receive(resealed(bob, row));
          assertHas(bob, conversationId, texts);
        },
      ),
      { numRuns: 30 },
    );
  });

  test('in hybrid envelopes too, when the group has suite 0x0001', async () => {
    const { bob, conversationId, rows, texts } = await makeStory({ suites: [mandatorySuite] });
    const messages = rows.filter(({ kind }) => kind === undefined);
    assert(messages.every(({ payload }) => parseEnvelope(payload).mode === 'hybrid'));
    await fc.assert(
      fc.asyncProperty(
        fc.shuffledSubarray([...rows, ...rows], { minLength: rows.length * 2 }),
        async (order) => {
          bob.fresh();
          for (const row of order) await bob.receive(row);
          assertHas(bob, conversationId, texts);
        },
      ),
      { numRuns: 15 },
    );
  });

  test('wait in the store until the Welcome is there, and say so', async () => {
    const { bob, conversationId, rows } = await makeStory();
    bob.fresh();
    const [welcome, , first] = rows;
    assert(welcome !== undefined && first !== undefined);
    await bob.receive(first);
    assert.deepEqual(
      bob.store.inbox.parked().map(({ reason }) => reason),
      ['UNKNOWN_KEY'],
    );
    assert.deepEqual(bob.store.groups.conversations(), []);
    bob.restart();
    await bob.receive(welcome);
    assertHas(bob, conversationId, ['alice 1']);
  });

  test('never pass one that could not be taken in', async () => {
    const { bob, rows } = await makeStory();
    bob.fresh();
    const [welcome, second] = rows;
    assert(welcome !== undefined && second !== undefined);
    await bob.receive(welcome);
    const ahead = { ...second, seq: 3, kind: RowKind.GroupControl, receivedMs: 0 };
    await assert.rejects(
      bob.receiver.receive(ahead, testStoreId),
      (error) => error instanceof DataLossError && error.reason === 'STREAM_GAP',
    );
    await assert.rejects(
      bob.receiver.receive({ ...ahead, seq: 2 }, new Uint8Array(8).fill(9)),
      (error) => hasReason(error, 'STORE_CHANGED'),
    );
    assert.equal(bob.history(new Uint8Array(32)).length, 0);
    await bob.receiver.passGap(2, 2, testStoreId);
    await bob.receiver.receive(ahead, testStoreId);
    assert.deepEqual(
      bob.store.inbox.gaps().map(({ from, to }) => [from, to]),
      [[2, 2]],
    );
    assert.deepEqual(
      bob.events.filter(({ type }) => type === 'gap'),
      [{ type: 'gap', from: 2, to: 2 }],
    );
  });

  test('that nothing can open are recorded with their reason, and the next ones go on', async () => {
    const { bob, conversationId, rows } = await makeStory();
    bob.fresh();
    const [welcome, , first] = rows;
    assert(welcome !== undefined && first !== undefined);
    const broken = Uint8Array.from(first.payload);
    broken[broken.length - 1] = (broken.at(-1) ?? 0) ^ 1;
    const mid = testRuntime.random.bytes(16);
    await bob.receive(welcome);
    await bob.receive({ mid, payload: broken });
    await bob.receive({ mid, payload: new Uint8Array(40) });
    await bob.receive({ mid, payload: broken });
    await bob.receive(first);
    assert.deepEqual(
      bob.store.inbox.undecryptable().map(({ reason, seq }) => [reason, seq]),
      [
        ['BAD_ENVELOPE', 2],
        ['BAD_ENVELOPE', 3],
      ],
    );
    assert.equal(bob.events.filter(({ type }) => type === 'undecryptable').length, 2);
    assert.deepEqual(
      bob.history(conversationId).map(({ text }) => text),
      ['alice 1'],
    );
  });

  test('that wait are bounded in number and bytes: a flood ends as records, not as a full disk', async () => {
    const directory = new TestDirectory();
    const bob = new TestDevice('bob@blue.example', directory);
    const { random } = testRuntime;
    // Anybody can seal something of a key that the recipient lacks.
    const payload = sealChannel({
      content: { kind: 'mlsMessage', bytes: random.bytes(500_000) },
      key: random.bytes(32),
      random,
    });
    const flood = Math.ceil(parkedLimits.keylessBytes / payload.length) + 3;
    for (let sent = 0; sent < flood; sent += 1) {
      await bob.receive({ mid: random.bytes(16), payload });
    }
    const parked = bob.store.inbox.parked().reduce((sum, row) => sum + row.payload.length, 0);
    assert(parked > 0 && parked <= parkedLimits.keylessBytes, `${parked} bytes wait`);
    assert.deepEqual(
      [...new Set(bob.store.inbox.undecryptable().map(({ reason }) => reason))],
      ['TOO_MANY_PARKED'],
    );
  });

  test('that wait are all tried again, though something is wrong with one of them', async () => {
    const bob = new TestDevice('bob@blue.example', new TestDirectory());
    const { inbox, groups } = bob.store;
    const { random } = testRuntime;
    const count = 2 * writerLimits.jobsPerBatch;
    bob.store.transaction(() => {
      for (let seq = 1; seq <= count; seq += 1) {
        const content = { kind: 'mlsMessage', bytes: random.bytes(16) } as const;
        const payload = sealChannel({ content, key: random.bytes(32), random });
        const row = { seq, mid: random.bytes(16), kind: RowKind.Envelope, payload, receivedMs: 0 };
        // It has waited for as long as it may: each try ends one.
        inbox.park(row, 'UNKNOWN_KEY', '', 0);
      }
    });
    const envelopeKeys = groups.envelopeKeys.bind(groups);
    let tries = 0;
    Object.assign(groups, {
      envelopeKeys(keyId: Uint8Array) {
        tries += 1;
        if (tries === 1) throw new RangeError('not the fault of the row');
        return envelopeKeys(keyId);
      },
    });
    await bob.receiver.retryParked();
    assert.deepEqual([tries, inbox.parked().length], [count, 1]);
  });

  test('use up their keys on disk: after a restart the same bytes open no more', async () => {
    const { bob, conversationId, rows } = await makeStory();
    bob.fresh();
    // Two messages of the first epoch, one of them late, and one of the second.
    const [welcome, commit, early, late, , second] = rows;
    const messages = [early, late, second];
    for (const row of [welcome, early, commit, late, second]) {
      assert(row !== undefined);
      await bob.receive(row);
    }
    bob.restart();
    const conversation = bob.store.groups.conversation(conversationId);
    assert(conversation !== undefined);
    await bob.writer.run(async (batch) => {
      const group = batch.group(conversation.groupId);
      assert(group !== undefined);
      for (const row of messages) {
        assert(row !== undefined);
        const bytes = openedBytes(bob, row);
        await assert.rejects(bob.mls.process(group, bytes), (error) =>
          hasReason(error, 'DUPLICATE', 'GENERATION_GONE'),
        );
      }
    });
  });

  test('of somebody whose account key changed are refused, not believed', async () => {
    const { bob, rows } = await makeStory();
    bob.fresh();
    const impostor = new TestDevice('alice@red.example', new TestDirectory());
    await bob.contacts.resolve('alice@red.example', impostor.directory);
    const [welcome] = rows;
    assert(welcome !== undefined);
    await bob.receive(welcome);
    assert.deepEqual(bob.store.groups.conversations(), []);
    assert.deepEqual(
      bob.store.inbox.undecryptable().map(({ reason }) => reason),
      ['BAD_CREDENTIAL'],
    );
  });

  test('a used KeyPackage opens no second Welcome', async () => {
    const directory = new TestDirectory();
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@blue.example', directory);
    directory.isRepeating = true;
    await alice.conversations.create('one', [bob.userId]);
    await alice.conversations.create('two', [bob.userId]);
    const [first, second] = alice.rowsFor(bob);
    assert(first !== undefined && second !== undefined);
    await bob.receive(first);
    await bob.receive(second);
    assert.deepEqual(
      bob.store.groups.conversations().map(({ name }) => name),
      ['one'],
    );
    assert.deepEqual(
      bob.store.inbox.undecryptable().map(({ reason }) => reason),
      ['KEY_PACKAGE_USED'],
    );
  });
});
