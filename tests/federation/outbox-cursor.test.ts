/**
 * Property of the outbox protocol: whatever is cut, killed or restored from an older copy, no row
 * is lost that either disk still holds, none is doubled after tag dedup, and all drains in bounded
 * time (invariants I4 and I8 of the delivery design). Random histories over two real nodes.
 */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { delayMs, makePair, type Pair } from './pair.ts';
import type { SimNode } from './sim-node.ts';

type Side = 'red' | 'blue';
type Step =
  | { readonly do: 'send'; readonly from: Side; readonly rows: number; readonly kind: 1 | 2 }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'break' }
  | { readonly do: 'cut'; readonly from: Side }
  | { readonly do: 'heal' }
  | { readonly do: 'kill' | 'snapshot'; readonly node: Side }
  | { readonly do: 'restore'; readonly node: Side; readonly age: number };

const side = fc.constantFrom<Side>('red', 'blue');
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('send' as const),
      from: side,
      rows: fc.integer({ min: 1, max: 8 }),
      kind: fc.constantFrom(1 as const, 2 as const),
    }),
  },
  {
    // Around the time of one message, so that histories stop between a request and its reply.
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      ms: fc.oneof(fc.integer({ min: 1, max: 4 * delayMs }), fc.constantFrom(500, 5_000, 40_000)),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('break' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const), from: side }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('heal' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('kill' as const, 'snapshot' as const),
      node: side,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('restore' as const), node: side, age: fc.nat(2) }),
  },
);

/** One history. Throws when an invariant breaks. */
class History {
  readonly #pair: Pair;
  readonly #copies: Record<Side, number[]> = { red: [], blue: [] };
  #sent = 0;

  constructor(pair: Pair) {
    this.#pair = pair;
  }

  /** Rows that must reach `to`: those still held by its peer, and those it has. */
  async #live(from: SimNode, to: SimNode): Promise<Set<string>> {
    return new Set([...(await from.held(to.domain)), ...(await to.received())]);
  }

  async run(steps: readonly Step[]): Promise<void> {
    const { red, blue } = this.#pair;
    let live = [await this.#live(red, blue), await this.#live(blue, red)] as const;
    for (const one of steps) {
      await this.#step(one);
      const now = [await this.#live(red, blue), await this.#live(blue, red)] as const;
      if (one.do !== 'restore') {
        // Between losses of a disk, every row is at one of its two ends at every moment.
        for (const direction of [0, 1] as const) contains(now[direction], live[direction]);
      }
      live = now;
    }
    await this.#drain(live);
  }

  async #step(one: Step): Promise<void> {
    const { red, blue, clock, network } = this.#pair;
    const otherOf = { red: blue, blue: red };
    switch (one.do) {
      case 'send':
        for (let row = 0; row < one.rows; row += 1) {
          this.#sent += 1;
          const options = { kind: one.kind };
          await this.#pair[one.from].send(otherOf[one.from], `row ${this.#sent}`, options);
        }
        return;
      case 'wait':
        return clock.advance(one.ms);
      case 'break':
        network.breakConnections(red.domain, blue.domain);
        return;
      case 'cut':
        return network.cut(this.#pair[one.from].domain, otherOf[one.from].domain);
      case 'heal':
        return this.#heal();
      case 'kill':
        await this.#pair[one.node].kill();
        return this.#pair[one.node].start();
      case 'snapshot':
        this.#copies[one.node].push(await this.#pair[one.node].snapshot());
        return;
      case 'restore': {
        const copy = this.#copies[one.node].at(-1 - one.age);
        if (copy !== undefined) await this.#pair[one.node].restore(copy);
      }
    }
  }

  #heal(): void {
    const { red, blue, network } = this.#pair;
    network.heal(red.domain, blue.domain);
    network.heal(blue.domain, red.domain);
  }

  /** The faults stop: within ten minutes everything is where it belongs. */
  async #drain(live: readonly [ReadonlySet<string>, ReadonlySet<string>]): Promise<void> {
    const { red, blue, clock } = this.#pair;
    this.#heal();
    const isQuiet = (): boolean =>
      [red, blue].every((node) =>
        node.federation.status().every(({ lanes }) => lanes.every((lane) => lane.isIdle)),
      );
    assert.ok(await clock.runUntil(isQuiet, 600_000), 'the outboxes do not drain');
    const ends = [
      [red, blue, live[0]],
      [blue, red, live[1]],
    ] as const;
    for (const [from, to, expected] of ends) {
      assert.deepEqual(await from.held(to.domain), []);
      const received = await to.received();
      contains(new Set(received), expected);
      assert.equal(new Set(received).size, received.length, 'a row is there twice');
    }
  }
}

function contains(all: ReadonlySet<string>, some: ReadonlySet<string>): void {
  assert.deepEqual(
    [...some].filter((row) => !all.has(row)),
    [],
    'rows are gone',
  );
}

/** Runs one history; returns why red started new streams. */
async function holds(steps: readonly Step[], seed: number): Promise<string[]> {
  await using pair = await makePair({}, { seed });
  await new History(pair).run(steps);
  return pair.red.events('outbox stream restarted').map(({ why }) => String(why));
}

test('no history of faults and restores loses or doubles a row that a disk holds', async () => {
  const steps = fc.array(step, { minLength: 4, maxLength: 40 });
  const seeds = fc.integer({ min: 1, max: 1_000_000 });
  const property = fc.asyncProperty(steps, seeds, async (history, seed) => {
    await holds(history, seed);
  });
  await fc.assert(property, { numRuns: 25 });
});

const wait: Step = { do: 'wait', ms: 5_000 };
const send = (rows: number): Step => ({ do: 'send', from: 'red', rows, kind: 1 });
const snapshot = (node: Side): Step => ({ do: 'snapshot', node });
const restore = (node: Side): Step => ({ do: 'restore', node, age: 0 });
/** Both sides know the stream, and the snapshot is of that state. */
const begin = (node: Side): Step[] => [send(1), wait, snapshot(node), wait];

test('a sender restored to before rows that it had sent starts a new stream', async () => {
  // The new row gets the seq that a lost one had; without the rule the receiver skips it.
  const why = await holds([...begin('red'), send(3), wait, restore('red'), send(1)], 1);
  assert.deepEqual(why, ['this node lost rows that it had sent']);
});

test('a restored sender that has caught up in seq is told apart by the chain', async () => {
  const cut: Step = { do: 'cut', from: 'red' };
  const why = await holds([...begin('red'), send(3), wait, cut, restore('red'), send(5)], 1);
  assert.deepEqual(why, ['this node and the receiver hold different rows']);
});

test('a receiver restored to before rows that it had confirmed gets what is still held', async () => {
  const why = await holds([...begin('blue'), send(3), wait, restore('blue'), send(2), wait], 1);
  assert.deepEqual(why, ['the receiver lost what it had confirmed']);
});

test('restarts without a restore keep the stream', async () => {
  const kills: Step[] = [
    { do: 'kill', node: 'blue' },
    { do: 'kill', node: 'red' },
  ];
  const why = await holds([...begin('red'), send(3), ...kills, wait, send(2), ...kills], 1);
  assert.deepEqual(why, []);
});
