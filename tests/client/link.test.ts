/** The connection of a device to its node: silence, outages, wrong nodes (docs/protocol/wire.md). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ClientEvent, QpcClient } from '@quicprochat/client-lib';
import { hasReason, methods, UnavailableError } from '@quicprochat/proto';
import type { Transport } from '@quicprochat/proto/transport';
import { makeScene, type Scene } from './scene.ts';

const host = 'red.example';
const minuteMs = 60_000;

/** Keeps the states that the client's link went through, with the simulated time. */
function watch(
  client: QpcClient,
  scene: Scene,
): { readonly state: string; readonly atMs: number }[] {
  const states: { state: string; atMs: number }[] = [];
  const events: AsyncIterable<ClientEvent> = client.events();
  void (async () => {
    for await (const event of events) {
      if (event.type === 'link') {
        states.push({ state: event.state, atMs: scene.clock.monotonic() });
      }
    }
  })();
  return states;
}

describe('the link', () => {
  test('notices a node that went silent, long before the idle time-out, and comes back', async () => {
    await using scene = await makeScene({});
    await using client = await scene.open();
    const states = watch(client, scene);
    client.start();
    await scene.clock.runUntil(() => states.at(-1)?.state === 'online', minuteMs);
    scene.network.cut(host, 'alice');
    scene.network.cut('alice', host);
    const cutMs = scene.clock.monotonic();
    assert(await scene.clock.runUntil(() => states.at(-1)?.state === 'offline', minuteMs));
    const noticedMs = (states.at(-1)?.atMs ?? 0) - cutMs;
    assert(noticedMs <= 15_000, `noticed after ${noticedMs} ms`);
    scene.network.heal(host, 'alice');
    scene.network.heal('alice', host);
    assert(await scene.clock.runUntil(() => states.at(-1)?.state === 'online', minuteMs));
  });

  test('with calls under way notices it within seconds, and says before that it is silent', async () => {
    const gate = Promise.withResolvers<'stored'>();
    await using scene = await makeScene({ targets: [0], script: () => gate.promise });
    await using client = await scene.open();
    const states = watch(client, scene);
    client.start();
    await scene.clock.runUntil(() => scene.node.calls.length === 1, minuteMs);
    const cutMs = scene.clock.monotonic();
    scene.network.cut(host, 'alice');
    assert(await scene.clock.runUntil(() => states.at(-1)?.state === 'offline', minuteMs));
    const noticedMs = (states.at(-1)?.atMs ?? 0) - cutMs;
    assert(noticedMs <= 6_000, `noticed after ${noticedMs} ms`);
    const silent = states.at(-2);
    assert.equal(silent?.state, 'silent');
    assert(silent.atMs - cutMs <= 4_500, `silent after ${silent.atMs - cutMs} ms`);
    gate.resolve('stored');
  });

  test('is patient with a node that is slow, and is not when that was long ago', async () => {
    let answerMs = 0;
    let healthCalls = 0;
    await using scene = await makeScene({
      overrides: {
        health: async () => {
          healthCalls += 1;
          await scene.clock.sleep(answerMs);
          return { status: 'ready', uptimeMs: BigInt(scene.clock.monotonic()) };
        },
      },
    });
    await using client = await scene.open();
    const states = watch(client, scene);
    const count = (state: string): number => states.filter((one) => one.state === state).length;
    client.start();
    await scene.clock.runUntil(() => states.at(-1)?.state === 'online', minuteMs);
    // Nothing else is heard: every ten seconds it is asked.
    answerMs = 2_500;
    await scene.clock.advance(10 * minuteMs);
    assert(healthCalls > 30, `${healthCalls} probes`);
    assert.deepEqual([count('silent'), count('offline')], [1, 0], 'it was in doubt once');
    // One that takes longer than that is given up, and known for slow when it is there again.
    answerMs = 7_000;
    await scene.clock.advance(3 * minuteMs);
    const doubts = count('silent');
    assert.equal(count('offline'), 1);
    await scene.clock.advance(10 * minuteMs);
    assert.deepEqual([count('silent'), count('offline')], [doubts, 1]);
    // An hour later it is as any other.
    answerMs = 0;
    await scene.clock.advance(60 * minuteMs);
    scene.network.cut(host, 'alice');
    const cutMs = scene.clock.monotonic();
    assert(await scene.clock.runUntil(() => states.at(-1)?.state === 'silent', minuteMs));
    const noticedMs = (states.at(-1)?.atMs ?? 0) - cutMs;
    assert(noticedMs <= 13_000, `noticed after ${noticedMs} ms`);
  });

  test('does not take a node that died for a slow one', async () => {
    let probedMs = 0;
    await using scene = await makeScene({
      overrides: {
        health: async () => {
          probedMs = scene.clock.monotonic();
          return { status: 'ready', uptimeMs: 5n };
        },
      },
    });
    await using client = await scene.open();
    const states = watch(client, scene);
    client.start();
    await scene.clock.runUntil(() => states.at(-1)?.state === 'online', minuteMs);
    for (let n = 0; n < 3; n += 1) {
      // What it says does not arrive; what it is asked does.
      scene.network.cut(host, 'alice');
      await scene.clock.runUntil(() => states.at(-1)?.state === 'offline', minuteMs);
      const waitedMs = (states.at(-1)?.atMs ?? 0) - probedMs;
      assert(waitedMs <= 3_500, `it waited ${waitedMs} ms`);
      scene.network.heal(host, 'alice');
      await scene.clock.runUntil(() => states.at(-1)?.state === 'online', minuteMs);
      await scene.clock.advance(minuteMs);
    }
  });

  test('tries for ever, more and more slowly, never further apart than 30 s and a dial', async () => {
    await using scene = await makeScene({});
    await using client = await scene.open();
    const states = watch(client, scene);
    scene.network.cut(host, 'alice');
    scene.network.cut('alice', host);
    client.start();
    await scene.clock.advance(60 * minuteMs);
    const dials = states.filter(({ state }) => state === 'connecting').map(({ atMs }) => atMs);
    assert(dials.length > 100, `${dials.length} dials in an hour`);
    assert(dials.length < 600, `${dials.length} dials in an hour`);
    const pauses = dials.slice(1).map((atMs, index) => atMs - (dials[index] ?? 0));
    assert(Math.max(...pauses) <= 30_000 + 10_000);
    scene.network.heal(host, 'alice');
    scene.network.heal('alice', host);
    assert(await scene.clock.runUntil(() => states.at(-1)?.state === 'online', 2 * minuteMs));
  });

  test('never goes online at a node that is not the pinned one', async () => {
    await using scene = await makeScene({ targets: [0], pin: new Uint8Array(32).fill(5) });
    await using client = await scene.open();
    const states = watch(client, scene);
    client.start();
    await scene.clock.advance(10 * minuteMs);
    assert(states.some(({ state }) => state === 'offline'));
    assert(!states.some(({ state }) => state === 'online'));
    assert.equal(scene.node.calls.length, 0);
  });

  test('stops trying when the node does not know the session', async () => {
    let hellos = 0;
    await using scene = await makeScene({
      overrides: {
        hello: async () => {
          hellos += 1;
          return { version: 1, domain: host, callerClass: 'anyone' };
        },
      },
    });
    await using client = await scene.open();
    client.start();
    const online = client.online();
    await assert.rejects(online, (error) => hasReason(error, 'NOT_LOGGED_IN'));
    await scene.clock.advance(10 * minuteMs);
    assert.equal(hellos, 1);
  });

  test('an answer that comes when its session is over changes nothing for the next one', async () => {
    const tried = Promise.withResolvers<void>();
    const refused = Promise.withResolvers<Error>();
    let tries = 0;
    await using scene = await makeScene({
      targets: [0],
      script: async () => {
        tries += 1;
        if (tries > 1) return 'stored';
        tried.resolve();
        return refused.promise;
      },
    });
    // The first Subscribe is answered, and the answer reaches its caller after the connection ended.
    const late = Promise.withResolvers<void>();
    const inner = scene.network.transport('alice');
    let subscribes = 0;
    const transport: Transport = {
      name: inner.name,
      listen: (options) => inner.listen(options),
      dial: async (endpoint, options) => {
        const connection = await inner.dial(endpoint, options);
        const call: typeof connection.call = async (frame, callOptions) => {
          const answer = await connection.call(frame, callOptions);
          if (frame.methodId !== methods.subscribe.id) return answer;
          subscribes += 1;
          if (subscribes === 1) await late.promise;
          return answer;
        };
        return new Proxy(connection, {
          get(target, name) {
            if (name === 'call') return call;
            const value: unknown = Reflect.get(target, name, target);
            const bound: unknown = typeof value === 'function' ? value.bind(target) : value;
            return bound;
          },
        });
      },
    };
    await using client = await scene.open({ transport });
    client.start();
    assert(await scene.clock.runUntil(() => subscribes === 1, minuteMs));
    scene.network.breakConnections('alice', host);
    assert(await scene.clock.runUntil(() => subscribes === 2 && tries === 1, minuteMs));
    await tried.promise;
    late.resolve();
    await scene.clock.advance(1);
    refused.resolve(new UnavailableError('STORE_FULL', 'not now'));
    await scene.drain(client);
    assert.equal(tries, 2);
  });
});
