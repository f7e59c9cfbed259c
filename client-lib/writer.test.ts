/** The queue of state changes: one transaction for all or nothing, and no ratchet key used twice. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hasReason } from '@quicprochat/proto';
import { openChannel, parseEnvelope } from './crypto/envelope.ts';
import { EventBus } from './events.ts';
import { openMemoryStore } from './store/sqlite-store.ts';
import type { ClientStore } from './store/store.ts';
import { TestDevice } from './test-devices.ts';
import { TestDirectory } from './test-directory.ts';
import { testRuntime } from './test-runtime.ts';
import { Writer, writerLimits } from './writer.ts';

const mark = (fill: number): Uint8Array => new Uint8Array(16).fill(fill);

/** A store that counts its transactions and can be told to fail the next one. */
function watched(store: ClientStore): {
  readonly store: ClientStore;
  readonly count: () => number;
  readonly failNext: () => void;
} {
  let transactions = 0;
  let isFailing = false;
  return {
    store: {
      ...store,
      transaction(work) {
        transactions += 1;
        return store.transaction(() => {
          const result = work();
          if (isFailing) {
            isFailing = false;
            throw new RangeError('disk full');
          }
          return result;
        });
      },
    },
    count: () => transactions,
    failNext: () => {
      isFailing = true;
    },
  };
}

describe('the writer', () => {
  test('commits jobs that wait together in one transaction, in order', async () => {
    const { store, count } = watched(openMemoryStore());
    const writer = new Writer(store, testRuntime);
    const order: number[] = [];
    await Promise.all(
      [1, 2, 3].map((n) =>
        writer.run(async (batch) => {
          order.push(n);
          batch.addSeen(mark(n));
        }),
      ),
    );
    assert.deepEqual(order, [1, 2, 3]);
    assert.equal(count(), 1);
    assert(store.inbox.hasSeen(mark(3)));
  });

  test('a job sees what earlier jobs of its transaction did', async () => {
    const writer = new Writer(openMemoryStore(), testRuntime);
    const first = writer.run(async (batch) => batch.addSeen(mark(1)));
    const second = writer.run(async (batch) => batch.hasSeen(mark(1)));
    await first;
    assert.equal(await second, true);
  });

  test('a job that throws changes nothing and stops no other', async () => {
    const store = openMemoryStore();
    const writer = new Writer(store, testRuntime);
    const bad = writer.run(async () => {
      throw new RangeError('no');
    });
    const good = writer.run(async (batch) => batch.addSeen(mark(2)));
    await assert.rejects(bad, RangeError);
    await good;
    assert(store.inbox.hasSeen(mark(2)));
  });

  test('a commit that fails rejects its job, and nothing is announced', async () => {
    const { store, failNext } = watched(openMemoryStore());
    const writer = new Writer(store, testRuntime);
    let isAnnounced = false;
    failNext();
    const job = writer.run(async (batch) => {
      batch.addSeen(mark(1));
      batch.after(() => (isAnnounced = true));
    });
    await assert.rejects(job, RangeError);
    assert.equal(isAnnounced, false);
    assert.equal(store.inbox.hasSeen(mark(1)), false);
    await writer.run(async (batch) => batch.addSeen(mark(3)));
    assert(store.inbox.hasSeen(mark(3)));
  });

  test('a job that cannot be written costs the others of its transaction nothing', async () => {
    const store = openMemoryStore();
    const writer = new Writer(store, testRuntime);
    const announced: number[] = [];
    const jobs = [1, 2, 3].map((n) =>
      writer.run(async (batch) => {
        batch.addSeen(n === 2 ? new Uint8Array(1) : mark(n));
        batch.after(() => announced.push(n));
        return n;
      }),
    );
    const results = await Promise.allSettled(jobs);
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
    assert.deepEqual(announced, [1, 3]);
    assert.deepEqual(
      [1, 3].map((n) => store.inbox.hasSeen(mark(n))),
      [true, true],
    );
  });

  test('is announced to everybody, though one of those that hear of it throws', async () => {
    const logged: string[] = [];
    const log = { ...testRuntime.log, error: (event: string) => void logged.push(event) };
    const writer = new Writer(openMemoryStore(), { ...testRuntime, log });
    const events = new EventBus();
    const told: number[] = [];
    using _bad = events.listen(() => {
      throw new RangeError('bad listener');
    });
    using _good = events.listen(({ type }) => type === 'gap' && told.push(0));
    const subscribed = events.subscribe();
    await Promise.all(
      [1, 2].map((n) =>
        writer.run(async (batch) => {
          batch.after(() => events.emit({ type: 'gap', from: n, to: n }));
          batch.after(() => told.push(n));
        }),
      ),
    );
    await writer.idle();
    assert.deepEqual(told, [0, 1, 0, 2]);
    assert.deepEqual(logged, ['after commit', 'after commit']);
    events.close();
    const heard = [];
    for await (const event of subscribed) heard.push(event.type);
    assert.deepEqual(heard, ['gap', 'gap']);
  });

  test('refuses jobs beyond its bound', async () => {
    const writer = new Writer(openMemoryStore(), testRuntime);
    const jobs = Array.from({ length: writerLimits.jobsQueued }, () => writer.run(async () => {}));
    await assert.rejects(
      writer.run(async () => {}),
      (error) => hasReason(error, 'OVERLOADED'),
    );
    await Promise.all(jobs);
  });
});

describe('sealing', () => {
  test('uses no ratchet key twice, over restarts and sends at the same time', async () => {
    const directory = new TestDirectory();
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@blue.example', directory);
    const id = await alice.conversations.create('keys', [bob.userId]);
    for (let round = 0; round < 4; round += 1) {
      await Promise.all([1, 2, 3].map((n) => alice.conversations.send(id, `text ${round} ${n}`)));
      alice.restart();
    }
    const [welcome, ...sent] = alice.rowsFor(bob);
    assert(welcome !== undefined);
    await bob.receive(welcome);
    const groupId = bob.store.groups.conversation(id)?.groupId ?? mark(0);
    const generations = await bob.writer.run(async (batch) => {
      const group = batch.group(groupId);
      assert(group !== undefined);
      return Promise.all(
        sent.map(async ({ payload }) => {
          const envelope = parseEnvelope(payload);
          assert(envelope.mode === 'channel');
          const [key] = bob.store.groups.envelopeKeys(envelope.keyId);
          const { bytes } = openChannel(envelope, () => key?.key);
          const opened = await bob.mls.process(group, bytes);
          assert(opened.kind === 'application');
          return opened.generation;
        }),
      );
    });
    assert.equal(sent.length, 12);
    assert.deepEqual(
      [...generations].sort((a, b) => a - b),
      Array.from({ length: 12 }, (_, n) => (generations[0] ?? 0) + n),
    );
    assert.deepEqual(
      alice.history(id).map(({ n }) => n),
      Array.from({ length: 12 }, (_, n) => n + 1),
    );
  });

  test('that fails to commit leaves neither a message nor a used key', async () => {
    const directory = new TestDirectory();
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@blue.example', directory);
    const id = await alice.conversations.create('keys', [bob.userId]);
    const groupId = alice.store.groups.conversation(id)?.groupId ?? mark(0);
    const before = alice.store.groups.state(groupId);
    // A write that SQLite refuses in the same transaction: all of the job goes.
    const failing = alice.writer.run(async (batch) => {
      const group = batch.group(groupId);
      assert(group !== undefined);
      const sealed = await alice.mls.encrypt(group, mark(1), mark(0));
      batch.useKeys(sealed.next, sealed.epoch, sealed.wipe);
      batch.write(() => alice.store.inbox.addSeen(new Uint8Array(1), 0));
    });
    await assert.rejects(failing);
    assert.deepEqual(alice.store.groups.state(groupId), before);
    assert.deepEqual(alice.history(id), []);
    assert.equal(alice.rowsFor(bob).length, 1);
    await alice.conversations.send(id, 'again');
    for (const row of alice.rowsFor(bob)) await bob.receive(row);
    assert.deepEqual(
      bob.history(id).map(({ text, n }) => [text, n]),
      [['again', 1]],
    );
  });
});
