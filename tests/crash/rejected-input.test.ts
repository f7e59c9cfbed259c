/**
 * What a real node does with input that no client of ours sends, over real QUIC and plain UDP: each
 * call ends with a typed error or a closed stream, the node lives on, its memory stays bounded.
 * The transport contract tests the same rules at the engines; this is the whole process.
 */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, suite, test, type TestContext } from 'node:test';
import {
  defaultMaxPayloadBytes,
  encodeRequest,
  FrameParser,
  maxRequestBytes,
  methodById,
  methods,
  parseNodeAddress,
  reasonsByStatus,
  responseFormat,
  silentLog,
  Status,
  systemClock,
  systemRandom,
  type ResponseFrame,
} from '@quicprochat/proto';
import { ErrorSchema, fromBinary } from '@quicprochat/proto/messages';
import { CloseCode, defaultLimits, makeIdentity } from '@quicprochat/proto/transport';
import { dialSession } from '@quicprochat/proto/transport/quic';
import { CrashingNode, dialNode, RawDevice } from '../cluster/crashing-node.ts';
import { Dice } from '../cluster/dice.ts';
import { NodeProcess } from '../cluster/node-process.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const MiB = 1024 ** 2;
/**
 * Good calls that the node answers first: its heap grows with any load until the collector has
 * found its pace (measured: from 170 to 390 MiB over some 2 000 calls, and no further).
 */
const warmUpCalls = 2_400;
/** The node's peak may lie this much above its size after the good calls. */
const growthMaxBytes = 128 * MiB;
/** Streams on one connection at a time: below the node's limit of 100. */
const streamsPerSession = 80;

type Session = Awaited<ReturnType<typeof dialSession>>;
type Stream = ReturnType<Session['openStream']>;

suite('bad input to a real node', { timeout: 120_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-rejected-'));
  const dice = new Dice();
  let node: CrashingNode;
  let device: RawDevice;
  let pid: number;
  let beforeBytes: number | undefined;

  before(async () => {
    node = new CrashingNode(await NodeProcess.init('red.example', join(directory, 'red')));
    await node.start();
    device = await RawDevice.register(node, 'alice');
    pid = node.process.pid ?? 0;
    await warmUp();
    beforeBytes = memoryOf(pid)?.nowBytes;
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });
  afterEach(async () => {
    assert.equal(node.process.pid, pid, 'the node ended');
    const connection = await dialNode(node.process.address, await makeIdentity(systemRandom));
    await connection.close(CloseCode.Normal, 'done');
  });

  /** Ordinary load: calls in flight at once, and connections that come and go. */
  async function warmUp(): Promise<void> {
    for (let called = 0; called < warmUpCalls; called += streamsPerSession) {
      const calls = Array.from({ length: streamsPerSession / 2 }, () =>
        device.tryCall(methods.health, {}),
      );
      // A rate limit is an answer too.
      await Promise.allSettled(calls);
      const good = encodeRequest({ methodId: 802, requestId: 1, payload: new Uint8Array() });
      const requests = Array.from({ length: streamsPerSession / 2 }, () => good);
      assert.ok((await outcomes(requests, true)).every((outcome) => outcome !== 'closed'));
    }
  }

  /** A raw session without frames; closed at the end. */
  async function withSession<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const { host, port, pin } = parseNodeAddress(node.process.address);
    const identity = await makeIdentity(systemRandom);
    const session = await dialSession(
      runtime,
      { host, port },
      { identity, limits: defaultLimits, maxRequestBytes, pins: [pin] },
    );
    session.start({ onStream() {}, onCredit() {}, onClosed() {} });
    try {
      return await work(session);
    } finally {
      await session.close(CloseCode.Normal, 'done');
    }
  }

  /** Writes each request on a stream of its own and resolves with what became of each. */
  async function outcomes(
    requests: readonly Uint8Array[],
    isFinished: boolean,
  ): Promise<Outcome[]> {
    const found: Outcome[] = [];
    for (let start = 0; start < requests.length; start += streamsPerSession) {
      const part = requests.slice(start, start + streamsPerSession);
      const ended = await withSession((session) =>
        Promise.all(part.map((bytes) => outcomeOf(session.openStream('call'), bytes, isFinished))),
      );
      found.push(...ended);
    }
    return found;
  }

  test('bytes that are no frame end their stream', async () => {
    const junk = Array.from({ length: 240 }, () => dice.bytes(dice.int(4_000)));
    for (const outcome of await outcomes(junk, true)) {
      if (outcome !== 'closed') assertTypedError(outcome);
    }
    const truncated = Array.from({ length: 40 }, (_, index) => {
      const whole = encodeRequest({ methodId: 1, requestId: 1, payload: dice.bytes(30) });
      return whole.subarray(0, index);
    });
    for (const outcome of await outcomes(truncated, true)) assert.equal(outcome, 'closed');
  });

  test('a length above the bound is refused by its header', async () => {
    const ids = [...Object.values(methods).map(({ id }) => id), 0, 7, 0xffff];
    const headers = ids.flatMap((methodId) =>
      [maxRequestBytes(methodId) + 1, defaultLimits.maxPayloadBytes + 1, 0xffff_ffff].map(
        (length) => {
          const header = encodeRequest({ methodId, requestId: 5, payload: new Uint8Array() });
          new DataView(header.buffer, header.byteOffset).setUint32(6, length);
          return header;
        },
      ),
    );
    for (const outcome of await outcomes(headers, false)) {
      assert.ok(outcome !== 'closed');
      assert.equal(outcome.status, Status.PayloadTooLarge);
      assert.equal(outcome.requestId, 5);
    }
  });

  test('an unknown method is Unimplemented, for strangers and devices', async () => {
    const ids = Array.from({ length: 200 }, () => dice.int(0x1_0000)).filter(
      (id) => methodById(id) === undefined,
    );
    assert.ok(ids.length > 100);
    const requests = ids.map((methodId) =>
      encodeRequest({ methodId, requestId: 9, payload: dice.bytes(dice.int(200)) }),
    );
    for (const outcome of await outcomes(requests, true)) {
      assert.ok(outcome !== 'closed');
      assert.equal(outcome.status, Status.Unimplemented);
    }
    const unknown = { ...methods.health, id: 4711 };
    await assert.rejects(device.tryCall(unknown, {}), { status: Status.Unimplemented });
  });

  test('a payload that is not its protobuf is InvalidArgument, for whoever may call', async () => {
    // An over-long tag; a field that is longer than the message; an end of a group that is none.
    const broken = [new Uint8Array(20).fill(0xff), [0x0a, 0x7f, 1], [0x0c]];
    for (const { id, name, callers } of Object.values(methods)) {
      const requests = broken.map((payload) =>
        encodeRequest({ methodId: id, requestId: 2, payload: Uint8Array.from(payload) }),
      );
      // The caller here is a stranger, whose bytes are not even read where it has no business.
      const classes: readonly string[] = callers;
      const isForUsers = classes.includes('device') || classes.includes('enrolling');
      const forbidden = isForUsers ? Status.Unauthenticated : Status.PermissionDenied;
      const expected = classes.includes('anyone') ? Status.InvalidArgument : forbidden;
      for (const outcome of await outcomes(requests, true)) {
        assert.ok(outcome !== 'closed', name);
        assert.equal(outcome.status, expected, name);
        assertTypedError(outcome);
      }
    }
  });

  test('a payload of random bytes gives a typed error or an answer, never a fault', async () => {
    const requests = Array.from({ length: 240 }, () => {
      const all = Object.values(methods);
      const { id, maxRequestBytes: bound } = all[dice.int(all.length)] ?? methods.hello;
      const payload = dice.bytes(dice.int(Math.min(bound, 3_000)));
      return encodeRequest({ methodId: id, requestId: 3, payload });
    });
    for (const outcome of await outcomes(requests, true)) {
      assert.ok(outcome !== 'closed');
      if (outcome.status !== Status.Ok) assertTypedError(outcome);
    }
  });

  test('half a request and then silence holds nothing up and no memory', async (t: TestContext) => {
    const { id, maxRequestBytes: declared } = methods.enqueue;
    const header = encodeRequest({ methodId: id, requestId: 1, payload: new Uint8Array() });
    new DataView(header.buffer, header.byteOffset).setUint32(6, declared);
    const silent = Array.from({ length: 16 }, () =>
      withSession(async (session) => {
        const streams = Array.from({ length: streamsPerSession }, () => session.openStream('call'));
        await Promise.all(
          streams.map(async (stream, index) => {
            await stream.write(index % 2 === 0 ? header : header.subarray(0, 5));
            if (index % 2 === 0) await stream.write(dice.bytes(500));
          }),
        );
        // While they wait, others are answered.
        await device.call(methods.health, {});
        await device.call(methods.enqueue, {
          rid: device.rid,
          domain: 'red.example',
          mid: dice.bytes(16),
          payload: dice.bytes(100),
        });
      }),
    );
    await Promise.all(silent);
    const declaredMiB = Math.round((silent.length * (streamsPerSession / 2) * declared) / MiB);
    t.diagnostic(`${declaredMiB} MiB declared and not sent`);
  });

  test('datagrams that are not QUIC, or look like it, are dropped', async () => {
    const { host, port } = parseNodeAddress(node.process.address);
    const socket = createSocket('udp4');
    socket.connect(port, host);
    await once(socket, 'connect');
    try {
      for (let sent = 0; sent < 3_000; sent += 1) {
        const datagram = dice.bytes(1 + dice.int(1_472));
        // A third each: noise, long headers of version 1, short headers.
        if (sent % 3 === 1)
          datagram.set([0xc0 | dice.int(64), 0, 0, 0, 1, 20].slice(0, datagram.length));
        if (sent % 3 === 2) datagram[0] = 0x40 | dice.int(64);
        await new Promise<void>((resolve) => socket.send(datagram, () => resolve()));
        // Not faster than the node reads, or the kernel would drop most of them for it.
        if (sent % 100 === 0) await device.call(methods.health, {});
      }
    } finally {
      socket.close();
    }
  });

  test('all of it cost the node a bounded amount of memory and no error', (t: TestContext) => {
    const faults = node.process.logLines.filter((line) => /"level":"(error|fatal)"/.test(line));
    assert.deepEqual(faults, []);
    const memory = memoryOf(pid);
    if (memory === undefined || beforeBytes === undefined) {
      t.skip('no /proc on this system');
      return;
    }
    const inMiB = (bytes: number): number => Math.round(bytes / MiB);
    t.diagnostic(
      `RSS before ${inMiB(beforeBytes)} MiB, after ${inMiB(memory.nowBytes)}, peak ${inMiB(memory.peakBytes)}`,
    );
    assert.ok(memory.peakBytes - beforeBytes < growthMaxBytes);
  });
});

/** The response, or that the node gave the stream up. */
type Outcome = ResponseFrame | 'closed';

async function outcomeOf(stream: Stream, bytes: Uint8Array, isFinished: boolean): Promise<Outcome> {
  const parser = new FrameParser(responseFormat(defaultMaxPayloadBytes));
  try {
    await (isFinished ? stream.finish(bytes) : stream.write(bytes));
    for (;;) {
      const chunk = await stream.read();
      if (chunk === undefined) return 'closed';
      const [response] = parser.push(chunk);
      if (response !== undefined) return response;
    }
  } catch {
    // Reset by the node: there is no answer to bytes that are no request.
    return 'closed';
  } finally {
    stream.stopReading();
  }
}

/** A status of the wire with a reason that belongs to it; Internal would be a fault. */
function assertTypedError({ status, payload }: ResponseFrame): void {
  assert.notEqual(status, Status.Internal);
  const reasons = new Map<number, readonly string[]>(
    Object.entries(reasonsByStatus).map(([known, list]) => [Number(known), list]),
  );
  const { reason } = fromBinary(ErrorSchema, payload);
  assert.ok(reasons.get(status)?.includes(reason), `status ${status} with reason ${reason}`);
}

/** Resident memory of a process, where the system tells. */
function memoryOf(pid: number): { nowBytes: number; peakBytes: number } | undefined {
  const file = `/proc/${pid}/status`;
  if (!existsSync(file)) return undefined;
  const text = readFileSync(file, 'utf8');
  const kib = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]);
  return { nowBytes: kib('VmRSS') * 1024, peakBytes: kib('VmHWM') * 1024 };
}
