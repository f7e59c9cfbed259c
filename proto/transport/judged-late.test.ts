/**
 * In TLS 1.3 a dialer is through before the listener has seen its certificate (RFC 8446 section 2): that
 * a dial resolved says who the listener is, and nothing about whether it takes the dialer.
 */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { NodeIdentity } from './certificate.ts';
import { callEcho, echo, patient, rejectsWith, Rig, type MakeEngine } from './contract-rig.ts';
import { forkedEngine, quicheEngine } from './quic-rig.ts';
import { loadQuiche, type Quiche } from './quiche-native.ts';
import { tlsTransport } from './tls.ts';

const tlsEngine: MakeEngine = (runtime) => {
  const transport = tlsTransport(runtime);
  return {
    transport,
    host: '127.0.0.1',
    dialSession: (endpoint, options) => transport.dialSession(endpoint, options),
    cuttablePath: () => Promise.reject(new Error('not needed here')),
  };
};
/** The stock glue's dialer waits a while for the verdict: quic-tls.test.ts has it refused. */
const engines = {
  quiche: quicheEngine,
  'quiche on two processes': forkedEngine,
  tls: tlsEngine,
};

/** Whoever dials from now on shows no certificate: our own dialers always do, so it is taken from them. */
async function withoutCertificate(t: TestContext): Promise<NodeIdentity> {
  const quiche = await loadQuiche();
  const { Config } = quiche;
  type Context = Parameters<Quiche['Config']['withBoringSslCtx']>;
  const bare = (...[verify, allowFail, authority, , , algorithms]: Context) =>
    Config.withBoringSslCtx(verify, allowFail, authority, null, null, algorithms);
  // The native method itself is fixed.
  class Bare extends Config {
    static override withBoringSslCtx = bare;
  }
  t.mock.property(quiche, 'Config', Bare);
  const nobody: Partial<NodeIdentity> = {};
  return nobody as NodeIdentity;
}

for (const [name, make] of Object.entries(engines)) {
  test(`${name}: a dial resolves before the listener has judged who dials; a call tells`, async (t) => {
    let reported = 0;
    const rig = await Rig.listen(t, make, {
      onConnection: (connection) => {
        reported += 1;
        connection.onCall(echo);
      },
    });
    const identity = await withoutCertificate(t);
    const connection = await rig.dial({ identity });
    t.mock.restoreAll();
    assert.deepEqual(connection.peer.spkiSha256, rig.identity.spkiSha256);
    const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };
    await rejectsWith(connection.call(request, patient), 'refusedIdentity');
    const { failure, local } = await connection.closed;
    assert.deepEqual([failure, local], ['refusedIdentity', false]);
    assert.equal(reported, 0);
    await callEcho(await rig.dial());
    assert.equal(reported, 1);
  });
}
