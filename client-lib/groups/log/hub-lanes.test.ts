/** Turns at hubs: however many of them are slow, those that answer are asked at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HubLanes, SlowHubError, type LaneLimits, type Turn } from './hub-lanes.ts';

const limits: LaneLimits = {
  ...{ atOnce: 4, perHub: 2, perNewHub: 1 },
  ...{ slowMs: 100, slowAtOnce: 2, longestMs: 1_000 },
};

interface Begun {
  readonly hub: string;
  readonly turn: Turn;
  readonly end: () => void;
  readonly done: Promise<unknown>;
}

function rig() {
  let nowMs = 0;
  const lanes = new HubLanes({ monotonic: () => nowMs }, limits);
  const begun: Begun[] = [];
  const stop = new AbortController();
  const ask = (hub: string): Promise<void> => {
    const over = Promise.withResolvers<void>();
    const done: Promise<void> = lanes.run(hub, stop.signal, (turn) => {
      begun.push({ hub, turn, end: over.resolve, done });
      return over.promise;
    });
    return done;
  };
  const settle = async (): Promise<string[]> => {
    for (let i = 0; i < 20; i += 1) await Promise.resolve();
    return begun.map(({ hub }) => hub);
  };
  /** The first turn of these that did not end yet ends. */
  const end = async (hub: string): Promise<void> => {
    const at = begun.findIndex((one) => one.hub === hub);
    const [one] = begun.splice(at, 1);
    assert(one !== undefined);
    one.end();
    await settle();
  };
  const advance = (ms: number): void => void (nowMs += ms);
  return { lanes, begun, ask, settle, end, advance, stop };
}

test('one hub has a turn until it answered once, and then two', async () => {
  const { ask, settle, end } = rig();
  for (let i = 0; i < 4; i += 1) void ask('red');
  assert.deepEqual(await settle(), ['red']);
  await end('red');
  assert.deepEqual(await settle(), ['red', 'red']);
  await end('red');
  await end('red');
  await end('red');
});

test('hubs that do not answer hold up those that do for one time only', async () => {
  const { begun, ask, settle, end, advance } = rig();
  const bad = ['b1', 'b2', 'b3', 'b4', 'b5', 'b6'];
  const asked = bad.map((hub) => ask(hub));
  const quick = ask('good');
  assert.deepEqual(await settle(), ['b1', 'b2', 'b3', 'b4']);
  advance(101);
  // The first two go on in the places of slow ones; the others end, and would have to wait for that.
  begun[0]?.turn.check();
  begun[1]?.turn.check();
  for (const one of begun.slice(2, 4)) assert.throws(() => one.turn.check(), SlowHubError);
  await end('b3');
  await end('b4');
  assert.deepEqual(await settle(), ['b1', 'b2', 'b5', 'b6', 'good']);
  await end('good');
  await quick;
  advance(101);
  await end('b5');
  await end('b6');
  const more = bad.map((hub) => ask(hub));
  await settle();
  // All six are known by now: four places are free for whoever answers.
  const hubs = ['g1', 'g2', 'g3', 'g4'];
  hubs.forEach((hub) => void ask(hub));
  assert.deepEqual(await settle(), ['b1', 'b2', ...hubs]);
  for (const hub of hubs) await end(hub);
  // And each of the slow ones has its turn.
  for (const hub of ['b1', 'b2', 'b1', 'b2', 'b3', 'b4', 'b5', 'b6']) {
    assert.ok((await settle()).includes(hub), hub);
    await end(hub);
  }
  await Promise.all([...asked, ...more]);
});

test('a slow hub has one slow turn, which ends too, and one that answers in time again has two', async () => {
  const { begun, ask, settle, end, advance } = rig();
  for (let i = 0; i < 3; i += 1) void ask('red');
  await settle();
  await end('red');
  advance(101);
  begun[0]?.turn.check();
  assert.throws(() => begun[1]?.turn.check(), SlowHubError);
  advance(1_000);
  assert.throws(() => begun[0]?.turn.check(), SlowHubError);
  await end('red');
  await end('red');
  // Two slow turns cost it eight short ones: who answers now and then has one place, as long as it does not stay quick.
  for (let i = 0; i < 11; i += 1) void ask('red');
  for (let i = 0; i < 9; i += 1) {
    assert.deepEqual(await settle(), ['red']);
    await end('red');
  }
  assert.deepEqual(await settle(), ['red', 'red']);
  await end('red');
  await end('red');
});

test('who waits for a turn stops with its signal, and what fails frees its place', async () => {
  const { lanes, ask, settle, end, stop } = rig();
  const first = ask('red');
  const waiting = ask('red');
  await settle();
  stop.abort(new Error('over'));
  await assert.rejects(waiting, /over/);
  await assert.rejects(ask('red'), /over/);
  await end('red');
  await first;
  const { signal } = new AbortController();
  for (let i = 0; i < 5; i += 1) {
    const failing = lanes.run('red', signal, () => Promise.reject(new Error('no')));
    await assert.rejects(failing, /no/);
  }
  assert.equal(await lanes.run('red', signal, async () => 7), 7);
});
