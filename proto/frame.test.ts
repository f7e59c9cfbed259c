/** The frame codec: byte-exact vectors, every split, every over-length, and the memory it takes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  encodePush,
  encodeRequest,
  encodeResponse,
  FrameParser,
  hardMaxPayloadBytes,
  pushFormat,
  pushHeaderBytes,
  requestFormat,
  requestHeaderBytes,
  responseFormat,
  responseHeaderBytes,
  type FrameFormat,
} from './frame.ts';
import { TransportError } from './status.ts';

interface Vectors {
  readonly request: readonly {
    name: string;
    methodId: number;
    requestId: number;
    payload: string;
    frame: string;
  }[];
  readonly response: readonly {
    name: string;
    status: number;
    requestId: number;
    payload: string;
    frame: string;
  }[];
  readonly push: readonly { name: string; eventType: number; payload: string; frame: string }[];
  readonly refused: readonly {
    name: string;
    kind: 'request' | 'response' | 'push';
    maxPayloadBytes: number;
    header: string;
  }[];
}
const vectors = JSON.parse(
  readFileSync(new URL('./vectors/frames.json', import.meta.url), 'utf8'),
) as Vectors;

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
const formats = {
  request: (bound: number) => requestFormat(() => bound),
  response: (bound: number) => responseFormat(bound),
  push: (bound: number) => pushFormat(bound),
};
const anyBound = hardMaxPayloadBytes;

function parseAll<F>(format: FrameFormat<F>, chunks: Iterable<Uint8Array>): F[] {
  const parser = new FrameParser(format);
  const frames = [...chunks].flatMap((chunk) => parser.push(chunk));
  assert.ok(parser.isEmpty);
  return frames;
}

/** Cuts at the given places, wherever they are; empty pieces included. */
function cut(whole: Uint8Array, places: readonly number[]): Uint8Array[] {
  const edges = [0, ...places.map((at) => at % (whole.length + 1)), whole.length];
  edges.sort((a, b) => a - b);
  return edges.slice(1).map((end, index) => whole.subarray(edges[index], end));
}

const isRefusal = (error: unknown): boolean =>
  error instanceof TransportError && error.failure === 'protocol';

test('requests, responses and pushes are encoded to the byte', () => {
  for (const { name, payload, frame, ...head } of vectors.request) {
    assert.deepEqual(encodeRequest({ ...head, payload: bytes(payload) }), bytes(frame), name);
  }
  for (const { name, payload, frame, ...head } of vectors.response) {
    assert.deepEqual(encodeResponse({ ...head, payload: bytes(payload) }), bytes(frame), name);
  }
  for (const { name, payload, frame, ...head } of vectors.push) {
    assert.deepEqual(encodePush({ ...head, payload: bytes(payload) }), bytes(frame), name);
  }
  assert.ok(vectors.request.length + vectors.response.length + vectors.push.length >= 14);
});

test('the vectors are parsed, whole and split in two at every byte', () => {
  for (const kind of ['request', 'response', 'push'] as const) {
    for (const { name, payload, frame, ...head } of vectors[kind]) {
      const whole = bytes(frame);
      for (let at = 0; at <= whole.length; at += 1) {
        const frames = parseAll<unknown>(formats[kind](anyBound), cut(whole, [at]));
        assert.deepEqual(frames, [{ ...head, payload: bytes(payload) }], `${name}, at ${at}`);
      }
    }
  }
});

test('the vectors are parsed byte by byte, one after the other', () => {
  for (const kind of ['request', 'response', 'push'] as const) {
    const whole = Buffer.concat(vectors[kind].map(({ frame }) => bytes(frame)));
    const frames = parseAll<unknown>(
      formats[kind](anyBound),
      Array.from(whole, (byte) => Uint8Array.of(byte)),
    );
    assert.deepEqual(
      frames,
      vectors[kind].map(({ name: _, frame: __, payload, ...head }) => ({
        ...head,
        payload: bytes(payload),
      })),
    );
  }
});

test('a length above the bound is refused by the header alone, however it is split', () => {
  for (const { name, kind, maxPayloadBytes, header } of vectors.refused) {
    const head = bytes(header);
    for (let at = 0; at < head.length; at += 1) {
      const parser = new FrameParser<unknown>(formats[kind](maxPayloadBytes));
      parser.push(head.subarray(0, at));
      assert.throws(() => parser.push(head.subarray(at)), isRefusal, `${kind}: ${name}, at ${at}`);
    }
  }
  assert.ok(vectors.refused.length >= 8);
});

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const payload = fc.oneof(fc.uint8Array({ maxLength: 64 }), fc.uint8Array({ maxLength: 40_000 }));
const places = fc.array(fc.nat(), { maxLength: 12 });

test('what is encoded is parsed back under any chunking', () => {
  const request = fc.record({ methodId: u16, requestId: u32, payload });
  const response = fc.record({ status: fc.integer({ min: 0, max: 255 }), requestId: u32, payload });
  const push = fc.record({ eventType: u16, payload });
  function roundTrips<F>(frame: fc.Arbitrary<F>, format: FrameFormat<F>, encode: (f: F) => Buffer) {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 4 }), places, (frames, at) => {
        const whole = Buffer.concat(frames.map(encode));
        const copy = Buffer.from(whole);
        const parsed = parseAll(format, cut(whole, at));
        // The parser keeps nothing of the chunks: a caller may use its buffer again.
        whole.fill(0xee);
        assert.deepEqual(parsed, frames.map(unbuffered));
        assert.deepEqual(Buffer.concat(parsed.map(encode)), copy);
      }),
    );
  }
  roundTrips(request, formats.request(anyBound), (f) => Buffer.from(encodeRequest(f)));
  roundTrips(response, formats.response(anyBound), (f) => Buffer.from(encodeResponse(f)));
  roundTrips(push, formats.push(anyBound), (f) => Buffer.from(encodePush(f)));
});

/** fast-check's null-prototype records as plain ones, for deepEqual. */
function unbuffered<F>(frame: F): F {
  return { ...frame };
}

test('the bound is asked by method, is inclusive, and one more is refused', () => {
  fc.assert(
    fc.property(u16, fc.nat({ max: 300 }), fc.boolean(), (methodId, bound, isOver) => {
      const size = isOver ? bound + 1 : bound;
      const frame = encodeRequest({ methodId, requestId: 1, payload: new Uint8Array(size) });
      const asked: number[] = [];
      const parser = new FrameParser(
        requestFormat((id) => {
          asked.push(id);
          return bound;
        }),
      );
      if (isOver) assert.throws(() => parser.push(frame), isRefusal);
      else assert.equal(parser.push(frame)[0]?.payload.length, bound);
      assert.deepEqual(asked, [methodId]);
    }),
  );
});

test('no bytes make the parser do anything but give frames or refuse', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 400 }),
      places,
      fc.nat({ max: 64 }),
      (input, at, bound) => {
        for (const kind of ['request', 'response', 'push'] as const) {
          const parser = new FrameParser<{ payload: Uint8Array }>(formats[kind](bound));
          try {
            for (const chunk of cut(input, at)) {
              for (const frame of parser.push(chunk)) assert.ok(frame.payload.length <= bound);
            }
          } catch (error) {
            assert.ok(isRefusal(error));
          }
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test('memory follows the bytes that came, not the length that was declared', () => {
  const header = Buffer.alloc(requestHeaderBytes);
  header.writeUInt32BE(hardMaxPayloadBytes, 6);
  const parsers = Array.from({ length: 400 }, () => new FrameParser(formats.request(anyBound)));
  const before = process.memoryUsage().arrayBuffers;
  const used = (): number => process.memoryUsage().arrayBuffers - before;
  for (const parser of parsers) parser.push(header);
  // Declared: 1600 MiB.
  assert.ok(used() < 20 * 1024 * 1024, `${used()} bytes for headers`);
  const chunk = new Uint8Array(100_000);
  for (const parser of parsers) assert.deepEqual(parser.push(chunk), []);
  // Arrived: 38 MiB. Growing copies, so garbage of as much again may still be there.
  assert.ok(used() < 200 * 1024 * 1024, `${used()} bytes for 38 MiB`);
});

test('a payload at the hard cap arrives, from large and from small chunks', () => {
  const whole = encodePush({ eventType: 3, payload: new Uint8Array(hardMaxPayloadBytes).fill(5) });
  for (const step of [whole.length, 65_536, 1200]) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < whole.length; at += step) chunks.push(whole.subarray(at, at + step));
    const [frame] = parseAll(formats.push(anyBound), chunks);
    assert.equal(frame?.payload.length, hardMaxPayloadBytes);
    assert.ok(frame.payload.every((byte) => byte === 5));
  }
});

test('header sizes are those of the wire', () => {
  assert.deepEqual([requestHeaderBytes, responseHeaderBytes, pushHeaderBytes], [10, 9, 6]);
});
