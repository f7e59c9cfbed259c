/**
 * A node whose operator swaps a key: `qpcd run` in all else, but whoever asks for the KeyPackages of
 * the victim is shown an account and a device of the operator's own making, well signed.
 * Usage: lying-main.ts run --config FILE, with the victim's user id in QPC_VICTIM.
 */
import { readFileSync } from 'node:fs';
import { parsePeersFile } from '@quicprochat/federation';
import { loadConfig, loadSecrets, openNodeStore, readKeyFile, startNode } from '@quicprochat/nodes';
import {
  firstManifest,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { transportOf } from '@quicprochat/proto/transport';
import { lying } from './lying.ts';

const config = loadConfig(process.argv[4] ?? '');
const victim = process.env['QPC_VICTIM'] ?? '';
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const { databasePath: path, databaseKeyPath, store: limits, peersPath = '' } = config;
const store = await openNodeStore({ path, key: readKeyFile(databaseKeyPath), limits, runtime });
const made = firstManifest(
  victim,
  signingKeyFromSeed(systemRandom.bytes(32)),
  signingKeyFromSeed(systemRandom.bytes(32)).publicKey,
  systemClock.now(),
);
const node = await startNode({
  config,
  secrets: await loadSecrets(store, runtime.random),
  store: lying(store, {
    async claimKeyPackages(claim) {
      const claimed = await store.claimKeyPackages(claim);
      return claimed && claim.userId === victim ? { ...claimed, manifest: made } : claimed;
    },
  }),
  peers: parsePeersFile(readFileSync(peersPath, 'utf8'), peersPath),
  transport: transportOf(runtime, config.engines),
  runtime,
  software: 'qpcd, with a lie',
});
console.log('{"msg":"ready"}');
process.once('SIGTERM', () => {
  void node
    .stop()
    .then(() => store[Symbol.asyncDispose]())
    .then(() => process.exit(0));
});
