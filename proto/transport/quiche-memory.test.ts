/** Memory outside V8's heap: connections that come and go leave nothing behind in the process. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { callEcho, Rig } from './contract-rig.ts';
import { quicheEngine } from './quic-rig.ts';
import { CloseCode } from './transport.ts';

const mebibyte = 1024 * 1024;

test('thousands of connections that open, call and close leave the memory flat', async (t) => {
  const limits = { handshakesPerHostPerSecond: 1_000_000 };
  const rig = await Rig.listen(t, quicheEngine, { limits });
  const options = rig.dialOptions();
  const cycle = async (): Promise<void> => {
    const connection = await rig.engine.transport.dial(rig.listener.endpoint, options);
    await callEcho(connection);
    await connection.close(CloseCode.Normal, 'done');
    await (
      await rig.accepted()
    ).closed;
  };
  const cycles = async (count: number): Promise<number> => {
    for (let at = 0; at < count; at += 10) await Promise.all(Array.from({ length: 10 }, cycle));
    return process.memoryUsage.rss();
  };
  // The first thousand brings the collector and the allocator to their working size.
  const first = await cycles(1000);
  const last = await cycles(3000);
  t.diagnostic(`RSS ${Math.round(first / mebibyte)} -> ${Math.round(last / mebibyte)} MiB`);
  // One native connection is about 40 KiB on each side: 3 000 kept would be more than 200 MiB.
  assert.ok(last - first < 100 * mebibyte, `${last - first} bytes more`);
});
