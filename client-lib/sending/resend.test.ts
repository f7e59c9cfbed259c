/**
 * End-to-end re-send between devices with real keys: receipts, holes, requests and their answers
 * (docs/protocol/delivery.md). What hostile requests get: hostile-resend.test.ts.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hex } from '@quicprochat/proto';
import { askLimits } from '../receiving/holes.ts';
import { holeLimits } from '../receiving/number-ranges.ts';
import { answerLimits } from './resender.ts';
import { mandatorySuite } from '../mls/index.ts';
import { assertHas, handOver, takeRows, TestDevice, type TestRow } from '../test-devices.ts';
import { company, exchange, say, stateOf } from './test-resend.ts';
import { receiptLimits } from '../receiving/receipts.ts';
import { publishCrowd } from '../test-crowd.ts';
import { TestDirectory } from '../test-directory.ts';
import { LaterClock } from '../test-runtime.ts';

describe('receipts', () => {
  test('make a message delivered when a device of each other member has it, and read likewise', async () => {
    const { alice, bob, carol, id } = await company();
    await say(alice, id, 'hello');
    await handOver(alice, bob);
    await bob.receipts.flush();
    assert.equal(stateOf(alice, id, 0), 'sealed');
    const toCarol = takeRows(alice, carol);
    await handOver(bob, alice);
    // All that is not at its device lies at the own node.
    assert.equal(stateOf(alice, id, 0), 'relayed');
    for (const row of toCarol) await carol.receive(row);
    await exchange(alice, bob, carol);
    assert.equal(stateOf(alice, id, 0), 'delivered');
    const [messageId] = alice.history(id).map((message) => message.id);
    const told = alice.events.filter(({ type }) => type === 'delivered' || type === 'read');
    assert.deepEqual(told, [{ type: 'delivered', messageId }]);
    for (const device of [bob, carol]) {
      device.receipts.addRead(device.history(id).map((message) => message.id));
      assert.equal(stateOf(alice, id, 0), 'delivered');
      await exchange(alice, bob, carol);
    }
    assert.equal(stateOf(alice, id, 0), 'read');
    // Shown to nobody, counted by nobody, and answered by nothing.
    for (const device of [alice, bob, carol]) assert.equal(device.history(id).length, 1);
    assert.deepEqual(bob.store.resend.holes(), []);
  });

  test('survive a crash, wherever it is, and a receipt that is lost is given again', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'hello');
    const [row] = takeRows(alice, bob);
    assert(row !== undefined);
    await bob.receive(row);
    bob.restart();
    await bob.receipts.flush();
    bob.restart();
    assert.equal(takeRows(bob, alice).length, 1);
    // Lost on the way; the same row comes again, too soon and then later.
    await bob.receive(row);
    await bob.receipts.flush();
    assert.equal(takeRows(bob, alice).length, 0);
    clock.advance(receiptLimits.repeatMs + 1);
    await bob.receive(row);
    await bob.receipts.flush();
    assert.equal(await handOver(bob, alice), 1);
    await exchange(alice, bob, carol);
    assert.equal(stateOf(alice, id, 0), 'delivered');
    assertHas(bob, id, ['hello']);
  });

  test('go together, and drop the bytes that nobody needs any more', async () => {
    const { alice, bob, carol, id } = await company();
    await say(alice, id, 'one', 'two', 'three');
    await handOver(alice, bob);
    await handOver(alice, carol);
    await bob.receipts.flush();
    assert.equal(takeRows(bob, carol).length, 1);
    await exchange(alice, bob, carol);
    assert.deepEqual(
      [0, 1, 2].map((n) => stateOf(alice, id, n)),
      ['delivered', 'delivered', 'delivered'],
    );
    assert.deepEqual(alice.store.outbox.due(Number.MAX_SAFE_INTEGER, 99), []);
  });
});

describe('a hole', () => {
  for (const suites of [undefined, [mandatorySuite]] as const) {
    test(`is asked for after a minute and filled with the original (suites ${suites?.join(' ')})`, async () => {
      const { clock, alice, bob, carol, id } = await company(
        suites === undefined ? {} : { suites },
      );
      await say(alice, id, 'one', 'two', 'three', 'four');
      const [first, , , last] = takeRows(alice, bob);
      assert(first !== undefined && last !== undefined);
      await bob.receive(first);
      await bob.receive(last);
      await exchange(alice, bob, carol);
      assertHas(bob, id, ['one', 'four']);
      clock.advance(holeLimits.patienceMs);
      await exchange(alice, bob, carol);
      assertHas(bob, id, ['one', 'two', 'three', 'four']);
      assert.deepEqual(
        bob.history(id).map(({ text }) => text),
        ['one', 'two', 'three', 'four'],
      );
      assert.deepEqual(bob.store.resend.holes(), []);
      assert.equal(stateOf(alice, id, 1), 'delivered');
    });
  }

  test('closes by itself when the message was only late', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'one', 'two', 'three');
    const rows = takeRows(alice, bob);
    for (const row of rows.toReversed()) await bob.receive(row);
    clock.advance(holeLimits.patienceMs);
    await bob.holes.askDue();
    assert.equal(takeRows(bob, alice).length + takeRows(bob, carol).length, 0);
    assertHas(bob, id, ['one', 'two', 'three']);
  });

  test('is filled by another member while the sender is away', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'one', 'two', 'three');
    await handOver(alice, carol);
    const [first, , third] = takeRows(alice, bob);
    assert(first !== undefined && third !== undefined);
    await bob.receive(first);
    await bob.receive(third);
    clock.advance(holeLimits.patienceMs);
    await exchange(bob, carol);
    assertHas(bob, id, ['one', 'three']);
    clock.advance(askLimits.againAfterMs[0]);
    await exchange(bob, carol);
    clock.advance(answerLimits.othersDelayMs + answerLimits.othersJitterMs);
    await exchange(bob, carol);
    assertHas(bob, id, ['one', 'two', 'three']);
    assert.equal(bob.history(id)[1]?.senderUser, alice.userId);
  });

  test('is sealed anew when the original cannot be opened any more', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'one', 'two');
    const [, second] = takeRows(alice, bob);
    assert(second !== undefined);
    await bob.receive(second);
    clock.advance(holeLimits.patienceMs);
    await bob.holes.askDue();
    const [request] = takeRows(bob, alice);
    assert(request !== undefined, 'asked once');
    clock.advance(askLimits.againAfterMs[0]);
    await bob.holes.askDue();
    // The kept bytes are gone too, as after 7 days.
    alice.store.resend.expire(clock.now() + 8 * 24 * 3600 * 1000);
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['one', 'two']);
    await exchange(alice, bob, carol);
    assert.equal(alice.history(id).length, 2);
  });

  test('is sealed anew at once when the asker has dropped its key, and else as it was', async () => {
    const { clock, alice, bob, carol, id } = await company();
    const texts = Array.from({ length: 260 }, (_, n) => `text ${n}`);
    await say(alice, id, ...texts);
    // Of everything between the first and the last one bob keeps the newest 256 keys.
    const rows = takeRows(alice, bob);
    const [first, last] = [rows[0], rows.at(-1)];
    assert(first !== undefined && last !== undefined);
    await bob.receive(first);
    await bob.receive(last);
    clock.advance(holeLimits.patienceMs);
    await exchange(alice, bob, carol);
    assert.deepEqual(bob.store.inbox.undecryptable(), []);
    assert.equal(bob.history(id).length, 2 + answerLimits.messagesPerAnswer);
    for (const waitMs of askLimits.againAfterMs.slice(0, 2)) {
      clock.advance(waitMs);
      await exchange(alice, bob, carol);
    }
    assertHas(bob, id, texts);
  });

  test('ends with the word of the sender that it is gone, which is told', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'one');
    takeRows(alice, bob);
    // A copy of alice's store from before: it knows nothing of the message, and counts on.
    alice.store.groups.advance(id, 2, 2);
    alice.restart();
    await say(alice, id, 'three');
    await handOver(alice, bob);
    clock.advance(holeLimits.patienceMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['one', 'three']);
    const told = bob.events.filter(({ type }) => type === 'missing');
    const { deviceId } = alice;
    assert.deepEqual(told, [
      {
        type: 'missing',
        conversationId: id,
        senderDeviceId: deviceId,
        from: 2,
        to: 2,
        reason: 'gone',
      },
    ]);
    assert.deepEqual(
      bob.store.resend.holes().map(({ from, to, state }) => [from, to, state]),
      [[2, 2, 'GONE']],
    );
    assert.equal(bob.store.resend.nextHoleMs(), undefined);
  });

  test('whose text disappeared at its author ends so too; what nobody saw yet stays', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await alice.conversations.updateMetadata(id, { expirySeconds: 30 });
    await exchange(alice, bob, carol);
    await say(alice, id, 'one', 'two', 'three');
    const [first, , third] = takeRows(alice, bob);
    assert(first !== undefined && third !== undefined);
    await bob.receive(first);
    await bob.receive(third);
    clock.advance(Math.max(holeLimits.patienceMs, 31_000));
    assert.equal(alice.store.messages.expire(clock.now(), 9).length, 3);
    await exchange(alice, bob);
    assertHas(bob, id, ['one', 'three']);
    assert.deepEqual(
      bob.store.resend.holes().map(({ from, to, state }) => [from, to, state]),
      [[2, 2, 'GONE']],
    );
    assert.deepEqual(
      alice.history(id).map(({ text }) => text),
      ['', '', ''],
    );
  });

  test('before the own membership is none, and nothing of it is told or sent', async () => {
    const { clock, alice, bob, carol, id } = await company();
    const dave = new TestDevice('dave@blue.example', alice.directory, { clock });
    await say(alice, id, 'secret', 'before');
    await exchange(alice, bob, carol);
    await alice.conversations.addMembers(id, [dave.userId]);
    await say(alice, id, 'welcome');
    await exchange(alice, bob, carol, dave);
    assert.equal(dave.store.resend.holes().length, 1);
    clock.advance(holeLimits.patienceMs);
    await exchange(alice, bob, carol, dave);
    assert.deepEqual(dave.store.resend.holes(), []);
    assertHas(dave, id, ['welcome']);
    assert.deepEqual(
      dave.events.filter(({ type }) => type === 'missing'),
      [],
    );
  });

  test('of a membership whose invitation a later one overtook is filled', async () => {
    const { clock, alice, bob, carol, id } = await company();
    const out = async (): Promise<void> => {
      await alice.conversations.removeMembers(id, [carol.userId]);
      await exchange(alice, bob);
    };
    const invited = async (): Promise<readonly TestRow[]> => {
      await alice.conversations.addMembers(id, [carol.userId]);
      const rows = takeRows(alice, carol);
      await exchange(alice, bob);
      return rows;
    };
    await out();
    await exchange(alice, bob, carol);
    const early = [...(await invited())];
    await say(bob, id, 'between');
    early.push(...takeRows(bob, carol));
    await out();
    early.push(...takeRows(alice, carol));
    // What stood before it comes last: the device was never in the epochs between.
    const late = await invited();
    await say(bob, id, 'after');
    for (const row of [...late, ...early]) await carol.receive(row);
    await exchange(alice, bob, carol);
    assert.deepEqual(
      carol.history(id).map(({ text }) => text),
      ['after'],
    );
    for (let asked = 0; asked < 3; asked += 1) {
      clock.advance(askLimits.againAfterMs[0] + askLimits.retryMs);
      await exchange(alice, bob, carol);
    }
    const texts = carol.history(id).map(({ text }) => text);
    assert.deepEqual(texts.toSorted(), ['after', 'between']);
    assert.deepEqual(carol.store.resend.holes(), []);
    // The overtaken invitation was let go, with what waited under its epoch's key.
    assert.deepEqual(carol.store.inbox.parked(), []);
  });

  test('that nobody fills is told after 30 days', async () => {
    const { clock, alice, bob, id } = await company();
    await say(alice, id, 'one', 'two');
    const [, second] = takeRows(alice, bob);
    assert(second !== undefined);
    await bob.receive(second);
    for (let days = 0; days < 33; days += 1) {
      clock.advance(24 * 3600 * 1000);
      await bob.holes.askDue();
      await bob.settle();
    }
    const told = bob.events.filter((event) => event.type === 'missing');
    assert.deepEqual(
      told.map(({ from, to, reason }) => [from, to, reason]),
      [[1, 1, 'unanswered']],
    );
  });
});

describe('rows that a node lost', () => {
  test('are asked for without a hole, from every member, once', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'one');
    await say(carol, id, 'first of carol');
    await exchange(alice, bob, carol);
    await say(alice, id, 'lost', 'lost too');
    await say(carol, id, 'lost as well');
    takeRows(alice, bob);
    takeRows(carol, bob);
    await exchange(alice, carol);
    await bob.holes.catchUp();
    clock.advance(2 * askLimits.catchUpDelayMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['one', 'first of carol', 'lost', 'lost too', 'lost as well']);
    assert.deepEqual(bob.store.resend.holes(), []);
    clock.advance(24 * 3600 * 1000);
    await bob.holes.askDue();
    assert.equal(takeRows(bob, alice).length, 0);
  });

  test('are all found, though there are more than an answer holds', async () => {
    const { clock, alice, bob, carol, id } = await company();
    const texts = Array.from({ length: answerLimits.messagesPerAnswer + 2 }, (_, n) => `lost ${n}`);
    await say(alice, id, ...texts);
    takeRows(alice, bob);
    await bob.holes.catchUp();
    clock.advance(2 * askLimits.catchUpDelayMs);
    await exchange(alice, bob, carol);
    clock.advance(holeLimits.patienceMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, texts);
    // Only carol, who said nothing, is asked once more.
    assert.deepEqual(
      bob.store.resend.holes().map(({ sender }) => hex(sender)),
      [hex(carol.rid)],
    );
  });

  test('are all found in more conversations with one member than that answers for in an hour', async () => {
    const { clock, alice, bob, carol, id } = await company();
    const ids = [id];
    while (ids.length < answerLimits.requestsPerHour + 4) {
      ids.push(await alice.conversations.create(`number ${ids.length}`, [bob.userId]));
    }
    await exchange(alice, bob, carol);
    for (const one of ids) await say(alice, one, 'lost');
    takeRows(alice, bob);
    await bob.holes.catchUp();
    await bob.holes.catchUp();
    for (let minutes = 0; minutes < 120; minutes += 5) {
      clock.advance(5 * 60_000);
      await exchange(alice, bob, carol);
    }
    for (const one of ids) assertHas(bob, one, ['lost']);
    assert.deepEqual(bob.store.resend.holes(), []);
  });

  test('are answered for in the next hour where nothing is left of this one', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'lost');
    takeRows(alice, bob);
    const hourMs = 3_600_000;
    clock.advance(hourMs - (clock.now() % hourMs));
    const hour = Math.floor(clock.now() / hourMs);
    alice.store.resend.spend(hour, carol.rid, 0, answerLimits.messagesPerHour);
    await bob.holes.catchUp();
    clock.advance(2 * askLimits.catchUpDelayMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, []);
    clock.advance(askLimits.questionAgainMs - hourMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, []);
    clock.advance(hourMs - (clock.now() % hourMs) + answerLimits.nextHourMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['lost']);
  });

  test('are asked for once more, at their sender alone, where nothing came', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'lost');
    await exchange(alice, carol);
    takeRows(alice, bob);
    const ask = async (): Promise<void> => {
      await bob.holes.catchUp();
      clock.advance(2 * askLimits.catchUpDelayMs);
      await bob.holes.askDue();
    };
    // A question that waits for its second time is asked at once when more may have been lost.
    for (let lost = 0; lost < 2; lost += 1) {
      await ask();
      assert.equal(takeRows(bob, alice).length, 1);
      assert.equal(takeRows(bob, carol).length, 1);
    }
    clock.advance(askLimits.questionAgainMs - askLimits.jitterMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, []);
    clock.advance(askLimits.jitterMs);
    await bob.holes.askDue();
    assert.equal(takeRows(bob, carol).length, 1, 'for what she said, and not for what alice did');
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['lost']);
    assert.deepEqual(bob.store.resend.holes(), []);
  });

  test('that are none have each sender asked twice and no more', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'one');
    await exchange(alice, bob, carol);
    await bob.holes.catchUp();
    let asked = 0;
    for (let hours = 0; hours < 30; hours += 1) {
      await bob.holes.askDue();
      asked += await handOver(bob, alice);
      await exchange(alice, bob, carol);
      clock.advance(3_600_000);
    }
    assert.equal(asked, 2);
    assert.deepEqual(bob.store.resend.holes(), []);
  });

  test('are asked for and answered now, though the clock was months ahead when that was put off', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'lost');
    takeRows(alice, bob);
    const aheadMs = 60 * 24 * 3600 * 1000;
    clock.advance(aheadMs);
    await bob.holes.catchUp();
    clock.advance(-aheadMs);
    await bob.holes.askDue();
    const requests = takeRows(bob, alice);
    assert.equal(requests.length, 1);
    clock.advance(aheadMs);
    const hour = Math.floor(clock.now() / 3_600_000);
    alice.store.resend.spend(hour, bob.rid, 0, answerLimits.messagesPerAskerHour);
    for (const row of requests) await alice.receive(row);
    await alice.resender.answerDue();
    assert.equal(takeRows(alice, bob).length, 0);
    clock.advance(-aheadMs);
    await exchange(alice, bob, carol);
    assertHas(bob, id, ['lost']);
  });

  test('are found behind an answer full of texts that disappeared', async () => {
    const { clock, alice, bob, carol, id } = await company();
    await say(alice, id, 'it stays');
    takeRows(alice, bob);
    await alice.conversations.updateMetadata(id, { expirySeconds: 30 });
    await exchange(alice, bob, carol);
    const vanishing = Array.from({ length: answerLimits.messagesPerAnswer }, () => 'it goes');
    await say(alice, id, ...vanishing);
    takeRows(alice, bob);
    clock.advance(31_000);
    alice.store.messages.expire(clock.now(), 2 * vanishing.length);
    await bob.holes.catchUp();
    clock.advance(2 * askLimits.catchUpDelayMs);
    await exchange(alice, bob);
    assertHas(bob, id, ['it stays']);
  });

  test('of a large group are asked for from those who were heard, those of a channel that nobody shows from all', async () => {
    const directory = new TestDirectory();
    const alice = new TestDevice('alice@red.example', directory, { clock: new LaterClock() });
    const crowd = await publishCrowd(directory, receiptLimits.devices, mandatorySuite);
    const id = await alice.conversations.create('crowd', crowd);
    const groupId = alice.store.groups.conversation(id)?.groupId;
    const asked = () => alice.store.resend.holes().map(({ sender }) => hex(sender));
    await alice.holes.catchUp();
    assert.deepEqual(asked(), []);
    await alice.holes.catchUp(groupId);
    assert.equal(new Set(asked()).size, crowd.length);
  });
});
