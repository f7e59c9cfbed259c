/** Messages whose text goes after a time: when, from where, and what stays of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom, type Clock, type Timer } from '@quicprochat/proto';
import { ContentSchema, create, toBinary } from '@quicprochat/proto/messages';
import { encodeContent, parseContent } from '../content.ts';
import { Disappearing, disappearingLimits } from './disappearing.ts';
import { EventBus, type ClientEvent } from '../events.ts';
import { groupLimits } from '../mls/index.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import type { NewMessage } from '../store/message-rows.ts';

/** Time moves when the test says so, and timers fire then. */
class HandClock implements Clock {
  nowMs = 1_000_000;
  readonly waits: number[] = [];
  #due: { atMs: number; callback: () => void }[] = [];

  now(): number {
    return this.nowMs;
  }
  monotonic(): number {
    return this.nowMs;
  }
  sleep(): Promise<void> {
    return Promise.reject(new RangeError('nobody sleeps here'));
  }
  timer(ms: number, callback: () => void): Timer {
    const timer = { atMs: this.nowMs + ms, callback };
    this.waits.push(ms);
    this.#due.push(timer);
    return { cancel: () => void (this.#due = this.#due.filter((one) => one !== timer)) };
  }
  get armed(): number {
    return this.#due.length;
  }
  pass(ms: number): void {
    this.nowMs += ms;
    const due = this.#due.filter(({ atMs }) => atMs <= this.nowMs);
    this.#due = this.#due.filter((one) => !due.includes(one));
    for (const { callback } of due) callback();
  }
}

function rig() {
  const clock = new HandClock();
  const store = openMemoryStore();
  const events = new EventBus();
  const told: ClientEvent[] = [];
  events.listen((event) => told.push(event));
  const runtime = { clock, random: systemRandom, log: silentLog };
  const disappearing = new Disappearing({ store, runtime, events });
  let n = 0;
  const add = (part: Partial<NewMessage>): number => {
    n += 1;
    const id = store.messages.add({
      conversationId: new Uint8Array(32).fill(1),
      senderUser: 'bob@blue.example',
      senderDevice: 'abcdefghijklmnop',
      innerId: systemRandom.bytes(16),
      n,
      lamport: n,
      text: `text ${n}`,
      sentMs: clock.now(),
      receivedMs: undefined,
      ...part,
    });
    assert(id !== undefined);
    return id;
  };
  const textOf = (id: number): string | undefined => store.messages.message(id)?.text;
  return { clock, store, told, disappearing, add, textOf };
}

test('an own text goes by when it was sent, one of others by when it was shown; ids stay', () => {
  const { clock, store, told, disappearing, add, textOf } = rig();
  using open = store;
  disappearing.start();
  const stays = add({});
  const own = add({ expirySeconds: 60 });
  const received = add({ expirySeconds: 60, receivedMs: clock.now() });
  disappearing.wake();
  clock.pass(59_999);
  assert.equal(textOf(own), 'text 2');
  clock.pass(1);
  assert.equal(textOf(own), '');
  assert.equal(open.messages.message(own)?.goneMs, clock.now());
  // Nobody has seen it yet: its time does not run.
  clock.pass(3_600_000);
  assert.equal(textOf(received), 'text 3');
  open.messages.markDisplayed([received, stays], clock.now());
  disappearing.wake();
  clock.pass(60_000);
  assert.deepEqual([textOf(received), textOf(stays)], ['', 'text 1']);
  const gone = [own, received].map((id) => open.messages.message(id)?.innerId);
  assert.deepEqual(
    told.map((event) => (event.type === 'disappeared' ? event.ids : [])),
    gone.map((id) => [id]),
  );
  // It is known when it comes again, and does not come back.
  const record = open.messages.message(received);
  assert(record !== undefined);
  assert.equal(open.messages.add({ ...record, text: 'again' }), undefined);
  assert.equal(textOf(received), '');
});

test('what became due while nothing ran goes at the start, all of it, and never early', () => {
  const { clock, store, told, disappearing, add, textOf } = rig();
  using _open = store;
  const count = disappearingLimits.batch + 3;
  const ids = Array.from({ length: count }, () => add({ expirySeconds: 10 }));
  const later = add({ expirySeconds: groupLimits.expirySeconds });
  disappearing.wake();
  clock.pass(10_000);
  assert.equal(textOf(ids[0] ?? 0), 'text 1', 'it does not run yet');
  disappearing.start();
  assert.ok(ids.every((id) => textOf(id) === ''));
  assert.equal(
    told.flatMap((event) => (event.type === 'disappeared' ? event.ids : [])).length,
    count,
  );
  // A timer of a year is waited for in hours: no platform holds longer ones.
  assert.equal(clock.waits.at(-1), disappearingLimits.lookMs);
  clock.pass(disappearingLimits.lookMs);
  assert.notEqual(textOf(later), '');
  assert.equal(clock.armed, 1);
  disappearing.stop();
  assert.equal(clock.armed, 0);
});

test('the time travels in the message, and a nonsense one is cut to what a group may have', () => {
  const message = { innerId: systemRandom.bytes(16), n: 1, lamport: 1, sentMs: 1, text: 'x' };
  const timeIn = (bytes: Uint8Array): number | undefined => {
    const parsed = parseContent(bytes);
    return parsed.type === 'text' ? parsed.content.expirySeconds : undefined;
  };
  assert.equal(timeIn(encodeContent({ ...message, expirySeconds: 30 })), 30);
  assert.equal(timeIn(encodeContent(message)), 0);
  const { innerId: id } = message;
  const text = { case: 'text', value: { utf8: 'x' } } as const;
  const forged = create(ContentSchema, { id, n: 1n, body: text, expirySeconds: 2 ** 32 - 1 });
  assert.equal(timeIn(toBinary(ContentSchema, forged)), groupLimits.expirySeconds);
});
