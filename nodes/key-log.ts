/**
 * The node's own key-transparency log: opened over the store, with the node's record as its first
 * entry, and kept young by heartbeats (docs/protocol/key-transparency.md). Accounts write to it
 * through accounts.ts, answers are made in key-log-answers.ts.
 */
import {
  cipherSuiteEd25519,
  configuration,
  decode,
  defaultSequencerLimits,
  DeploymentMode,
  encode,
  formatVkey,
  KtLog,
  nativeSuite,
  nativeVrfProver,
  noteKey,
  SignatureType,
  type Configuration,
  type Cosigners,
  type LogIdentity,
  type Signer,
  type VrfProver,
  vrfPool,
} from '@quicprochat/kt-log';
import {
  hasReason,
  manifestValue,
  type NodeRecordFacts,
  type NodeRecordLog,
  type Runtime,
  signNodeRecord,
  type Timer,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  NodeRecordSchema,
  SignedManifestSchema,
  SignedNodeRecordSchema,
  toBinary,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import type { KtConfig } from './config.ts';
import type { KeyLogSecrets } from './secrets.ts';
import { SetupError } from './setup-error.ts';
import type { NodeStore } from './store/store.ts';

/** Bounds manifests with their signatures (8.5 KiB), records and heartbeats. */
const valueBytesMax = 20 * 1024;
/** A failed heartbeat is tried again after so long (ms). */
const retryMs = 1_000;
/** How often it is said that the clock stands behind the log (ms). */
const behindLookMs = 60_000;

export interface KeyLogOptions {
  readonly domain: string;
  readonly config: KtConfig;
  readonly secrets: KeyLogSecrets;
  readonly store: Pick<NodeStore, 'keyLog' | 'closedLabels' | 'accountsOutsideLog'>;
  readonly runtime: Runtime;
  /** What the node's record says besides the log. */
  readonly facts: Omit<NodeRecordFacts, 'seq' | 'logs' | 'cosigners'>;
  /** Value of the next heartbeat. */
  readonly heartbeat: () => Promise<Uint8Array>;
  /** Whose cosignatures the log takes. */
  readonly cosigners?: () => Cosigners;
  /**
   * Resolves when the peers have told what they know of this log, throws FailedPreconditionError
   * FEATURE_OFF when that is more than the log itself. A log with entries is not written before.
   */
  readonly mayWrite?: () => Promise<void>;
}

const utf8 = new TextEncoder();

/** A user's label in the log of the user's domain. */
export function userLabel(userId: string): Uint8Array {
  return utf8.encode(userId);
}
/** No user id starts with an `@`. */
export function recordLabel(domain: string): Uint8Array {
  return utf8.encode(`@${domain}`);
}
export function headsLabel(domain: string): Uint8Array {
  return utf8.encode(`@${domain}/heads`);
}

/** Name of a domain's log in checkpoints. */
export function originOf(domain: string): string {
  return `${domain}/kt`;
}

/** C2SP verifier keys of a node's cosignatures: witness, auditor. */
export function cosignerVkeys(domain: string, secrets: KeyLogSecrets): readonly string[] {
  const vkey = (role: string, { publicKey }: Signer): string =>
    formatVkey(
      noteKey(nativeSuite.sha256, `${domain}/${role}`, SignatureType.cosignatureV1, publicKey),
    );
  return [vkey('witness', secrets.witness), vkey('auditor', secrets.auditor)];
}

export interface OpenedLog {
  readonly log: KtLog;
  /** Ends with the log, if it has threads. */
  readonly vrf: VrfProver & Partial<AsyncDisposable>;
  readonly config: Configuration;
  readonly identity: LogIdentity;
}

export class KeyLog implements AsyncDisposable {
  readonly log: KtLog;
  readonly config: Configuration;
  readonly identity: LogIdentity;
  readonly #options: KeyLogOptions;
  #record: SignedNodeRecord;
  readonly #opened: OpenedLog;
  #timer: Timer | undefined;
  #stopHeads: (() => void) | undefined;
  #running: Promise<void> = Promise.resolve();
  #isClosed = false;

  private constructor(options: KeyLogOptions, opened: OpenedLog, record: SignedNodeRecord) {
    this.log = opened.log;
    this.config = opened.config;
    this.identity = opened.identity;
    this.#record = record;
    this.#options = options;
    this.#opened = opened;
  }

  /**
   * Opens the log; where nothing holds writes back, or the log is empty, brings it up to date too.
   * Throws SetupError when the log was made with another Configuration, and what the store throws.
   */
  static async open(options: KeyLogOptions): Promise<KeyLog> {
    const opened = await openLog(options);
    try {
      const held = await recordHeld(options, opened);
      const record = held?.signed ?? (await writeRecord(options, opened, undefined));
      const keyLog = new KeyLog(options, opened, record);
      if (options.mayWrite === undefined || held === undefined) await keyLog.bringUpToDate();
      return keyLog;
    } catch (error) {
      await closeLog(opened);
      throw error;
    }
  }

  /** The node's record as the log holds it. */
  get record(): SignedNodeRecord {
    return this.#record;
  }

  /**
   * Brings the node's record in the log up to date and its newest entry up to the clock, and keeps it
   * so; waits for `mayWrite` and throws what that throws.
   */
  async bringUpToDate(): Promise<void> {
    const options = this.#options;
    if (this.log.size > 0) await options.mayWrite?.();
    const held = await recordHeld(options, this.#opened);
    this.#record = await writeRecord(options, this.#opened, held);
    await logOldAccounts(options, this.#opened);
    await this.#beat();
    this.#stopHeads ??= this.log.onHead(() => this.#arm(this.#quietMs));
  }

  /** A log without entries for so long gets a heartbeat, so that five may be missed (ms). */
  get #quietMs(): number {
    return Math.floor(this.config.maxBehindMs / 6);
  }

  #arm(ms: number): void {
    this.#timer?.cancel();
    if (this.#isClosed) return;
    this.#timer = this.#options.runtime.clock.timer(ms, () => {
      this.#running = this.#beatOrRetry();
    });
  }

  /** Never rejects. */
  async #beatOrRetry(): Promise<void> {
    try {
      await this.#beat();
    } catch (error) {
      this.#options.runtime.log.error('heartbeat of the key log failed', { error: String(error) });
      // Only a person ends that, and the next start asks anew.
      if (hasReason(error, 'FEATURE_OFF')) return;
      this.#arm(Math.min(retryMs, this.#quietMs));
    }
  }

  /** Writes a heartbeat unless the newest entry is young, and sets the time of the next look. */
  async #beat(): Promise<void> {
    const { store, runtime, domain, heartbeat } = this.#options;
    const { size } = this.log;
    const [newest] = await store.keyLog.entries(size - 1, size);
    const behindMs = (newest?.timestampMs ?? 0) - runtime.clock.now();
    if (behindMs > defaultSequencerLimits.clockBackMs) {
      // Of now or of then, one clock was wrong. Entries cannot be taken back: it waits until now is later.
      runtime.log.error('clock stands behind the own key log', { behindMs });
      this.#arm(Math.min(behindLookMs, this.#quietMs));
      return;
    }
    const leftMs = behindMs + this.#quietMs;
    if (leftMs <= 0) await writeOwn(this.log, store, headsLabel(domain), await heartbeat());
    this.#arm(leftMs > 0 ? leftMs : this.#quietMs);
  }

  /**
   * Erases the values of closed accounts after which an entry is distinguished: everybody who
   * monitors them can see by then that they were closed. The others wait for the next call.
   */
  async eraseClosed(): Promise<void> {
    for (const { label } of await this.#options.store.closedLabels()) {
      try {
        await this.log.eraseClosed(label);
      } catch (error) {
        // They come in the order of their entries: if none is distinguished after this one, so for
        // the rest.
        if (hasReason(error, 'BAD_CURSOR')) return;
        throw error;
      }
    }
  }

  /** Commits what waits, then refuses new versions. The store has to be open until then. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#stopHeads?.();
    this.#timer?.cancel();
    await this.#running;
    await closeLog(this.#opened);
  }
}

export async function closeLog({ log, vrf }: OpenedLog): Promise<void> {
  await log[Symbol.asyncDispose]();
  await vrf[Symbol.asyncDispose]?.();
}

/** The log as the store holds it; writes nothing. Throws what KtLog.open throws. */
export async function openLog(
  options: Pick<
    KeyLogOptions,
    'domain' | 'config' | 'secrets' | 'store' | 'runtime' | 'cosigners' | 'mayWrite'
  >,
): Promise<OpenedLog> {
  const { domain, config, secrets, store, runtime, cosigners, mayWrite } = options;
  const { treeHead, note } = secrets;
  const { vrfSeed } = secrets;
  const vrf =
    config.vrfThreads === 0 ? nativeVrfProver(vrfSeed) : vrfPool(vrfSeed, config.vrfThreads);
  const made: Configuration = {
    cipherSuite: cipherSuiteEd25519,
    mode: DeploymentMode.contactMonitoring,
    signaturePublicKey: treeHead.publicKey,
    vrfPublicKey: vrf.publicKey,
    maxAheadMs: config.maxAheadMs,
    maxBehindMs: config.maxBehindMs,
    reasonableMonitoringWindowMs: config.reasonableMonitoringWindowMs,
    maximumLifetimeMs: undefined,
  };
  const origin = originOf(domain);
  const key = noteKey(nativeSuite.sha256, origin, SignatureType.ed25519, note.publicKey);
  const identity = { origin, key };
  const log = await KtLog.open({
    config: made,
    identity,
    keys: { treeHead, note, vrf },
    store: store.keyLog,
    suite: nativeSuite,
    clock: runtime.clock,
    random: runtime.random,
    sequencerLimits: {
      batchMs: config.batchMs,
      // In the background are only the accounts of an older database, for which the start waits.
      backgroundMs: config.batchMs,
      valueBytes: valueBytesMax,
      newLeavesPerSecond: config.leaves.perSecond,
      newLeavesBurst: Math.max(255, config.leaves.burst),
    },
    ...(cosigners === undefined ? {} : { cosigners }),
    ...(mayWrite === undefined ? {} : { mayWrite }),
    onFault: (error) => runtime.log.error('key log entry not written', { error: String(error) }),
  });
  return { log, vrf, config: made, identity };
}

/** The newest value of a label; undefined for an unknown one. */
async function newestValue(
  store: KeyLogOptions['store'],
  label: Uint8Array,
): Promise<{ readonly version: number; readonly value: Uint8Array } | undefined> {
  const version = (await store.keyLog.positions(label)).length - 1;
  if (version < 0) return undefined;
  const [stored] = await store.keyLog.versions(label, [version]);
  return stored === undefined ? undefined : { version, value: stored.value };
}

/** Writes the next version of a label of the log's own. */
async function writeOwn(
  log: KtLog,
  store: KeyLogOptions['store'],
  label: Uint8Array,
  value: Uint8Array,
): Promise<void> {
  const greatest = (await store.keyLog.positions(label)).length - 1;
  await log.append({ label, greatest, values: [value] });
}

interface HeldRecord {
  readonly signed: SignedNodeRecord;
  readonly value: Uint8Array;
  readonly version: number;
}

/** The record that the log holds; undefined for an empty log. Throws SetupError. */
async function recordHeld(
  { domain, store }: KeyLogOptions,
  opened: OpenedLog,
): Promise<HeldRecord | undefined> {
  const known = await newestValue(store, recordLabel(domain));
  if (known === undefined) {
    if (opened.log.size === 0) return undefined;
    throw new SetupError(`database: its key log holds no record of ${domain}`);
  }
  const signed = fromBinary(SignedNodeRecordSchema, known.value);
  needSameLog(signed, opened);
  return { ...known, signed };
}

/**
 * The record that is held, where it still says what is; else the next version of it, written now. The
 * record's seq is its version + 1.
 */
async function writeRecord(
  options: KeyLogOptions,
  opened: OpenedLog,
  known: HeldRecord | undefined,
): Promise<SignedNodeRecord> {
  const { domain, store, facts, secrets } = options;
  const label = recordLabel(domain);
  const logs: NodeRecordLog[] = [
    {
      config: encode(configuration, opened.config),
      vkey: formatVkey(opened.identity.key),
      fromSize: 1,
    },
  ];
  const cosigners = cosignerVkeys(domain, secrets);
  const recordOf = (version: number): SignedNodeRecord =>
    signNodeRecord({ ...facts, logs, cosigners, seq: version + 1 });
  if (known !== undefined) {
    const same = toBinary(SignedNodeRecordSchema, recordOf(known.version));
    if (Buffer.compare(same, known.value) === 0) return known.signed;
  }
  const record = recordOf((known?.version ?? -1) + 1);
  await writeOwn(opened.log, store, label, toBinary(SignedNodeRecordSchema, record));
  return record;
}

/** Accounts of a database that is older than its log get their version 0. */
async function logOldAccounts({ store }: KeyLogOptions, { log }: OpenedLog): Promise<void> {
  for (;;) {
    const accounts = await store.accountsOutsideLog();
    if (accounts.length === 0) return;
    await Promise.all(
      accounts.map(({ userId, manifest }) => {
        const values = [manifestValue(create(SignedManifestSchema, manifest))];
        const label = userLabel(userId);
        return log.append({ label, greatest: -1, values }, { isBackground: true });
      }),
    );
  }
}

/** Throws SetupError, with the key to set back, unless the record's log is the one that was opened. */
function needSameLog(signed: SignedNodeRecord, opened: OpenedLog): void {
  const made = fromBinary(NodeRecordSchema, signed.record).kt.at(-1);
  if (made === undefined) throw new SetupError('database: the record in its key log names no log');
  const then = decode(configuration, made.config);
  const now = opened.config;
  for (const [field, key] of fixedKeys) {
    if (then[field] === now[field]) continue;
    throw new SetupError(
      `[kt] ${key}: is ${now[field]}, but this log was made with ${then[field]} and clients pin that; set it back`,
    );
  }
  const isSame =
    Buffer.compare(encode(configuration, now), made.config) === 0 &&
    made.vkey === formatVkey(opened.identity.key);
  if (!isSame) {
    throw new SetupError('database: holds a key log of other keys or of another domain');
  }
}

const fixedKeys = [
  ['maxAheadMs', 'max_ahead_ms'],
  ['maxBehindMs', 'max_behind_ms'],
  ['reasonableMonitoringWindowMs', 'reasonable_monitoring_window_ms'],
] as const satisfies readonly (readonly [keyof Configuration, string])[];
