/**
 * The ladder on a clock of its own: when it begins and ends, which way is tried, in which order copies
 * leave, and how long a way that failed rests. The outbox and its store are real; ways answer as told.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import {
  EventBus,
  Ladder,
  ladderLimits,
  Outbox,
  ownNodeLimits,
  type OutboxEntry,
} from '@quicprochat/client-lib/ladder';
import { openMemoryStore, type ClientStore } from '@quicprochat/client-lib/store';
import {
  InvalidArgumentError,
  PermissionDeniedError,
  ResourceExhaustedError,
  silentLog,
  systemRandom,
  TransportError,
} from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import { SimulatedClock } from '../simulated-clock.ts';

const bert = new Uint8Array(32).fill(0xbe);
const carl = new Uint8Array(32).fill(0xca);
const blue = 'blue.example';

let clock: SimulatedClock;
let store: ClientStore;
let events: EventBus;
let outbox: Outbox;
let ladder: Ladder;
/** What each way was asked to bring, in order: "guest 1", "direct 2". */
let tried: string[];
let guest: (row: OutboxEntry) => Promise<void>;
let device: (row: OutboxEntry) => Promise<void>;
/** Domains that keep mailboxes for everybody. */
let mailboxes: readonly string[];

/** Of a recipient's node. */
const ok = {
  ...{ outcome: Outcome.STORED, proof: new Uint8Array(64), receivedMs: 1n },
  caller: { call: () => Promise.reject(new Error('not called')) },
};
const unreachable = (): Promise<never> =>
  Promise.reject(new TransportError('unreachable', 'nobody there'));
const works = (): Promise<void> => Promise.resolve();

beforeEach(() => {
  clock = new SimulatedClock();
  store = openMemoryStore();
  events = new EventBus();
  tried = [];
  guest = unreachable;
  device = works;
  mailboxes = [];
  const runtime = { clock, random: systemRandom, log: silentLog };
  outbox = new Outbox({
    ...{ store, runtime, events, userId: 'anna@red.example' },
    proofs: { isProven: async () => true },
    onDueAgain: () => undefined,
  });
  ladder = new Ladder({
    ...{ store, runtime, events, outbox, domain: 'red.example' },
    guest: {
      async send(row) {
        tried.push(`${row.domain === blue ? 'guest' : row.domain} ${row.payload[0]}`);
        await guest(row);
        return ok;
      },
    },
    mailboxesOf: () => mailboxes,
    peers: {
      async deliver(row) {
        tried.push(`direct ${row.payload[0]}`);
        await device(row);
        return 'direct';
      },
    },
  });
});
afterEach(async () => {
  await ladder.stop();
  outbox.close();
  store.close();
});

/** One more copy for a device; its payload is its number. */
function seal(n: number, rid = bert, domain = blue): void {
  const targets = [{ rid, domain, userId: `x@${domain}` }];
  const about = { kind: 'MESSAGE', groupId: new Uint8Array(32), epoch: 1n } as const;
  const mid = systemRandom.bytes(16);
  store.transaction(() =>
    store.outbox.add({ mid, payload: Uint8Array.of(n), targets, messageId: n, about }, clock.now()),
  );
  ladder.kick();
}
/** The own node took the oldest copy that waits. */
function accept(n: number, storeId = new Uint8Array(8)): void {
  store.transaction(() => assert(store.outbox.markAccepted(n, storeId, clock.now())));
}
const link = (state: 'connecting' | 'online' | 'silent' | 'offline'): void =>
  events.emit({ type: 'link', state, reason: undefined });
function failDials(count: number): void {
  for (let n = 0; n < count; n += 1) {
    link('connecting');
    link('offline');
  }
}
const open = (): number => store.outbox.openCount();
const knowsToken = (rid = bert): void => store.tokens.put(rid, new Uint8Array(16), true, 0);

describe('the own node counts as away', () => {
  test('after three failed dials; the end of a session is none', async () => {
    failDials(ownNodeLimits.failedDials - 1);
    link('connecting');
    link('online');
    seal(1);
    link('offline');
    failDials(ownNodeLimits.failedDials - 1);
    await clock.advance(1_000);
    assert.deepEqual(tried, []);
    failDials(1);
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 1']);
    assert.equal(open(), 0);
  });

  test('after ten seconds without a session, and no longer once it is back', async () => {
    seal(1);
    accept(1);
    const away: boolean[] = [];
    using _listening = events.listen((event) => {
      if (event.type === 'ownNode') away.push(event.isAway);
    });
    link('connecting');
    await clock.advance(ownNodeLimits.awayMs - 1);
    assert.deepEqual([tried, away], [[], []], 'what it took is left to it');
    await clock.advance(1);
    await clock.settle();
    assert.deepEqual([tried, away], [['direct 1'], [true]]);
    link('online');
    seal(2);
    await clock.advance(60 * 60_000);
    assert.deepEqual(tried, ['direct 1']);
    assert.equal(open(), 1, 'it is the own node that brings it');
  });

  test('again later, and what did not get through the first time is looked for then', async () => {
    link('connecting');
    device = unreachable;
    seal(1);
    failDials(ownNodeLimits.failedDials);
    await clock.advance(100);
    link('online');
    await clock.advance(2 * ladderLimits.retryMs);
    assert.deepEqual(tried, ['direct 1']);
    device = works;
    failDials(ownNodeLimits.failedDials + 1);
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 1', 'direct 1']);
  });
});

describe('the own node is in doubt', () => {
  test('while it is silent: what waits for it goes other ways, and what it took does not', async () => {
    link('connecting');
    link('online');
    seal(1, carl);
    accept(1);
    seal(2);
    await clock.advance(60_000);
    assert.deepEqual(tried, []);
    const away: boolean[] = [];
    using _listening = events.listen((event) => {
      if (event.type === 'ownNode') away.push(event.isAway);
    });
    link('silent');
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 2']);
    seal(3);
    await clock.advance(100);
    assert.deepEqual(tried.slice(1), ['direct 3'], 'at once');
    // It was only slow.
    link('online');
    seal(4);
    await clock.advance(60_000);
    assert.deepEqual(tried.slice(2), []);
    link('silent');
    await clock.advance(100);
    assert.deepEqual(tried.slice(2), ['direct 4'], 'every doubt looks at all that waits');
    assert.deepEqual(away, []);
  });

  test('after three seconds without a session, and a node that starts anew is not', async () => {
    link('connecting');
    link('online');
    seal(1);
    link('offline');
    await clock.advance(ownNodeLimits.doubtMs - 1);
    link('connecting');
    link('online');
    await clock.advance(60_000);
    assert.deepEqual(tried, []);
    link('offline');
    link('connecting');
    await clock.advance(ownNodeLimits.doubtMs);
    await clock.settle();
    assert.deepEqual(tried, ['direct 1']);
  });

  test('a way that failed then rests, however often something is sealed', async () => {
    device = unreachable;
    link('connecting');
    link('silent');
    for (const n of [1, 2, 3]) {
      seal(n);
      await clock.advance(100);
    }
    assert.deepEqual(tried, ['direct 1']);
    await clock.advance(ladderLimits.retryMs * 1.5);
    assert.deepEqual(tried.slice(1), ['direct 1']);
  });
});

describe('a device', () => {
  beforeEach(() => {
    link('connecting');
    failDials(ownNodeLimits.failedDials);
  });

  test('is served by its node when that answers, in order, and by itself when it does not', async () => {
    knowsToken();
    guest = works;
    for (const n of [1, 2]) seal(n);
    await clock.advance(100);
    assert.deepEqual(tried, ['guest 1', 'guest 2']);
    assert.deepEqual(store.outbox.paths(1), ['guest']);
    guest = unreachable;
    seal(3);
    await clock.advance(100);
    // What lies in its node is not known to have come out again: nothing may overtake it.
    assert.deepEqual(tried.slice(2), ['guest 3', 'direct 1', 'direct 2', 'direct 3']);
    assert.deepEqual(store.outbox.paths(1), ['guest'], 'the first one counts');
    seal(4);
    await clock.advance(100);
    assert.deepEqual(tried.slice(6), ['direct 4'], 'a node that failed rests');
    await clock.advance(1.5 * ladderLimits.retryMs);
    guest = works;
    seal(5);
    await clock.advance(100);
    assert.deepEqual(tried.slice(7), ['guest 5']);
  });

  test('is sent a backlog by its node, more of it together each time, and by itself one copy after the other', async () => {
    const begun = new Map<string, number>();
    const noting = (way: string) => async (): Promise<void> => {
      const when = `${way} ${clock.monotonic()}`;
      begun.set(when, (begun.get(when) ?? 0) + 1);
      await clock.sleep(100);
    };
    const sizes = (way: string): number[] =>
      [...begun].flatMap(([when, count]) => (when.startsWith(way) ? [count] : []));
    guest = noting('guest');
    device = noting('direct');
    knowsToken();
    for (let n = 1; n <= 70; n += 1) seal(n);
    failDials(ownNodeLimits.failedDials);
    await clock.advance(10_000);
    assert.deepEqual(sizes('guest'), [1, 2, 4, 8, 16, 32, 7]);
    assert.deepEqual(
      tried,
      Array.from({ length: 70 }, (_, n) => `guest ${n + 1}`),
    );
    for (let n = 71; n <= 73; n += 1) seal(n, carl);
    await clock.advance(1_000);
    assert.deepEqual(sizes('direct'), [1, 1, 1]);
    assert.equal(open(), 0);
  });

  test('is tried itself when its node is silent, whose OK counts when it comes late, and brings the rest', async () => {
    knowsToken();
    const late = Promise.withResolvers<void>();
    guest = () => late.promise;
    device = unreachable;
    seal(1);
    await clock.advance(ladderLimits.guestMs);
    assert.deepEqual(tried, ['guest 1', 'direct 1']);
    knowsToken(carl);
    seal(2, carl);
    await clock.advance(100);
    assert.deepEqual(tried.slice(2), ['direct 2'], 'a silent node rests, for all of its devices');
    seal(3);
    late.resolve();
    await clock.advance(100);
    for (const n of [1, 3]) assert.deepEqual(store.outbox.paths(n), ['guest']);
    assert.deepEqual(tried.slice(3), ['guest 3'], 'it was slow, and is no longer');
  });

  test('that is not there is tried again after half a minute, or when it is known anew where it is', async () => {
    device = unreachable;
    for (const n of [1, 2]) seal(n);
    seal(3, carl);
    await clock.advance(ladderLimits.retryMs - 1);
    assert.deepEqual(tried, ['direct 1', 'direct 3'], 'the first one says enough');
    await clock.advance(0.5 * ladderLimits.retryMs + 1);
    assert.deepEqual(tried.slice(2).toSorted(), ['direct 1', 'direct 3']);
    device = works;
    ladder.learned(Buffer.from(bert).toString('hex'));
    await clock.advance(100);
    assert.deepEqual(tried.slice(4), ['direct 1', 'direct 2']);
  });

  test('gets a copy at each of its mailboxes, once, and is tried itself all the same', async () => {
    knowsToken();
    mailboxes = ['green.example', 'grey.example'];
    device = unreachable;
    /** Every way, without a wait of its own. */
    const again = async (): Promise<void> => {
      tried = [];
      ladder.networkChanged();
      await clock.advance(100);
    };
    for (const n of [1, 2]) seal(n);
    await clock.advance(100);
    const once = ['guest 1', 'green.example 1', 'grey.example 1', 'direct 1'];
    assert.deepEqual(tried, once, 'nobody is there');
    // None waits for another one that does not answer.
    guest = async ({ domain }) => (domain === blue ? unreachable() : new Promise(() => undefined));
    await again();
    assert.deepEqual(tried, once);
    await clock.advance(ladderLimits.guestMs);
    guest = async ({ domain }) => (domain === 'green.example' ? undefined : unreachable());
    await again();
    const some = [...once, 'green.example 2'];
    assert.deepEqual(tried, some);
    assert.deepEqual([open(), store.outbox.paths(1)], [2, ['mailbox']], 'no node has them yet');
    device = works;
    await again();
    assert.deepEqual(tried, ['guest 1', 'grey.example 1', 'direct 1', 'direct 2']);
    assert.deepEqual([open(), store.outbox.paths(1)], [0, ['mailbox']], 'the first one counts');
  });

  test('is not written to at a mailbox without a token, and goes on where that one refuses', async () => {
    mailboxes = ['green.example'];
    seal(1);
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 1']);
    knowsToken();
    tried = [];
    guest = () => Promise.reject(new PermissionDeniedError('BLOCKED', 'no such token'));
    seal(2);
    await clock.advance(100);
    assert.deepEqual(tried, ['guest 2', 'green.example 2', 'direct 2']);
    // About this device alone: another one's mailbox there is tried.
    knowsToken(carl);
    guest = works;
    seal(3, carl, 'green.example');
    tried = [];
    await clock.advance(100);
    assert.equal(open(), 0);
  });

  test('that is heard of inside of a transaction is served behind it', async () => {
    device = unreachable;
    seal(1);
    await clock.advance(100);
    knowsToken(carl);
    guest = works;
    seal(2, carl);
    await clock.settle();
    // The OK to the second one is not written down yet, and what fails must not take it along.
    assert.deepEqual(store.outbox.paths(2), []);
    const failing = (): void =>
      store.transaction(() => {
        ladder.learned(Buffer.from(bert).toString('hex'));
        throw new Error('the disk is full');
      });
    assert.throws(failing, /disk/);
    await clock.advance(100);
    assert.deepEqual(store.outbox.paths(2), ['guest']);
  });

  test('that was not there is tried at once over another network', async () => {
    device = unreachable;
    seal(1);
    await clock.advance(100);
    device = works;
    ladder.networkChanged();
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 1', 'direct 1']);
    assert.equal(open(), 0);
  });

  test('that asks for a pause gets it; a copy that it cannot open holds up no other', async () => {
    const retryAfterMs = 2_000;
    device = () =>
      Promise.reject(new ResourceExhaustedError('RATE_LIMITED', 'slower', { retryAfterMs }));
    for (const n of [1, 2, 3]) seal(n);
    await clock.advance(retryAfterMs - 1);
    assert.deepEqual(tried, ['direct 1']);
    device = async ({ payload }) => {
      if (payload[0] === 1) throw new InvalidArgumentError('BAD_FIELD', 'what is this');
    };
    await clock.advance(retryAfterMs);
    assert.deepEqual(tried.slice(1), ['direct 1', 'direct 2', 'direct 3']);
    seal(4);
    await clock.advance(100);
    assert.deepEqual(tried.slice(4), ['direct 4'], 'it was asked once');
    assert.equal(open(), 1, 'its node gets it');
  });

  test('whose node refuses the token is served by itself, other devices of that node by the node', async () => {
    for (const rid of [bert, carl]) knowsToken(rid);
    guest = async ({ rid }) => {
      if (rid[0] === bert[0]) throw new PermissionDeniedError('BLOCKED', 'no such token');
    };
    seal(1);
    await clock.advance(100);
    seal(2, carl);
    await clock.advance(100);
    assert.deepEqual(tried, ['guest 1', 'direct 1', 'guest 2']);
    assert.equal(open(), 0);
  });

  test('of the own node has no other node', async () => {
    knowsToken();
    seal(1, bert, 'red.example');
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 1']);
  });
});

describe('while the own node is there', () => {
  beforeEach(() => {
    link('connecting');
    link('online');
  });

  test('only what is for a domain that it cannot reach goes past it, the accepted first', async () => {
    seal(1);
    seal(2, carl, 'green.example');
    const row = store.outbox.next(Buffer.from(bert).toString('hex'), 0);
    store.transaction(() =>
      store.outbox.markAccepted(row?.id ?? 0, new Uint8Array(8), clock.now()),
    );
    ladder.unreachable(blue, ladderLimits.backOffMs - 1);
    await clock.advance(100);
    assert.deepEqual(tried, [], 'not for that long');
    ladder.unreachable(blue, ladderLimits.backOffMs);
    seal(3);
    await clock.advance(100);
    assert.deepEqual(tried, ['direct 1', 'direct 3']);
    ladder.unreachable('green.example', ladderLimits.backOffMs);
    await clock.advance(100);
    assert.deepEqual(tried.slice(2), ['direct 2'], 'sealed before anything was away');
    ladder.reached(blue);
    seal(4);
    await clock.advance(ladderLimits.awayMs);
    assert.deepEqual(tried.slice(3), []);
  });

  test('the word of a device outdoes that of its node, whichever comes first', async () => {
    const target = Buffer.from(bert).toString('hex');
    for (const n of [1, 2]) seal(n);
    const first = store.outbox.next(target, 0);
    const second = store.outbox.next(target, first?.id ?? 0);
    assert(first !== undefined && second !== undefined);
    outbox.delivered(first, 'direct');
    assert.equal(await outbox.guestAccepted(first, ok), true);
    assert.equal(await outbox.guestAccepted(second, ok), true);
    outbox.delivered(second, 'relay');
    outbox.writeMarks();
    assert.equal(store.outbox.undelivered(target, 0, 'device'), undefined);
    assert.deepEqual([store.outbox.paths(1), store.outbox.paths(2)], [['direct'], ['relay']]);
  });

  test('what it said last about a domain is forgotten after a while', async () => {
    ladder.unreachable(blue, ladderLimits.backOffMs);
    await clock.advance(ladderLimits.awayMs);
    seal(1);
    await clock.advance(100);
    assert.deepEqual(tried, []);
  });
});
