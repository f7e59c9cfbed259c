/** Memory of bytes that wait: in the queue itself, and in sessions whose peers decide how long. */
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { encodeRequest, encodeResponse } from '../frame.ts';
import { FramedConnection } from './connection.ts';
import { contractRuntime, fourMiB, Rig } from './contract-rig.ts';
import { quicheEngine } from './quic-rig.ts';
import { maxRecordBytes, numberRecord, pushBit, recordHeader } from './tls-record.ts';
import { connectionId, RecordType } from './tls-record.ts';
import { TlsSession } from './tls-session.ts';
import { defaultLimits } from './transport.ts';
import { fitted, WaitingBytes } from './waiting-bytes.ts';

const kibibyte = 1024;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Memory of buffers that somebody still holds (bytes). */
async function heldBytes(): Promise<number> {
  // What ended in this turn is let go in the next ones.
  for (let turn = 0; turn < 3; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    collect();
  }
  return process.memoryUsage().arrayBuffers;
}

test('bytes come out as they went in, whatever their pieces', () => {
  const waiting = new WaitingBytes();
  const sizes = [1, 2, 511, 512, 513, 1, 1023, 0, 1024, 3, 70_000, 5, 5, 5];
  let next = 0;
  const went: number[] = [];
  const came: number[] = [];
  for (let round = 0; round < 4; round += 1) {
    for (const size of sizes) {
      const bytes = Uint8Array.from({ length: size }, () => (next = (next + 1) % 251));
      went.push(...bytes);
      waiting.add(bytes);
      // One of three stays, so that pieces join behind others and behind nothing.
      if (size % 3 === 0) continue;
      const piece = waiting.take();
      if (piece) came.push(...piece);
    }
    assert.equal(waiting.length, went.length - came.length);
  }
  for (let piece = waiting.take(); piece; piece = waiting.take()) came.push(...piece);
  assert.equal(waiting.length, 0);
  assert.deepEqual(came, went);
});

test('what was taken is not changed by what comes behind it', () => {
  const waiting = new WaitingBytes();
  waiting.add(Uint8Array.of(1, 2));
  const first = waiting.take();
  waiting.add(Uint8Array.of(3));
  waiting.add(Uint8Array.of(4));
  assert.deepEqual(first, Uint8Array.of(1, 2));
  assert.deepEqual(waiting.take(), Uint8Array.of(3, 4));
  assert.equal(waiting.take(), undefined);
});

test('bytes of a longer memory are copied, others stay where they are', () => {
  const memory = new Uint8Array(100);
  assert.equal(fitted(memory.subarray(0, 50)).buffer, memory.buffer);
  const few = fitted(memory.fill(7).subarray(10, 59));
  assert.equal(few.buffer.byteLength, 49);
  assert.deepEqual(few, new Uint8Array(49).fill(7));
});

/** A socket to whose other end a test plays. */
class Wire extends Duplex {
  /** The system takes what is written. */
  isOpen = true;
  override _read(): void {}
  override _write(_bytes: Buffer, _encoding: string, done: () => void): void {
    if (this.isOpen) done();
  }
}

function tlsListenerSide(t: TestContext): { wire: Wire; connection: FramedConnection } {
  const wire = new Wire();
  t.after(() => wire.destroy());
  const runtime = contractRuntime();
  const peer = { spkiSha256: new Uint8Array(32), address: 'a', host: 'a' };
  const options = { runtime, socket: wire, peer, isListener: true, limits: defaultLimits };
  const session = new TlsSession({ ...options, closeInfoOf: () => undefined });
  const connection = new FramedConnection(runtime, session, defaultLimits, () => fourMiB);
  t.after(() => connection.close(0, 'test over'));
  return { wire, connection };
}

test('tls: a record of one byte does not keep the chunk that it came with', async (t) => {
  const { wire } = tlsListenerSide(t);
  const before = await heldBytes();
  const ping = numberRecord(connectionId, RecordType.Ping, 0, 0);
  // Nobody reads push streams here, and pings need no credit.
  const filler = Buffer.concat(Array.from({ length: maxRecordBytes / ping.length }, () => ping));
  for (let count = 0; count < 500; count += 1) {
    wire.push(
      Buffer.concat([recordHeader(pushBit, RecordType.Data, 1), Buffer.of(count % 251), filler]),
    );
    if (count % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const held = (await heldBytes()) - before;
  // The chunks were 8 MiB.
  assert.ok(held < 512 * kibibyte, `500 bytes keep ${held}`);
});

/** Small answers, with as much traffic of others between them that each is in a slab of its own. */
const answerBytes = 20;
function slabOfOthers(): void {
  const payload = new Uint8Array(4_000);
  for (let count = 0; count < 17; count += 1) encodeResponse({ status: 0, requestId: 1, payload });
}

for (const stuck of ['the peer gives no credit', 'the system takes nothing'] as const) {
  test(`tls: answers that wait because ${stuck} keep no slabs`, async (t) => {
    const { wire, connection } = tlsListenerSide(t);
    let served = 0;
    connection.onCall(async ({ requestId, methodId }) => {
      served += 1;
      // Large ones use up the credit of the connection.
      const payload = new Uint8Array(methodId === 2 ? 1024 * kibibyte : answerBytes);
      if (methodId === 1) slabOfOthers();
      return { status: 0, requestId, payload };
    });
    const call = (index: number, methodId: number): Buffer => {
      const frame = encodeRequest({ methodId, requestId: index, payload: new Uint8Array() });
      return Buffer.concat([recordHeader(4 * index, RecordType.End, frame.length), frame]);
    };
    const settled = () => new Promise((resolve) => setImmediate(resolve));
    let index = 0;
    if (stuck === 'the system takes nothing') {
      wire.isOpen = false;
      wire.write(Buffer.alloc(300 * kibibyte));
    } else {
      for (; index < 11; index += 1) wire.push(call(index, 2));
      while (served < 11) await settled();
      await settled();
    }
    const before = await heldBytes();
    const small = 80;
    for (let count = 0; count < small; count += 1, index += 1) {
      wire.push(call(index, 1));
      while (served <= index) await settled();
    }
    const held = (await heldBytes()) - before;
    // The slabs would be 5 MiB.
    assert.ok(held < 512 * kibibyte, `${small} answers of ${answerBytes} bytes keep ${held}`);
  });
}

test('quic: answers that wait for their reader keep no slabs', async (t) => {
  let served = 0;
  const rig = await Rig.listen(t, quicheEngine, {
    onCall: async ({ requestId, methodId }) => {
      served += 1;
      const payload = new Uint8Array(methodId === 2 ? 1024 * kibibyte : answerBytes);
      if (methodId === 1) slabOfOthers();
      return { status: 0, requestId, payload };
    },
  });
  const session = await rig.dialSession();
  session.start({ onStream: () => {}, onCredit: () => {}, onClosed: () => {} });
  let calls = 0;
  const call = async (methodId: number): Promise<void> => {
    calls += 1;
    const frame = encodeRequest({ methodId, requestId: calls, payload: new Uint8Array() });
    await session.openStream('call').finish(frame);
  };
  const allServed = async (): Promise<void> => {
    while (served < calls) await new Promise((resolve) => setImmediate(resolve));
  };
  // Nobody reads these: they fill the window of the connection.
  for (let count = 0; count < 11; count += 1) await call(2);
  await allServed();
  const before = await heldBytes();
  for (let count = 0; count < 80; count += 1) {
    await call(1);
    await allServed();
  }
  const held = (await heldBytes()) - before;
  assert.ok(held < 1024 * kibibyte, `80 answers of ${answerBytes} bytes keep ${held}`);
});
