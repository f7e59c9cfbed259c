/** A TLS session whose peer speaks and does not listen. */
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { FramedConnection } from './connection.ts';
import { contractRuntime, fourMiB } from './contract-rig.ts';
import { numberRecord, recordHeader, RecordType } from './tls-record.ts';
import { TlsSession } from './tls-session.ts';
import { defaultLimits } from './transport.ts';

/** A socket whose other end takes nothing in. */
class Stuck extends Duplex {
  override _read(): void {}
  override _write(): void {}
}

test('a peer that resets streams by the thousand and reads no answer is closed', async (t) => {
  const runtime = contractRuntime();
  const socket = new Stuck();
  // More than the session hands to a socket that takes nothing.
  socket.write(Buffer.alloc(300 * 1024));
  t.after(() => socket.destroy());
  const session = new TlsSession({
    runtime,
    socket,
    peer: { spkiSha256: new Uint8Array(32), address: 'a', host: 'a' },
    isListener: true,
    limits: defaultLimits,
    closeInfoOf: () => undefined,
  });
  const connection = new FramedConnection(runtime, session, defaultLimits, () => fourMiB);
  let ended: string | undefined;
  void connection.closed.then(({ failure }) => (ended = failure));
  let index = 0;
  for (let round = 0; round < 400 && ended === undefined; round += 1) {
    const records: Buffer[] = [];
    for (let n = 0; n < 50; n += 1, index += 1) {
      const id = 4 * index;
      records.push(
        recordHeader(id, RecordType.Data, 0),
        numberRecord(id, RecordType.Reset, 0, 1),
        numberRecord(id, RecordType.Stop, 0, 1),
      );
    }
    socket.push(Buffer.concat(records));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(ended, 'limit', `${index} streams, and the session goes on`);
});
