/** Evidence of a forked group as bytes alone: whom it convicts, of whom it says nothing, and that no bytes break its reader. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { clone, create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { forkEvidenceLimits, makeForkEvidence, verifyForkEvidence } from './fork-evidence.ts';
import { SignedNodeRecordSchema, type SignedNodeRecord } from './gen/qpc/v1/federation_pb.ts';
import {
  CertifiedEntrySchema,
  ForkEvidenceSchema,
  GroupEntrySchema,
  HubSignatureSchema,
  type CertifiedEntry,
} from './gen/qpc/v1/group_pb.ts';
import { groupLogLimits, parseEntry, signCertificate, signEntry } from './group-log.ts';
import { nodeRecordLimits, openNodeRecord, signNodeRecord } from './node-record.ts';
import { systemRandom } from './runtime.ts';
import { signingKeyFromSeed, type SigningKey } from './signature.ts';
import { QpcError } from './status.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const newKey = (): SigningKey => signingKeyFromSeed(bytes(32));
const badField = { name: 'InvalidArgumentError', reason: 'BAD_FIELD' };
const badSignature = { name: 'InvalidArgumentError', reason: 'BAD_SIGNATURE' };

interface Hub {
  readonly domain: string;
  readonly signing: SigningKey;
  readonly record: SignedNodeRecord;
}

function hubOf(domain: string, former: readonly Uint8Array[] = [], signing = newKey()): Hub {
  const record = signNodeRecord({
    ...{ domain, endpoints: [], seq: 1, versionMin: 1, versionMax: 1, capabilities: [] },
    // Its time is over: evidence is read years later.
    keys: [{ spkiSha256: bytes(32), signing, fromMs: 0, toMs: 1 }],
    formerSignPubs: former,
  });
  return { domain, signing, record };
}

const [red, blue, green] = ['red', 'blue', 'green'].map((name) => hubOf(`${name}.example`)) as [
  Hub,
  Hub,
  Hub,
];
const three = [red, blue, green].map(({ domain }) => domain);
const records = [red, blue, green].map(({ record }) => record);
const place = { group: bytes(32), parent: bytes(32), epoch: 3n };

function certified(by: readonly Hub[], changes: object = {}): CertifiedEntry {
  const entry = create(GroupEntrySchema, {
    ...place,
    ...{ commitHash: bytes(32), nextCommitPub: bytes(32), joinCommitPub: bytes(32) },
    ...changes,
  });
  const signed = signEntry(entry, newKey());
  const { hash } = parseEntry(signed);
  const signatures = by.map((hub) => signCertificate(hash, 0, hub));
  return create(CertifiedEntrySchema, { entry: signed, term: 0n, signatures });
}

const lie = [certified([red, blue]), certified([red, green])] as const;
const evidence = makeForkEvidence(three, lie, records);
const decoded = () => fromBinary(ForkEvidenceSchema, evidence);
const encoded = (changes: MessageInitShape<typeof ForkEvidenceSchema>): Uint8Array =>
  toBinary(
    ForkEvidenceSchema,
    create(ForkEvidenceSchema, { ...decoded(), ...changes } as typeof changes),
  );

test('two entries of one place convict whoever signed both, by keys that the reader can compare', () => {
  const verdict = verifyForkEvidence(evidence);
  assert.deepEqual(verdict, {
    ...{ group: place.group, epoch: 3, hubs: three },
    entries: lie.map(({ entry }) => parseEntry(entry).hash),
    convicted: [{ domain: red.domain, keys: [red.signing.publicKey], isTrusted: false }],
  });
  const alone = [certified([red]), certified([red])] as const;
  const { convicted } = verifyForkEvidence(makeForkEvidence([red.domain], alone, records));
  assert.deepEqual(convicted, verdict.convicted);
});

test('a record that the reader trusts counts in the place of the one that came along', () => {
  const [convicted] = verifyForkEvidence(evidence, [openNodeRecord(red.record)]).convicted;
  assert.equal(convicted?.isTrusted, true);
  // Anybody can write a record of red.example, and sign what it likes.
  const forged = hubOf(red.domain);
  const framed = makeForkEvidence(
    three,
    [certified([forged, blue]), certified([forged, green])],
    [forged.record, blue.record, green.record],
  );
  assert.deepEqual(verifyForkEvidence(framed).convicted, [
    { domain: red.domain, keys: [forged.signing.publicKey], isTrusted: false },
  ]);
  assert.deepEqual(verifyForkEvidence(framed, [openNodeRecord(red.record)]).convicted, []);
  // The key was given up since: red's newer record names it still.
  const now = hubOf(red.domain, [red.signing.publicKey]);
  const [later] = verifyForkEvidence(evidence, [openNodeRecord(now.record)]).convicted;
  assert.deepEqual(later?.keys, [red.signing.publicKey]);
  // A record that came along is not needed then.
  const bare = makeForkEvidence(three, lie, [blue.record, green.record]);
  assert.deepEqual(verifyForkEvidence(bare).convicted, []);
  assert.equal(verifyForkEvidence(bare, [openNodeRecord(red.record)]).convicted.length, 1);
});

test('what proves nothing convicts nobody', () => {
  const [one] = lie;
  const { hash } = parseEntry(one.entry);
  for (const other of [
    one,
    certified([blue, green], { rejects: [hash] }),
    certified([green]),
    certified([red, blue], { parent: bytes(32) }),
    certified([red, blue], { group: bytes(32) }),
  ]) {
    assert.deepEqual(
      verifyForkEvidence(makeForkEvidence(three, [one, other], records)).convicted,
      [],
    );
  }
});

test('a hub cannot fill up what convicts it', () => {
  const junk = { domain: 'x'.repeat(200), signPub: bytes(32), signature: bytes(64_000) };
  const $unknown = [{ no: 99, wireType: 2, data: Uint8Array.of(0) }];
  const fill = (entry: CertifiedEntry): CertifiedEntry => {
    const filled = clone(CertifiedEntrySchema, entry);
    filled.signatures = [...entry.signatures, junk, junk].map((one) => ({
      ...create(HubSignatureSchema, one),
      $unknown,
    }));
    return filled;
  };
  const filled = create(SignedNodeRecordSchema, {
    record: red.record.record,
    signatures: [...red.record.signatures, junk, junk],
  });
  const made = makeForkEvidence(
    three,
    [fill(lie[0]), fill(lie[1])],
    [filled, blue.record, green.record, hubOf('x.example').record],
  );
  assert.deepEqual(made, evidence);

  // The largest that can be: names of 253 characters, entries and records as large as they may be.
  const hubs = ['a', 'b', 'c'].map((letter) => {
    const domain = [letter.repeat(61), ...Array.from({ length: 3 }, () => letter.repeat(63))];
    const signing = newKey();
    const endpoints = Array.from({ length: 16 }, () => ({ host: 'h'.repeat(253), port: 5001 }));
    const capabilities = Array.from({ length: 32 }, () => 'c'.repeat(64));
    const keys = [signing, newKey(), newKey(), newKey()].map((each) => ({
      ...{ spkiSha256: bytes(32), signing: each, fromMs: 0, toMs: 0 },
    }));
    const record = signNodeRecord({
      ...{ domain: domain.join('.'), keys, endpoints, seq: 1, versionMin: 1, versionMax: 1 },
      ...{ capabilities, logs: [{ config: bytes(1000), vkey: 'v'.repeat(7_800), fromSize: 0 }] },
    });
    assert.ok(record.record.length > nodeRecordLimits.recordBytes - 1_000);
    return { domain: domain.join('.'), signing, record };
  });
  const rejects = (): Uint8Array[] =>
    Array.from({ length: groupLogLimits.rejects }, () => bytes(32));
  const largest = makeForkEvidence(
    hubs.map(({ domain }) => domain),
    [certified(hubs, { rejects: rejects() }), certified(hubs, { rejects: rejects() })],
    hubs.map(({ record }) => record),
  );
  assert.ok(largest.length <= forkEvidenceLimits.bytes, `${largest.length} bytes`);
  assert.equal(verifyForkEvidence(largest).convicted.length, 3);
});

test('bytes that are no evidence are refused by name', () => {
  const { one, records: brought } = decoded();
  const stranger = hubOf('x.example').record;
  const unsigned = create(SignedNodeRecordSchema, { ...red.record, signatures: [] });
  for (const [wrong, refusal] of [
    [new Uint8Array(0), badField],
    [new Uint8Array(forkEvidenceLimits.bytes + 1), badField],
    [evidence.subarray(0, -1), badField],
    [encoded({ hubs: three.slice(1) }), badField],
    [encoded({ hubs: [red.domain, red.domain, blue.domain] }), badField],
    [encoded({ hubs: ['RED.example', blue.domain, green.domain] }), badField],
    [encoded({ hubs: [red.domain] }), badField],
    [
      toBinary(
        ForkEvidenceSchema,
        create(ForkEvidenceSchema, { hubs: three, ...(one && { one }) }),
      ),
      badField,
    ],
    [encoded({ one: create(CertifiedEntrySchema, {}) }), badField],
    [encoded({ records: [...brought, stranger] }), badField],
    [encoded({ records: [stranger] }), badField],
    [encoded({ records: [red.record, red.record] }), badField],
    [encoded({ records: [create(SignedNodeRecordSchema, {})] }), badField],
    [encoded({ records: [unsigned] }), badSignature],
  ] as const) {
    assert.throws(() => verifyForkEvidence(wrong), refusal);
  }
});

/** Whoever is named has signed, with a key of its own; what is refused is refused by name. */
function isJust(changed: Uint8Array): void {
  try {
    for (const { domain, keys } of verifyForkEvidence(changed).convicted) {
      assert.equal(domain, red.domain);
      assert.deepEqual(keys, [red.signing.publicKey]);
    }
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    assert.ok(['BAD_FIELD', 'BAD_SIGNATURE'].includes(error.reason), error.reason);
  }
}

test('evidence that is cut or changed convicts nobody who did not sign', () => {
  for (let length = 0; length < evidence.length; length += 1) isJust(evidence.subarray(0, length));
  const at = fc.nat({ max: 8 * evidence.length - 1 });
  fc.assert(
    fc.property(fc.array(at, { minLength: 1, maxLength: 3 }), (flipped) => {
      const changed = evidence.slice();
      for (const bit of flipped) changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      isJust(changed);
    }),
    { numRuns: 2_000 },
  );
});

test('no bytes break the reader', () => {
  // Groups in groups, as deep as they may be: each is one byte.
  isJust(new Uint8Array(forkEvidenceLimits.bytes).fill(0x5b));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), isJust));
  // Fields that exist, with anything in them.
  const blob = fc.uint8Array({ maxLength: 80 });
  const entry = fc
    .record({
      entry: fc.record({ entry: blob, signature: fc.uint8Array({ minLength: 64, maxLength: 64 }) }),
      term: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      signatures: fc.array(fc.record({ domain: fc.string(), signPub: blob, signature: blob })),
    })
    .map((fields) => create(CertifiedEntrySchema, fields));
  const record = blob.map((bytesOf) => create(SignedNodeRecordSchema, { record: bytesOf }));
  const any = fc.record({
    ...{ hubs: fc.array(fc.constantFrom(...three)), one: entry, other: entry },
    records: fc.array(record, { maxLength: 4 }),
  });
  fc.assert(fc.property(any, (fields) => isJust(encoded(fields))));
});
