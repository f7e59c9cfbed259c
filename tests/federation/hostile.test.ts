/**
 * A hostile peer costs itself its credit and nobody else anything: floods, gaps, forged origin, lies
 * about cursors, huge batches, replies that are never read, walks over a directory, a full disk. Red
 * attacks blue, while green sends to blue as ever.
 */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { call, hasReason, methods, TransportError } from '@quicprochat/proto';
import {
  create,
  FedHelloResponseSchema,
  FedRelayRequestSchema,
  FedRelayResponseSchema,
  Lane,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { defaultLimits, type MemoryNetwork } from '@quicprochat/proto/transport';
import { LaneSender, type LinkSession, type RelayInbox } from '@quicprochat/federation';
import { SimulatedClock } from '../simulated-clock.ts';
import { MemoryStream } from './memory-stream.ts';
import { makePair } from './pair.ts';
import { port, seededRandom, SimNode, type SimOptions } from './sim-node.ts';

type Reply = Awaited<ReturnType<RelayInbox['relay']>>;

interface Scene extends AsyncDisposable {
  readonly clock: SimulatedClock;
  readonly network: MemoryNetwork;
  readonly red: SimNode;
  readonly green: SimNode;
  readonly blue: SimNode;
}

async function makeScene(blueOptions: Partial<SimOptions> = {}): Promise<Scene> {
  const pair = await makePair(blueOptions, { isStarted: false });
  const { blue, red, clock } = pair;
  const green = await SimNode.make({ ...red.options, domain: 'green.example', seed: 77 });
  await blue.start([red.asPeer, green.asPeer]);
  await green.start([blue.asPeer]);
  await clock.advance(1_000);
  return {
    ...pair,
    green,
    async [Symbol.asyncDispose]() {
      await green.stop();
      await pair[Symbol.asyncDispose]();
    },
  };
}

let made = 0;
interface Forged {
  readonly firstSeq?: number;
  readonly items?: number;
  readonly rids?: readonly Uint8Array[];
  readonly payloadBytes?: number;
}

/** A batch of red that nothing but red's will has made. */
function forge({ blue }: Scene, { firstSeq = 1, items = 1, rids, payloadBytes = 1 }: Forged = {}) {
  const item = (): object => {
    const mid = new Uint8Array(16);
    new DataView(mid.buffer).setUint32(0, (made += 1));
    return {
      kind: 1,
      mid,
      payload: new Uint8Array(payloadBytes),
      rids: rids ?? [blue.rid],
      ttlS: 60,
    };
  };
  return create(FedRelayRequestSchema, {
    lane: Lane.BULK,
    streamId: new Uint8Array(16).fill(5),
    firstSeq: BigInt(firstSeq),
    items: Array.from({ length: items }, item),
  });
}

/** Red sends it; the reply, or the reason of the refusal. */
async function attack(
  scene: Scene,
  forged: Forged,
): Promise<{ readonly reply?: Reply; readonly reason?: string; readonly retryAfterMs?: number }> {
  const outcome = scene.blue.federation.relay('red.example', forge(scene, forged)).then(
    (reply) => ({ reply }),
    (error: unknown) => {
      if (!hasReason(error, 'OVERLOADED', 'BAD_FIELD', 'STREAM_GAP', 'STORE_FULL')) throw error;
      const { retryAfterMs } = error;
      return { reason: error.reason, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
    },
  );
  await scene.clock.settle();
  return outcome;
}

/** Green's rows arrive within a second, whatever red does. */
async function greenIsServed(scene: Scene, text: string): Promise<void> {
  const { green, blue, clock } = scene;
  await green.send(blue, text);
  await clock.advance(1_000);
  assert.ok((await blue.received()).includes(text), `${text} did not arrive`);
}

test('a flood is held at the ceiling of its sender', async () => {
  await using scene = await makeScene({ ceilings: { itemsPerSecond: 200 } });
  const { clock } = scene;
  let nextSeq = 1;
  let refused = 0;
  for (let tenth = 0; tenth < 100; tenth += 1) {
    for (let batch = 0; batch < 2; batch += 1) {
      const { reply } = await attack(scene, { firstSeq: nextSeq, items: 50 });
      if (reply === undefined) refused += 1;
      else nextSeq += 50;
    }
    await clock.advance(100);
  }
  // 10 s at 200 items/s and a second's worth at the begin, of 10 000 that were tried.
  assert.ok(nextSeq > 1_800 && nextSeq < 2_400, `${nextSeq} items were taken`);
  assert.ok(refused > 100);
  await greenIsServed(scene, 'beside a flood');
});

test('more than the credit is refused, and the credit begins anew', async () => {
  await using scene = await makeScene();
  const over = await attack(scene, { items: 65 });
  assert.equal(over.reason, 'OVERLOADED');
  assert.ok((over.retryAfterMs ?? 0) > 0);
  const within = await attack(scene, { items: 64 });
  assert.equal(within.reply?.creditItems, 128);
  assert.equal((await attack(scene, { firstSeq: 65, items: 129 })).reason, 'OVERLOADED');
  const next = await attack(scene, { firstSeq: 65, items: 64 });
  assert.equal(next.reply?.creditItems, 128, 'it had been 128, and began at 64 again');
  await greenIsServed(scene, 'beside greed');
});

test('huge batches, and ones for too many devices, are refused before anything is written', async () => {
  await using scene = await makeScene();
  const { commits } = await scene.blue.store.storeMark();
  const rid = scene.blue.rid;
  const huge: readonly Forged[] = [
    { items: 257 },
    { items: 2, payloadBytes: 400 * 1024 },
    { rids: Array.from({ length: 2_049 }, () => rid) },
    { rids: [rid.subarray(1)] },
  ];
  for (const forged of huge) assert.equal((await attack(scene, forged)).reason, 'BAD_FIELD');
  assert.equal((await scene.blue.store.storeMark()).commits, commits);
  await greenIsServed(scene, 'beside huge batches');
});

test('gaps hold four batches for three seconds, and nobody else', async () => {
  await using scene = await makeScene();
  const { blue, clock } = scene;
  const outcomes = Array.from({ length: 6 }, (_, index) =>
    blue.federation
      .relay('red.example', forge(scene, { firstSeq: 10 + index }))
      .catch((error: unknown) => error),
  );
  await greenIsServed(scene, 'beside gaps');
  await clock.advance(3_000);
  const errors = await Promise.all(outcomes);
  assert.equal(errors.filter((error) => hasReason(error, 'STREAM_GAP')).length, 4);
  assert.equal(errors.filter((error) => hasReason(error, 'OVERLOADED')).length, 2);
});

test('what waits behind a gap says nothing of how fast the writer is', async () => {
  await using scene = await makeScene();
  const { blue, green, clock } = scene;
  for (let gap = 0; gap < 4; gap += 1) {
    const gone = attack(scene, { firstSeq: 1_000, items: 64 });
    await clock.advance(3_000);
    assert.equal((await gone).reason, 'STREAM_GAP');
  }
  const texts = Array.from({ length: 300 }, (_, index) => `row ${index}`);
  for (const text of texts) await green.send(blue, text);
  await clock.advance(1_000);
  const received = new Set(await blue.received());
  assert.equal(texts.filter((text) => received.has(text)).length, 300);
});

test('a walk over a directory costs half the credit, each minute', async () => {
  await using scene = await makeScene();
  const { clock } = scene;
  let nextSeq = 1;
  const credits: number[] = [];
  for (let minute = 0; minute < 5; minute += 1) {
    for (let batch = 0; batch < 3; batch += 1) {
      const items = Math.min(32, credits.at(-1) ?? 32);
      const guessed = seededRandom(nextSeq).bytes(32);
      const { reply } = await attack(scene, { firstSeq: nextSeq, items, rids: [guessed] });
      assert.ok(reply !== undefined);
      nextSeq += items;
      credits.push(reply.creditItems ?? 0);
    }
    await clock.advance(60_000);
  }
  assert.equal(credits.at(-1), 1_024 / 2 ** 5);
  assert.equal(scene.blue.events('credit halved').length, 5);
  await greenIsServed(scene, 'beside a walk');
});

test('five thousand recipients a minute, then the peer waits', async () => {
  await using scene = await makeScene({ ceilings: { recipientsPerMinute: 100 } });
  const { clock } = scene;
  const rids = Array.from({ length: 100 }, (_, index) => seededRandom(index).bytes(32));
  const first = await attack(scene, { rids });
  assert.ok(Number(first.reply?.retryAfterMs) > 59_000);
  const second = await attack(scene, { firstSeq: 2, rids: rids.slice(0, 1) });
  assert.equal(second.reason, 'OVERLOADED');
  await clock.advance(60_000);
  assert.ok((await attack(scene, { firstSeq: 2 })).reply);
});

test('a full disk is no credit for anybody, and room is credit again', async () => {
  await using scene = await makeScene({ databaseBytes: 3 * 1024 * 1024 });
  const { blue, red, clock } = scene;
  const rids = [blue.rid];
  let nextSeq = 1;
  let full: Awaited<ReturnType<typeof attack>> = {};
  while (full.reason === undefined) {
    full = await attack(scene, { firstSeq: nextSeq, rids, payloadBytes: 300_000 });
    if (full.reason === undefined) nextSeq += 1;
  }
  assert.equal(full.reason, 'STORE_FULL');
  assert.equal(full.retryAfterMs, 10_000);
  const hello = { domain: 'red.example', versionMin: 1, versionMax: 1 };
  const ask = async (): Promise<number | undefined> => {
    const request = create(methods.fedHello.request, hello);
    return (await blue.federation.acceptHello(red.identity.spkiSha256, request)).creditItems;
  };
  assert.equal(await ask(), 0);
  const { head } = await blue.store.fetch(blue.rid, 0, 1, 1);
  await blue.store.ack(blue.rid, head);
  await clock.advance(10_000);
  assert.ok((await attack(scene, { firstSeq: nextSeq, rids })).reply, 'one row asks');
  assert.equal(await ask(), 128);
});

test('nobody speaks for another domain, and nothing is taken before the hello', async () => {
  await using scene = await makeScene();
  const { red, clock, network } = scene;
  const dialing = network.transport('red.example').dial(
    { host: 'blue.example', port },
    {
      identity: red.identity,
      limits: defaultLimits,
      maxRequestBytes: () => 0,
      pins: [scene.blue.identity.spkiSha256],
    },
  );
  await clock.advance(1_000);
  const connection = await dialing;
  const outcome = async (asked: Promise<unknown>): Promise<unknown> => {
    const settled = asked.catch((error: unknown) => error);
    await clock.advance(1_000);
    return settled;
  };
  const relay = await outcome(call(connection, methods.fedRelay, forge(scene)));
  assert.ok(hasReason(relay, 'CALLER_CLASS'));
  const hello = { domain: 'green.example', versionMin: 1, versionMax: 1 };
  assert.ok(hasReason(await outcome(call(connection, methods.fedHello, hello)), 'PEER_DENIED'));
  const after = await outcome(call(connection, methods.fedRelay, forge(scene)));
  assert.ok(hasReason(after, 'CALLER_CLASS'), 'a refused hello binds nothing');
  await connection.close(0, 'done');
});

test('a peer that never answers holds up its own rows only', async () => {
  await using scene = await makeScene();
  const { red, blue, green, clock, network } = scene;
  await red.start([blue.asPeer]);
  await clock.advance(1_000);
  network.cut('red.example', 'blue.example');
  for (let row = 0; row < 20; row += 1) await blue.send(red, `to nobody ${row}`);
  await blue.send(green, 'to green');
  await clock.advance(1_000);
  assert.ok((await green.received()).includes('to green'));
  assert.equal((await blue.held('red.example')).length, 20);
});

/** A receiver that answers as it likes. */
async function againstLiar(
  lie: (told: { readonly cursor: bigint; readonly lastSeq: bigint }) => {
    readonly cursor: bigint;
    readonly chain: Uint8Array;
  },
  minutes: number,
): Promise<{ readonly held: number; readonly restarts: number; readonly sessions: number }> {
  const clock = new SimulatedClock();
  const random = seededRandom(3);
  const disk = new MemoryStream(random);
  for (let row = 0; row < 50; row += 1) disk.add(`row ${row}`);
  const counts = { restarts: 0, sessions: 0 };
  const restart = disk.restartOutbound.bind(disk);
  disk.restartOutbound = () => {
    counts.restarts += 1;
    return restart();
  };
  const silent = (): void => {};
  const log = { debug: silent, info: silent, warn: silent, error: silent };
  const runtime = { clock, random, log };
  const sender = new LaneSender({ peer: 'liar', lane: 'bulk', store: disk, runtime });
  sender.notify();
  const stop = new AbortController();
  const session = (ended: AbortController): LinkSession => {
    const answer = async (
      _method: unknown,
      { firstSeq, items }: MessageInitShape<typeof FedRelayRequestSchema>,
    ): Promise<unknown> => {
      await clock.sleep(10);
      if (stop.signal.aborted) throw new TransportError('closed', 'over');
      const lastSeq = (firstSeq ?? 0n) + BigInt(items?.length ?? 0) - 1n;
      const told = lie({ cursor: lastSeq, lastSeq });
      return create(FedRelayResponseSchema, { ...told, creditItems: 64, creditBytes: 1e6 });
    };
    const { signal } = ended;
    const hello = create(FedHelloResponseSchema, { creditItems: 64, creditBytes: 1_000_000 });
    const end = (reason: unknown): void => ended.abort(reason);
    const spkiSha256 = new Uint8Array(32);
    return { hello, spkiSha256, signal, end, call: answer as unknown as LinkSession['call'] };
  };
  const running = (async () => {
    while (!stop.signal.aborted) {
      const ended = new AbortController();
      stop.signal.addEventListener('abort', () => ended.abort(), { once: true });
      counts.sessions += 1;
      await sender.run(session(ended)).catch(() => undefined);
      // The link of a node waits longer than that.
      if (!stop.signal.aborted) await clock.sleep(1_000);
    }
  })();
  await clock.advance(minutes * 60_000);
  stop.abort();
  await clock.advance(20_000);
  await running;
  return { held: disk.held.length, ...counts };
}

test('whatever cursor a receiver claims, no row goes that it cannot prove to hold', async () => {
  const chain = new Uint8Array(16).fill(9);
  const lies = {
    behind: () => ({ cursor: 0n, chain }),
    'the last one, with another chain': ({ lastSeq }: { readonly lastSeq: bigint }) => ({
      cursor: lastSeq,
      chain,
    }),
    'far ahead': () => ({ cursor: 10n ** 9n, chain }),
    'no number': () => ({ cursor: 2n ** 63n, chain }),
  };
  for (const [name, lie] of Object.entries(lies)) {
    const { held, restarts } = await againstLiar(lie, 60);
    assert.equal(held, 50, name);
    assert.ok(restarts <= 25, `${name}: ${restarts} new streams in an hour`);
  }
});
