/** The device store through its interface, on a real file and in memory; one process at a time. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, test } from 'node:test';
import { openDatabase, StoreError } from './database.ts';
import { openDriver } from './sqlite-driver.ts';
import { openMemoryStore, openStore } from './sqlite-store.ts';
import type { NewMessage } from './message-rows.ts';
import type { ClientStore } from './store.ts';

const folder = mkdtempSync(join(tmpdir(), 'qpc-store-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const key = new Uint8Array(32).fill(7);
let files = 0;
const freshPath = (): string => join(folder, `store-${(files += 1)}.db`);
const id = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);

function message(inner: number, receivedMs: number | undefined): NewMessage {
  return {
    conversationId: id(32, 1),
    senderUser: 'bob@blue.example',
    senderDevice: 'abcdefghijklmnop',
    innerId: id(16, inner),
    n: inner,
    lamport: inner,
    text: `text ${inner}`,
    sentMs: 1_000 + inner,
    receivedMs,
  };
}

function failsWith(reason: string): (error: unknown) => boolean {
  return (error) => error instanceof StoreError && error.reason === reason;
}

describe('the store file', () => {
  test('keeps what a transaction wrote, and nothing of one that threw', () => {
    const path = freshPath();
    {
      using store = openStore(path, key);
      store.transaction(() => store.inbox.addSeen(id(16, 1), 5));
      assert.throws(() =>
        store.transaction(() => {
          store.inbox.addSeen(id(16, 2), 5);
          throw new RangeError('half way');
        }),
      );
    }
    using store = openStore(path, key);
    assert.equal(store.inbox.hasSeen(id(16, 1)), true);
    assert.equal(store.inbox.hasSeen(id(16, 2)), false);
  });

  test('is unreadable with a wrong key or as plain SQLite, and holds no text in clear', () => {
    const path = freshPath();
    {
      using store = openStore(path, key);
      store.messages.add({ ...message(1, 5), text: 'a planted mark in clear' });
    }
    assert.throws(() => openStore(path, id(32, 8)), failsWith('STORE_KEY'));
    const raw = readFileSync(path);
    assert.equal(raw.includes('planted mark'), false);
    assert.equal(raw.subarray(0, 15).toString('latin1') === 'SQLite format 3', false);
  });

  test('of before key transparency keeps account and history, and forgets what was only believed', () => {
    const path = freshPath();
    const old = openDriver(path);
    old.pragma(`cipher = 'sqlcipher'`);
    old.pragma('legacy = 4');
    old.pragma(`key = "x'${Buffer.from(key).toString('hex')}'"`);
    old.exec(readFileSync(new URL('./migrations/0001-first.sql', import.meta.url), 'utf8'));
    old.pragma('user_version = 1');
    old.exec(`
      INSERT INTO account VALUES (1, 'alice@red.example', 'qpc://x', zeroblob(32), zeroblob(32),
        'certificate', 'key', NULL, 1, 5);
      INSERT INTO contact VALUES ('bob@blue.example', zeroblob(32), x'01', x'02', 0, 1, 1, 'firstUse')`);
    old.close();
    using store = openStore(path, key);
    const account = store.account.get();
    assert.deepEqual(
      [account?.userId, account?.bundleSeq, account?.nextAccountSeed],
      ['alice@red.example', 0, undefined],
    );
    assert.equal(store.contacts.get('bob@blue.example'), undefined);
  });

  test('is readable by its owner only', () => {
    const path = freshPath();
    using store = openStore(path, key);
    store.inbox.addSeen(id(16, 1), 5);
    assert.equal(statSync(path).mode & 0o077, 0);
    assert.equal(statSync(`${path}-wal`).mode & 0o077, 0);
  });

  test('refuses a file that is no database, a short key and a newer schema, each by its reason', () => {
    const noise = freshPath();
    writeFileSync(noise, 'x'.repeat(8192));
    assert.throws(() => openStore(noise, key), failsWith('STORE_KEY'));
    assert.throws(() => openStore(freshPath(), id(31, 1)), failsWith('STORE_KEY'));
    assert.throws(() => openStore(join(folder, 'no', 'folder.db'), key), failsWith('STORE_PATH'));
    const newer = freshPath();
    const db = openDatabase(newer, key);
    db.run('PRAGMA user_version = 99');
    db.close();
    assert.throws(() => openStore(newer, key), failsWith('STORE_VERSION'));
  });

  test('is open in one process only, until that process is gone', async () => {
    const path = freshPath();
    const holder = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { openStore } from ${JSON.stringify(new URL('./sqlite-store.ts', import.meta.url).href)};
         const store = openStore(process.argv[1], new Uint8Array(32).fill(7));
         process.stdout.write('open\\n');
         process.stdin.on('data', () => store.close());`,
        path,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    await once(createInterface({ input: holder.stdout }), 'line');
    assert.throws(() => openStore(path, key), failsWith('STORE_IN_USE'));
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    openStore(path, key).close();
  });
});

const variants: readonly [string, () => ClientStore][] = [
  ['file', () => openStore(freshPath(), key)],
  ['memory', openMemoryStore],
];
for (const [name, open] of variants) {
  describe(`rows of the ${name} store`, () => {
    test('a message is known by conversation, sender device and inner id', () => {
      using store = open();
      assert.notEqual(store.messages.add(message(1, 10)), undefined);
      assert.equal(store.messages.add(message(1, 11)), undefined);
      assert.notEqual(
        store.messages.add({ ...message(1, 12), senderDevice: 'ponmlkjihgfedcba' }),
        undefined,
      );
      assert.equal(store.messages.history(id(32, 1), 10).length, 2);
    });

    test('history is ordered by lamport and inner id, not by arrival', () => {
      using store = open();
      for (const inner of [3, 1, 2]) store.messages.add(message(inner, 10));
      assert.deepEqual(
        store.messages.history(id(32, 1), 2).map((one) => one.n),
        [2, 3],
      );
    });

    test('received messages wait for the application, own ones do not', () => {
      using store = open();
      store.messages.add(message(1, undefined));
      const first = store.messages.add(message(2, 10)) ?? 0;
      const second = store.messages.add(message(3, 10)) ?? 0;
      assert.deepEqual(
        store.messages.undisplayed(0, 10).map((one) => one.id),
        [first, second],
      );
      store.messages.markDisplayed([first], 20);
      assert.deepEqual(
        store.messages.undisplayed(0, 10).map((one) => one.id),
        [second],
      );
    });

    test('what a blocked person wrote waits unseen, and nothing that was seen goes', () => {
      using store = open();
      const bob = 'bob@blue.example';
      const seen = store.messages.add(message(1, 10)) ?? 0;
      store.messages.markDisplayed([seen], 20);
      const others = { senderUser: 'carol@red.example', senderDevice: 'ponmlkjihgfedcba' };
      const shown = (): { readonly news: number[]; readonly history: number[] } => ({
        news: store.messages.undisplayed(0, 10).map((one) => one.n),
        history: store.messages.history(id(32, 1), 10).map((one) => one.n),
      });
      store.messages.add(message(2, 30));
      store.messages.add({ ...message(3, 31), ...others });
      store.messages.add(message(4, undefined));
      store.tokens.block(bob, 40);
      store.messages.add(message(5, 50));
      assert.deepEqual(shown(), { news: [3], history: [1, 3, 4] });
      store.tokens.unblock(bob);
      assert.deepEqual(shown(), { news: [2, 3, 5], history: [1, 2, 3, 4, 5] });
    });

    test('the outbox is first-in first-out per device and stores one ciphertext once', () => {
      using store = open();
      const [a, b] = [id(32, 0xaa), id(32, 0xbb)];
      const add = (fill: number, rids: readonly Uint8Array[]): void =>
        store.outbox.add(
          {
            mid: id(16, fill),
            payload: id(40, fill),
            targets: rids.map((rid) => ({ rid, domain: 'red.example' })),
            messageId: undefined,
          },
          1,
        );
      add(1, [a, b]);
      add(2, [a]);
      const hexA = Buffer.from(a).toString('hex');
      assert.deepEqual(
        store.outbox.openTargets().map(({ target }) => target),
        [hexA, Buffer.from(b).toString('hex')],
      );
      const first = store.outbox.next(hexA, 0);
      assert.deepEqual(first?.payload, id(40, 1));
      store.outbox.markAccepted(first?.id ?? 0, id(8, 1), 2);
      assert.deepEqual(store.outbox.next(hexA, 0)?.payload, id(40, 2));
      assert.equal(store.outbox.openCount(), 2);
      assert.equal(store.outbox.reopen(id(8, 1)), 0);
      assert.equal(store.outbox.reopen(id(8, 2)), 1);
      const { acceptedMs, ...again } = store.outbox.next(hexA, 0) ?? {};
      assert.deepEqual({ ...again, acceptedMs: undefined }, first);
      assert.notEqual(acceptedMs, undefined);
    });

    test('a message is accepted with its last copy and failed with the first refusal', () => {
      using store = open();
      const messageId = store.messages.add(message(1, undefined));
      const rids = [id(32, 1), id(32, 2)];
      store.outbox.add(
        {
          mid: id(16, 1),
          payload: id(1, 1),
          targets: rids.map((rid) => ({ rid, domain: 'red.example' })),
          messageId,
        },
        1,
      );
      const state = (): string | undefined => store.messages.history(id(32, 1), 1)[0]?.sendState;
      const next = (fill: number): number =>
        store.outbox.next(Buffer.from(id(32, fill)).toString('hex'), 0)?.id ?? 0;
      store.outbox.markAccepted(next(1), id(8, 1), 5);
      assert.equal(state(), 'sealed');
      const second = next(2);
      store.outbox.markAccepted(second, id(8, 1), 6);
      assert.equal(state(), 'accepted');
      assert.equal(store.messages.history(id(32, 1), 1)[0]?.acceptedMs, 6);
      store.outbox.reopen(id(8, 2));
      store.outbox.markFailed(second, 'UNKNOWN_DEVICE');
      assert.equal(state(), 'failed');
    });

    test('a consumed single-use KeyPackage is gone and remembered, the last resort stays', () => {
      using store = open();
      const make = (ref: number, isLastResort: boolean) => ({
        ref: id(32, ref),
        suite: 1,
        publicBytes: id(3, 1),
        privateBytes: id(3, 2),
        isLastResort,
        notAfterMs: 100,
        isPublished: false,
      });
      store.keys.addKeyPackages([make(1, false), make(2, true)]);
      for (const ref of [1, 2]) store.keys.consumeKeyPackage(id(32, ref), 5);
      assert.equal(store.keys.keyPackage(id(32, 1)), undefined);
      assert.equal(store.keys.wasKeyPackageConsumed(id(32, 1)), true);
      assert.deepEqual(store.keys.keyPackage(id(32, 2)), make(2, true));
      assert.equal(store.keys.wasKeyPackageConsumed(id(32, 2)), false);
    });

    test('what happened to keys is kept once, newest first; the state of a log under its own name', () => {
      using store = open();
      const event = { atMs: 1, type: 'keyChange', subject: 'bob@blue.example', reason: 'one' };
      assert.equal(store.logs.addEvent(event), true);
      assert.equal(store.logs.addEvent({ ...event, atMs: 2 }), false);
      assert.equal(store.logs.addEvent({ ...event, reason: 'two' }), true);
      assert.equal(store.logs.addEvent({ ...event, type: 'ownChange' }), true);
      assert.equal(store.logs.hasEvent('ownChange', event.subject, 'one'), true);
      assert.deepEqual(
        store.logs.events(9).map(({ reason }) => reason),
        ['two', 'one'],
      );
      store.logs.putState('a', 'log', id(3, 1));
      store.logs.putState('b', 'log', id(3, 2));
      store.logs.putState('a', 'log', id(3, 3));
      store.logs.putState('b', 'log', undefined);
      assert.deepEqual(store.logs.state('a', 'log'), id(3, 3));
      assert.equal(store.logs.state('b', 'log'), undefined);
    });

    test('an older prekey never replaces a newer one', () => {
      using store = open();
      store.contacts.putPrekey(id(32, 1), id(4, 1), 200);
      store.contacts.putPrekey(id(32, 1), id(4, 2), 100);
      assert.deepEqual(store.contacts.prekey(id(32, 1)), {
        publicKey: id(4, 1),
        notAfterMs: 200,
      });
    });
  });
}
