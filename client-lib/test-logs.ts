/**
 * Test support: the key-transparency logs of some domains, real ones with real keys in memory, behind
 * the methods that a node would serve. A test can give one client another face of a log, or let a
 * log lie.
 */
import {
  configuration,
  encode,
  formatVkey,
  KtLog,
  KtService,
  MemoryTreeStore,
  nativeSuite,
  type KtServed,
} from '@quicprochat/kt-log';
import { testLogKeys } from '@quicprochat/kt-log/test-keys';
import {
  manifestValue,
  methods,
  signingKeyFromSeed,
  signNodeRecord,
  UnimplementedError,
  type Clock,
  type NodeRecordFacts,
  type Runtime,
} from '@quicprochat/proto';
import {
  SignedNodeRecordSchema,
  toBinary,
  type SignedManifest,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';

export interface TestLogOptions {
  readonly runtime: Runtime;
  /** The log's own idea of the time. */
  readonly clock?: Clock;
  /** Limits of the log, where they are not those of testLogKeys. */
  readonly times?: Parameters<typeof testLogKeys>[2];
  /** Keys of the log and its node: the same seed gives the same keys. */
  readonly seed?: number;
  /** Cosigner keys that the record names (C2SP verifier keys). */
  readonly cosigners?: readonly string[];
}

/** The log of one domain. */
export class TestLog {
  readonly facts: NodeRecordFacts;
  /** What the log's node serves as its record. */
  record: SignedNodeRecord;
  /** SHA-256 SPKI of the log's node: what a client pins (32 bytes). */
  readonly pin: Uint8Array;
  /** Whose own credential is asked for: calls here do not say who makes them. */
  owner = '';
  readonly #log: KtLog;
  readonly #service: KtService;
  readonly #versions = new Map<string, number>();

  private constructor(
    facts: NodeRecordFacts,
    record: SignedNodeRecord,
    pin: Uint8Array,
    log: KtLog,
  ) {
    this.facts = facts;
    this.record = record;
    this.pin = pin;
    this.#log = log;
    this.#service = new KtService(log);
  }

  /** A new log whose first entry is its node's record. */
  static async make(domain: string, options: TestLogOptions): Promise<TestLog> {
    const { runtime, clock = runtime.clock, times = {}, seed, cosigners = [] } = options;
    const seedOf = (n: number): Uint8Array =>
      seed === undefined ? runtime.random.bytes(32) : new Uint8Array(32).fill(seed + n);
    const { keys, config, identity } = testLogKeys(`${domain}/kt`, seedOf, times);
    const log = await KtLog.open({
      config,
      identity,
      keys,
      store: new MemoryTreeStore(),
      suite: nativeSuite,
      clock,
      random: runtime.random,
      sequencerLimits: { batchMs: 0 },
    });
    const pin = seedOf(3);
    const facts: NodeRecordFacts = {
      domain,
      keys: [
        {
          spkiSha256: pin,
          signing: signingKeyFromSeed(seedOf(4)),
          fromMs: 0,
          toMs: 0,
        },
      ],
      endpoints: [{ host: domain, port: 5001 }],
      seq: 1,
      versionMin: 1,
      versionMax: 1,
      capabilities: [],
      logs: [
        { config: encode(configuration, config), vkey: formatVkey(identity.key), fromSize: 1 },
      ],
      cosigners,
    };
    const record = signNodeRecord(facts);
    const made = new TestLog(facts, record, pin, log);
    await made.append(`@${domain}`, toBinary(SignedNodeRecordSchema, record));
    return made;
  }

  get domain(): string {
    return this.facts.domain;
  }

  /** The next version of a label. */
  async append(label: string, value: Uint8Array): Promise<void> {
    const greatest = this.#versions.get(label) ?? -1;
    this.#versions.set(label, greatest + 1);
    await this.#log.append({ label: Buffer.from(label), greatest, values: [value] });
  }
  async publish(userId: string, signed: SignedManifest): Promise<void> {
    await this.append(userId, manifestValue(signed));
  }

  /** What the node of this log answers to a call about it. */
  async answer(methodId: number, request: unknown): Promise<unknown> {
    const asked = request as {
      request?: Uint8Array | { case: string; value: Uint8Array };
      size?: bigint;
    };
    const bytes = asked.request instanceof Uint8Array ? asked.request : new Uint8Array(0);
    const answerOf = ({ response, checkpoint }: KtServed) => ({ response, checkpoint });
    switch (methodId) {
      case methods.getNodeRecord.id:
        return { record: this.record };
      case methods.ktSearch.id: {
        const value = answerOf(await this.#service.search(bytes));
        return { answer: { case: 'found', value } };
      }
      case methods.ktUpdate.id:
        return { answer: answerOf(await this.#service.update(bytes)) };
      case methods.ktDistinguished.id:
        return { answer: answerOf(await this.#service.distinguished(bytes)) };
      case methods.ktTreeHead.id:
        return { checkpoint: Buffer.from(await this.#log.checkpoint(Number(asked.size))) };
      case methods.ktCredential.id: {
        const made = await this.#service.credential(Buffer.from(this.owner));
        const { response: credential, checkpoint, entry, inclusion } = made;
        return { credential, checkpoint, entry, inclusion: [...inclusion] };
      }
      case methods.ktMonitor.id: {
        const monitor = asked.request as { case: string; value: Uint8Array };
        const served =
          monitor.case === 'contact'
            ? await this.#service.contactMonitor(monitor.value)
            : monitor.case === 'ownerInit'
              ? await this.#service.ownerInit(monitor.value)
              : await this.#service.ownerMonitor(monitor.value);
        return { answer: answerOf(served) };
      }
      default:
        throw new UnimplementedError(`method ${methodId}`);
    }
  }
}
