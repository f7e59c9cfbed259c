/** Room for rows that wait: what strangers send takes none from the own groups. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { hasParkingRoom, parkedLimits } from './parked-room.ts';
import { openMemoryStore } from '../store/index.ts';
import type { ClientStore, ParkReason } from '../store/store.ts';

const { rows, strangerRows, strangerBytes, keylessRows } = parkedLimits;

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
});
