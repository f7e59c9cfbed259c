/**
 * Crash tests of the client (docs/protocol/delivery.md, "The client's rule" and "Sending, likewise"): a
 * real client is killed with SIGKILL between fetch and ack, and while it sends. The stores alone
 * are judged: nothing lost, nothing twice, nothing that cannot be decrypted.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openStore } from '@quicprochat/client-lib/store';
import { call, methods, hex } from '@quicprochat/proto';
import { CloseCode, loadIdentity } from '@quicprochat/proto/transport';
import { ClientProcess } from '../cluster/client-process.ts';
import { dialNode } from '../cluster/crashing-node.ts';
import { checkDelivery, type ClosedStore } from '../cluster/delivery-check.ts';
import { Dice } from '../cluster/dice.ts';
import { NodeProcess } from '../cluster/node-process.ts';

const receiveKills = 20;
const sendKills = 16;
/** A life of the client ends at most this long (ms) after what it waits for. */
const lifeMs = 160;
/** Pace of the other client's messages (ms), in bursts that keep the receiver busy and slow ones. */
const everyMs = { fast: 0, slow: 20 };
const burst = 12;
/** So much is sent that the default rate of one device would pace the test. */
const config = '[rates]\nsend = { per_second = 1000, burst = 1000 }';
const settleMs = 40_000;

suite('a client killed with SIGKILL', { timeout: 200_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-client-kill-'));
  const storeOf = (name: string): ClosedStore => ({
    userId: `${name}@red.example`,
    path: join(directory, `${name}.db`),
    key: new Uint8Array(randomBytes(32)),
  });
  const aliceStore = storeOf('alice');
  const bobStore = storeOf('bob');
  const stores = [aliceStore, bobStore];
  const alice = new ClientProcess(aliceStore.userId);
  const bob = new ClientProcess(bobStore.userId);
  const returned: string[] = [];
  let node: NodeProcess;
  let conversationHex: string;

  before(async () => {
    node = await NodeProcess.init('red.example', join(directory, 'red'), config);
    await node.start();
    for (const [client, store] of [
      [alice, aliceStore],
      [bob, bobStore],
    ] as const) {
      client.start();
      await client.ask({ do: 'open', storePath: store.path, storeKeyHex: hex(store.key) });
      await client.ask({
        do: 'register',
        userId: store.userId,
        password: hex(randomBytes(8)),
        nodeAddress: node.address,
      });
      await client.ask({ do: 'start' });
    }
    conversationHex = String(
      await alice.ask({ do: 'create', name: 'crash', members: [bob.userId] }),
    );
    const first = arrivals(bob);
    await send(alice, 'hello');
    await first.next();
    first.end();
  });
  after(async () => {
    await alice.kill();
    await bob.kill();
    await node.kill();
    rmSync(directory, { recursive: true, force: true });
  });

  async function send(client: ClientProcess, prefix: string, count = 1, pause = 0): Promise<void> {
    await client.ask({ do: 'send', conversationHex, prefix, count, everyMs: pause });
  }

  async function restart(client: ClientProcess, store: ClosedStore): Promise<void> {
    client.start();
    await client.ask({ do: 'open', storePath: store.path, storeKeyHex: hex(store.key) });
    await client.ask({ do: 'start' });
  }

  /** Sends from alice until `stop`, in bursts. */
  async function aliceTalks(about: string, stop: AbortSignal): Promise<void> {
    for (let n = 1; !stop.aborted; n += 1) {
      await send(alice, `${about} ${n}`, burst, n % 2 === 0 ? everyMs.fast : everyMs.slow);
    }
  }

  /** Waits until both have everything, closes both, and judges; the clients run again after it. */
  async function judge(): Promise<void> {
    for (const client of [alice, bob]) await client.ask({ do: 'flush', timeoutMs: settleMs });
    const news = [arrivals(alice), arrivals(bob)];
    for (;;) {
      const counts = await Promise.all(
        [alice, bob].map((client) => client.ask({ do: 'countMessages' })),
      );
      if (counts[0] === counts[1]) break;
      try {
        await Promise.race(news.map((one) => one.next()));
      } catch {
        // Nothing comes any more: the stores will say what is missing.
        break;
      }
    }
    for (const one of news) one.end();
    await alice.close();
    await bob.close();
    const verdict = checkDelivery(stores);
    assert.ok(verdict.isClean, JSON.stringify(verdict.clients));
    for (const { sent, acknowledged } of verdict.clients) assert.equal(acknowledged, sent);
    const [ofAlice, ofBob] = verdict.clients;
    assert.equal(ofBob?.received, ofAlice?.sent);
    assert.equal(ofAlice?.received, ofBob?.sent);
    assert.deepEqual(gapsOf(bobStore), []);
  }

  test('between fetch and ack: it has every message once', async (t: TestContext) => {
    const dice = new Dice();
    t.diagnostic(`seed ${dice.seed}`);
    const stop = new AbortController();
    const talking = aliceTalks('to a dying bob', stop.signal);
    const report = { kills: 0, withUnacked: 0, unackedRows: 0, withWaiting: 0 };
    while (report.kills < receiveKills) {
      // Half of the lives end while the backlog of the last death is taken in.
      const news = arrivals(bob);
      if (dice.chance(0.5)) await news.next();
      news.end();
      await sleep(dice.int(2 * lifeMs));
      await bob.kill();
      report.kills += 1;
      const { unacked, waiting } = await inboxOf(bobStore, node, directory);
      report.unackedRows += unacked;
      if (unacked > 0) report.withUnacked += 1;
      if (waiting > 0) report.withWaiting += 1;
      await restart(bob, bobStore);
    }
    stop.abort();
    await talking;
    await judge();
    const total = messagesOf(bobStore).length;
    t.diagnostic(JSON.stringify({ ...report, messages: total }));
    assert.ok(report.withUnacked > 0, 'no kill fell between a commit and its ack');
    assert.ok(report.withWaiting > 0, 'no kill fell while rows were on their way');
    await restart(alice, aliceStore);
    await restart(bob, bobStore);
  });

  test('while it sends: what it had on disk arrives once', async (t: TestContext) => {
    const dice = new Dice();
    t.diagnostic(`seed ${dice.seed}`);
    const stop = new AbortController();
    const talking = aliceTalks('to a talking bob', stop.signal);
    const report = { kills: 0, inOpenSend: 0, withSealed: 0 };
    while (report.kills < sendKills) {
      const life = report.kills;
      let isDying = false;
      let open = 0;
      const says = async (loop: number): Promise<void> => {
        for (let n = 1; !isDying; n += 1) {
          const prefix = `life ${life} loop ${loop} n ${n}`;
          open += 1;
          try {
            await bob.ask({ do: 'send', conversationHex, prefix, count: 1, everyMs: 0 });
            // The client's text: prefix and number.
            returned.push(`${prefix} 1`);
          } catch (error) {
            // The kill: whether the message is on disk is for the store to say.
            if (!isDying) throw error;
          } finally {
            open -= 1;
          }
        }
      };
      const loops = Promise.all([1, 2, 3].map(says));
      await Promise.race([sleep(dice.int(3 * lifeMs)), loops]);
      isDying = true;
      if (open > 0) report.inOpenSend += 1;
      await bob.kill();
      await loops;
      report.kills += 1;
      if (sealedOf(bobStore, directory) > 0) report.withSealed += 1;
      await restart(bob, bobStore);
    }
    stop.abort();
    await talking;
    await judge();
    const own = messagesOf(bobStore).filter(({ receivedMs }) => receivedMs === undefined);
    const texts = new Set(own.map(({ text }) => text));
    const forgotten = returned.filter((text) => !texts.has(text));
    t.diagnostic(
      JSON.stringify({
        ...report,
        ownMessages: own.length,
        unreturned: own.length - returned.length,
        messages: messagesOf(bobStore).length,
      }),
    );
    assert.deepEqual(forgotten, [], 'a send returned that was not on disk');
    assert.ok(report.inOpenSend > 0, 'no kill fell inside an open send');
    assert.ok(report.withSealed > 0, 'no kill left a message that the node had not confirmed');
  });
});

/** The arrivals that a client tells of, from now on. */
function arrivals(client: ClientProcess): { next(): Promise<void>; end(): void } {
  let came = Promise.withResolvers<void>();
  client.onProgress = () => came.resolve();
  return {
    async next() {
      const late = sleep(settleMs / 2, 'late' as const, { ref: false });
      const first = await Promise.race([came.promise, late]);
      assert.notEqual(first, 'late', `${client.userId} got nothing for ${settleMs / 2} ms`);
      came = Promise.withResolvers();
    },
    end() {
      client.onProgress = undefined;
    },
  };
}

/** Looks into a copy of a dead client's store; its own recovery is left to the client. */
function lookInto<T>(
  { path, key }: ClosedStore,
  directory: string,
  look: (store: ReturnType<typeof openStore>) => T,
): T {
  const copy = join(directory, 'copy.db');
  for (const suffix of ['', '-wal']) {
    rmSync(copy + suffix, { force: true });
    if (existsSync(path + suffix)) copyFileSync(path + suffix, copy + suffix);
  }
  using store = openStore(copy, key);
  return look(store);
}

/**
 * Rows that a dead client had on disk and had not acknowledged, and rows of its node that it did
 * not have yet.
 */
async function inboxOf(
  store: ClosedStore,
  node: NodeProcess,
  directory: string,
): Promise<{ unacked: number; waiting: number }> {
  const { cursor, identity } = lookInto(store, directory, ({ inbox, account }) => {
    const record = account.get();
    assert.ok(record !== undefined);
    return {
      cursor: inbox.cursor(new Uint8Array(0))?.seq ?? 0,
      identity: loadIdentity(record.certificatePem, record.privateKeyPem),
    };
  });
  const connection = await dialNode(node.address, identity);
  const { floor, head } = await call(connection, methods.fetch, { log: {}, maxRows: 1 });
  await connection.close(CloseCode.Normal, 'done');
  return {
    unacked: Math.max(0, cursor - Number(floor) + 1),
    waiting: Math.max(0, Number(head) - cursor),
  };
}

/** Copies of own messages that the node has not confirmed. */
function sealedOf(store: ClosedStore, directory: string): number {
  return lookInto(store, directory, ({ outbox }) => outbox.openCount());
}

function messagesOf({ path, key }: ClosedStore) {
  using store = openStore(path, key);
  return store.groups
    .conversations()
    .flatMap(({ id }) => store.messages.history(id, Number.MAX_SAFE_INTEGER));
}

function gapsOf({ path, key }: ClosedStore) {
  using store = openStore(path, key);
  return store.inbox.gaps();
}
