/**
 * A node of a simulation with an honest log whose gossip is junk: notes and heads that nobody signed,
 * evidence that proves nothing, and evidence against a log that nobody knows, also under the names of
 * logs that everybody follows. Nobody is to be convicted for it.
 */
import { nativeSuite, proveSameSize, type SignedHead } from '@quicprochat/kt-log';
import { methods, UnimplementedError, type Method } from '@quicprochat/proto';
import {
  create,
  FedKtRequestSchema,
  FedKtResponseSchema,
  fromBinary,
  toBinary,
  type FedKtRequest,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { identityOf, openHistory, type History, type Identity } from './histories.ts';
import { answerAboutLog, headsOf } from './log-answers.ts';
import type { MemberLinks } from './links.ts';
import type { NodeParts } from './node.ts';
import { Process } from './process.ts';
import { anywhere, type SimSwarm } from './swarm.ts';

/** A log that no node follows, and that has two faces. */
const ghost = 'gg.example';
const everyMs = 8_000;

/** Evidence against the ghost, which everybody can check. */
async function ghostEvidence(process: Process): Promise<Uint8Array> {
  const id = identityOf(ghost);
  const { clock } = process.runtime;
  const heads: SignedHead[] = [];
  for (const otherFrom of [1, 9]) {
    const history = await openHistory(id, { clock, otherFrom });
    const { tree, log } = history;
    while (log.size < 2) await history.append();
    const head = await tree.head(2);
    if (head !== undefined) heads.push({ size: 2, root: head.root, signature: head.signature });
  }
  const [one, other] = heads;
  if (one === undefined || other === undefined) throw new Error('the ghost has no heads');
  const keys = { origin: id.origin, key: id.identity.key, config: id.config };
  return proveSameSize(
    nativeSuite,
    keys,
    { type: 'head', head: one },
    { type: 'head', head: other },
  ).bytes;
}

export class JunkNode {
  readonly id: Identity;
  readonly #peers: readonly string[];
  readonly #origins: readonly string[];
  readonly #parts: NodeParts;
  readonly #process: Process;
  readonly #heard: Uint8Array[] = [];
  #own: History | undefined;
  #links: MemberLinks | undefined;
  #swarm: SimSwarm | undefined;
  #ghost = new Uint8Array(0);
  sent = 0;

  constructor(domain: string, peers: readonly string[], parts: NodeParts) {
    this.id = identityOf(domain);
    this.#peers = peers;
    this.#origins = [...peers, domain].map((one) => identityOf(one).origin);
    this.#parts = parts;
    this.#process = new Process(parts.scheduler, parts.dice, parts.log);
  }

  async start(): Promise<void> {
    const { links: net, swarms } = this.#parts;
    const { clock } = this.#process.runtime;
    const { domain, swarm: key } = this.id;
    this.#ghost = Uint8Array.from(await ghostEvidence(this.#process));
    this.#own = await openHistory(this.id, { clock });
    await this.#own.append();
    this.#links = net.of(domain, this.#peers, (_, method, request) =>
      this.#answer(method, request),
    );
    for (const peer of this.#peers) this.#links.learn(peer);
    net.start(this.#links);
    this.#swarm = swarms.start(key.peerId, {
      onPeer: () => undefined,
      onGossip: async (topic, _, bytes) => {
        if (topic === 'qpc/kt/1' && this.#heard.length < 20) this.#heard.push(bytes);
        return 'accept';
      },
      onPull: async (_, methodId, payload) => {
        if (methodId !== methods.fedKt.id) throw new UnimplementedError('no pull');
        const answer = await this.#fedKt(fromBinary(FedKtRequestSchema, payload));
        return { status: 0, payload: toBinary(FedKtResponseSchema, answer) };
      },
      mayReserve: async () => false,
    });
    await this.#swarm.setPeers(
      this.#peers.map((peer) => ({ peerId: identityOf(peer).swarm.peerId, addresses: [anywhere] })),
    );
    this.#again();
  }

  append(): void {
    void this.#own?.append();
  }

  get ownSize(): number {
    return this.#own?.log.size ?? 0;
  }

  #again(): void {
    this.#process.runtime.clock.timer(everyMs, () => {
      void this.#say().catch(() => undefined);
      this.#again();
    });
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[this.#parts.dice.int(Math.max(1, from.length))];
  }

  #flipped(bytes: Uint8Array): Uint8Array {
    const { dice } = this.#parts;
    const changed = Uint8Array.from(bytes);
    if (changed.length === 0) return changed;
    const at = dice.int(changed.length);
    changed[at] = (changed[at] ?? 0) ^ (1 << dice.int(8));
    return changed;
  }

  /** Evidence against the ghost with another name in its place. */
  #renamed(bytes: Uint8Array): Uint8Array {
    const name = this.#pick(this.#peers) ?? ghost;
    const text = Buffer.from(bytes).toString('latin1').replaceAll(ghost, name);
    return new Uint8Array(Buffer.from(text, 'latin1'));
  }

  async #say(): Promise<void> {
    const { dice } = this.#parts;
    const peer = this.#pick(this.#peers) ?? '';
    const to = identityOf(peer).swarm.peerId;
    const note = this.#pick(this.#heard) ?? dice.bytes(200);
    const evidence =
      this.#pick([
        this.#ghost,
        this.#renamed(this.#ghost),
        this.#renamed(this.#ghost),
        this.#flipped(this.#renamed(this.#ghost)),
        dice.bytes(1 + dice.int(300)),
      ]) ?? this.#ghost;
    this.sent += 1;
    switch (dice.int(5)) {
      case 0:
        return this.#swarm?.whisper(to, 'qpc/kt/1', this.#flipped(note));
      case 1:
        return this.#swarm?.whisper(to, 'qpc/kt/1', note);
      case 2:
        return this.#swarm?.whisper(to, 'qpc/kt-evidence/1', evidence);
      case 3: {
        const op = { case: 'evidence' as const, value: { evidence } };
        const request = toBinary(FedKtRequestSchema, create(FedKtRequestSchema, { op }));
        await this.#swarm?.pull(to, methods.fedKt.id, request);
        return undefined;
      }
      default: {
        const session = this.#links?.session(peer);
        await session?.call(methods.fedKt, { op: { case: 'evidence', value: { evidence } } });
        return undefined;
      }
    }
  }

  async #answer(method: Method, request: unknown): Promise<Record<string, unknown>> {
    if (method.id === methods.fedKt.id) return this.#fedKt(request as FedKtRequest);
    const own = this.#own;
    const about = own && (await answerAboutLog(own, method, request));
    if (about === undefined) throw new UnimplementedError(method.name);
    return about;
  }

  /** Of its own log the truth; of others heads that nobody signed. */
  async #fedKt({ op }: FedKtRequest) {
    const answer = (value: MessageInitShape<typeof FedKtResponseSchema>['op']) =>
      create(FedKtResponseSchema, { op: value as NonNullable<typeof value> });
    switch (op.case) {
      case 'heads': {
        const { origin, fromSize } = op.value;
        const isOwn = origin === '' || origin === this.id.origin;
        if (isOwn && this.#own !== undefined) {
          return answer({ case: 'heads', value: await headsOf(this.#own, Number(fromSize), 256) });
        }
        const { dice } = this.#parts;
        const isKnown = this.#origins.includes(origin);
        const head = { size: fromSize + BigInt(isKnown ? dice.int(3) : 0) };
        const [root, signature] = [dice.bytes(32), dice.bytes(64)];
        const checkpoint = this.#flipped(this.#pick(this.#heard) ?? dice.bytes(100));
        return answer({
          case: 'heads',
          value: { heads: [{ ...head, root, signature }], checkpoint },
        });
      }
      case 'checkpoint':
        return answer({ case: 'checkpoint', value: {} });
      case 'evidence':
        return answer({ case: 'evidence', value: {} });
      default:
        throw new UnimplementedError('look-ups');
    }
  }
}
