/**
 * The logs of the simulation: each has keys of its name and a history that is the same in every run, so
 * that what it signs and proves costs once for each process and not once for each seed. A liar's log is
 * opened twice, with another history from some entry on.
 */
import {
  configuration,
  DeploymentMode,
  encode,
  formatVkey,
  KtLog,
  KtService,
  MemoryTreeStore,
  nativeSigner,
  nativeSuite,
  nativeVrfProver,
  noteKey,
  SignatureType,
  type Configuration,
  type Cosigners,
  type KtLogOptions,
  type LogKeys,
  type Signer,
  type TreeStore,
} from '@quicprochat/kt-log';
import { originOf } from '@quicprochat/nodes/gossip';
import { loadSwarmKey } from '@quicprochat/p2p';
import { create, NodeRecordSchema, type NodeRecord } from '@quicprochat/proto/messages';
import type { Clock } from '@quicprochat/proto';

const utf8 = new TextEncoder();
const { sha256 } = nativeSuite;
const hashOf = (text: string): Uint8Array => sha256(utf8.encode(text));

/** Time of the entries of every log: a day before the runs begin, a minute apart (ms). */
const entriesFromMs = 1_800_000_000_000 - 86_400_000;
const entryMs = 60_000;

/** Answers of a pure function, by its input. */
function remembered<T>(answer: (bytes: Uint8Array) => T): (bytes: Uint8Array) => T {
  const known = new Map<string, T>();
  return (bytes) => {
    const name = Buffer.from(bytes).toString('latin1');
    let value = known.get(name);
    if (value === undefined) {
      value = answer(bytes);
      if (known.size >= 50_000) known.clear();
      known.set(name, value);
    }
    return value;
  };
}

function signerOf(name: string): Signer {
  const signer = nativeSigner(hashOf(name));
  return { publicKey: signer.publicKey, sign: remembered((bytes) => signer.sign(bytes)) };
}

function vrfOf(name: string): LogKeys['vrf'] {
  const vrf = nativeVrfProver(hashOf(name));
  const known = new Map<string, unknown>();
  const once = <T>(
    what: string,
    asked: readonly [Uint8Array, readonly number[]],
    make: () => T,
  ): T => {
    const key = `${what} ${asked[1].join()} ${Buffer.from(asked[0]).toString('latin1')}`;
    if (!known.has(key)) known.set(key, make());
    return known.get(key) as T;
  };
  return {
    publicKey: vrf.publicKey,
    prove: (label, versions) => once('prove', [label, versions], () => vrf.prove(label, versions)),
    places: (...asked) => once('places', asked, () => vrf.places(...asked)),
  };
}

/** What a node is, in every run. */
export interface Identity {
  readonly domain: string;
  readonly origin: string;
  readonly keys: LogKeys;
  readonly config: Configuration;
  readonly identity: KtLogOptions['identity'];
  readonly secrets: { readonly witness: Signer; readonly auditor: Signer };
  readonly swarm: ReturnType<typeof loadSwarmKey>;
  readonly record: NodeRecord;
}

const identities = new Map<string, Identity>();

export function identityOf(domain: string): Identity {
  let made = identities.get(domain);
  if (made === undefined) identities.set(domain, (made = makeIdentity(domain)));
  return made;
}

function makeIdentity(domain: string): Identity {
  const [treeHead, note] = [signerOf(`${domain} sig`), signerOf(`${domain} note`)];
  const vrf = vrfOf(`${domain} vrf`);
  const secrets = {
    witness: signerOf(`${domain} witness`),
    auditor: signerOf(`${domain} auditor`),
  };
  const config: Configuration = {
    cipherSuite: 2,
    mode: DeploymentMode.contactMonitoring,
    signaturePublicKey: treeHead.publicKey,
    vrfPublicKey: vrf.publicKey,
    maxAheadMs: 300_000,
    maxBehindMs: 3_600_000,
    reasonableMonitoringWindowMs: 60_000,
    maximumLifetimeMs: undefined,
  };
  const origin = originOf(domain);
  const key = noteKey(sha256, origin, SignatureType.ed25519, note.publicKey);
  const swarm = loadSwarmKey(hashOf(`${domain} swarm`));
  const vkeyOf = (role: 'witness' | 'auditor'): string =>
    formatVkey(
      noteKey(sha256, `${domain}/${role}`, SignatureType.cosignatureV1, secrets[role].publicKey),
    );
  const record = create(NodeRecordSchema, {
    domain,
    seq: 1n,
    kt: [{ vkey: formatVkey(key), config: encode(configuration, config) }],
    cosigners: [vkeyOf('witness'), vkeyOf('auditor')],
    swarm: { swarmKey: swarm.publicKey, addresses: ['/ip4/192.0.2.1/tcp/5002'] },
  });
  const keys = { treeHead, note, vrf };
  return { domain, origin, keys, config, identity: { origin, key }, secrets, swarm, record };
}

/** A log that grows by its history, one entry at a time. */
export interface History {
  readonly log: KtLog;
  readonly service: KtService;
  readonly tree: TreeStore;
  /** Resolves when the next entry is in the log, or was refused. */
  append(): Promise<boolean>;
}

export interface HistoryOptions {
  readonly clock: Clock;
  /** Holds what a run before this one wrote. */
  readonly tree?: TreeStore;
  /** Entries from here on (from 0) are of the other history; none when it is missing. */
  readonly otherFrom?: number;
  readonly mayWrite?: () => Promise<void>;
  readonly cosigners?: () => Cosigners;
}

export async function openHistory(
  { domain, keys, config, identity }: Identity,
  {
    clock,
    tree = new MemoryTreeStore(),
    otherFrom = Infinity,
    mayWrite,
    cosigners,
  }: HistoryOptions,
): Promise<History> {
  const sizeNow = (): number => opened.log?.size ?? 0;
  const opened: { log?: KtLog } = {};
  const nameAt = (size: number): string =>
    size >= otherFrom ? `${domain} other ${size}` : `${domain} ${size}`;
  const log = await KtLog.open({
    keys,
    config,
    identity,
    store: tree,
    suite: nativeSuite,
    clock: { ...clockOf(clock), now: () => entriesFromMs + entryMs * sizeNow() },
    // The same for an entry in every run, after whatever restarts.
    random: { bytes: (length) => hashOf(`random ${nameAt(sizeNow())}`).slice(0, length) },
    sequencerLimits: { batchMs: 0 },
    ...(mayWrite === undefined ? {} : { mayWrite }),
    ...(cosigners === undefined ? {} : { cosigners }),
  });
  opened.log = log;
  return {
    log,
    service: new KtService(log),
    tree,
    async append() {
      const name = nameAt(log.size);
      try {
        await log.append({ label: utf8.encode(`@${name}`), greatest: -1, values: [hashOf(name)] });
        return true;
      } catch {
        return false; // It is read-only, or stops: the run looks at what came of it.
      }
    },
  };
}

const clockOf = (clock: Clock): Clock => ({
  now: () => clock.now(),
  monotonic: () => clock.monotonic(),
  timer: (ms, run) => clock.timer(ms, run),
  sleep: (ms, signal) => clock.sleep(ms, signal),
});
