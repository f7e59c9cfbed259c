/** NodeRecords: what proves one, and every way in which one is refused. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import {
  create,
  fromBinary,
  NodeRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
  type SignedNodeRecord,
} from './messages.ts';
import {
  certifyingKeys,
  signNodeRecord,
  verifyNodeRecord,
  type NodeRecordFacts,
  type NodeRecordKey,
} from './node-record.ts';
import { signingKeyFromSeed } from './signature.ts';
import { hasReason } from './status.ts';

const dayMs = 24 * 3600 * 1000;
const nowMs = 1_800_000_000_000;
const spki = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);

function key(byte: number, fromMs = 0, toMs = 0): NodeRecordKey {
  const signing = signingKeyFromSeed(new Uint8Array(32).fill(byte));
  return { spkiSha256: spki(byte), signing, fromMs, toMs };
}

function facts(changes: Partial<NodeRecordFacts> = {}): NodeRecordFacts {
  return {
    domain: 'blue.example',
    keys: [key(1)],
    endpoints: [{ host: 'blue.example', port: 5001 }],
    seq: 7,
    versionMin: 1,
    versionMax: 1,
    capabilities: [],
    ...changes,
  };
}

const pinned = { domain: 'blue.example', pins: [spki(1)], connectionSpki: spki(1), nowMs };

function refuses(signed: SignedNodeRecord, trust: object, reason: string): void {
  assert.throws(
    () => verifyNodeRecord(signed, { ...pinned, ...trust }),
    (error) => hasReason(error, reason),
    `should be refused with ${reason}`,
  );
}

test('a record that came over the pinned connection is proven', () => {
  const record = verifyNodeRecord(signNodeRecord(facts()), pinned);
  assert.equal(record.domain, 'blue.example');
  assert.deepEqual(
    record.endpoints.map(({ host, port }) => `${host}:${port}`),
    ['blue.example:5001'],
  );
});

test('a record that merely names the pinned key proves nothing', () => {
  const forger: NodeRecordKey = { ...key(9), spkiSha256: spki(1) };
  const forged = signNodeRecord(facts({ keys: [forger] }));
  refuses(forged, { connectionSpki: spki(9) }, 'BAD_CREDENTIAL');
  const { connectionSpki: _, ...unconnected } = pinned;
  assert.throws(
    () => verifyNodeRecord(forged, unconnected),
    (error) => hasReason(error, 'BAD_CREDENTIAL'),
  );
});

test('a rotation is proven by the older signing key, and needs the signatures of both', () => {
  const both = signNodeRecord(facts({ keys: [key(1), key(2)], seq: 8 }));
  const heir = { pins: [], connectionSpki: spki(2), signKeys: [key(1).signing.publicKey], seq: 7 };
  assert.equal(verifyNodeRecord(both, { ...pinned, ...heir }).seq, 8n);
  const half = create(SignedNodeRecordSchema, {
    record: both.record,
    signatures: both.signatures.slice(0, 1),
  });
  refuses(half, heir, 'BAD_SIGNATURE');
  refuses(both, { ...heir, signKeys: [key(3).signing.publicKey] }, 'BAD_CREDENTIAL');
});

test('only keys that are live count, with a day of grace', () => {
  const old = signNodeRecord(facts({ keys: [key(1, 0, nowMs - 2 * dayMs), key(2)] }));
  refuses(old, {}, 'BAD_CREDENTIAL');
  const justOld = signNodeRecord(facts({ keys: [key(1, 0, nowMs - dayMs / 2)] }));
  assert.ok(verifyNodeRecord(justOld, pinned));
  refuses(signNodeRecord(facts({ keys: [key(1, nowMs + 2 * dayMs)] })), {}, 'BAD_CREDENTIAL');
});

test('another domain, an older seq and a changed byte are refused', () => {
  const signed = signNodeRecord(facts());
  refuses(signed, { domain: 'green.example' }, 'BAD_CREDENTIAL');
  refuses(signed, { seq: 8 }, 'BAD_CREDENTIAL');
  const record = fromBinary(NodeRecordSchema, signed.record);
  const changed = toBinary(NodeRecordSchema, { ...record, seq: 9n });
  refuses(create(SignedNodeRecordSchema, { ...signed, record: changed }), {}, 'BAD_SIGNATURE');
});

test('malformed records are refused, made or received', () => {
  const bad: Partial<NodeRecordFacts>[] = [
    { domain: 'Blue' },
    { keys: [] },
    { keys: [key(1), key(2), key(3), key(4), key(5)] },
    { keys: [{ ...key(1), spkiSha256: new Uint8Array(31) }] },
    { endpoints: [{ host: '', port: 1 }] },
    { endpoints: [{ host: 'x', port: 70_000 }] },
    { endpoints: Array.from({ length: 17 }, () => ({ host: 'x', port: 1 })) },
    { seq: 0 },
    { versionMin: 2 },
    { capabilities: ['x'.repeat(65)] },
  ];
  for (const changes of bad) {
    assert.throws(
      () => signNodeRecord(facts(changes)),
      (error) => hasReason(error, 'BAD_FIELD'),
      JSON.stringify(Object.keys(changes)),
    );
  }
  const record = Uint8Array.of(0xff, 0xff);
  refuses(create(SignedNodeRecordSchema, { record }), {}, 'BAD_FIELD');
  const long = new Uint8Array(16 * 1024 + 1);
  refuses(create(SignedNodeRecordSchema, { record: long }), {}, 'BAD_FIELD');
});

test('keys that were given up are named for their certificates, and prove no record', () => {
  const formerSignPubs = [key(3), key(4)].map(({ signing }) => signing.publicKey);
  const signed = signNodeRecord(facts({ formerSignPubs }));
  const record = verifyNodeRecord(signed, pinned);
  assert.deepEqual(certifyingKeys(record), [key(1).signing.publicKey, ...formerSignPubs]);
  const heir = { pins: [], connectionSpki: spki(9), signKeys: [key(3).signing.publicKey] };
  refuses(signed, heir, 'BAD_CREDENTIAL');
  for (const bad of [[spki(1).subarray(1)], Array<Uint8Array>(9).fill(spki(1))]) {
    assert.throws(
      () => signNodeRecord(facts({ formerSignPubs: bad })),
      (error) => hasReason(error, 'BAD_FIELD'),
    );
  }
});

test('a record says where the swarm is, within bounds', () => {
  const swarm = { swarmKey: spki(9), addresses: ['/ip4/192.0.2.1/udp/5002/quic-v1'] };
  const record = verifyNodeRecord(signNodeRecord(facts({ swarm })), pinned);
  assert.deepEqual(record.swarm?.addresses, swarm.addresses);
  assert.deepEqual(record.swarm?.swarmKey, swarm.swarmKey);
  for (const wrong of [
    { ...swarm, swarmKey: spki(9).subarray(1) },
    { ...swarm, addresses: Array<string>(9).fill('/ip4/192.0.2.1/tcp/1') },
    { ...swarm, addresses: ['x'.repeat(129)] },
  ]) {
    assert.throws(
      () => signNodeRecord(facts({ swarm: wrong })),
      (error) => hasReason(error, 'BAD_FIELD'),
    );
  }
});
