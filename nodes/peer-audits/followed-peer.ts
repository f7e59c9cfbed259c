/**
 * The audit of one peer's log over the link to it: pulled when the link comes up, when the peer
 * pushes a head, and every ten minutes; cosigned only after what was replayed is on disk
 * (kt-log/follow.ts). What the log is, says the peer's proven record.
 */
import {
  configuration,
  decode,
  Follower,
  isConvicted,
  nativeSuite,
  openCheckpoint,
  parseCheckpoint,
  parseNote,
  parseVkey,
  VerificationError,
  type AuditedIdentity,
  type AuditStore,
  type CheckedEvidence,
  type Cosigner,
  type EvidenceRecord,
  type Pulled,
  manifestRule,
} from '@quicprochat/kt-log';
import { jitter, ResourceExhaustedError, type Runtime, type Timer } from '@quicprochat/proto';
import type { NodeRecord } from '@quicprochat/proto/messages';
import { Wakeup, type LinkSession } from '@quicprochat/federation';
import { linkSource } from './link-source.ts';

export const followLimits = {
  /** Between two looks at a quiet log (ms), and how much of it is random. */
  pollMs: 10 * 60_000,
  pollJitterMs: 60_000,
  /** After a pull that did not come to its end (ms). */
  retryMs: 30_000,
  /** How long a pushed head waits for its audit (ms); longer ones are answered at the next push. */
  pushWaitMs: 20_000,
  /** Pushes of one peer that wait at a time. */
  pushesWaiting: 4,
} as const;

export interface FollowedPeerOptions {
  readonly domain: string;
  /** The name that the peer's log has to have. */
  readonly origin: string;
  readonly store: AuditStore;
  readonly cosigners: readonly Cosigner[];
  readonly runtime: Runtime;
  readonly onEvidence: (record: EvidenceRecord, checked: CheckedEvidence) => void;
  /** A pull is due: the link may be worth dialing. */
  readonly notify: () => void;
}

interface Pinned {
  readonly log: AuditedIdentity;
  readonly follower: Follower;
}

export class FollowedPeer implements Disposable {
  readonly #options: FollowedPeerOptions;
  readonly #wakeup: Wakeup;
  #pinned: Pinned | undefined;
  readonly #whenPinned = Promise.withResolvers<Pinned>();
  #last: Pulled | undefined;
  #isDue = true;
  #timer: Timer | undefined;
  #isClosed = false;
  #pushes = 0;
  #pullEnded = Promise.withResolvers<void>();

  constructor(options: FollowedPeerOptions) {
    this.#options = options;
    this.#wakeup = new Wakeup(options.runtime.clock);
  }

  /** How far the audit is, for people. */
  get last(): Pulled | undefined {
    return this.#last;
  }
  /** Undefined until a record of the peer names its log. */
  get follower(): Follower | undefined {
    return this.#pinned?.follower;
  }

  /** The log as it is pinned. */
  get log(): AuditedIdentity | undefined {
    return this.#pinned?.log;
  }

  get hasWork(): boolean {
    return this.#isDue;
  }

  /**
   * Pins the log that the record names. Another key or configuration under the same name is no
   * succession that this version knows: the first one stays, and the peer becomes suspect.
   */
  async setRecord(record: NodeRecord): Promise<void> {
    const log = this.#logOf(record);
    if (log === undefined) return;
    const { store, origin, runtime, cosigners, onEvidence, domain } = this.#options;
    const continues = await this.#continues(log);
    // Only from here on: another record may have been taken meanwhile.
    const known = this.#pinned?.log;
    if (known === undefined ? !continues : !isSameLog(known, log)) {
      runtime.log.error('key log of a peer has new keys', { peer: domain, origin });
      if (!isConvicted(await store.status(origin))) await store.setStatus(origin, 'suspect');
      return;
    }
    if (known !== undefined) return;
    const follower = new Follower({
      suite: nativeSuite,
      log,
      store,
      clock: runtime.clock,
      cosigners,
      onEvidence,
      valueRule: manifestRule,
    });
    this.#pinned = { log, follower };
    this.#whenPinned.resolve(this.#pinned);
    this.#want();
  }

  #logOf({ kt }: NodeRecord): AuditedIdentity | undefined {
    const named = kt.at(-1);
    if (named === undefined) return undefined;
    const { origin, domain, runtime } = this.#options;
    try {
      const key = parseVkey(nativeSuite.sha256, named.vkey);
      const config = decode(configuration, named.config);
      if (key.name === origin) return { config, identity: { origin, key } };
      throw new VerificationError('CHAIN', 'name of the log', origin);
    } catch (error) {
      if (!(error instanceof VerificationError)) throw error;
      runtime.log.error('peer names no log', { peer: domain, error: error.message });
      return undefined;
    }
  }

  /** Whether what was replayed before, if anything, was signed by this log's key. */
  async #continues({ identity }: AuditedIdentity): Promise<boolean> {
    const { store, origin } = this.#options;
    const followed = await store.followed(origin);
    if (followed === undefined) return true;
    try {
      openCheckpoint(nativeSuite, followed.checkpoint, identity);
      return true;
    } catch (error) {
      if (error instanceof VerificationError) return false;
      throw error;
    }
  }

  /** There is more of the log than was replayed, somebody said. */
  look(): void {
    this.#want();
  }

  #want(): void {
    this.#isDue = true;
    this.#wakeup.raise();
    this.#options.notify();
  }

  /** The next look, over whatever link there is by then. */
  #wantIn(ms: number): void {
    this.#timer?.cancel();
    if (!this.#isClosed) this.#timer = this.#options.runtime.clock.timer(ms, () => this.#want());
  }

  /** Audits until the session ends. */
  async serve(session: LinkSession): Promise<void> {
    const { signal } = session;
    const stop = (): void => this.#wakeup.raise();
    signal.addEventListener('abort', stop, { once: true });
    this.#isDue = true;
    while (!signal.aborted) {
      if (this.#isDue) await this.#pull(session);
      else await this.#wakeup.wait();
    }
    signal.removeEventListener('abort', stop);
  }

  /** One pull. Never throws. */
  async #pull(session: LinkSession): Promise<void> {
    const { runtime, domain, origin } = this.#options;
    const { pollMs, pollJitterMs, retryMs } = followLimits;
    const follower = this.#pinned?.follower;
    this.#isDue = false;
    this.#wantIn(pollMs + jitter(runtime.random, pollJitterMs));
    if (follower === undefined) return;
    try {
      const source = linkSource(session, origin, runtime.clock);
      const pulled = await follower.pull(source, { signal: session.signal });
      this.#told(pulled);
      if (pulled.status === 'behind') this.#wantIn(retryMs);
    } catch (error) {
      // The store's errors, or the end of the session: it goes on where it was.
      if (session.signal.aborted) this.#isDue = true;
      else {
        runtime.log.error('audit failed', { peer: domain, error: String(error) });
        this.#wantIn(retryMs);
      }
    }
    const ended = this.#pullEnded;
    this.#pullEnded = Promise.withResolvers<void>();
    ended.resolve();
  }

  /** Logs what is new about the log. */
  #told(pulled: Pulled): void {
    const { runtime, domain } = this.#options;
    const { status, size, failure } = pulled;
    const isNews = status !== this.#last?.status;
    this.#last = pulled;
    if (!isNews) return;
    const fields = { peer: domain, status, size, error: failure?.message };
    if (status === 'ok') runtime.log.info('audit', fields);
    else if (status === 'behind') runtime.log.warn('audit', fields);
    else runtime.log.error('audit', fields);
  }

  /**
   * Takes a checkpoint that the peer pushed. Returns a cosigned note, of that size or a later one,
   * once everything up to there is replayed and stored; undefined when that takes longer than 20 s
   * or cannot be. Throws VerificationError for a note that the log did not sign,
   * ResourceExhaustedError RATE_LIMITED when pushes pile up.
   */
  async pushed(note: Uint8Array): Promise<Uint8Array | undefined> {
    if (this.#pushes >= followLimits.pushesWaiting) {
      const options = { retryAfterMs: followLimits.pushWaitMs };
      throw new ResourceExhaustedError('RATE_LIMITED', 'earlier heads are being audited', options);
    }
    this.#pushes += 1;
    // Counted until it is over and not only until it is answered: without a link to the peer, or a
    // log in its record, each would wait here for good.
    const audit = this.#audit(note).finally(() => (this.#pushes -= 1));
    return this.#inTime(audit);
  }

  async #audit(note: Uint8Array): Promise<Uint8Array | undefined> {
    const { store, origin } = this.#options;
    // The peer may push before its record came over our link to it.
    const { log, follower } = this.#pinned ?? (await this.#whenPinned.promise);
    const { size } = openCheckpoint(nativeSuite, note, log.identity).checkpoint;
    await follower.observe({ type: 'note', note });
    // A pull that is under way may have begun before that head; the one after it has not.
    for (let pulls = 0; pulls <= 2; pulls++) {
      // Whoever was convicted meanwhile gets nothing more.
      if (isConvicted(await store.status(origin))) return undefined;
      const cosigned = this.#last?.cosigned;
      if (cosigned !== undefined && sizeOf(cosigned) >= size) {
        // The newest head is smaller than one before: worth a look at once.
        if (sizeOf(cosigned) > size) this.#want();
        return cosigned;
      }
      const { promise } = this.#pullEnded;
      this.#want();
      await promise;
    }
    return undefined;
  }

  async #inTime<T>(work: Promise<T>): Promise<T | undefined> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const { pushWaitMs } = followLimits;
    const timer = this.#options.runtime.clock.timer(pushWaitMs, () => resolve(undefined));
    try {
      return await Promise.race([work, promise]);
    } finally {
      timer.cancel();
      // Either it was thrown just now, or nobody waits for it any more.
      work.catch(() => undefined);
    }
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }
}

const sizeOf = (note: Uint8Array): number => parseCheckpoint(parseNote(note).text).size;

function isSameLog(a: AuditedIdentity, b: AuditedIdentity): boolean {
  const { signaturePublicKey, vrfPublicKey } = a.config;
  return (
    Buffer.compare(a.identity.key.publicKey, b.identity.key.publicKey) === 0 &&
    Buffer.compare(signaturePublicKey, b.config.signaturePublicKey) === 0 &&
    Buffer.compare(vrfPublicKey, b.config.vrfPublicKey) === 0
  );
}
