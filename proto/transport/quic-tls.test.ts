/** What only QUIC can be asked about TLS and addresses: ALPN, certificates, dual stack, retry. */
import assert from 'node:assert/strict';
import { QUICClient } from '@matrixai/quic';
import 'reflect-metadata';
import { X509CertificateGenerator } from '@peculiar/x509';
import { test, type TestContext } from 'node:test';
import { callEcho, fourMiB, Rig } from './contract-rig.ts';
import { systemRandom } from '../runtime.ts';
import { makeIdentity } from './certificate.ts';
import { quietLogger } from './quic-engine.ts';
import { quicEngineNames, quicEngines } from './quic-rig.ts';
import { CloseCode, defaultLimits, type Endpoint } from './transport.ts';

interface ForeignTls {
  readonly applicationProtos: string[];
  readonly key?: string;
  readonly cert?: string;
}

/**
 * Dials with the package's own client, which does not keep our rules, and resolves with the error
 * that ends its connection: at once, or when the listener has judged.
 */
async function dialForeign(t: TestContext, at: Endpoint, tls: ForeignTls): Promise<unknown> {
  const ended = Promise.withResolvers<unknown>();
  try {
    const client = await QUICClient.createQUICClient(
      {
        host: at.host,
        port: at.port,
        localHost: '127.0.0.1',
        crypto: {
          ops: {
            async randomBytes(data) {
              new Uint8Array(data).set(systemRandom.bytes(data.byteLength));
            },
          },
        },
        logger: quietLogger(),
        config: { ...tls, verifyPeer: true, verifyCallback: async () => undefined },
      },
      { timer: 4000 },
    );
    t.after(() => client.destroy({ force: true }));
    client.addEventListener('EventQUICConnectionClose', (event: Event) => {
      ended.resolve('detail' in event ? event.detail : event);
    });
    if (client.closed) ended.resolve(client.connection.getConnectionError());
  } catch (error) {
    ended.resolve(error);
  }
  return ended.promise;
}

function errorCodeOf(error: unknown): unknown {
  const data: unknown = error instanceof Error && 'data' in error ? error.data : error;
  return typeof data === 'object' && data !== null && 'errorCode' in data ? data.errorCode : error;
}

for (const name of quicEngineNames) {
  const make = quicEngines[name];
  test(`${name}: a dialer that speaks another protocol is refused in the handshake`, async (t) => {
    const rig = await Rig.listen(t, make);
    const { privateKeyPem: key, certificatePem: cert } = rig.dialerIdentity;
    const wrong = await dialForeign(t, rig.listener.endpoint, {
      applicationProtos: ['h3'],
      key,
      cert,
    });
    assert.equal(errorCodeOf(wrong), 0x100 + 120);
    await callEcho(await rig.dial());
  });

  test(`${name}: a dialer without a certificate is refused, and no connection is reported`, async (t) => {
    let reported = 0;
    const rig = await Rig.listen(t, make, {
      onConnection: (connection) => {
        reported += 1;
        connection.onCall(async ({ requestId, payload }) => ({ status: 0, requestId, payload }));
      },
    });
    const error = await dialForeign(t, rig.listener.endpoint, { applicationProtos: ['qpc'] });
    const code = errorCodeOf(error);
    assert.ok(typeof code === 'number' && code >= 0x100 && code <= 0x1ff, String(error));
    assert.equal(reported, 0);
    await callEcho(await rig.dial());
    assert.equal(reported, 1);
  });

  test(`${name}: a certificate that is not Ed25519 is refused`, async (t) => {
    const rig = await Rig.listen(t, make);
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
    const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await X509CertificateGenerator.createSelfSigned(
      { serialNumber: '01', name: 'CN=foreign', keys, signingAlgorithm: algorithm },
      crypto,
    );
    const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
    const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.toString('base64')}\n-----END PRIVATE KEY-----\n`;
    const error = await dialForeign(t, rig.listener.endpoint, {
      applicationProtos: ['qpc'],
      key,
      cert: `${certificate.toString('pem')}\n`,
    });
    const code = errorCodeOf(error);
    assert.ok(typeof code === 'number' && code >= 0x100 && code <= 0x1ff, String(error));
  });

  test(`${name}: a listener at :: serves IPv4 and IPv6, each under its own address`, async (t) => {
    const rig = await Rig.listen(t, (runtime) => ({ ...make(runtime), host: '::' }));
    const { port } = rig.listener.endpoint;
    for (const [host, seen] of [
      ['127.0.0.1', '127.0.0.1'],
      ['::1', '::1'],
    ] as const) {
      const connection = await rig.dial({}, { host, port });
      await callEcho(connection);
      assert.equal(connection.peer.host, host);
      assert.equal((await rig.accepted()).peer.host, seen);
    }
    await callEcho(await rig.dial({}, { host: 'localhost', port }));
  });

  test(`${name}: a host name is resolved`, async (t) => {
    const rig = await Rig.listen(t, make);
    const { port } = rig.listener.endpoint;
    const connection = await rig.dial({}, { host: 'localhost', port });
    assert.equal(connection.peer.host, '127.0.0.1');
  });

  test(`${name}: two listeners of one process have their own identities`, async (t) => {
    const rig = await Rig.listen(t, make);
    const identity = await makeIdentity(systemRandom);
    const other = await rig.engine.transport.listen({
      endpoint: { host: '127.0.0.1', port: 0 },
      identity,
      limits: defaultLimits,
      maxRequestBytes: () => fourMiB,
      onConnection() {},
    });
    t.after(() => other.close(CloseCode.Normal, 'test over'));
    const connection = await rig.dial({ pins: [identity.spkiSha256] }, other.endpoint);
    assert.deepEqual(connection.peer.spkiSha256, identity.spkiSha256);
  });
}
