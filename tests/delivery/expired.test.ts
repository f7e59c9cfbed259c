/** A message that expires unread at another node: its sender hears of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { call, methods, RowKind, systemClock, systemRandom } from '@quicprochat/proto';
import { fromBinary, NoticeSchema, NoticeType, type Row } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

/** The first row of a kind in the inbox, once it is there. */
async function rowOfKind(device: TestDevice, kind: number): Promise<Row> {
  for (let after = 0n; ;) {
    const cursor = { log: {}, after };
    const waited = await call(device.connection, methods.fetchWait, {
      cursors: [cursor],
      waitMs: 10_000,
    });
    const rows = waited.logs[0]?.fetched?.rows ?? [];
    const found = rows.find((row) => row.kind === kind);
    if (found !== undefined) return found;
    after = rows.at(-1)?.seq ?? after;
  }
}

test('EXPIRED comes back over the control lane, for the message that it is about', async () => {
  const network = memoryNetwork(testRuntime);
  await using red = await LocalNode.create(network, 'red.example');
  await using blue = await LocalNode.create(network, 'blue.example');
  await red.start([blue]);
  await blue.start([red]);
  await using alice = await TestDevice.register(red, 'alice@red.example');
  await using bob = await TestDevice.register(blue, 'bob@blue.example');
  const toBob = { rid: bob.rid, domain: 'blue.example' };
  const mid = bytes(16);
  await call(alice.connection, methods.enqueue, { ...toBob, mid, payload: bytes(99), ttlS: 1 });
  const { receivedMs } = await rowOfKind(bob, RowKind.Envelope);
  while (systemClock.now() <= Number(receivedMs) + 1_000) await systemClock.sleep(100);
  await blue.store?.sweep();
  // Its own sweep would tell its peers, a minute after its start; a start looks at what there is for them.
  await blue.reopen();
  await blue.start([red]);
  const { payload } = await rowOfKind(alice, RowKind.Notice);
  const notice = fromBinary(NoticeSchema, payload);
  assert.equal(notice.type, NoticeType.EXPIRED);
  assert.deepEqual(notice.mids, [mid]);
  assert.deepEqual(notice.rid, bob.rid);
  assert.equal(notice.domain, 'blue.example');
});
