/** Room for rows that wait: what strangers send takes none from the own groups. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { hasParkingRoom, makeParkingRoom, parkedLimits } from './parked-room.ts';
import { openMemoryStore } from '../store/index.ts';
import type { ParkReason } from '../store/inbox-rows.ts';
import type { ClientStore } from '../store/store.ts';

const { rows, strangerRows, strangerBytes, keylessRows, keylessMs } = parkedLimits;

function fill(store: ClientStore, reason: ParkReason, most: number = rows, length = 16): number {
  let count = 0;
  store.transaction(() => {
    while (count < most && hasParkingRoom(store.inbox, reason, length)) {
      const row = { mid: systemRandom.bytes(16), kind: 1, seq: 0, receivedMs: 0 };
      store.inbox.park({ ...row, payload: new Uint8Array(length) }, reason, 'somebody', 0);
      count += 1;
    }
  });
  return count;
}

describe('what waits', () => {
  test('of strangers has a share, whatever they let it wait for', () => {
    const store = openMemoryStore();
    const third = Math.floor(strangerRows / 3);
    assert.equal(fill(store, 'UNKNOWN_GROUP', third), third);
    assert.equal(fill(store, 'UNKNOWN_USER', third), third);
    assert.equal(fill(store, 'UNKNOWN_HUB'), strangerRows - 2 * third);
    for (const reason of ['UNKNOWN_GROUP', 'UNKNOWN_USER', 'UNKNOWN_HUB'] as const) {
      assert.equal(hasParkingRoom(store.inbox, reason, 0), false);
    }
    assert.equal(fill(store, 'UNKNOWN_KEY'), keylessRows);
    // Both together leave it to who is in a group with this device.
    assert.equal(fill(store, 'FUTURE_EPOCH'), rows - strangerRows - keylessRows);
  });

  test('has a share of the bytes as well', () => {
    const store = openMemoryStore();
    const length = 512 * 1024;
    assert.equal(fill(store, 'UNKNOWN_USER', rows, length), strangerBytes / length);
    assert.equal(hasParkingRoom(store.inbox, 'UNKNOWN_GROUP', 1), false);
    assert.equal(hasParkingRoom(store.inbox, 'FUTURE_EPOCH', length), true);
  });

  test('for a key for more than a day gives way to what came just now, and to nothing else', () => {
    const store = openMemoryStore();
    const { inbox } = store;
    fill(store, 'UNKNOWN_KEY', 1);
    fill(store, 'UNKNOWN_USER', 1);
    fill(store, 'UNKNOWN_KEY');
    const [first, , second] = inbox.parked();
    const at = (reason: ParkReason, nowMs: number) =>
      store.transaction(() => makeParkingRoom(inbox, reason, 16, nowMs));
    assert.deepEqual(at('UNKNOWN_KEY', keylessMs), { isRoom: false, gaveWay: [] });
    fill(store, 'UNKNOWN_HUB');
    assert.deepEqual(at('UNKNOWN_HUB', keylessMs + 1), { isRoom: false, gaveWay: [] });
    assert.deepEqual(at('UNKNOWN_KEY', keylessMs + 1), { isRoom: true, gaveWay: [first] });
    // Its place is free now, and no other row goes for it.
    assert.deepEqual(at('UNKNOWN_KEY', keylessMs + 1), { isRoom: true, gaveWay: [] });
    assert.equal(inbox.oldestParked('UNKNOWN_KEY')?.id, second?.id);
    assert.equal(inbox.parkedFor(['UNKNOWN_KEY']).rows, keylessRows - 1);
    assert.equal(inbox.parkedFor(['UNKNOWN_USER', 'UNKNOWN_HUB']).rows, strangerRows);
  });
});
