/** The TLS engine under the contract of all engines, and what only it can be asked. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { suite, test, type TestContext } from 'node:test';
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { fairnessCases } from './contract-fairness.ts';
import { slowCases } from './contract-slow.ts';
import { transportContract, type MakeEngine } from './contract.ts';
import { callEcho, Rig } from './contract-rig.ts';
import { tcpRelay } from './tcp-relay.ts';
import { connectionId, maxRecordBytes, numberRecord, pushBit, recordHeader } from './tls-record.ts';
import { RecordParser, RecordType } from './tls-record.ts';
import { streamWindowBytes } from './tls-stream.ts';
import { tlsTransport } from './tls.ts';
import { CloseCode } from './transport.ts';

const tlsEngine: MakeEngine = (runtime) => {
  const transport = tlsTransport(runtime);
  return {
    transport,
    host: '127.0.0.1',
    dialSession: (endpoint, options) => transport.dialSession(endpoint, options),
    async cuttablePath(t, endpoint) {
      const relay = await tcpRelay(endpoint);
      t.after(() => relay.close());
      return relay;
    },
  };
};

transportContract('tls', tlsEngine);
suite('tls: streams beside each other', () => fairnessCases(tlsEngine));
suite('tls: slow peers', () => slowCases(tlsEngine));

/** A bare TLS connection to a rig's listener, past the opening records. */
async function rawPeer(
  t: TestContext,
  rig: Rig,
  changes: ConnectionOptions = {},
): Promise<TLSSocket> {
  const socket = connect({
    ...rig.listener.endpoint,
    key: rig.dialerIdentity.privateKeyPem,
    cert: rig.dialerIdentity.certificatePem,
    ALPNProtocols: ['qpc'],
    rejectUnauthorized: false,
    ...changes,
  });
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  return socket;
}

/** Reads records until the Close record, and returns its code. */
async function closeCodeOf(socket: TLSSocket): Promise<number> {
  const parser = new RecordParser();
  let code = -1;
  for await (const chunk of socket) {
    parser.push(Buffer.from(chunk as Uint8Array), ({ type, payload }) => {
      if (type === RecordType.Close) code = Buffer.from(payload).readUInt32BE();
    });
  }
  return code;
}

suite('tls: a peer that breaks the rules of records is closed, others go on', () => {
  const call = (index: number) => index * 4;
  const cases: Readonly<Record<string, Buffer>> = {
    'a record of an unknown type': Buffer.concat([recordHeader(0, 9, 0)]),
    'a call stream out of order': recordHeader(call(5), RecordType.Data, 0),
    'a stream of the listener’s own': recordHeader(1, RecordType.Data, 0),
    'credit beyond the window': Buffer.concat([
      recordHeader(call(0), RecordType.Data, 0),
      numberRecord(call(0), RecordType.Credit, 1),
    ]),
    'credit of the connection beyond the window': numberRecord(connectionId, RecordType.Credit, 1),
    'streams of an unknown kind': numberRecord(7, RecordType.Streams, 1),
    'a stream’s record about the connection': numberRecord(connectionId, RecordType.Stop, 0, 1),
    'bytes behind the end': Buffer.concat([
      recordHeader(call(0), RecordType.End, 0),
      recordHeader(call(0), RecordType.Data, 1),
      Buffer.of(1),
    ]),
    'more calls than allowed': Buffer.concat(
      Array.from({ length: 101 }, (_, index) => recordHeader(call(index), RecordType.Data, 0)),
    ),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    test(name, async (t) => {
      const rig = await Rig.listen(t, tlsEngine);
      const honest = await rig.dial();
      const socket = await rawPeer(t, rig);
      socket.write(bytes);
      assert.equal(await closeCodeOf(socket), CloseCode.Protocol);
      await callEcho(honest);
    });
  }

  test('a window of unread bytes is all that a stream may hold here', async (t) => {
    const rig = await Rig.listen(t, tlsEngine);
    const socket = await rawPeer(t, rig);
    // Nobody handles push streams here, so nothing of this is read.
    const piece = Buffer.concat([
      recordHeader(pushBit, RecordType.Data, maxRecordBytes),
      Buffer.alloc(maxRecordBytes, 1),
    ]);
    const closed = closeCodeOf(socket);
    for (let count = 0; count < 2 * (streamWindowBytes / maxRecordBytes); count += 1) {
      socket.write(piece);
    }
    assert.equal(await closed, CloseCode.Protocol);
  });
});

suite('tls: who may connect', () => {
  test('without a certificate the connection is refused', async (t) => {
    const rig = await Rig.listen(t, tlsEngine);
    const bare = { key: undefined, cert: undefined };
    assert.equal(await closeCodeOf(await rawPeer(t, rig, bare)), CloseCode.RefusedIdentity);
  });

  test('TLS 1.2, and another protocol than qpc, end in the handshake', async (t) => {
    const rig = await Rig.listen(t, tlsEngine);
    const wrong: readonly ConnectionOptions[] = [
      { maxVersion: 'TLSv1.2', ALPNProtocols: ['qpc'] },
      { ALPNProtocols: ['h2'] },
    ];
    for (const changes of wrong) {
      const socket = connect({ ...rig.listener.endpoint, rejectUnauthorized: false, ...changes });
      const [error] = (await once(socket, 'error')) as [Error & { code: string }];
      assert.match(error.code, /^ERR_SSL_/u);
    }
    await callEcho(await rig.dial());
  });

  test('a client that connects and says nothing is dropped at the handshake deadline', async (t) => {
    const rig = await Rig.listen(t, tlsEngine, { listenerLimits: { handshakeMs: 200 } });
    const { host, port } = rig.listener.endpoint;
    const socket = connectTcp({ host, port });
    socket.on('error', () => {});
    await once(socket, 'close');
    await callEcho(await rig.dial());
  });
});
