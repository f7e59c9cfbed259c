/**
 * Test support: bob's mailbox at a node that does what it likes. The node is told what to answer; devices, store and
 * receiver are real.
 */
import assert from 'node:assert/strict';
import {
  errorToWire,
  methodById,
  methods,
  RowKind,
  signingKeyFromSeed,
  signNodeRecord,
  TransportError,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  NodeRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
  type RequestMailboxRequest,
} from '@quicprochat/proto/messages';
import type { Connection, Transport } from '@quicprochat/proto/transport';
import { EventBus } from '../events.ts';
import { mailboxLog } from '../store/mailbox-rows.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { Mailboxes, type MailboxesParts } from './mailboxes.ts';
import { visitMailbox } from './visit.ts';

const { random, clock } = testRuntime;
/** Whose node keeps it. */
export const green = 'green.example';
export const nodeSpki = random.bytes(32);

export type Sent = Pick<TestRow, 'mid' | 'payload'>;
export interface TestRow {
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly payload: Uint8Array;
  readonly kind?: number;
}

/** A node that keeps a mailbox, as well as it is told to. */
export class LyingNode {
  rows: readonly TestRow[] = [];
  storeId: Uint8Array = random.bytes(8);
  acked: number[] = [];
  visits = 0;
  lifetimeMs = 7n * 24n * 3_600_000n;
  waits = 0;
  /** What a wait gets, at once. */
  waited = (): readonly TestRow[] => [];
  /** Instead of the answer of the method with this id. */
  failing: { readonly id: number; readonly error: Error } | undefined;
  /** What a fetch after `after` gets; unless told, what lies behind it. */
  fetched = (after: number): readonly TestRow[] => this.rows.filter(({ seq }) => seq > after);
  clientSpki: Uint8Array = new Uint8Array(0);
  asked: RequestMailboxRequest | undefined;
  /** How often it was given its mailbox back. */
  ends = 0;

  readonly transport: Transport = {
    name: 'lying',
    listen: () => Promise.reject(new Error('it does not listen')),
    dial: async (_endpoint, { identity }) => {
      this.visits += 1;
      this.clientSpki = identity.spkiSha256;
      // Only what a visit uses of it.
      return {
        peer: { spkiSha256: nodeSpki, host: green },
        call: (request: Parameters<Connection['call']>[0]) =>
          Promise.resolve(this.#answer(request)),
        close: () => Promise.resolve(),
      } as unknown as Connection;
    },
  };

  #answer({ methodId, requestId, payload }: Parameters<Connection['call']>[0]) {
    const method = methodById(methodId)?.row;
    assert(method !== undefined);
    const { failing } = this;
    if (failing?.id === methodId) {
      if (failing.error instanceof TransportError) throw failing.error;
      const [status, wire] = errorToWire(failing.error, { ...testRuntime, method: method.name });
      return { status, requestId, payload: wire };
    }
    const answer = create(method.response, this.#fields(methodId, payload));
    return { status: 0, requestId, payload: toBinary(method.response, answer) };
  }

  #fields(methodId: number, payload: Uint8Array): Record<string, unknown> {
    switch (methodId) {
      case methods.requestMailbox.id:
        this.asked = fromBinary(methods.requestMailbox.request, payload);
        if (this.asked.ends) this.ends += 1;
        return { lifetimeMs: this.asked.ends ? 0n : this.lifetimeMs };
      case methods.fetch.id:
        return this.#log(Number(fromBinary(methods.fetch.request, payload).after));
      case methods.fetchWait.id:
        this.waits += 1;
        return { logs: [{ log: {}, fetched: this.#answerOf(this.waited()) }] };
      case methods.ack.id:
        this.acked.push(Number(fromBinary(methods.ack.request, payload).upTo));
        return {};
      default:
        return {};
    }
  }

  #log(after: number): Record<string, unknown> {
    return this.#answerOf(this.fetched(after));
  }

  #answerOf(from: readonly TestRow[]): Record<string, unknown> {
    const rows = from.map((row) => ({
      ...{ ...row, seq: BigInt(row.seq), kind: row.kind ?? RowKind.Envelope },
    }));
    const head = BigInt(Math.max(0, ...this.rows.map(({ seq }) => seq)));
    return { storeId: this.storeId, floor: 1n, head, rows };
  }
}

function record(): Uint8Array {
  const signing = signingKeyFromSeed(random.bytes(32));
  return toBinary(
    SignedNodeRecordSchema,
    signNodeRecord({
      ...{ domain: green, seq: 1, versionMin: 1, versionMax: 1, capabilities: [] },
      keys: [{ spkiSha256: nodeSpki, signing, fromMs: 0, toMs: 0 }],
      endpoints: [{ host: green, port: 5001 }],
    }),
  );
}

interface VisitOptions {
  readonly isWanted?: () => boolean;
  readonly rowsMax?: number;
}

/** Mailboxes at work, and what they told. */
interface Kept {
  readonly mailboxes: Mailboxes;
  /** Its domains, after each change of mind. */
  readonly told: (readonly string[])[];
  renewals: number;
}

export const numbered = (rows: readonly Sent[], from = 1): readonly TestRow[] =>
  rows.map(({ mid, payload }, index) => ({ mid, payload, seq: from + index }));

export async function until(holds: () => boolean): Promise<void> {
  const endMs = clock.monotonic() + 5_000;
  while (!holds()) {
    assert(clock.monotonic() < endMs, 'it takes too long');
    await clock.sleep(2);
  }
}

/** bob's mailbox, and alice who writes to him in a group of both. */
export class MailboxScene {
  readonly node = new LyingNode();
  readonly bob: TestDevice;
  readonly id: Uint8Array;
  readonly #alice: TestDevice;
  readonly #open: Mailboxes[] = [];

  private constructor(alice: TestDevice, bob: TestDevice, id: Uint8Array) {
    this.#alice = alice;
    this.bob = bob;
    this.id = id;
  }

  static async make(): Promise<MailboxScene> {
    const directory = new TestDirectory();
    const alice = new TestDevice('alice@red.example', directory);
    const bob = new TestDevice('bob@blue.example', directory);
    const id = await alice.conversations.create('mail', [bob.userId]);
    for (const row of alice.rowsFor(bob)) await bob.receive(row);
    return new MailboxScene(alice, bob, id);
  }

  async stop(): Promise<void> {
    for (const mailboxes of this.#open.splice(0)) await mailboxes.stop();
  }

  /** What alice sends now. */
  async sent(...texts: readonly string[]): Promise<readonly Sent[]> {
    const { bob, id } = this;
    const alice = this.#alice;
    const before = alice.rowsFor(bob).length;
    for (const text of texts) await alice.conversations.send(id, text);
    return alice.rowsFor(bob).slice(before);
  }

  /** Of visits, and of what begins them. */
  parts() {
    const { bob, node } = this;
    return {
      ...{ store: bob.store, runtime: testRuntime, transport: node.transport },
      identityKey: bob.identityKey,
      receive: bob.receiver.receiveMailbox.bind(bob.receiver),
    };
  }

  visit({ isWanted = () => false, rowsMax }: VisitOptions = {}): Promise<void> {
    const signed = fromBinary(SignedNodeRecordSchema, record());
    return visitMailbox(
      { ...this.parts(), ...(rowsMax !== undefined && { rowsMax }) },
      {
        ...{ domain: green, node: fromBinary(NodeRecordSchema, signed.record) },
        ...{ credential: random.bytes(9), token: random.bytes(16) },
        ...{ onGranted: () => undefined, isWanted },
      },
      new AbortController().signal,
    );
  }

  cursor(): number | undefined {
    return this.bob.store.inbox.cursor(mailboxLog(green))?.seq;
  }

  /** Part of a transaction: bob has it for an hour. */
  put(): void {
    const expiresMs = clock.now() + 3_600_000;
    this.bob.store.mailboxes.put({ domain: green, record: record(), expiresMs });
  }

  /** Started, with one at green already. */
  keeping(): Kept {
    const { store } = this.bob;
    store.transaction(() => {
      store.tokens.putOwn(random.bytes(16), clock.now());
      store.tokens.markAtNode(store.tokens.own()?.id ?? 0);
      this.put();
    });
    const kept: Kept = {
      mailboxes: this.mailboxes({
        renewCredential: async () => void (kept.renewals += 1),
        onChange: () => void kept.told.push(kept.mailboxes.domains),
      }),
      told: [],
      renewals: 0,
    };
    kept.mailboxes.start();
    return kept;
  }

  /** Not started; stopped with the scene. */
  mailboxes(parts: Partial<MailboxesParts> = {}): Mailboxes {
    const mailboxes = new Mailboxes({
      ...{ ...this.parts(), events: new EventBus(), ownDomain: 'blue.example' },
      credential: () => random.bytes(9),
      renewCredential: async () => undefined,
      onChange: () => undefined,
      ...parts,
    });
    this.#open.push(mailboxes);
    return mailboxes;
  }
}
