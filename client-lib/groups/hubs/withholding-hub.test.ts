/**
 * A hub that withholds: it keeps newer entries of a log from one member, its rows and its pages alike. It can do that
 * for as long as it likes (docs/security/hubs.md); what follows, and what the member does, is shown here.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forkLimits } from './fork-watch.ts';
import { mandatorySuite, xwingSuite } from '../../mls/index.ts';
import { company, groupOf } from '../../test-company.ts';
import { exchange, takeRows, type TestDevice } from '../../test-devices.ts';

const has = (device: TestDevice, type: string): boolean =>
  device.events.some((event) => event.type === type);

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`a hub that withholds is noticed by the first message, and nothing is lost when it stops (suite ${suite})`, async () => {
    const { directory, clock, alice, bob, carol, id } = await company([suite]);
    const { hub } = directory;
    const all = [alice, bob, carol];
    for (const one of all) one.groups.forks.start();
    const texts = (device: TestDevice): readonly string[] =>
      device.history(id).map(({ text }) => text);

    await alice.conversations.rotateKeys(id);
    hub.takeRows(alice.rid, carol.rid);
    hub.isSilent = true;
    let pages = 0;
    hub.beforeLog = async () => void (pages += 1);
    await exchange(alice, bob);
    assert.equal(pages, 0);

    // The first message of the epoch that carol is not to know: kept, told, and the log is read at once.
    await alice.conversations.send(id, 'after it');
    await exchange(...all);
    assert.deepEqual(texts(carol), []);
    const parked = carol.events.findLast((event) => event.type === 'parked');
    assert.equal(parked?.reason, suite === xwingSuite ? 'UNKNOWN_KEY' : 'FUTURE_EPOCH');
    assert.ok(pages > 0, 'carol reads the log');

    // What she writes meanwhile the others can read: they keep the keys of the epoch that she is in.
    await carol.conversations.send(id, 'before it');
    await exchange(...all);
    assert.ok(texts(alice).includes('before it') && texts(bob).includes('before it'));

    // Five minutes later everybody hears where she stands, if the row does not say itself of which epoch it is. Nobody
    // is called a liar for it: there is one history.
    clock.advance(forkLimits.unknownKeyMs + 1);
    carol.groups.forks.sweep();
    await carol.groups.forks.idle();
    for (const one of [alice, bob]) {
      const rows = takeRows(carol, one);
      assert.equal(rows.length, suite === xwingSuite ? 1 : 0, one.userId);
      for (const row of rows) await one.receive(row);
    }
    for (const one of all) assert.ok(!has(one, 'fork') && !has(one, 'leftBehind'), one.userId);
    assert.notEqual((await groupOf(carol, id)).epoch, (await groupOf(alice, id)).epoch);

    // It shows its log again: the next message brings all of it.
    hub.isSilent = false;
    clock.advance(forkLimits.readMs);
    await alice.conversations.send(id, 'and after that');
    await exchange(...all);
    assert.deepEqual(texts(carol).toSorted(), ['after it', 'and after that', 'before it']);
    assert.deepEqual(carol.store.inbox.parked(), []);
    const groups = await Promise.all(all.map((one) => groupOf(one, id)));
    assert.equal(new Set(groups.map(({ epochAuthenticator: key }) => key.join())).size, 1);
    for (const one of all) await one.groups.stop();
  });
}
