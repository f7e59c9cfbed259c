/** What each call about an account refuses beyond its fields: what nobody signed, and what comes out of turn. */
import { after, before, suite, test } from 'node:test';
import { methods, opaqueBytes, signingKeyFromSeed, systemRandom } from '@quicprochat/proto';
import type { SignedManifest } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, testRuntime } from '../cluster/local-node.ts';
import { Person, type PersonDevice } from './account-rig.ts';
import { LogView } from './log-view.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const rates = ['auth', 'keys', 'lookup']
  .map((name) => `[rates.${name}]\nper_second = 1000\nburst = 1000\n`)
  .join('');

suite('an account refuses', () => {
  let red: LocalNode;
  let alice: Person;
  let device: PersonDevice;

  before(async () => {
    red = await LocalNode.create(memoryNetwork(testRuntime), 'red.example', rates);
    await red.start();
    [alice, device] = await Person.register('alice@red.example', (key) => red.dial(key));
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
  });

  test('a registration that did not begin, or that its account key did not sign', async () => {
    await using bob = new Person('bob@red.example', (key) => red.dial(key));
    const first = await bob.newDevice();
    const manifest = first.firstManifest();
    const unasked = first.call(methods.opaqueRegisterFinish, {
      ...{ handle: bytes(16), manifest, deviceProof: bytes(64) },
      registrationRecord: bytes(opaqueBytes.registrationRecord),
    });
    await refused(unasked, 'AUTH_FAILED');
    await refused(first.register({ ...manifest, signature: bytes(64) }), 'BAD_SIGNATURE');
    await first.register();
  });

  test('a login with bytes that are none, or for a device that did not sign it', async () => {
    const ke1 = new Uint8Array(opaqueBytes.ke1);
    const { userId } = alice;
    await refused(device.call(methods.opaqueLoginStart, { userId, ke1 }), 'AUTH_FAILED');
    const other = await alice.newDevice();
    const { publicKey } = signingKeyFromSeed(bytes(32));
    Object.assign(other, { identityKey: { ...other.identityKey, publicKey } });
    await refused(other.login(), 'BAD_SIGNATURE');
  });

  test('a change that its account key did not sign, or that does not follow', async () => {
    await alice.addDevice();
    const view = await LogView.of(device.connection);
    const { label, content } = alice;
    const [, second] = content.devices;
    const identityPub = second?.identityPub ?? bytes(32);
    const revoked = [...content.revoked, { identityPub, atMs: 1n, reason: 'lost' }];
    const devices = content.devices.filter((one) => one !== second);
    const changes: readonly [
      good: SignedManifest,
      change: (manifest: SignedManifest) => Promise<unknown>,
    ][] = [
      [
        alice.next({ devices, revoked }),
        (manifest) => device.call(methods.revokeDevice, { manifest }),
      ],
      [
        alice.next({ revoked: [{ ...revoked[0], identityPub: bytes(32) }] }),
        (manifest) => device.call(methods.revokeKey, { manifest }),
      ],
      [
        alice.next({}),
        (manifest) => {
          const request = view.update(label, Number(content.seq), manifest);
          return device.call(methods.ktUpdate, { request });
        },
      ],
      [alice.closed(), (manifest) => device.call(methods.deleteAccount, { manifest })],
    ];
    for (const [good, change] of changes) {
      await refused(change({ ...good, signature: bytes(64) }), 'BAD_SIGNATURE');
    }
    // Each is the next one, and only one of them can be.
    const [[, revoke] = []] = changes;
    const [[first] = []] = changes;
    await (first && revoke?.(first));
    for (const [good, change] of changes.slice(1)) await refused(change(good), 'SEQ_CONFLICT');
    const stale = device.call(methods.revokeDevice, { manifest: alice.next({ devices }) });
    await refused(stale, 'SEQ_CONFLICT');
  });
});
