/**
 * A node of a simulation whose log has two histories, or an entry that does not follow: to each node it
 * shows one face, over links and in the swarm, takes cosignatures and passes on nothing.
 */
import {
  auditBundle,
  decode,
  encode,
  nativeSuite,
  parseCheckpoint,
  parseNote,
  signAuditBundle,
} from '@quicprochat/kt-log';
import { methods, UnimplementedError, type Method } from '@quicprochat/proto';
import {
  create,
  FedKtRequestSchema,
  FedKtResponseSchema,
  fromBinary,
  toBinary,
  type AuditKeyTransparencyRequest,
  type FedKtRequest,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { identityOf, openHistory, type History, type Identity } from './histories.ts';
import { answerAboutLog, headsOf } from './log-answers.ts';
import type { MemberLinks } from './links.ts';
import type { NodeParts } from './node.ts';
import type { Lie } from './plan.ts';
import { Process } from './process.ts';
import { anywhere, type SimSwarm } from './swarm.ts';

type FedKtAnswer = MessageInitShape<typeof FedKtResponseSchema>;

export interface LiarOptions {
  readonly domain: string;
  readonly peers: readonly string[];
  readonly lie: Lie;
  /** Takes no part in the swarm. */
  readonly isQuiet: boolean;
}

/** Between two pushes of heads to the peers (ms). */
const pushMs = 30_000;

export class Liar {
  readonly id: Identity;
  readonly #options: LiarOptions;
  readonly #parts: NodeParts;
  readonly #process: Process;
  readonly #faces = new Map<string, 0 | 1>();
  #histories: readonly [History, History] | undefined;
  #links: MemberLinks | undefined;
  #swarm: SimSwarm | undefined;
  #hasTurned = false;
  /** Entries that both histories share. */
  readonly sharedSize: number;
  /** Roots that each cosigner signed for each size. */
  readonly cosigned = new Map<string, Set<string>>();
  /** Of a liar whose one history is sound: who got the wrong entry. */
  readonly #victim: string;

  constructor(options: LiarOptions, parts: NodeParts) {
    const { dice, scheduler, log } = parts;
    const { domain, peers } = options;
    this.#options = options;
    this.#parts = parts;
    this.id = identityOf(domain);
    this.#process = new Process(scheduler, dice, log);
    this.sharedSize = 1 + dice.int(4);
    this.#victim = peers[dice.int(peers.length)] ?? '';
    const other = peers[dice.int(peers.length)] ?? '';
    for (const peer of peers) this.#faces.set(peer, dice.chance(0.5) ? 1 : 0);
    // There is somebody for each face.
    this.#faces.set(other, 1);
    if ([...this.#faces.values()].every((face) => face === 1)) {
      const first = peers.find((peer) => peer !== other);
      if (first !== undefined) this.#faces.set(first, 0);
    }
  }

  async start(): Promise<void> {
    const { links: net, swarms, dice } = this.#parts;
    const { domain, peers, isQuiet } = this.#options;
    const { clock } = this.#process.runtime;
    this.#histories = [
      await openHistory(this.id, { clock }),
      await openHistory(this.id, { clock, otherFrom: this.sharedSize }),
    ];
    for (const history of this.#histories) {
      while (history.log.size < this.sharedSize + 1) await history.append();
    }
    this.#links = net.of(domain, peers, (from, method, request) =>
      this.#answer(from, method, request),
    );
    for (const peer of peers) this.#links.learn(peer);
    net.start(this.#links);
    if (!isQuiet) {
      this.#swarm = swarms.start(this.id.swarm.peerId, {
        onPeer: () => undefined,
        onGossip: async () => 'ignore',
        onPull: (from, methodId, payload) => this.#pulled(from, methodId, payload),
        mayReserve: async () => false,
      });
      await this.#swarm.setPeers(
        peers.map((peer) => ({ peerId: identityOf(peer).swarm.peerId, addresses: [anywhere] })),
      );
    }
    this.#every(pushMs, () => this.#tellAll());
    if (this.#options.lie === 'turns') {
      clock.timer(30_000 + dice.int(120_000), () => (this.#hasTurned = true));
    }
  }

  /** A history grows. */
  append(): void {
    const { dice } = this.#parts;
    const history = this.#histories?.[dice.chance(0.5) ? 1 : 0];
    void history?.append().then(() => this.#tellAll());
  }

  /**
   * The last entries. Where heads are given out, the histories end with different sizes: what convicts is
   * a head of a size that both had. A liar that withholds those is caught when both reach one size.
   */
  async finish(): Promise<void> {
    this.#hasTurned = true;
    const { lie } = this.#options;
    const sizes = this.#histories?.map(({ log }) => log.size) ?? [];
    const size = Math.max(...sizes) + 1;
    for (const [face, history] of (this.#histories ?? []).entries()) {
      const isShort = lie === 'two-faced' && face === 1;
      while (history.log.size < size && !isShort) await history.append();
    }
    this.#tellAll();
  }

  /** The face of a history that a checkpoint or head of this size and root belongs to. */
  async faceOf(
    size: number,
    root: Uint8Array,
    tree: 'root' | 'rfc6962Root',
  ): Promise<0 | 1 | undefined> {
    if (size <= this.sharedSize) return undefined;
    for (const face of [0, 1] as const) {
      const head = await this.#histories?.[face].tree.head(size);
      if (head !== undefined && Buffer.compare(head[tree], root) === 0) return face;
    }
    return undefined;
  }

  #every(ms: number, work: () => void): void {
    this.#process.runtime.clock.timer(ms, () => {
      work();
      this.#every(ms, work);
    });
  }

  #shown(to: string): History {
    const { lie } = this.#options;
    const face = lie === 'turns' ? this.#hasTurned : this.#faces.get(to) === 1;
    const history = this.#histories?.[face && lie !== 'bad-entry' ? 1 : 0];
    if (history === undefined) throw new Error('the liar has not started');
    return history;
  }

  #tellAll(): void {
    for (const peer of this.#options.peers) {
      void this.#tell(peer).catch(() => undefined);
    }
  }

  async #tell(peer: string): Promise<void> {
    const checkpoint = Buffer.from(await this.#shown(peer).log.checkpoint());
    this.#swarm?.whisper(identityOf(peer).swarm.peerId, 'qpc/kt/1', checkpoint);
    const session = this.#links?.session(peer);
    if (session === undefined) return;
    const { op } = await session.call(methods.fedKt, {
      op: { case: 'checkpoint', value: { checkpoint } },
    });
    if (op.case === 'checkpoint' && op.value.cosigned.length > 0) this.#took(op.value.cosigned);
  }

  #took(cosigned: Uint8Array): void {
    const note = parseNote(cosigned);
    const { size, root } = parseCheckpoint(note.text);
    for (const { name } of note.signatures) {
      if (name === this.id.origin) continue;
      const key = `${name} ${size}`;
      this.cosigned.set(
        key,
        (this.cosigned.get(key) ?? new Set()).add(Buffer.from(root).toString('hex')),
      );
    }
  }

  async #pulled(from: string, methodId: number, payload: Uint8Array) {
    const peer = this.#options.peers.find((one) => identityOf(one).swarm.peerId === from) ?? '';
    const request = fromBinary(FedKtRequestSchema, payload);
    if (methodId !== methods.fedKt.id) throw new UnimplementedError('no pull');
    const answer = create(FedKtResponseSchema, await this.#fedKt(peer, request));
    return { status: 0, payload: toBinary(FedKtResponseSchema, answer) };
  }

  async #answer(from: string, method: Method, request: unknown): Promise<Record<string, unknown>> {
    if (method.id === methods.fedKt.id) return this.#fedKt(from, request as FedKtRequest);
    const about = await answerAboutLog(this.#shown(from), method, request);
    if (about === undefined) throw new UnimplementedError(method.name);
    const isWrong =
      method.id === methods.auditKeyTransparency.id &&
      this.#options.lie === 'bad-entry' &&
      from === this.#victim &&
      (request as AuditKeyTransparencyRequest).from > 0n;
    if (!isWrong || !('bundle' in about) || !(about.bundle instanceof Uint8Array)) return about;
    return { ...about, bundle: this.#spoiled(about.bundle) };
  }

  /** The bundle with a leaf in its first entry that the entry's root does not have, well signed. */
  #spoiled(bytes: Uint8Array): Uint8Array {
    const { signature: _, ...bundle } = decode(auditBundle, bytes);
    const [first, ...rest] = bundle.updates;
    if (first === undefined) return bytes;
    const added = first.added.map((leaf, i) =>
      i > 0 ? leaf : { ...leaf, commitment: leaf.commitment.map((byte) => byte ^ 1) },
    );
    const updates = [{ ...first, added }, ...rest];
    const { note } = this.id.keys;
    return encode(auditBundle, signAuditBundle(nativeSuite.sha256, { ...bundle, updates }, note));
  }

  async #fedKt(from: string, { op }: FedKtRequest): Promise<FedKtAnswer> {
    switch (op.case) {
      case 'heads': {
        const { origin, fromSize, max } = op.value;
        if (origin !== '' && origin !== this.id.origin) throw new UnimplementedError('others');
        const isWithheld = this.#options.lie === 'withholds';
        const value = await headsOf(this.#shown(from), Number(fromSize), isWithheld ? 0 : max);
        return { op: { case: 'heads', value } };
      }
      case 'checkpoint':
        return { op: { case: 'checkpoint', value: {} } };
      case 'evidence':
        return { op: { case: 'evidence', value: {} } };
      default:
        throw new UnimplementedError('look-ups');
    }
  }
}
