/** Node identities: what is in the certificate, what never gets out, what is refused. */
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { format, inspect } from 'node:util';
import { systemRandom, type Random } from '../runtime.ts';
import { InvalidArgumentError } from '../status.ts';
import { loadIdentity, makeIdentity, spkiSha256OfCertificate } from './certificate.ts';

/** Bytes that count up: the same identity every time. */
function countingRandom(start: number): Random {
  let next = start;
  return { bytes: (length) => Uint8Array.from({ length }, () => next++ & 0xff) };
}

test('a made identity is a self-signed Ed25519 certificate that says nothing else', async () => {
  const identity = await makeIdentity(systemRandom);
  const certificate = new X509Certificate(identity.certificatePem);
  assert.equal(certificate.publicKey.asymmetricKeyType, 'ed25519');
  assert.ok(certificate.verify(certificate.publicKey));
  assert.equal(certificate.subject, 'CN=qpc');
  assert.equal(certificate.subjectAltName, undefined);
  assert.equal(certificate.validFromDate.toISOString(), '2025-01-01T00:00:00.000Z');
  assert.equal(certificate.validToDate.toISOString(), '9999-12-31T23:59:59.000Z');
  assert.match(certificate.serialNumber, /^[4-7][0-9A-F]{31}$/);
  const spki = certificate.publicKey.export({ type: 'spki', format: 'der' });
  assert.equal(spki.length, 44);
  const hash = createHash('sha256').update(spki).digest();
  assert.deepEqual(Buffer.from(identity.spkiSha256), hash);
  assert.deepEqual(Buffer.from(spkiSha256OfCertificate(identity.certificateDer)), hash);
});

test('the same random bytes make the same identity, others another', async () => {
  const [one, two, three] = await Promise.all(
    [1, 1, 2].map((n) => makeIdentity(countingRandom(n))),
  );
  assert.equal(one?.certificatePem, two?.certificatePem);
  assert.equal(one?.privateKeyPem, two?.privateKeyPem);
  assert.notDeepEqual(one?.spkiSha256, three?.spkiSha256);
});

test('the private key does not print', async () => {
  const identity = await makeIdentity(systemRandom);
  const [, secret = ''] = identity.privateKeyPem.split('\n');
  assert.ok(secret.length > 40);
  for (const text of [
    inspect(identity, { showHidden: true, depth: null }),
    inspect({ deep: [identity] }),
    JSON.stringify({ identity }),
    format('%s %o %O %j', identity, identity, identity, identity),
    JSON.stringify(Object.entries(identity)),
    inspect(structuredClone(identity)),
  ]) {
    assert.ok(!text.includes(secret), text);
    assert.ok(!text.includes('PRIVATE KEY'), text);
  }
  assert.match(inspect(identity), /\[secret\]/);
});

test('an identity is loaded from what was made', async () => {
  const made = await makeIdentity(systemRandom);
  const loaded = loadIdentity(made.certificatePem, made.privateKeyPem);
  assert.deepEqual(loaded.spkiSha256, made.spkiSha256);
  assert.equal(loaded.privateKeyPem, made.privateKeyPem);
});

test('what does not belong together or does not parse is refused without quoting it', async () => {
  const [one, two] = [await makeIdentity(systemRandom), await makeIdentity(systemRandom)];
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const foreign = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  for (const [certificate, key] of [
    [one.certificatePem, two.privateKeyPem],
    [one.certificatePem, foreign],
    [one.certificatePem, 'PLANTED'],
    ['PLANTED', one.privateKeyPem],
    [one.certificatePem.slice(0, -60), one.privateKeyPem],
    ['', ''],
  ] as const) {
    assert.throws(
      () => loadIdentity(certificate, key),
      (error) => error instanceof InvalidArgumentError && !inspect(error).includes('PLANTED'),
    );
  }
});

test('bytes that are no Ed25519 certificate have no identity', async () => {
  const { certificateDer } = await makeIdentity(systemRandom);
  for (let length = 0; length < certificateDer.length; length += 1) {
    assert.throws(
      () => spkiSha256OfCertificate(certificateDer.subarray(0, length)),
      InvalidArgumentError,
    );
  }
});
