/** Records of the TLS engine: round trip, split anywhere, and every bound. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { TransportError } from '../status.ts';
import {
  closeRecord,
  maxRecordBytes,
  numberRecord,
  recordHeader,
  RecordParser,
  RecordType,
} from './tls-record.ts';

type Parsed = readonly [id: number, type: number, payload: string];

function parse(chunks: readonly Buffer[]): Parsed[] {
  const parser = new RecordParser();
  const records: Parsed[] = [];
  for (const chunk of chunks) {
    parser.push(chunk, ({ id, type, payload }) => {
      records.push([id, type, Buffer.from(payload).toString('hex')]);
    });
  }
  return records;
}

const data = fc.record({
  id: fc.integer({ min: 0, max: 0xffff_ffff }),
  type: fc.constantFrom(RecordType.Data, RecordType.End),
  payload: fc.uint8Array({ maxLength: 300 }),
});

test('records come out as they went in, wherever the bytes are split', () => {
  fc.assert(
    fc.property(fc.array(data, { maxLength: 8 }), fc.array(fc.nat(400)), (records, cuts) => {
      const bytes = Buffer.concat(
        records.flatMap(({ id, type, payload }) => [
          recordHeader(id, type, payload.length),
          payload,
        ]),
      );
      const chunks: Buffer[] = [];
      let rest = bytes;
      for (const cut of cuts) {
        chunks.push(rest.subarray(0, cut));
        rest = rest.subarray(cut);
      }
      chunks.push(rest);
      const expected = records.map(({ id, type, payload }) => [
        id,
        type,
        Buffer.from(payload).toString('hex'),
      ]);
      assert.deepEqual(parse(chunks), expected);
    }),
  );
});

test('bytes of the wire', () => {
  assert.equal(recordHeader(6, RecordType.End, 513).toString('hex'), '0000000601000201');
  assert.equal(
    numberRecord(2, RecordType.Streams, 100).toString('hex'),
    '000000020500000400000064',
  );
  assert.equal(numberRecord(4, RecordType.Stop, 2, 1).toString('hex'), '000000040300000102');
  assert.equal(closeRecord(0x10, 'bye').toString('hex'), 'ffffffff0600000700000010627965');
});

test('an unknown type or a length out of bounds is refused by its header alone', () => {
  const bad: readonly (readonly [type: number, length: number])[] = [
    [RecordType.Data, maxRecordBytes + 1],
    [RecordType.Data, 0xff_ffff],
    [RecordType.Reset, 0],
    [RecordType.Stop, 2],
    [RecordType.Credit, 3],
    [RecordType.Streams, 5],
    [RecordType.Close, 3],
    [RecordType.Close, 261],
    [RecordType.Ping, 1],
    [9, 0],
    [255, 4],
  ];
  for (const [type, length] of bad) {
    assert.throws(
      () => parse([recordHeader(0, type, length)]),
      (error) => error instanceof TransportError && error.failure === 'protocol',
      `type ${type}, ${length} bytes`,
    );
  }
});

test('random bytes never do more than refuse', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 })), (chunks) => {
      try {
        parse(chunks.map((chunk) => Buffer.from(chunk)));
      } catch (error) {
        assert.ok(error instanceof TransportError && error.failure === 'protocol');
      }
    }),
    { numRuns: 2000 },
  );
});
