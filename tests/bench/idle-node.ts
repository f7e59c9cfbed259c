/**
 * The node of the bench `idle-devices`, in a process of its own: the production node over QUIC, with
 * accounts that were put into its store instead of registered one by one.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  createNodeStore,
  createSecrets,
  openNodeStore,
  parseConfig,
  startNode,
} from '@quicprochat/nodes';
import { registerAccount } from '@quicprochat/nodes/store/log-batch';
import { parsePeersFile } from '@quicprochat/federation';
import {
  deviceIdOf,
  formatNodeAddress,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { transportOf } from '@quicprochat/proto/transport';
import { answerParent } from './peer-process.ts';

export interface IdleDevice {
  readonly rid: Uint8Array;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly spkiSha256: Uint8Array;
}
export interface IdleNodeJob {
  readonly path: string;
  readonly devices: readonly IdleDevice[];
}

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const sessionMs = 86_400_000;
/** Only what the crowd needs to come in at once is lifted. */
const text =
  'domain = "red.example"\nlisten = "127.0.0.1:0"\nadvertise = "127.0.0.1:5001"\ndatabase = "x"\ndatabase_key_file = "y"\n' +
  '[limits]\nconnections = 100000\nconnections_per_host = 100000\nhandshakes_per_host_per_second = 100000\n' +
  '[rates.cheap]\nper_second = 100000\nburst = 100000\n';

answerParent(async ({ path, devices }: IdleNodeJob) => {
  const config = parseConfig(text, 'bench');
  const key = systemRandom.bytes(32);
  await createNodeStore({ path, key, runtime });
  const store = await openNodeStore({ path, key, limits: config.store, runtime });
  const secrets = await createSecrets(store, runtime);
  const node = await startNode({
    config,
    secrets,
    store,
    peers: parsePeersFile('', 'peers'),
    transport: transportOf(runtime, config.engines),
    runtime,
    software: 'bench',
  });
  for (const { rid, spkiSha256 } of devices) {
    await registerAccount(store, {
      userId: `user-${Buffer.from(rid).toString('hex').slice(0, 16)}@red.example`,
      setupId: 1,
      opaqueRecord: systemRandom.bytes(192),
      manifest: { manifest: systemRandom.bytes(100), signature: systemRandom.bytes(64) },
      manifestSeq: 0,
      device: { deviceId: deviceIdOf(rid), identityPub: rid, transportSpki: spkiSha256 },
      sessionExpiresMs: systemClock.now() + sessionMs,
    });
  }
  // What making the accounts left behind is no memory of devices.
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  const { host, port } = node.listener.endpoint;
  return formatNodeAddress({ host, port, pin: secrets.identity.spkiSha256 });
});
