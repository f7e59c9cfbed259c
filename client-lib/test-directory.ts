/**
 * Test support: answers what nodes would about published devices, with a real key-transparency log for
 * each domain, and the calls of groups by a hub in memory.
 */
import {
  methods,
  NotFoundError,
  parseUserId,
  signingKeyFromSeed,
  TransportError,
  UnimplementedError,
  type Method,
} from '@quicprochat/proto';
import {
  create,
  type DeviceKeyPackage,
  type MessageInitShape,
  type MessageShape,
  type SignedManifest,
  type SignedPrekey,
} from '@quicprochat/proto/messages';
import type { Caller } from './dial.ts';
import { TestHub } from './test-hub.ts';
import { TestLog, type TestLogOptions } from './test-logs.ts';
import { testRuntime } from './test-runtime.ts';

/** All test devices are of this domain's node; those of others are asked through it. */
export const ownDomain = 'red.example';
/** Keys of the logs, the same in every directory: a second one is another face of the same log. */
const seedOfDomain = (domain: string): number => domain.length * 8;
/** What its node proves itself with (SHA-256 SPKI). */
export const ownPin = new Uint8Array(32).fill(seedOfDomain(ownDomain) + 3);

/** The public half of a device, as its node would serve it. */
export interface Published {
  readonly userId: string;
  readonly identityPub: Uint8Array;
  readonly manifest: SignedManifest;
  /** Undefined: it has none. */
  readonly prekey: SignedPrekey | undefined;
  takeKeyPackage(suites: readonly number[]): Promise<DeviceKeyPackage | undefined>;
}

/** Answers look-ups about published devices; every package is handed out once. */
export class TestDirectory implements Caller {
  readonly #published = new Map<string, Published>();
  /** Names of the methods called, in order. */
  readonly calls: string[] = [];
  /** Serves every package again and again, as a bad node would. */
  isRepeating = false;
  /** No node answers. */
  isDown = false;
  readonly #served = new Map<string, DeviceKeyPackage | undefined>();
  readonly #logs = new Map<string, Promise<TestLog>>();
  readonly #times: NonNullable<TestLogOptions['times']>;
  readonly hub = new TestHub((domain) =>
    signingKeyFromSeed(new Uint8Array(32).fill(seedOfDomain(domain) + 4)),
  );
  /** What is on its way into the logs, in order. */
  #logged: Promise<void> = Promise.resolve();

  constructor(times: NonNullable<TestLogOptions['times']> = {}) {
    this.#times = times;
  }

  publish(device: Published): void {
    this.#published.set(device.userId, device);
    this.logVersion(device.userId, device.manifest);
  }

  /** From now on something else is served as a user's keys; its log stays as it is. */
  serve(userId: string, keys: Partial<Pick<Published, 'manifest' | 'prekey'>>): void {
    const found = this.#published.get(userId);
    if (found !== undefined) this.#published.set(userId, { ...found, ...keys });
  }

  /** Makes a manifest the next version of its user's label. */
  logVersion(userId: string, manifest: SignedManifest): void {
    const { domain } = parseUserId(userId);
    this.#logged = this.#logged.then(async () => {
      const log = await this.log(domain);
      await log.publish(userId, manifest);
    });
  }

  /** The log of a domain; every domain has one. */
  log(domain: string): Promise<TestLog> {
    const known = this.#logs.get(domain);
    if (known !== undefined) return known;
    const seed = seedOfDomain(domain);
    const made = TestLog.make(domain, { runtime: testRuntime, seed, times: this.#times });
    this.#logs.set(domain, made);
    return made;
  }

  /** Calls of one device: a hub has to know whose they are. */
  callerOf(rid: Uint8Array): Caller {
    return {
      call: async (method, request) => {
        if (this.isDown) throw new TransportError('unreachable', 'the nodes are down');
        const message = create(method.request, request);
        const answer = await this.hub.answer(rid, method.id, message);
        return answer === undefined
          ? this.call(method, request)
          : create(method.response, answer as MessageInitShape<typeof method.response>);
      },
    };
  }

  async call<I extends Method['request'], O extends Method['response']>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    this.calls.push(method.name);
    const answer = await this.#answer(method.id, request);
    return create(method.response, answer as MessageInitShape<O>);
  }

  #prekeysOf(userId: string): readonly unknown[] {
    const found = this.#published.get(userId);
    if (found === undefined) return [];
    const { manifest, identityPub, prekey } = found;
    const prekeys = prekey === undefined ? [] : [{ identityPub, prekey }];
    return [{ userId, keys: { manifest, prekeys } }];
  }

  async #answer(methodId: number, request: unknown): Promise<unknown> {
    await this.#logged;
    const asked = request as {
      userId?: string;
      userIds?: string[];
      suites?: number[];
      domain?: string;
    };
    const { userId = '', userIds = [], suites = [], domain } = asked;
    if (methodId === methods.fetchHybridKeys.id) {
      return { users: userIds.flatMap((one) => this.#prekeysOf(one)) };
    }
    if (domain !== undefined) {
      const log = await this.log(domain === '' ? ownDomain : domain);
      return log.answer(methodId, request);
    }
    const found = this.#published.get(userId);
    if (found === undefined) throw new NotFoundError('UNKNOWN_USER', 'no such user');
    const { manifest } = found;
    switch (methodId) {
      case methods.fetchKeyPackage.id: {
        const isServed = this.isRepeating && this.#served.has(userId);
        const one = isServed ? this.#served.get(userId) : await found.takeKeyPackage(suites);
        this.#served.set(userId, one);
        const { prekey } = found;
        const packages = one && [{ ...one, ...(prekey && { prekey }) }];
        return { manifest, packages: packages ?? [] };
      }
      default:
        throw new UnimplementedError(`method ${methodId}`);
    }
  }
}
