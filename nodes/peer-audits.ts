/**
 * This node among its peers' key logs: it audits and cosigns theirs, has its own heads cosigned by
 * them, and keeps and passes on evidence (docs/protocol/federation.md). Everything runs over the
 * links of federation; nothing here holds up a message or an answer to a user.
 */
import {
  Follower,
  formatVkey,
  isConvicted,
  logVerifier,
  nativeSuite,
  noteKey,
  openWrapped,
  parsePolicy,
  SignatureType,
  type AuditStore,
  type Configuration,
  type Cosigner,
  type Cosigners,
  type EvidenceRecord,
  type KtLog,
  type LogIdentity,
  type NoteKey,
  type OpenedCredential,
  type Signer,
  type TreeStore,
  manifestRule,
  VerificationError,
} from '@quicprochat/kt-log';
import {
  InvalidArgumentError,
  maxKtHeads,
  PermissionDeniedError,
  type Runtime,
} from '@quicprochat/proto';
import type {
  KtHeardSchema,
  KtHeadsRequest,
  KtHeadsResponseSchema,
  MessageInitShape,
  NodeRecord,
} from '@quicprochat/proto/messages';
import type { LinkService, LinkSession, PeerPolicy, PeerRecords } from '@quicprochat/federation';
import type { AuditFact, CosignerFact, PeerFacts } from './http/facts.ts';
import { originOf } from './key-log.ts';
import {
  cosignersOf,
  logCosigners,
  policyTextOf,
  type PeerCosigner,
} from './peer-audits/cosigners.ts';
import { evidenceLimits, EvidenceRelay } from './peer-audits/evidence-relay.ts';
import { FollowedPeer } from './peer-audits/followed-peer.ts';
import { GossipNode } from './peer-audits/gossip-node.ts';
import { HeadPush } from './peer-audits/head-push.ts';
import { HeadsPull } from './peer-audits/heads-pull.ts';
import { headFromWire } from './peer-audits/link-source.ts';
import { OwnHeads, type AheadOfUs } from './peer-audits/own-heads.ts';

/** Age of a credential's log entry that a guest may show (ms): as clients have it. */
const credentialMs = 10 * 24 * 3_600_000;

/** What of federation the audits and gossip need. */
export interface AuditLinks {
  readonly policy: Pick<PeerPolicy, 'peers' | 'allows'>;
  readonly records: Pick<PeerRecords, 'get' | 'onRecord'>;
  /** There is something to do for a peer. */
  notify(domain: string): void;
  attach(service: LinkService): void;
}

export interface PeerAuditsOptions {
  readonly domain: string;
  readonly federation: AuditLinks;
  readonly store: AuditStore;
  readonly secrets: { readonly witness: Signer; readonly auditor: Signer };
  readonly runtime: Runtime;
}

/** The node's own log, once it is open. */
export interface OwnKeyLog {
  readonly log: KtLog;
  readonly config: Configuration;
  readonly identity: LogIdentity;
  readonly tree: Pick<TreeStore, 'head'>;
}

interface Own extends OwnKeyLog {
  readonly heads: OwnHeads;
  readonly push: HeadPush;
  readonly pull: HeadsPull;
  /** Judges evidence against this very log. */
  readonly judge: Follower;
}

export class PeerAudits implements LinkService, PeerFacts, Disposable {
  readonly #options: PeerAuditsOptions;
  readonly #domains: string[] = [];
  readonly #followed = new Map<string, FollowedPeer>();
  readonly #evidence: EvidenceRelay;
  readonly #cosigners = new Map<string, readonly PeerCosigner[]>();
  readonly #records: Disposable;
  #forLog: Cosigners = { keys: [] };
  readonly #listeners = new Set<(record: EvidenceRecord) => void>();
  readonly #auditorKey: NoteKey;
  #own: Own | undefined;

  /** Attaches itself to the federation, which has not started yet. */
  constructor(options: PeerAuditsOptions) {
    const { federation, store, runtime } = options;
    this.#options = options;
    this.#auditorKey = cosignerKey(options, 'auditor');
    const peers = federation.policy.peers.map(({ domain }) => domain);
    const notify = (domain: string): void => federation.notify(domain);
    const followerOf = (origin: string): Follower | undefined => this.#followerOf(origin);
    this.#evidence = new EvidenceRelay({
      store,
      runtime,
      peers: [],
      followerOf,
      notify,
      onFound: (record) => {
        for (const listener of this.#listeners) listener(record);
      },
    });
    for (const domain of peers) this.follow(domain);
    this.#records = federation.records.onRecord((domain, record) => this.#heard(domain, record));
    federation.attach(this);
  }

  /** Audits the log of a peer of the peers file from now on, also of one that came by a reload. */
  follow(domain: string): void {
    if (this.#followed.has(domain)) return;
    const { federation, store, runtime } = this.#options;
    this.#domains.push(domain);
    this.#evidence.add(domain);
    this.#own?.push.add(domain);
    this.#followed.set(
      domain,
      new FollowedPeer({
        domain,
        origin: originOf(domain),
        store,
        cosigners: cosignersOfNode(this.#options),
        runtime,
        onEvidence: (record, checked) => this.#evidence.found(record, checked),
        notify: () => federation.notify(domain),
      }),
    );
    const known = federation.records.get(domain);
    if (known !== undefined) this.#heard(domain, known.record);
  }

  #heard(domain: string, record: NodeRecord): void {
    const { log } = this.#options.runtime;
    this.#cosigners.set(domain, cosignersOf(record));
    this.#forLog = logCosigners(this.#allCosigners());
    this.#followed
      .get(domain)
      ?.setRecord(record)
      .catch((error: unknown) => log.error('audit failed', { peer: domain, error: String(error) }));
  }

  /** The node's own log is open; before the federation starts. */
  start(own: OwnKeyLog): void {
    const { federation, store, runtime } = this.#options;
    const { log, config, identity, tree } = own;
    const peers = this.#domains;
    const heads = new OwnHeads({ log, config, origin: identity.origin, tree }, peers, runtime);
    const judge = new Follower({
      suite: nativeSuite,
      log: { config, identity },
      store,
      clock: runtime.clock,
      onEvidence: (record, checked) => this.#evidence.found(record, checked),
      valueRule: manifestRule,
    });
    const push = new HeadPush({
      log,
      identity,
      peers,
      ownHeads: heads,
      runtime,
      notify: (domain) => federation.notify(domain),
    });
    const ownOrigin = identity.origin;
    const node = this.#nodeFor({ ...own, heads }, (peer) => peer);
    const pull = new HeadsPull({ node, runtime, originOf, ownOrigin });
    this.#own = { ...own, heads, judge, push, pull };
  }

  /**
   * What judges gossip from whatever swarm there is, and tells it of evidence by `tell`; once the own
   * log is open. `domainOf` knows the peers of the swarm.
   */
  gossipNode(
    domainOf: (peerId: string) => string | undefined,
    tell: (evidence: Uint8Array) => void,
  ): GossipNode {
    const own = this.#own;
    if (own === undefined) throw new Error('the own log is not open yet');
    this.onEvidence(({ bytes }) => tell(bytes));
    return this.#nodeFor(own, domainOf);
  }

  /** What judges what peers show, over links or in a swarm; `domainOf` knows who shows it. */
  #nodeFor(
    own: OwnKeyLog & Pick<Own, 'heads'>,
    domainOf: (peer: string) => string | undefined,
  ): GossipNode {
    const { store, runtime } = this.#options;
    return new GossipNode({
      store,
      runtime,
      origins: () => this.#domains.map(originOf),
      followerOf: (origin) => this.#followerOf(origin),
      evidence: this.#evidence,
      domainOf,
      want: (origin) => this.#followed.get(this.#domainOf(origin) ?? '')?.look(),
      ownOrigin: own.identity.origin,
      ownSize: () => own.log.size,
      ownNote: () => this.#newestNote(own.identity.origin),
      ownShown: async (domain, { heads }) => own.heads.shown(domain, heads.map(headFromWire)),
      heads: (request) => this.heads(request),
    });
  }

  /** Calls `listener` for each piece of evidence once it is durable, until the returned function is called. */
  onEvidence(listener: (record: EvidenceRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * What is held here of these logs: the newest note, the head of a size (0: none), and the names of
   * evidence. Logs that are not known here are left out.
   */
  async heard(
    asked: readonly { readonly origin: string; readonly size: number }[],
  ): Promise<MessageInitShape<typeof KtHeardSchema>[]> {
    const { store } = this.#options;
    const known = asked.filter(({ origin }) => this.#followerOf(origin) !== undefined);
    return Promise.all(
      known.map(async ({ origin, size }) => {
        const evidence = await store.evidence(origin);
        const checkpoint = await this.#newestNote(origin);
        const head = size === 0 ? undefined : await this.#headAt(origin, size);
        const hashes = evidence.slice(-evidenceLimits.perLog).map(({ hash }) => hash);
        return {
          ...{ origin, evidence: hashes },
          ...(checkpoint === undefined ? {} : { checkpoint }),
          ...(head === undefined ? {} : { head }),
        };
      }),
    );
  }

  async #headAt(origin: string, size: number) {
    const isOwn = origin === this.#own?.identity.origin;
    const [head] = isOwn
      ? [await this.#own?.tree.head(size)]
      : await this.#options.store.heads(origin, size, 1);
    if (head === undefined || head.size !== size) return undefined;
    return { size: BigInt(size), root: head.root, signature: head.signature };
  }

  async #newestNote(origin: string): Promise<Uint8Array | undefined> {
    const own = this.#own;
    if (origin === own?.identity.origin) {
      return own.log.size === 0 ? undefined : new TextEncoder().encode(await own.log.checkpoint());
    }
    const followed = this.#followed.get(this.#domainOf(origin) ?? '');
    // With the cosignatures of this node, where it has audited that far.
    return followed?.last?.cosigned ?? (await this.#options.store.followed(origin))?.checkpoint;
  }

  #domainOf(origin: string): string | undefined {
    return this.#domains.find((one) => originOf(one) === origin);
  }

  /** Evidence by its SHA-256 (32 bytes). */
  async evidence(hash: Uint8Array): Promise<Uint8Array | undefined> {
    const held = await this.#options.store.evidence();
    return held.find((one) => Buffer.compare(one.hash, hash) === 0)?.bytes;
  }

  /**
   * Opens the credential of a peer's user, whose checkpoint this node's own auditor has cosigned: it
   * believes what it replayed itself. Throws PermissionDeniedError BLOCKED for one of no log that is
   * followed here, that does not prove itself, is older than ten days, or is of a convicted log.
   */
  async openCredential(bytes: Uint8Array): Promise<OpenedCredential> {
    const { store, runtime, domain } = this.#options;
    const own = this.#auditorKey;
    const policy = parsePolicy(nativeSuite.sha256, `witness own ${formatVkey(own)}\nquorum own\n`);
    const rules = { policy, auditorsMin: 1, recentMs: credentialMs };
    for (const one of this.#domains) {
      const log = this.#followed.get(one)?.log;
      if (log === undefined) continue;
      try {
        const verifier = logVerifier(log.config, nativeSuite);
        const opened = openWrapped(verifier, log.identity, [], rules, bytes, runtime.clock.now());
        const isOfDomain = new TextDecoder().decode(opened.label).endsWith(`@${one}`);
        if (isOfDomain && !isConvicted(await store.status(originOf(one)))) return opened;
      } catch (error) {
        // Of another log, or nothing at all.
        if (!(error instanceof VerificationError)) throw error;
      }
    }
    throw new PermissionDeniedError('BLOCKED', `credential: of no user whom ${domain} can verify`);
  }

  /** Whose cosignatures the log takes; asked anew each time. */
  forLog(): Cosigners {
    return this.#forLog;
  }

  /** What a peer has of the own log that the log lacks; undefined as far as peers have told. */
  get ahead(): AheadOfUs | undefined {
    return this.#own?.heads.ahead;
  }

  /**
   * Resolves when the own log may be written: all peers were asked for its heads, or 5 s after the
   * start. Throws FailedPreconditionError FEATURE_OFF when it is behind what it signed once.
   */
  async mayWrite(): Promise<void> {
    await this.#own?.heads.mayWrite();
  }

  // LinkService
  hasWork(domain: string): boolean {
    return (
      this.#followed.get(domain)?.hasWork === true ||
      this.#own?.push.hasWork(domain) === true ||
      this.#evidence.hasWork(domain)
    );
  }

  async serve(domain: string, session: LinkSession): Promise<void> {
    // A fault of one of them is a bug or the store's; the rows go on, and a new link tries again.
    const guard = (work: Promise<void> | undefined): Promise<void> =>
      (work ?? Promise.resolve()).catch((error: unknown) => session.end(error));
    const pushed = async (): Promise<void> => {
      await this.#own?.heads.ask(domain, session);
      await this.#own?.push.serve(domain, session);
    };
    await Promise.all([
      guard(this.#followed.get(domain)?.serve(session)),
      guard(pushed()),
      guard(this.#own?.pull.serve(domain, session)),
      guard(this.#evidence.serve(domain, session)),
    ]);
  }

  // 916
  /** A cosigned note, or nothing yet. Errors are those of FollowedPeer.pushed. */
  async checkpointPushed(domain: string, note: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#followed.get(domain)?.pushed(note);
  }

  /** Errors are those of EvidenceRelay.shown. */
  evidenceShown(domain: string, bytes: Uint8Array): Promise<void> {
    return this.#evidence.shown(domain, bytes);
  }

  /** Throws InvalidArgumentError BAD_FIELD for a log that this node neither writes nor audits. */
  async heads(request: KtHeadsRequest): Promise<MessageInitShape<typeof KtHeadsResponseSchema>> {
    const { store } = this.#options;
    const from = Math.max(1, Number(request.fromSize));
    const max = request.max === 0 ? maxKtHeads : request.max;
    const own = this.#own;
    const isOwn = request.origin === '' || request.origin === own?.identity.origin;
    if (isOwn && own !== undefined) return ownHeads(own, from, max);
    if (!this.#domains.some((domain) => originOf(domain) === request.origin)) {
      throw new InvalidArgumentError('BAD_FIELD', 'origin: a log that this node does not audit');
    }
    const heads = await store.heads(request.origin, from, max);
    const { checkpoint } = (await store.followed(request.origin)) ?? {};
    return {
      heads: heads.map((head) => ({ ...head, size: BigInt(head.size) })),
      ...(checkpoint === undefined ? {} : { checkpoint }),
    };
  }

  #followerOf(origin: string): Follower | undefined {
    if (origin === this.#own?.identity.origin) return this.#own.judge;
    return this.#followed.get(this.#domainOf(origin) ?? '')?.follower;
  }

  #allCosigners(): readonly PeerCosigner[] {
    return this.#domains.flatMap((domain) => this.#cosigners.get(domain) ?? []);
  }

  // PeerFacts
  cosigners(): readonly CosignerFact[] {
    return this.#allCosigners().map(({ key, vkey }) => ({
      name: key.name,
      vkey,
      signed: this.#own?.push.signed.get(key.name),
    }));
  }

  policyText(): string {
    return policyTextOf(this.#allCosigners());
  }

  async audits(): Promise<readonly AuditFact[]> {
    const { store } = this.#options;
    return Promise.all(
      this.#domains.map(async (domain) => {
        const origin = originOf(domain);
        const size = (await store.followed(origin))?.size ?? 0;
        const status = await store.status(origin);
        return { origin, status, size, knownSize: this.#followed.get(domain)?.last?.target ?? 0 };
      }),
    );
  }

  [Symbol.dispose](): void {
    this.#records[Symbol.dispose]();
    for (const followed of this.#followed.values()) followed[Symbol.dispose]();
    this.#own?.push[Symbol.dispose]();
    this.#own?.heads[Symbol.dispose]();
  }
}

function cosignersOfNode({ domain, secrets }: PeerAuditsOptions): Cosigner[] {
  return (['witness', 'auditor'] as const).map((role) => {
    return { signer: secrets[role], key: cosignerKey({ domain, secrets }, role) };
  });
}

function cosignerKey(
  { domain, secrets }: Pick<PeerAuditsOptions, 'domain' | 'secrets'>,
  role: 'witness' | 'auditor',
): NoteKey {
  const { publicKey } = secrets[role];
  const type = SignatureType.cosignatureV1;
  return noteKey(nativeSuite.sha256, `${domain}/${role}`, type, publicKey);
}

async function ownHeads(
  { log, tree }: Own,
  from: number,
  max: number,
): Promise<MessageInitShape<typeof KtHeadsResponseSchema>> {
  const { size: newest } = log;
  const heads = [];
  for (let size = from; size <= newest && heads.length < max; size++) {
    const head = await tree.head(size);
    if (head === undefined) break;
    const { root, signature } = head;
    heads.push({ size: BigInt(size), root, signature });
  }
  if (newest === 0) return { heads };
  return { heads, checkpoint: new TextEncoder().encode(await log.checkpoint()) };
}
