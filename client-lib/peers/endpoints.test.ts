/** Which endpoint records of others are kept, and who is told the own one. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { makeSwarmKey, signEndpointRecord, verifyEndpointRecord } from '@quicprochat/p2p';
import { hex, signingKeyFromSeed, type SigningKey } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { EventBus } from '../events.ts';
import { endpointBounds } from '../store/endpoint-rows.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import type { ClientStore } from '../store/store.ts';
import { LaterClock, testRuntime } from '../test-runtime.ts';
import { endpointRules, Endpoints } from './endpoints.ts';

const { random } = testRuntime;
const dayMs = 24 * 3_600_000;
const makeKey = (): SigningKey => signingKeyFromSeed(random.bytes(32));
const member = 'bert@blue.example';

let clock: LaterClock;
let store: ClientStore;
let events: EventBus;
let endpoints: Endpoints;
let learned: string[];
let woken: number;

beforeEach(() => {
  clock = new LaterClock();
  store = openMemoryStore();
  events = new EventBus();
  learned = [];
  woken = 0;
  endpoints = new Endpoints({
    ...{ store, events, runtime: { ...testRuntime, clock }, reach: ['public'] },
    onDue: () => void (woken += 1),
    onLearned: (target) => learned.push(target),
  });
});

function recordOf(
  device: SigningKey,
  facts: {
    seq?: number;
    issuedMs?: number;
    lifeMs?: number;
    address?: string;
    isNowhere?: boolean;
  } = {},
): SignedEndpointRecord {
  const { seq = 1, issuedMs = clock.now(), lifeMs = 7 * dayMs } = facts;
  const { address = '/ip4/192.0.2.1/udp/5002/quic-v1' } = facts;
  return signEndpointRecord(
    {
      swarmKey: makeSwarmKey(random).publicKey,
      ...{ addresses: facts.isNowhere === true ? [] : [address], relays: [], mailboxes: [] },
      ...{ seq, issuedMs, expiresMs: issuedMs + lifeMs },
    },
    device,
  );
}

/** A conversation in which this device wrote so many messages. */
function conversation(sentCount: number): Uint8Array {
  const id = random.bytes(32);
  store.groups.addConversation({
    ...{ id, groupId: id, suite: 1, name: '', creator: member },
    ...{ joinedMs: 0, sentCount, lamport: 0 },
  });
  return id;
}

describe('records of others', () => {
  test('are kept when the device itself signed them, and the highest seq wins', () => {
    const bert = makeKey();
    const [target, from] = [hex(bert.publicKey), bert.publicKey];
    endpoints.take(recordOf(bert, { seq: 5 }), from);
    assert.equal(endpoints.of(target)?.seq, 5);
    for (const seq of [4, 5]) endpoints.take(recordOf(bert, { seq }), from);
    assert.equal(endpoints.of(target)?.seq, 5);
    endpoints.take(recordOf(bert, { seq: 6 }), from);
    assert.equal(endpoints.of(target)?.seq, 6);
    assert.deepEqual(learned, [target, target]);
  });

  test('of another device, forged, out of reach, expired or too long-lived are dropped', () => {
    const [bert, mallory] = [makeKey(), makeKey()];
    const good = recordOf(bert);
    const dropped = [
      // Bert's own record, handed on by mallory, and one that mallory made for bert.
      [good, mallory.publicKey],
      [recordOf(mallory), bert.publicKey],
      [{ ...good, signature: random.bytes(64) }, bert.publicKey],
      [recordOf(bert, { address: '/ip4/10.0.0.1/udp/5002/quic-v1' }), bert.publicKey],
      [recordOf(bert, { issuedMs: clock.now() - 7 * dayMs - 1 }), bert.publicKey],
      [recordOf(bert, { issuedMs: clock.now() + 2 * dayMs }), bert.publicKey],
    ] as const;
    for (const [signed, from] of dropped) endpoints.take(signed, from);
    for (const device of [bert, mallory])
      assert.equal(endpoints.of(hex(device.publicKey)), undefined);
    assert.deepEqual(learned, []);
  });

  test('that devices prove themselves are kept too, unless a newer one is known', () => {
    const bert = makeKey();
    const proved = (seq: number) =>
      verifyEndpointRecord(recordOf(bert, { seq }), { nowMs: clock.now() });
    for (const seq of [2, 1, 2, 3]) endpoints.learn(proved(seq));
    assert.equal(endpoints.of(hex(bert.publicKey))?.seq, 3);
    assert.equal(learned.length, 2);
    // It came by itself: there is a way to it, whatever is known.
    endpoints.met(proved(3));
    assert.equal(learned.length, 3);
  });

  test('end when they expire, and there are only so many', () => {
    const bert = makeKey();
    endpoints.take(recordOf(bert, { lifeMs: dayMs }), bert.publicKey);
    assert.notEqual(endpoints.of(hex(bert.publicKey)), undefined);
    clock.advance(dayMs + 1);
    assert.equal(endpoints.of(hex(bert.publicKey)), undefined);
    store.endpoints.expire(clock.now());
    assert.equal(store.endpoints.get(bert.publicKey), undefined);
    const signed = recordOf(bert);
    store.transaction(() => {
      for (let n = 0; n <= endpointBounds.records; n += 1) {
        const rid = new Uint8Array(32);
        new DataView(rid.buffer).setUint32(0, n);
        store.endpoints.put(rid, signed, { seq: 1, expiresMs: n });
      }
    });
    assert.equal(store.endpoints.get(new Uint8Array(32)), undefined, 'the first to expire went');
  });
});

describe('the own record', () => {
  const next = (id: Uint8Array, members = [member]) => endpoints.next(id, members)?.endpoint;

  test('goes with a text, by itself only where this device wrote, and changed at most hourly', () => {
    const own = makeKey();
    const [read, written] = [conversation(0), conversation(1)];
    assert.equal(next(written), undefined, 'no swarm, no record');
    endpoints.changed(recordOf(own), 1);
    assert.equal(woken, 1);
    assert.deepEqual([next(written), endpoints.due()], [undefined, []], 'relays may be found yet');
    assert.equal(woken, 2);
    clock.advance(endpointRules.settleMs);
    assert.deepEqual(endpoints.due(), [written]);
    assert.notEqual(next(read), undefined);
    for (const id of [read, written]) endpoints.mark(id);
    assert.equal(next(written), undefined);
    const changed = recordOf(own, { seq: 2 });
    endpoints.changed(changed, 2);
    endpoints.changed(recordOf(own, { isNowhere: true, seq: 3 }), 3);
    assert.equal(next(written), undefined, 'told a moment ago');
    assert.deepEqual(endpoints.due(), []);
    clock.advance(endpointRules.changeMs);
    assert.equal(next(written), changed);
    assert.deepEqual(endpoints.due(), [written]);
    endpoints.gone();
    assert.deepEqual([next(written), endpoints.due()], [undefined, []]);
  });

  test('is told again when members join, and to no conversation of somebody blocked', () => {
    const id = conversation(1);
    endpoints.changed(recordOf(makeKey()), 1);
    clock.advance(endpointRules.settleMs);
    endpoints.mark(id);
    events.emit({ type: 'membersChanged', conversationId: id, members: [member] });
    assert.notEqual(next(id), undefined);
    store.tokens.block(member, 0);
    assert.equal(next(id), undefined);
  });

  test('its seq is kept, and never falls', () => {
    store.endpoints.putOwn(random.bytes(32));
    endpoints.changed(recordOf(makeKey()), 7);
    store.endpoints.putOwnSeq(3);
    assert.equal(store.endpoints.own()?.seq, 7);
  });
});
