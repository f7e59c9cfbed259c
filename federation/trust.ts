/**
 * Which keys speak for which domain (docs/protocol/federation.md), in order of trust: the operator's
 * peers file; newer records signed by a key that was known; the domain's own site, where the mode
 * allows strangers. Whatever is denied has no keys here.
 */
import {
  liveKeys,
  PermissionDeniedError,
  UnavailableError,
  verifyNodeRecord,
  type Runtime,
  sameBytes,
} from '@quicprochat/proto';
import {
  fromBinary,
  SignedNodeRecordSchema,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import { asQpcError, type LinkSession } from './link-session.ts';
import { peersFileLimits, type Peer, type PeerPolicy } from './policy.ts';
import {
  livePins,
  pinsIn,
  unique,
  type Candidate,
  type PeerRecord,
  type PeerRecords,
} from './records.ts';

export const trustLimits = {
  /** One look at a domain's site (ms). */
  siteMs: 4_000,
  /** Between two looks at one site (ms). */
  siteEveryMs: 60_000,
  /** Looks at once, and of them for callers that nobody knows: one for each address. */
  sitesAtOnce: 8,
  strangersSitesAtOnce: 4,
  /** Sites whose last look is remembered; the oldest go first. */
  sitesRemembered: 10_000,
  /** Domains whose records came by their sites. */
  foundMax: 10_000,
  /** One of them that was not heard for so long (ms) makes room for a new one. */
  forgetMs: 90 * 86_400_000,
  /** How often a site with new keys is looked at (ms). */
  candidateEveryMs: 3_600_000,
} as const;

/** `https://domain/.well-known/qpc`, however it is asked. */
export interface RecordSite {
  /** The bytes that are served there (at most 20 KiB). Throws whatever went wrong. */
  fetch(domain: string, signal: AbortSignal): Promise<Uint8Array>;
}

export interface PeerTrustOptions {
  /** As of now: it may be read anew. */
  readonly policy: () => PeerPolicy;
  readonly records: PeerRecords;
  /** Undefined: sites are not asked. */
  readonly site: RecordSite | undefined;
  /** How long a site must show the same new keys before they take the place of lost ones (ms). */
  readonly lostKeyMs: number;
  /** When a peer was heard last (Unix ms); 0: never. */
  readonly heardMs: (domain: string) => number;
  readonly runtime: Runtime;
}

export class PeerTrust {
  readonly records: PeerRecords;
  readonly #options: PeerTrustOptions;
  /** Domains whose site is being asked, and when others were asked (monotonic ms). */
  readonly #asking = new Map<string, Promise<void>>();
  readonly #askedMs = new Map<string, number>();
  /** Addresses of strangers for whom a site is being asked. */
  readonly #strangers = new Set<string>();

  constructor(options: PeerTrustOptions) {
    this.#options = options;
    this.records = options.records;
  }

  /** Keys and addresses of a domain, as of now; none at all for one that is denied or unknown. */
  peer(domain: string): Peer {
    const { runtime } = this.#options;
    const policy = this.#options.policy();
    const listed = policy.peer(domain);
    const { held, retiredPins } = this.records.keys(domain);
    const endpoints = [...(listed?.endpoints ?? [])];
    let pins: readonly Uint8Array[] = [];
    if (policy.allows(domain)) {
      const own = (listed?.pins ?? []).filter((pin) => !has(retiredPins, pin));
      const isTrusted = held !== undefined && this.#isTrusted(domain, held);
      pins = unique([...own, ...(isTrusted ? livePins(held.record, runtime.clock.now()) : [])]);
      for (const { host, port } of isTrusted ? held.record.endpoints : []) {
        const isKnown = endpoints.some((one) => one.host === host && one.port === port);
        if (!isKnown && endpoints.length < peersFileLimits.addressesPerPeer) {
          endpoints.push({ host, port });
        }
      }
    }
    return { domain, pins: pins.filter((pin) => !policy.isDeniedKey(pin)), endpoints };
  }

  /** True when the key of a connection may speak for the domain. */
  isPinned(domain: string, spkiSha256: Uint8Array): boolean {
    return has(this.peer(domain).pins, spkiSha256);
  }

  /**
   * A known key of the domain speaks, over whichever connection: whatever its site may show, the key
   * is not lost. Who holds the domain's names can keep us from dialing it. Throws what the store throws.
   */
  async spoke(domain: string): Promise<void> {
    if (this.records.keys(domain).candidate === undefined) return;
    await this.#object(domain, 'the known key is in use');
  }

  /**
   * Asks the peer for its record, over a link that has just come up. A peer that has none, or one
   * that cannot be believed, keeps the record that it had: that is logged, and the link goes on.
   */
  async refresh(domain: string, session: LinkSession, ask: AskForRecord): Promise<void> {
    try {
      await this.spoke(domain);
      const signed = await ask(session);
      if (signed !== undefined) await this.#keep(domain, signed, session.spkiSha256);
    } catch (error) {
      if (!session.signal.aborted) this.#refused(domain, error);
    }
  }

  /**
   * Looks at the domain's site when something about its keys is not known here: at most once a
   * minute, and several callers share one look. What comes of it shows in `peer`. `stranger`: the address of who
   * claims the domain; names are free to make up, so such looks have places of their own. Throws
   * UnavailableError PEER_UNREACHABLE when the site does not show a record that can be believed.
   */
  async discover(domain: string, stranger?: string): Promise<void> {
    const { policy, site, runtime } = this.#options;
    if (!policy().allows(domain)) {
      throw new PermissionDeniedError('PEER_DENIED', `this node does not federate with ${domain}`);
    }
    // Whoever has one domain has any number of names below it, each with a site.
    const { held, isFound } = this.records.keys(domain);
    const isNew = held === undefined && !isFound && policy().peer(domain) === undefined;
    if (isNew) await this.#makeRoom();
    const running = this.#asking.get(domain);
    if (running !== undefined) return running;
    const askedMs = this.#askedMs.get(domain) ?? Number.NEGATIVE_INFINITY;
    const waitMs = askedMs + trustLimits.siteEveryMs - runtime.clock.monotonic();
    const { sitesAtOnce, strangersSitesAtOnce } = trustLimits;
    const isCrowded =
      stranger !== undefined &&
      (this.#strangers.has(stranger) || this.#strangers.size >= strangersSitesAtOnce);
    const isBusy = isCrowded || this.#asking.size >= sitesAtOnce;
    if (site === undefined || waitMs > 0 || isBusy) {
      const retryAfterMs = Math.ceil(Math.max(waitMs, 1_000));
      throw new UnavailableError('PEER_UNREACHABLE', `no record of ${domain} is known yet`, {
        retryAfterMs,
      });
    }
    const asking = this.#ask(domain, site).finally(() => {
      this.#asking.delete(domain);
      if (stranger !== undefined) this.#strangers.delete(stranger);
    });
    this.#asking.set(domain, asking);
    if (stranger !== undefined) this.#strangers.add(stranger);
    return asking;
  }

  /** Looks again at the sites whose new keys wait to be believed. Never throws. */
  async watchCandidates(): Promise<void> {
    const { runtime } = this.#options;
    for (const domain of this.records.candidates) {
      const askedMs = this.#askedMs.get(domain) ?? Number.NEGATIVE_INFINITY;
      if (runtime.clock.monotonic() < askedMs + trustLimits.candidateEveryMs) continue;
      await this.discover(domain).catch(() => undefined);
    }
  }

  /** Throws UnavailableError PEER_UNREACHABLE while every place is taken by a domain that is alive. */
  async #makeRoom(): Promise<void> {
    const { heardMs, runtime } = this.#options;
    const { found } = this.records;
    if (found.length < trustLimits.foundMax) return;
    const lastHeard = found
      .map((domain) => ({ domain, ms: heardMs(domain) }))
      .reduce((one, other) => (other.ms < one.ms ? other : one));
    if (lastHeard.ms > runtime.clock.now() - trustLimits.forgetMs) {
      const message = 'this node has found as many peers as it may';
      const { candidateEveryMs: retryAfterMs } = trustLimits;
      throw new UnavailableError('PEER_UNREACHABLE', message, { retryAfterMs });
    }
    await this.records.forget(lastHeard.domain);
  }

  async #ask(domain: string, site: RecordSite): Promise<void> {
    const { runtime } = this.#options;
    remember(this.#askedMs, domain, runtime.clock.monotonic());
    const limit = new AbortController();
    const timer = runtime.clock.timer(trustLimits.siteMs, () => limit.abort());
    try {
      const bytes = await site.fetch(domain, limit.signal);
      const signed = fromBinary(SignedNodeRecordSchema, bytes);
      await this.#fromSite(domain, signed);
    } catch (error) {
      this.#refused(domain, error);
      const message = `https://${domain}/.well-known/qpc shows no record that can be believed`;
      throw new UnavailableError('PEER_UNREACHABLE', message, { cause: error });
    } finally {
      timer.cancel();
    }
  }

  /** A record that the domain's own site shows: Web PKI proves the domain, and nothing else. */
  async #fromSite(domain: string, signed: SignedNodeRecord): Promise<void> {
    const { policy, runtime } = this.#options;
    const { held, candidate } = this.records.keys(domain);
    const nowMs = runtime.clock.now();
    const isKnown = held !== undefined && this.#isTrusted(domain, held);
    const record = verifyNodeRecord(signed, { domain, pins: [], nowMs, isFromSite: true });
    const isSame = isKnown && sameBytes(held.signed.record, signed.record);
    const isHeir = isKnown && this.#isSignedByKnown(signed, domain, held, nowMs);
    const isListed = policy().peer(domain) !== undefined;
    if (isSame) {
      if (candidate !== undefined)
        await this.#object(domain, 'the site shows the known keys again');
    } else if (isHeir || (!isKnown && !isListed)) {
      await this.#accept(domain, { signed, record }, isHeir ? 'a known key' : 'its site', !isHeir);
    } else if (isListed) {
      // The operator's word is above the site's: only the operator replaces it.
      runtime.log.error('peer shows unknown keys', { peer: domain, do: 'ask its operator' });
    } else {
      await this.#wait(domain, { signed, record, sinceMs: nowMs }, candidate);
    }
  }

  /** Keys that replace lost ones are believed when the site has shown them long enough. */
  async #wait(domain: string, shown: Candidate, before: Candidate | undefined): Promise<void> {
    const { runtime, lostKeyMs } = this.#options;
    const isStable = before !== undefined && samePins(before.record, shown.record);
    if (!isStable) {
      await this.records.setCandidate(domain, shown);
      runtime.log.error('peer shows unknown keys', { peer: domain, believedInMs: lostKeyMs });
      return;
    }
    if (shown.sinceMs - before.sinceMs < lostKeyMs) return;
    await this.#accept(domain, shown, 'its site, for long', true);
    runtime.log.error('peer was pinned anew', { peer: domain, why: 'its old key is lost' });
  }

  async #keep(domain: string, signed: SignedNodeRecord, connectionSpki: Uint8Array): Promise<void> {
    const { clock } = this.#options.runtime;
    const { held } = this.records.keys(domain);
    const isAnew = held !== undefined && !this.#isTrusted(domain, held);
    const seq = held === undefined || isAnew ? 0 : Number(held.record.seq);
    const { pins } = this.peer(domain);
    const record = verifyNodeRecord(signed, {
      domain,
      pins,
      connectionSpki,
      nowMs: clock.now(),
      seq,
    });
    await this.#accept(domain, { signed, record }, 'its pinned key', isAnew);
  }

  async #accept(domain: string, proven: PeerRecord, by: string, isAnew = false): Promise<void> {
    const { policy, runtime } = this.#options;
    const before = this.peer(domain).pins;
    const isFound = policy().peer(domain) === undefined;
    const isNew = await this.records.keep(domain, proven, { isFound, isAnew });
    const after = this.peer(domain).pins;
    const isOther = before.length !== after.length || !before.every((pin) => has(after, pin));
    if (isNew && isOther) {
      const pins = after.map((pin) => Buffer.from(pin).toString('base64url')).join(' ');
      runtime.log.warn('peer keys', { peer: domain, by, pins });
    }
  }

  /** The old keys are not lost after all. */
  async #object(domain: string, why: string): Promise<void> {
    await this.records.setCandidate(domain, undefined);
    this.#options.runtime.log.warn('new keys of peer dropped', { peer: domain, why });
  }

  #isSignedByKnown(
    signed: SignedNodeRecord,
    domain: string,
    held: PeerRecord,
    nowMs: number,
  ): boolean {
    const signKeys = liveKeys(held.record, nowMs).map(({ signPub }) => signPub);
    const seq = Number(held.record.seq);
    try {
      verifyNodeRecord(signed, { domain, pins: [], signKeys, seq, nowMs });
      return true;
    } catch {
      return false;
    }
  }

  /**
   * A record counts as long as the operator's file agrees: it names a key of the record, or one that
   * an older record had and gave up. A file with other keys is the operator's new word.
   */
  #isTrusted(domain: string, { record }: PeerRecord): boolean {
    const listed = this.#options.policy().peer(domain);
    if (listed === undefined) return this.records.keys(domain).isFound;
    const known = [...pinsIn(record), ...this.records.keys(domain).retiredPins];
    return listed.pins.some((pin) => has(known, pin));
  }

  #refused(domain: string, error: unknown): void {
    const { reason, message } = asQpcError(error);
    const { log } = this.#options.runtime;
    log.warn('peer record refused', { peer: domain, reason, error: message });
  }
}

/** Asks for the record over a session; undefined when the peer has none. */
export type AskForRecord = (session: LinkSession) => Promise<SignedNodeRecord | undefined>;

function has(pins: readonly Uint8Array[], pin: Uint8Array): boolean {
  return pins.some((one) => sameBytes(one, pin));
}

function samePins(one: PeerRecord['record'], other: PeerRecord['record']): boolean {
  const pins = pinsIn(one);
  const others = pinsIn(other);
  return pins.length === others.length && pins.every((pin) => has(others, pin));
}

/** Maps keep the order of insertion: the first key is the oldest. */
function remember(times: Map<string, number>, domain: string, nowMs: number): void {
  times.delete(domain);
  times.set(domain, nowMs);
  if (times.size <= trustLimits.sitesRemembered) return;
  const oldest = times.keys().next();
  if (oldest.done !== true) times.delete(oldest.value);
}
