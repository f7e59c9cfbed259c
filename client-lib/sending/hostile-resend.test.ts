/** What hostile requests for messages get (docs/protocol/delivery.md, "End-to-end re-send"). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { sealHybrid } from '../crypto/envelope.ts';
import { holeLimits } from '../receiving/number-ranges.ts';
import { encodeGone, encodeRequest, openEnd, type ResendRequest } from './resend-request.ts';
import { answerLimits } from './resender.ts';
import { assertHas, handOver, takeRows, TestDevice } from '../test-devices.ts';
import { company, exchange, say } from './test-resend.ts';

describe('a hostile request', () => {
  /** Puts a request into alice's inbox, as anybody can who knows her prekey. */
  async function ask(
    alice: TestDevice,
    by: TestDevice,
    change: Partial<ResendRequest>,
    signer: TestDevice = by,
  ): Promise<Uint8Array> {
    const request = {
      id: systemRandom.bytes(16),
      groupId: alice.store.groups.conversations()[0]?.groupId ?? new Uint8Array(32),
      sender: alice.rid,
      asker: by.rid,
      to: alice.rid,
      ranges: [{ from: 1, to: openEnd }],
      sealAnew: false,
      ...change,
    };
    const bytes = encodeRequest(request, signer.identityKey);
    await put(alice, 'resendRequest', bytes);
    return bytes;
  }
  async function put(
    to: TestDevice,
    kind: 'resendRequest' | 'gone',
    bytes: Uint8Array,
  ): Promise<void> {
    const mid = systemRandom.bytes(16);
    const recipientKey = to.store.keys.newestHybridKey()?.publicKey;
    assert(recipientKey !== undefined);
    const content = { kind, bytes };
    await to.receive({
      mid,
      payload: sealHybrid({ content, recipientKey, rid: to.rid, mid, random: systemRandom }),
    });
  }
  const nothing = (from: TestDevice, to: TestDevice): void => {
    assert.equal(takeRows(from, to).length, 0);
  };

  test('of somebody else, for somebody else, or with a bad signature gets nothing', async () => {
    const { alice, bob, carol, id, clock } = await company();
    const eve = new TestDevice('eve@red.example', alice.directory, { clock });
    await say(alice, id, 'secret');
    await exchange(alice, bob, carol);
    await ask(alice, eve, {});
    await ask(alice, eve, { asker: bob.rid });
    await ask(alice, bob, { to: carol.rid });
    await ask(alice, bob, { groupId: new Uint8Array(32) });
    await ask(alice, alice, {});
    await put(alice, 'resendRequest', Uint8Array.of(0x0a, 1, 7));
    await ask(alice, bob, { ranges: [] });
    await ask(alice, bob, { ranges: Array.from({ length: 33 }, () => ({ from: 1, to: 1 })) });
    await alice.resender.answerDue();
    assert.equal(alice.store.resend.nextDuty(), undefined);
    for (const device of [bob, carol, eve]) nothing(alice, device);
    assert.deepEqual(alice.store.inbox.undecryptable(), []);
  });

  test('that is repeated is answered once, and a member that floods gets so much an hour', async () => {
    const { alice, bob, carol, id, clock } = await company();
    await say(alice, id, 'one');
    await exchange(alice, bob, carol);
    const bytes = await ask(alice, bob, {});
    await alice.resender.answerDue();
    assert.equal(takeRows(alice, bob).length, 1);
    await put(alice, 'resendRequest', bytes);
    await alice.resender.answerDue();
    nothing(alice, bob);
    let answers = 0;
    for (let n = 0; n < answerLimits.requestsPerHour + 20; n += 1) {
      await ask(alice, bob, { sealAnew: true });
      await alice.resender.answerDue();
      answers += takeRows(alice, bob).length;
    }
    // One was spent before; the first of these also lets all members hear of the keys in use.
    assert.equal(answers, answerLimits.requestsPerHour - 1 + 1);
    // Nobody else pays for it, and an hour later the member may ask again.
    assert.equal(takeRows(alice, carol).length, 1);
    await ask(alice, carol, {});
    await alice.resender.answerDue();
    assert.equal(takeRows(alice, carol).length, 1);
    clock.advance(3_600_000);
    await ask(alice, bob, {});
    await alice.resender.answerDue();
    assert.equal(takeRows(alice, bob).length, 1);
  });

  test('that uses up keys lets the other members hear of it, so that they can follow', async () => {
    const { alice, bob, carol, id } = await company();
    for (let n = 0; n < 32; n += 1) await say(alice, id, `text ${n}`);
    await exchange(alice, bob, carol);
    const heard: number[] = [];
    for (let keys = 0; keys < answerLimits.keysPerTick + 64; keys += 32) {
      await ask(alice, bob, { sealAnew: true });
      await alice.resender.answerDue();
      heard.push(await handOver(alice, carol));
    }
    // At the first, as nobody knows what was before the start, and then when many were used.
    assert.deepEqual(heard, [1, ...Array.from({ length: 15 }, () => 0), 1, 0]);
    assertHas(
      carol,
      id,
      Array.from({ length: 32 }, (_, n) => `text ${n}`),
    );
  });

  test('for all numbers there are costs no more than for those that exist', async () => {
    const { alice, bob, carol, id } = await company();
    await say(alice, id, 'one');
    await exchange(alice, bob, carol);
    await ask(alice, bob, { ranges: [{ from: 1, to: openEnd - 1 }] });
    await alice.resender.answerDue();
    // The message, and that the others are gone.
    assert.equal(takeRows(alice, bob).length, 2);
  });

  test('of a member that was none then does not get what was said before', async () => {
    const { alice, bob, carol, id, clock } = await company();
    await say(carol, id, 'secret');
    await say(alice, id, 'secret too');
    await exchange(alice, bob, carol);
    const dave = new TestDevice('dave@blue.example', alice.directory, { clock });
    await alice.conversations.addMembers(id, [dave.userId]);
    await exchange(alice, bob, carol, dave);
    await ask(alice, dave, { sender: carol.rid });
    await ask(alice, dave, { sealAnew: true });
    clock.advance(answerLimits.othersDelayMs + answerLimits.othersJitterMs);
    await exchange(alice, bob, carol, dave);
    assert.deepEqual(dave.history(id), []);
    assert.deepEqual(dave.store.inbox.undecryptable(), []);
  });

  test('cannot end a hole of others, nor one that nobody asked for', async () => {
    const { alice, bob, carol, id, clock } = await company();
    await say(alice, id, 'one', 'two');
    const [, second] = takeRows(alice, bob);
    assert(second !== undefined);
    await bob.receive(second);
    const gone = {
      requestId: systemRandom.bytes(16),
      groupId: id,
      sender: alice.rid,
      asker: bob.rid,
      ranges: [{ from: 1, to: openEnd }],
      neverYours: false,
    };
    await put(bob, 'gone', encodeGone(gone, alice.identityKey));
    clock.advance(holeLimits.patienceMs);
    await bob.holes.askDue();
    await put(
      bob,
      'gone',
      encodeGone({ ...gone, requestId: systemRandom.bytes(16) }, carol.identityKey),
    );
    await put(bob, 'gone', encodeGone({ ...gone, asker: carol.rid }, alice.identityKey));
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['one', 'two']);
  });
});
