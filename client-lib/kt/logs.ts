/**
 * The logs that this device believes, one per domain: finds a domain's log by its node's record,
 * checks the record in that very log, and keeps one client per log (docs/developer/verification.md).
 */
import { createHash } from 'node:crypto';
import {
  configuration,
  encode,
  LogClient,
  nativeSuite,
  VerificationError,
  type LogTransport,
  type ValueToCheck,
} from '@quicprochat/kt-log';
import {
  checkManifest,
  liveKeys,
  manifestOfValue,
  methods,
  type Runtime,
} from '@quicprochat/proto';
import { fromBinary, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import type { Caller } from '../dial.ts';
import type { ClientStore } from '../store/store.ts';
import {
  checkRecord,
  knownRecordOf,
  LogError,
  logKeysOf,
  rememberedPolicy,
  type KnownRecord,
  type LogKeys,
} from './log-record.ts';
import { logTransport } from './log-transport.ts';
import { untilShown } from './until-shown.ts';

const utf8 = new TextEncoder();
/** The decision about one piece of evidence, among the events of the store. */
const trusted = 'log trusted';

/** The label of a user: the id's bytes. */
export const labelOf = (userId: string): Uint8Array => utf8.encode(userId);

/** One domain's log. */
export interface DomainLog {
  readonly domain: string;
  readonly client: LogClient;
  transport(caller: Caller): LogTransport;
}

interface LogsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly own: {
    readonly domain: string;
    /** The pinned key of the own node: SHA-256 SPKI (32 bytes). */
    readonly pin: Uint8Array;
  };
  /** A domain's log is not believed, or is another one now. */
  readonly onRefused: (domain: string, error: LogError) => void;
}

export class Logs {
  readonly #parts: LogsParts;
  readonly #open = new Map<string, DomainLog>();
  /** Looking for a domain's log: one at a time. */
  readonly #searching = new Map<string, Promise<DomainLog>>();

  constructor(parts: LogsParts) {
    this.#parts = parts;
  }

  /**
   * The log of a domain, found and checked if this is the first time. Throws LogError,
   * VerificationError (the log lies), and what the node or the connection answers.
   */
  async of(domain: string, caller: Caller): Promise<DomainLog> {
    const open = this.#open.get(domain);
    if (open !== undefined) return open;
    const running = this.#searching.get(domain);
    if (running !== undefined) return running;
    const searching = this.#find(domain, caller).finally(() => this.#searching.delete(domain));
    this.#searching.set(domain, searching);
    return searching;
  }

  /** The log of a domain as far as it was checked before; asks nobody. */
  known(domain: string): DomainLog | undefined {
    const open = this.#open.get(domain);
    if (open !== undefined) return open;
    const pinned = this.#parts.store.logs.pinned(domain);
    if (pinned?.isInLog !== true) return undefined;
    const log = this.#logOf(domain, knownRecordOf(pinned.record));
    this.#open.set(domain, log);
    return log;
  }

  /**
   * Keys (SHA-256 SPKI) by which the own node may show itself: the address's, until the node's record
   * in its log names others that older ones have signed for.
   */
  nodePins(): readonly Uint8Array[] {
    const { store, runtime, own } = this.#parts;
    const pinned = store.logs.pinned(own.domain);
    if (pinned?.isInLog !== true) return [own.pin];
    const live = liveKeys(knownRecordOf(pinned.record).record, runtime.clock.now());
    return live.length === 0 ? [own.pin] : live.map(({ spkiSha256 }) => spkiSha256);
  }

  /**
   * Whether there is evidence against the log of a domain about which nobody has decided yet: what it
   * says is not believed then.
   */
  isConvicted(domain: string): boolean {
    return this.#undecided(domain).length > 0;
  }

  /**
   * A person's word that the log may be believed again, whatever is known against it now: its operator
   * has explained it. The evidence stays; more of it convicts the log again. No effect on others.
   */
  trust(domain: string): void {
    const { store, runtime } = this.#parts;
    const atMs = runtime.clock.now();
    store.transaction(() => {
      for (const reason of this.#undecided(domain)) {
        store.logs.addEvent({ atMs, type: trusted, subject: domain, reason });
      }
    });
  }

  /** SHA-256 of the evidence against a log that nobody has decided about. */
  #undecided(domain: string): readonly string[] {
    return (this.known(domain)?.client.evidence() ?? [])
      .map((bytes) => createHash('sha256').update(bytes).digest('hex'))
      .filter((hash) => !this.#parts.store.logs.hasEvent(trusted, domain, hash));
  }

  /** Every domain whose log was checked. */
  domains(): readonly string[] {
    return this.#parts.store.logs
      .allPinned()
      .filter(({ isInLog }) => isInLog)
      .map(({ domain }) => domain);
  }

  /** When the record of a domain was asked for last, as Unix time (ms); 0: never. */
  askedMs(domain: string): number {
    return this.#parts.store.logs.pinned(domain)?.askedMs ?? 0;
  }

  /**
   * Asks for the record again, and takes a newer one if an older one's key signed it. Throws like
   * `of`.
   */
  async renew(domain: string, caller: Caller): Promise<DomainLog> {
    await this.#searching.get(domain)?.catch(() => undefined);
    const renewing = this.#find(domain, caller).finally(() => this.#searching.delete(domain));
    this.#searching.set(domain, renewing);
    return renewing;
  }

  async #find(domain: string, caller: Caller): Promise<DomainLog> {
    try {
      return await this.#findChecked(domain, caller);
    } catch (error) {
      if (error instanceof LogError) this.#parts.onRefused(domain, error);
      throw error;
    }
  }

  async #findChecked(domain: string, caller: Caller): Promise<DomainLog> {
    const { store, runtime, own } = this.#parts;
    const isOwn = domain === own.domain;
    const pinned = store.logs.pinned(domain);
    const older = pinned === undefined ? undefined : knownRecordOf(pinned.record);
    const { record: signed } = await caller.call(methods.getNodeRecord, {
      domain: isOwn ? '' : domain,
    });
    if (signed === undefined) throw new LogError('NO_LOG', domain, 'the node has no record of it');
    const pin = isOwn ? own.pin : undefined;
    const served = checkRecord(domain, signed, { pin, older }, runtime.clock.now());
    if (older !== undefined) this.#checkSameLog(domain, older, served);
    const log = this.#logFor(domain, served);
    const shown = await this.#shownIn(log, caller, served);
    store.transaction(() => {
      store.logs.putPinned({
        domain,
        record: shown.bytes,
        pinnedMs: pinned?.pinnedMs ?? runtime.clock.now(),
        askedMs: runtime.clock.now(),
        isInLog: true,
      });
    });
    const found = shown === served ? log : this.#logFor(domain, shown);
    this.#open.set(domain, found);
    return found;
  }

  /**
   * The record under `@domain`: the served one, or a newer one with the served one's signature. A log
   * that still shows an older one is waited for. Throws LogError RECORD_NOT_IN_LOG.
   */
  async #shownIn(log: DomainLog, caller: Caller, served: KnownRecord): Promise<KnownRecord> {
    const { domain, client } = log;
    const label = utf8.encode(`@${domain}`);
    let value: Uint8Array = new Uint8Array();
    // A node that just started serves its new record while its log may answer from the head before.
    await untilShown(this.#parts.runtime.clock, async () => {
      ({ value } = await client.search(log.transport(caller), label));
      return isOlder(value, served) ? undefined : true;
    });
    if (Buffer.compare(value, served.bytes) === 0) return served;
    let signed;
    try {
      signed = fromBinary(SignedNodeRecordSchema, value);
    } catch (cause) {
      throw new LogError('RECORD_NOT_IN_LOG', domain, 'it shows no record', { cause });
    }
    try {
      const nowMs = this.#parts.runtime.clock.now();
      const shown = checkRecord(domain, signed, { older: served }, nowMs);
      this.#checkSameLog(domain, served, shown);
      return shown;
    } catch (cause) {
      if (!(cause instanceof LogError)) throw cause;
      const message = 'it shows another record than its node';
      throw new LogError('RECORD_NOT_IN_LOG', domain, message, { cause });
    }
  }

  /** Its own keys may change with an heir's signature; the log itself is known by origin and VRF key. */
  #checkSameLog(domain: string, older: KnownRecord, newer: KnownRecord): void {
    const [before, after] = [logKeysOf(domain, older), logKeysOf(domain, newer)];
    const isSame =
      before.identity.origin === after.identity.origin &&
      Buffer.compare(before.config.vrfPublicKey, after.config.vrfPublicKey) === 0;
    if (!isSame) throw new LogError('LOG_REPLACED', domain, 'the record names another log');
  }

  /** The open client where the record's keys are its own: two would work on one state. */
  #logFor(domain: string, record: KnownRecord): DomainLog {
    const open = this.known(domain);
    const { identity, config } = logKeysOf(domain, record);
    const isSame =
      open !== undefined &&
      open.client.options.identity.key.keyId === identity.key.keyId &&
      Buffer.compare(
        encode(configuration, open.client.options.config),
        encode(configuration, config),
      ) === 0;
    return isSame ? open : this.#logOf(domain, record);
  }

  #logOf(domain: string, record: KnownRecord): DomainLog {
    const { store, runtime, own } = this.#parts;
    const isOwn = domain === own.domain;
    const keys = logKeysOf(domain, record);
    // By the log and not by the domain: a log that was refused leaves nothing to the next one.
    const name = stateName(domain, keys);
    const policyOf = rememberedPolicy(domain, isOwn);
    const client = new LogClient({
      ...keys,
      suite: nativeSuite,
      clock: runtime.clock,
      random: runtime.random,
      store: {
        get: (key) => store.logs.state(name, key),
        save: (changes) =>
          store.transaction(() => {
            for (const [key, bytes] of changes) store.logs.putState(name, key, bytes);
          }),
      },
      // Read at each answer: nodes that are met later vouch for this log too.
      get policy() {
        const others = store.logs.allPinned().filter(({ isInLog }) => isInLog);
        return policyOf(others.map(({ record }) => record));
      },
      checkValue: (value) => checkManifestValue(domain, value),
    });
    return { domain, client, transport: (caller) => logTransport(caller, isOwn ? '' : domain) };
  }
}

/** Whether a value is a record with a smaller number; nothing of it is believed for that. */
function isOlder(value: Uint8Array, { record: { seq } }: KnownRecord): boolean {
  try {
    return knownRecordOf(value).record.seq < seq;
  } catch {
    return false; // no record at all, which the caller finds out
  }
}

/** What a log keeps its state under: its VRF key, which never changes, tells it from every other. */
function stateName(domain: string, { config }: LogKeys): string {
  const digest = createHash('sha256').update(config.vrfPublicKey).digest('hex');
  return `${domain} ${digest.slice(0, 32)}`;
}

/**
 * What can be said of one version by itself: it is a manifest of the label's user, signed, and its
 * number is the version. How versions follow one another is judged where the contact is known.
 */
function checkManifestValue(domain: string, { label, version, value }: ValueToCheck): void {
  const name = Buffer.from(label).toString();
  if (name.startsWith('@')) return;
  try {
    const { seq } = checkManifest(manifestOfValue(value), name);
    if (seq === BigInt(version) && name.endsWith(`@${domain}`)) return;
  } catch (error) {
    const expected = 'a manifest that its account key signed';
    throw new VerificationError('CHAIN', `value of version ${version}`, expected, error);
  }
  throw new VerificationError('CHAIN', `manifest of version ${version}`, 'that version’s number');
}
