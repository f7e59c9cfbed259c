/** Contract cases of peers that break the rules below the frames, or vanish. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeRequest, encodeResponse, FrameParser, responseFormat } from '../frame.ts';
import type { ResponseFrame } from '../frame.ts';
import { callEcho, patient, rejectsWith, Rig, type MakeEngine } from './contract-rig.ts';
import type { ByteStream, SessionHandlers, StreamSession } from './session.ts';

const quiet: SessionHandlers = { onStream() {}, onCredit() {}, onClosed() {} };

async function readResponse(stream: ByteStream): Promise<ResponseFrame> {
  const parser = new FrameParser(responseFormat(1024));
  for (;;) {
    const chunk = await stream.read();
    assert.ok(chunk, 'the stream ended before a response');
    const [response] = parser.push(chunk);
    if (response) return response;
  }
}

async function writeByteByByte(stream: ByteStream, bytes: Uint8Array): Promise<void> {
  for (const byte of bytes) await stream.write(Uint8Array.of(byte));
}

/** Opens a stream as soon as the peer allows it. */
async function openWithCredit(session: StreamSession, credit: () => Promise<void>) {
  while (session.streamCredit('call') === 0) await credit();
  return session.openStream('call');
}

export function hostileCases(make: MakeEngine): void {
  test('frames split at every byte are put together, requests and responses', async (t) => {
    const rig = await Rig.listen(t, make);
    const session = await rig.dialSession();
    session.start({
      ...quiet,
      onStream: (_kind, stream) => {
        const response = { status: 0, requestId: 5, payload: Buffer.from('split') };
        void writeByteByByte(stream, encodeResponse(response));
      },
    });
    const stream = session.openStream('call');
    await writeByteByByte(
      stream,
      encodeRequest({ methodId: 1, requestId: 3, payload: Buffer.from('whole') }),
    );
    // No end of stream is sent: a message ends where its length says.
    const response = await readResponse(stream);
    assert.equal(response.requestId, 3);
    assert.equal(Buffer.from(response.payload).toString(), 'whole');
    const accepted = await rig.accepted();
    const call = { methodId: 1, requestId: 5, payload: new Uint8Array() };
    const answered = await accepted.call(call, patient);
    assert.equal(Buffer.from(answered.payload).toString(), 'split');
  });

  test('a declared length of 4 GiB is refused without its memory', async (t) => {
    const rig = await Rig.listen(t, make);
    const session = await rig.dialSession();
    session.start(quiet);
    const before = process.memoryUsage().arrayBuffers;
    const streams = Array.from({ length: 20 }, () => session.openStream('call'));
    await Promise.all(
      streams.map(async (stream) => {
        const header = encodeRequest({ methodId: 1, requestId: 77, payload: new Uint8Array() });
        new DataView(header.buffer, header.byteOffset).setUint32(6, 0xffff_ffff);
        await stream.write(header);
        const response = await readResponse(stream);
        assert.deepEqual([response.status, response.requestId], [7, 77]);
      }),
    );
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 32 * 1024 * 1024, `${grown} bytes`);
    await callEcho(await rig.dial());
  });

  test('a half-sent request is given up at the read deadline, others go on', async (t) => {
    const rig = await Rig.listen(t, make, { listenerLimits: { requestReadMs: 300 } });
    const session = await rig.dialSession();
    session.start(quiet);
    const started = performance.now();
    const halves = await Promise.all(
      [1, 9, 12].map(async (bytes) => {
        const frame = encodeRequest({ methodId: 1, requestId: 1, payload: new Uint8Array(5) });
        const stream = session.openStream('call');
        await stream.write(frame.subarray(0, bytes));
        return stream;
      }),
    );
    const other = await rig.dial();
    await callEcho(other);
    for (const stream of halves) await rejectsWith(Promise.resolve(stream.read()), 'timeout');
    const tookMs = performance.now() - started;
    assert.ok(tookMs > 250 && tookMs < 3000, `${tookMs} ms`);
    await callEcho(other);
    const whole = session.openStream('call');
    await whole.write(encodeRequest({ methodId: 1, requestId: 4, payload: new Uint8Array() }));
    assert.equal((await readResponse(whole)).requestId, 4);
  });

  test('a request that ends early resets its stream, bytes after one are ignored', async (t) => {
    const rig = await Rig.listen(t, make);
    const session = await rig.dialSession();
    session.start(quiet);
    const frame = encodeRequest({ methodId: 1, requestId: 6, payload: Buffer.from('six') });
    const early = session.openStream('call');
    await early.finish(frame.subarray(0, 11));
    await rejectsWith(Promise.resolve(early.read()), 'protocol');
    const long = session.openStream('call');
    await long.write(Buffer.concat([frame, Buffer.alloc(300)]));
    assert.equal((await readResponse(long)).requestId, 6);
  });

  test('a peer cannot have more streams open than it is allowed', async (t) => {
    const limits = { incomingStreams: 5, requestReadMs: 300 };
    const rig = await Rig.listen(t, make, { listenerLimits: limits });
    const session = await rig.dialSession();
    let onCredit = (): void => {};
    session.start({ ...quiet, onCredit: () => onCredit() });
    const credit = () => new Promise<void>((resolve) => (onCredit = resolve));
    assert.equal(session.streamCredit('call'), 5);
    for (let left = 4; left >= 0; left -= 1) {
      await session.openStream('call').write(Uint8Array.of(0));
      assert.equal(session.streamCredit('call'), left);
    }
    // The five are half-open; the credit comes back when the listener gives them up.
    const sixth = await openWithCredit(session, credit);
    await sixth.write(encodeRequest({ methodId: 1, requestId: 8, payload: new Uint8Array() }));
    assert.equal((await readResponse(sixth)).requestId, 8);
  });

  test('a peer that vanishes is noticed by both sides, and calls in flight fail', async (t) => {
    const limits = { idleMs: 600, keepAliveMs: 150 };
    const rig = await Rig.listen(t, make, {
      limits,
      onCall: () => new Promise(() => {}),
    });
    const path = await rig.engine.cuttablePath(t, rig.listener.endpoint);
    const connection = await rig.dial({}, path.endpoint);
    const accepted = await rig.accepted();
    const call = connection.call({ methodId: 1, requestId: 1, payload: new Uint8Array() }, patient);
    const failed = rejectsWith(call, 'closed');
    // Longer than the idle time-out: the keep-alive holds it.
    const still = await Promise.race([
      connection.closed.then(() => 'closed'),
      rig.runtime.clock.sleep(1000).then(() => 'open'),
    ]);
    assert.equal(still, 'open');
    const started = performance.now();
    path.cut();
    await failed;
    for (const { local, failure, code } of await Promise.all([
      connection.closed,
      accepted.closed,
    ])) {
      assert.deepEqual([local, failure, code], [true, 'closed', 0]);
    }
    assert.ok(performance.now() - started < 5000);
  });
}
