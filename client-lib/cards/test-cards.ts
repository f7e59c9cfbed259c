/** Test support: cards of test devices, over logs whose credentials are final at once. */
import { firstManifest, parseUserId, signingKeyFromSeed, type Clock } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { makeSwarmKey, signEndpointRecord } from '@quicprochat/p2p';
import { labelOf } from '../kt/logs.ts';
import { mandatorySuite, xwingSuite } from '../mls/index.ts';
import type { TestDevice } from '../test-devices.ts';
import type { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { Cards } from './cards.ts';

const dayMs = 24 * 3_600_000;

/** Every entry is distinguished, so a credential is final as soon as the next entry stands. */
export const cardTimes = { reasonableMonitoringWindowMs: 1 };
/** Another entry stands in a log. */
export async function pass(directory: TestDirectory, domain: string): Promise<void> {
  await testRuntime.clock.sleep(5);
  const { publicKey } = signingKeyFromSeed(testRuntime.random.bytes(32));
  const userId = `${Buffer.from(publicKey.subarray(0, 8)).toString('hex')}@${domain}`;
  const accountKey = signingKeyFromSeed(testRuntime.random.bytes(32));
  directory.logVersion(userId, firstManifest(userId, accountKey, publicKey, 0));
  await testRuntime.clock.sleep(5);
}

/** Has a credential and a last-resort package of each suite, as a device that was online has. */
export async function ready(device: TestDevice): Promise<void> {
  const { directory, userId, deviceId, signatureKey, mls, store } = device;
  const { domain } = parseUserId(userId);
  await pass(directory, domain);
  const log = await device.logs.of(domain, directory);
  (await directory.log(domain)).owner = userId;
  const transport = log.transport(directory);
  await log.client.owner.start(transport, labelOf(userId));
  await log.client.credentials.refresh(transport, labelOf(userId));
  for (const suite of [xwingSuite, mandatorySuite]) {
    const identity = { userId, deviceId };
    const made = await mls.makeKeyPackage({ suite, identity, signatureKey, lastResort: true });
    store.keys.addKeyPackages([{ ...made, suite, isLastResort: true, isPublished: true }]);
  }
}

/** The cards of a device, which is said to be somewhere; who else was heard to be is in `heard`. */
export function cardsOf(
  device: TestDevice,
  heard: Uint8Array[] = [],
  clock: Clock = testRuntime.clock,
): Cards {
  const { store, logs, contacts, mls, userId, identityKey } = device;
  const swarmKey = makeSwarmKey(testRuntime.random).publicKey;
  const nowMs = clock.now();
  const endpoint: SignedEndpointRecord = signEndpointRecord(
    {
      ...{ swarmKey, addresses: ['/ip4/192.0.2.1/udp/5002/quic-v1'], relays: [], mailboxes: [] },
      ...{ seq: nowMs, issuedMs: nowMs, expiresMs: nowMs + dayMs },
    },
    identityKey,
  );
  return new Cards({
    ...{ store, runtime: { ...testRuntime, clock }, logs, contacts, mls, userId, identityKey },
    endpoint: () => endpoint,
    onEndpoint: (_, from) => heard.push(from),
  });
}

/** Knows the heads of a domain's log by now. */
export async function follow(device: TestDevice, domain: string): Promise<void> {
  const log = await device.logs.of(domain, device.directory);
  await log.client.distinguished(log.transport(device.directory));
}
