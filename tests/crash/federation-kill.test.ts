/**
 * Crash test of the relay (docs/protocol/delivery.md): two federated nodes, killed with SIGKILL in turn,
 * the sending and the receiving one, while messages are on their way in both directions. Every
 * message that a node acknowledged is at the other one exactly once, in order.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CrashingNode, RawDevice } from '../cluster/crashing-node.ts';
import { Dice } from '../cluster/dice.ts';
import { checkInbox } from '../cluster/inbox-check.ts';
import { initCluster } from '../cluster/node-process.ts';
import { InboxReader, runLane, type TimedMessage, type TrafficCounts } from './traffic.ts';

const kills = 10;
const lanesPerDevice = 4;
/** A kill comes this long (ms, random below) after a message came over from the other node. */
const lifeMs = 400;
/** A killed node stays away at most this long (ms) before it is started again. */
const awayMs = 600;
/** After the last start everything must be across within this time (ms). */
const settleMs = 60_000;

interface Kill {
  readonly domain: string;
  /** Wall clock just before the signal. */
  readonly killMs: number;
}

test(
  'a relayed message survives kill -9 of either node, once',
  { timeout: 240_000 },
  async (t: TestContext) => {
    const dice = new Dice();
    t.diagnostic(`seed ${dice.seed}`);
    const directory = mkdtempSync(join(tmpdir(), 'qpc-federation-kill-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const [redProcess, blueProcess] = await initCluster(directory, ['red.example', 'blue.example']);
    assert.ok(redProcess !== undefined && blueProcess !== undefined);
    await using red = new CrashingNode(redProcess);
    await using blue = new CrashingNode(blueProcess);
    await Promise.all([red.start(), blue.start()]);
    const alice = await RawDevice.register(red, 'alice');
    const bob = await RawDevice.register(blue, 'bob');

    const counts: TrafficCounts = { lostAnswers: 0, repeatsStored: 0, repeatsNew: 0, abandoned: 0 };
    const stopSending = new AbortController();
    const stopReading = new AbortController();
    const readers = [alice, bob].map(
      (device, index) => new InboxReader(device, dice.branch(index)),
    );
    const acknowledged = new Map<string, TimedMessage>();
    const lanes = [
      { from: alice, to: bob },
      { from: bob, to: alice },
    ].flatMap(({ from, to }, index) =>
      Array.from({ length: lanesPerDevice }, (_, which) => {
        const lane = index * lanesPerDevice + which;
        const sent = runLane({
          lane,
          from,
          to,
          dice: dice.branch(100 + lane),
          counts,
          stop: stopSending.signal,
          onOk: (message) => void acknowledged.set(message.tag, message),
        });
        return { to, sent };
      }),
    );
    const sending = Promise.all(lanes.map(({ sent }) => sent));
    const reading = Promise.all(readers.map((reader) => reader.run(stopReading.signal)));
    const early = Promise.race([sending, reading]).then(() => undefined);

    const killed = await Promise.race([
      killLoop([red, blue], readers, dice.branch(1000)),
      early,
      red.failed,
      blue.failed,
    ]);
    assert.ok(killed !== undefined, 'the traffic ended before the kills');
    stopSending.abort();
    await sending;
    const settled = await Promise.race([
      allArrived(readers, acknowledged),
      red.failed,
      blue.failed,
      sleep(settleMs, 'late' as const, { ref: false }),
    ]);
    stopReading.abort();
    await reading;

    for (const reader of readers) {
      const head = await reader.drain();
      const mine = lanes.filter(({ to }) => to === reader.device);
      const sent = (await Promise.all(mine.map((lane) => lane.sent))).flat();
      const verdict = checkInbox(sent, [...reader.rows.values()], head);
      assert.ok(verdict.isClean, `${reader.device.userId}: ${JSON.stringify(verdict)}`);
    }
    assert.equal(settled, 'arrived');
    const underWay = killed.map((kill) => rowsUnderWay(kill, readers, acknowledged));
    const report = {
      kills: killed.length,
      duringRelay: underWay.filter((rows) => rows > 0).length,
      rowsUnderWay: underWay.reduce((sum, rows) => sum + rows, 0),
      acknowledged: acknowledged.size,
      ...counts,
    };
    t.diagnostic(JSON.stringify(report));
    for (const domain of [red, blue].map((node) => node.process.domain)) {
      const duringRelay = killed.filter(
        (kill, index) => kill.domain === domain && (underWay[index] ?? 0) > 0,
      );
      assert.ok(duringRelay.length > 0, `no kill of ${domain} fell into a relay`);
    }
    const broken = alice.brokenWhileUp + bob.brokenWhileUp;
    assert.equal(broken, 0, 'connections broke while the node was alive');
  },
);

/** Kills the two nodes in turn and starts them again; ends with both running. */
async function killLoop(
  nodes: readonly CrashingNode[],
  readers: readonly InboxReader[],
  dice: Dice,
): Promise<Kill[]> {
  const killed: Kill[] = [];
  while (killed.length < kills) {
    const node = nodes[killed.length % nodes.length];
    assert.ok(node !== undefined);
    // Each life has a link that works: both nodes got something from the other one.
    await Promise.all(readers.map(nextRows));
    await sleep(dice.int(lifeMs));
    const killMs = Date.now();
    await node.crash();
    killed.push({ domain: node.process.domain, killMs });
    await sleep(dice.int(awayMs));
    await node.start();
  }
  return killed;
}

/** Resolves when rows came that its reader had not seen. */
async function nextRows(reader: InboxReader): Promise<void> {
  const before = reader.rows.size;
  const came = Promise.withResolvers<void>();
  reader.onRows = () => {
    if (reader.rows.size > before) came.resolve();
  };
  await came.promise;
}

async function allArrived(
  readers: readonly InboxReader[],
  acknowledged: ReadonlyMap<string, TimedMessage>,
): Promise<'arrived'> {
  const done = Promise.withResolvers<'arrived'>();
  const look = (): void => {
    const held = new Set(readers.flatMap(({ rows }) => [...rows.values()].map(({ tag }) => tag)));
    if ([...acknowledged.keys()].every((tag) => held.has(tag))) done.resolve('arrived');
  };
  for (const reader of readers) reader.onRows = look;
  look();
  return done.promise;
}

/** Messages that one node had acknowledged before the kill and the other one got after it. */
function rowsUnderWay(
  { killMs }: Kill,
  readers: readonly InboxReader[],
  acknowledged: ReadonlyMap<string, TimedMessage>,
): number {
  return readers
    .flatMap(({ rows }) => [...rows.values()])
    .filter(({ tag, receivedMs }) => {
      const okMs = acknowledged.get(tag)?.okMs;
      return okMs !== undefined && okMs <= killMs && receivedMs > killMs;
    }).length;
}
