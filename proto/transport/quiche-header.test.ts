/** RFC 8999 and RFC 9000 section 17.2: headers as routing reads them, and what it refuses. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'node:test';
import { isTo, parseLongHeader, routeKey, routeOf } from './quiche-header.ts';

const id = (maxLength: number) => fc.uint8Array({ minLength: 0, maxLength });

/** An Initial packet of version 1 up to its token, with a two-byte length of the token. */
function initial(destination: Uint8Array, source: Uint8Array, token: Uint8Array): Buffer {
  return Buffer.concat([
    Buffer.of(0xc3, 0, 0, 0, 1, destination.length),
    destination,
    Buffer.of(source.length),
    source,
    Buffer.of(0x40 | (token.length >> 8), token.length & 0xff),
    token,
  ]);
}

test('the fields of an Initial packet are read back', () => {
  fc.assert(
    fc.property(id(20), id(20), id(300), (destination, source, token) => {
      const packet = initial(destination, source, token);
      const header = parseLongHeader(packet);
      assert.ok(header?.token);
      assert.equal(header.version, 1);
      assert.deepEqual(new Uint8Array(header.destinationId), destination);
      assert.deepEqual(new Uint8Array(header.sourceId), source);
      assert.deepEqual(new Uint8Array(header.token), token);
      assert.equal(routeOf(packet), routeKey(destination));
      // Cut anywhere it has no token, or is no header at all.
      for (let length = 0; length < packet.length; length += 1) {
        assert.equal(parseLongHeader(packet.subarray(0, length))?.token, undefined);
      }
    }),
    { numRuns: 200 },
  );
});

test('connection ids above 20 bytes belong to other versions only', () => {
  const long = new Uint8Array(21);
  assert.equal(parseLongHeader(initial(long, new Uint8Array(8), new Uint8Array())), undefined);
  const other = initial(long, long, new Uint8Array());
  other.writeUInt32BE(0x1a2a3a4a, 1);
  assert.equal(parseLongHeader(other)?.destinationId.length, 21);
  assert.equal(parseLongHeader(other)?.token, undefined);
});

test('a short header is routed by the id behind its first byte', () => {
  const ownId = Uint8Array.from({ length: 16 }, (_, at) => at * 9);
  assert.equal(routeOf(Buffer.concat([Buffer.of(0x41), ownId, Buffer.of(7)])), routeKey(ownId));
  assert.equal(routeOf(Buffer.concat([Buffer.of(0x41), ownId.subarray(1)])), undefined);
  assert.equal(routeOf(Buffer.alloc(0)), undefined);
});

test('a packet is for the connection id that it names, and for no other', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(15), (ownId, at) => {
      const short = Buffer.concat([Buffer.of(0x41), ownId, Buffer.of(7)]);
      const long = initial(ownId, new Uint8Array(8), new Uint8Array());
      const other = ownId.with(at, (ownId[at] ?? 0) ^ 1);
      for (const packet of [short, long]) {
        assert.equal(isTo(ownId, packet), true);
        assert.equal(isTo(other, packet), false);
        assert.equal(isTo(ownId, packet.subarray(0, 1 + at)), false);
      }
      assert.equal(isTo(ownId, initial(other.subarray(1), new Uint8Array(8), ownId)), false);
    }),
  );
  assert.equal(isTo(new Uint8Array(16), Buffer.alloc(0)), false);
});

test('no bytes make the parser throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const packet = Buffer.from(bytes);
      routeOf(packet);
      parseLongHeader(packet);
    }),
  );
});
