/** Endpoint records, the addresses in them and the peer ids they name: what is taken and what is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { signingKeyFromSeed, systemRandom } from '@quicprochat/proto';
import {
  create,
  EndpointRecordSchema,
  fromBinary,
  SignedEndpointRecordSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { signStatement } from '@quicprochat/proto';
import {
  endpointLimits,
  signEndpointRecord,
  verifyEndpointRecord,
  type EndpointFacts,
} from './endpoint-record.ts';
import { peerIdOf, swarmKeyOf } from './peer-id.ts';
import { formatSwarmAddress, parseSwarmAddress } from './swarm-address.ts';
import { loadSwarmKey, makeSwarmKey } from './swarm-key.ts';

const nowMs = 1_800_000_000_000;
const device = signingKeyFromSeed(systemRandom.bytes(32));
const swarm = makeSwarmKey(systemRandom);
const relay = makeSwarmKey(systemRandom).peerId;
const facts: EndpointFacts = {
  swarmKey: swarm.publicKey,
  addresses: ['/ip4/192.0.2.1/udp/5002/quic-v1', '/ip6/2001:db8::1/tcp/5002'],
  relays: [`/ip4/198.51.100.7/udp/5002/quic-v1/p2p/${relay}`],
  mailboxes: ['blue.example'],
  seq: 7,
  issuedMs: nowMs,
  expiresMs: nowMs + endpointLimits.lifetimeMs,
};

test('peer ids are those of libp2p', async () => {
  for (let i = 0; i < 20; i++) {
    const seed = systemRandom.bytes(32);
    const theirs = peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', seed)).toString();
    const key = loadSwarmKey(seed);
    assert.equal(key.peerId, theirs);
    assert.deepEqual(swarmKeyOf(theirs), key.publicKey);
  }
  for (const text of [
    '',
    '1',
    'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
    `${relay}1`,
    '0',
  ]) {
    assert.equal(swarmKeyOf(text), undefined);
  }
  assert.throws(() => peerIdOf(new Uint8Array(31)), { reason: 'BAD_FIELD' });
  assert.throws(() => loadSwarmKey(new Uint8Array(33)), { reason: 'BAD_FIELD' });
});

test('a swarm key does not print its secret', async () => {
  const { inspect } = await import('node:util');
  const seed = Buffer.from(swarm.seed());
  for (const text of [inspect(swarm, { depth: 9 }), JSON.stringify(swarm)]) {
    assert.ok(text.includes(swarm.peerId));
    for (const form of ['hex', 'base64', 'base64url'] as const) {
      assert.ok(!text.includes(seed.toString(form)));
    }
  }
});

test('addresses are literal, canonical, and know how far they reach', () => {
  const reaches = {
    '/ip4/127.0.0.1/tcp/1': 'loopback',
    '/ip4/169.254.7.1/tcp/1': 'link',
    '/ip4/10.1.2.3/udp/5002/quic-v1': 'private',
    '/ip4/172.31.0.1/tcp/1': 'private',
    '/ip4/192.168.0.1/tcp/1': 'private',
    '/ip4/100.64.0.1/tcp/1': 'private',
    '/ip4/172.32.0.1/tcp/65535': 'public',
    '/ip6/::1/tcp/1': 'loopback',
    '/ip6/fe80::1/tcp/1': 'link',
    '/ip6/fd00::1/tcp/1': 'private',
    '/ip6/2001:db8::1/udp/5002/quic-v1': 'public',
  };
  for (const [text, reach] of Object.entries(reaches)) {
    const address = parseSwarmAddress(text);
    assert.equal(address.reach, reach, text);
    assert.equal(formatSwarmAddress(address), text);
  }
  const refused = [
    '',
    '/dns4/red.example/tcp/1',
    '/dnsaddr/red.example',
    '/ip4/127.1/tcp/1',
    '/ip4/010.0.0.1/tcp/1',
    '/ip4/0.0.0.0/tcp/1',
    '/ip4/224.0.0.1/tcp/1',
    '/ip4/255.255.255.255/tcp/1',
    '/ip6/::/tcp/1',
    '/ip6/::ffff:10.0.0.1/tcp/1',
    '/ip6/::ffff:a00:1/tcp/1',
    '/ip6/64:ff9b::a00:1/tcp/1',
    '/ip6/ff02::1/tcp/1',
    '/ip6/2001:db8:0::1/tcp/1',
    '/ip4/192.0.2.1/tcp/0',
    '/ip4/192.0.2.1/tcp/65536',
    '/ip4/192.0.2.1/udp/1',
    '/ip4/192.0.2.1/udp/1/quic',
    '/ip4/192.0.2.1/tcp/1/ws',
    '/ip4/192.0.2.1/tcp/1/p2p/Qm',
    `/ip4/192.0.2.1/tcp/1/p2p/${relay}/p2p-circuit/p2p/${relay}`,
    `/ip4/192.0.2.1/tcp/1\n`,
    '/'.repeat(200),
  ];
  for (const text of refused) {
    assert.throws(() => parseSwarmAddress(text), { reason: 'BAD_FIELD' }, text);
  }
});

test('a record says what its device said', () => {
  const signed = signEndpointRecord(facts, device);
  const record = verifyEndpointRecord(signed, {
    nowMs,
    device: device.publicKey,
    peerId: swarm.peerId,
    knownSeq: 6,
  });
  assert.deepEqual(record, { ...facts, device: device.publicKey, peerId: swarm.peerId, signed });
});

test('what breaks a rule is refused', () => {
  const rules = { nowMs, device: device.publicKey };
  const sign = (changed: Partial<EndpointFacts>) => {
    const { swarmKey, seq, issuedMs, expiresMs, addresses, relays, mailboxes } = {
      ...facts,
      ...changed,
    };
    // Not by signEndpointRecord, which refuses them itself.
    const record = toBinary(
      EndpointRecordSchema,
      create(EndpointRecordSchema, {
        device: device.publicKey,
        swarmKey,
        addresses: [...addresses],
        relays: [...relays],
        mailboxes: [...mailboxes],
        seq: BigInt(seq),
        issuedMs: BigInt(issuedMs),
        expiresMs: BigInt(expiresMs),
      }),
    );
    const signature = signStatement('qpc/endpoint/1', record, device);
    return create(SignedEndpointRecordSchema, { record, signature });
  };
  const [address = ''] = facts.addresses;
  const [place = ''] = facts.relays;
  const wrong: Partial<EndpointFacts>[] = [
    { swarmKey: new Uint8Array(31) },
    { addresses: Array<string>(9).fill(address) },
    { addresses: ['/ip4/10.0.0.1/tcp/1'] },
    { addresses: ['/ip4/127.0.0.1/tcp/1'] },
    { addresses: ['/dns4/red.example/tcp/1'] },
    { addresses: [`${address}/p2p/${relay}`] },
    { relays: Array<string>(4).fill(place) },
    { relays: [address] },
    { relays: [`${address}/p2p/${swarm.peerId}`] },
    { relays: [`/ip4/10.0.0.1/tcp/1/p2p/${relay}`] },
    { mailboxes: ['a.example', 'b.example', 'c.example'] },
    { mailboxes: ['Not A Domain'] },
    { expiresMs: nowMs },
    { expiresMs: facts.expiresMs + 1 },
    { issuedMs: nowMs + 2 * endpointLimits.aheadMs, expiresMs: nowMs + 3 * endpointLimits.aheadMs },
    { issuedMs: nowMs - 2_000, expiresMs: nowMs - 1_000 },
  ];
  for (const changed of wrong) {
    const why = JSON.stringify(changed);
    assert.throws(() => verifyEndpointRecord(sign(changed), rules), { reason: 'BAD_FIELD' }, why);
  }
  const signed = sign({});
  const bad = { reason: 'BAD_FIELD' };
  const untrue = { reason: 'BAD_CREDENTIAL' };
  assert.throws(() => verifyEndpointRecord(undefined, rules), bad);
  assert.throws(() => verifyEndpointRecord(signed, { ...rules, knownSeq: 7 }), bad);
  const other = systemRandom.bytes(32);
  assert.throws(() => verifyEndpointRecord(signed, { ...rules, device: other }), untrue);
  assert.throws(() => verifyEndpointRecord(signed, { ...rules, peerId: relay }), untrue);
  const large = { ...signed, record: new Uint8Array(endpointLimits.recordBytes + 1) };
  assert.throws(() => verifyEndpointRecord(large, rules), bad);
  for (let at = 0; at < signed.record.length; at++) {
    const cut = { ...signed, record: signed.record.subarray(0, at) };
    assert.throws(() => verifyEndpointRecord(cut, rules), { name: /Error$/ });
    const flipped = { ...signed, record: signed.record.slice() };
    flipped.record[at] = (flipped.record[at] ?? 0) ^ 1;
    assert.throws(() => verifyEndpointRecord(flipped, rules), { name: /Error$/ });
  }
  assert.equal(fromBinary(EndpointRecordSchema, signed.record).seq, 7n);
});

test('a device notices itself what nobody would take', () => {
  assert.throws(() => signEndpointRecord({ ...facts, expiresMs: nowMs - 1 }, device), {
    reason: 'BAD_FIELD',
  });
});
