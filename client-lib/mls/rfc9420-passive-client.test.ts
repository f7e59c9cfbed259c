/**
 * The MLS working group's passive-client vectors, suite 1, on the patched library with our
 * provider: join by a foreign Welcome, then follow every commit.
 */
import assert from 'node:assert/strict';
import { systemRandom } from '@quicprochat/proto';
import {
  bytesToBase64,
  joinGroup,
  mlsMessageDecoder,
  processMessage,
  unsafeTestingAuthenticationService,
} from 'ts-mls';
import type { MlsContext, MlsFramedMessage, MlsMessage } from 'ts-mls';
import type * as Tree from '../../node_modules/ts-mls/dist/src/ratchetTree.js';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { hex, specTest, toHex } from '../crypto/spec-vectors.ts';
import { innerModule } from './patch-harness.ts';

const { ratchetTreeDecoder } = (await innerModule('ratchetTree.js')) as typeof Tree;
const cipherSuite = await createMlsCryptoProvider({ random: systemRandom }).getCiphersuiteImpl(1);

interface PassiveClientCase {
  cipher_suite: number;
  external_psks: { psk_id: string; psk: string }[];
  key_package: string;
  signature_priv: string;
  encryption_priv: string;
  init_priv: string;
  welcome: string;
  ratchet_tree: string | null;
  initial_epoch_authenticator: string;
  epochs: { proposals: string[]; commit: string; epoch_authenticator: string }[];
}

function message(encoded: string): MlsMessage {
  const decoded = mlsMessageDecoder(hex(encoded), 0)?.[0];
  assert.ok(decoded);
  return decoded;
}

function framed(encoded: string): MlsFramedMessage {
  const decoded = message(encoded);
  assert.ok('publicMessage' in decoded || 'privateMessage' in decoded);
  return decoded;
}

async function follow(v: PassiveClientCase): Promise<void> {
  const keyPackage = message(v.key_package);
  const welcome = message(v.welcome);
  assert.ok('keyPackage' in keyPackage && 'welcome' in welcome);
  const context: MlsContext = {
    cipherSuite,
    authService: unsafeTestingAuthenticationService,
    externalPsks: Object.fromEntries(
      v.external_psks.map(({ psk_id, psk }) => [bytesToBase64(hex(psk_id)), hex(psk)]),
    ),
  };
  const ratchetTree =
    v.ratchet_tree === null ? undefined : ratchetTreeDecoder(hex(v.ratchet_tree), 0)?.[0];
  let state = await joinGroup({
    context,
    welcome: welcome.welcome,
    keyPackage: keyPackage.keyPackage,
    privateKeys: {
      initPrivateKey: hex(v.init_priv),
      hpkePrivateKey: hex(v.encryption_priv),
      signaturePrivateKey: hex(v.signature_priv),
    },
    ...(ratchetTree === undefined ? {} : { ratchetTree }),
  });
  assert.equal(toHex(state.keySchedule.epochAuthenticator), v.initial_epoch_authenticator);
  for (const epoch of v.epochs) {
    for (const encoded of [...epoch.proposals, epoch.commit]) {
      ({ newState: state } = await processMessage({ context, state, message: framed(encoded) }));
    }
    assert.equal(toHex(state.keySchedule.epochAuthenticator), epoch.epoch_authenticator);
  }
}

for (const name of ['welcome', 'handling-commit', 'random']) {
  specTest<PassiveClientCase[]>(
    `RFC 9420 passive-client-${name}`,
    `rfc9420-vectors/passive-client-${name}.json`,
    async (all) => {
      const cases = all.filter(({ cipher_suite }) => cipher_suite === 1);
      assert.ok(cases.length > 0);
      for (const v of cases) await follow(v);
    },
  );
}
