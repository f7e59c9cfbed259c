/**
 * The three rules by which a stream survives restores of either side (docs/protocol/federation.md),
 * on thousands of random histories: production's sender and inbox over disks in memory. Without any
 * one of the rules this fails (docs/developer/verification.md says how that was tried).
 */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { silentLog, TransportError, type Runtime } from '@quicprochat/proto';
import {
  create,
  FedHelloResponseSchema,
  FedRelayRequestSchema,
  FedRelayResponseSchema,
  Lane,
  type FedHelloResponse,
} from '@quicprochat/proto/messages';
import { LaneSender, RelayInbox, type LinkSession } from '@quicprochat/federation';
import { SimulatedClock } from '../simulated-clock.ts';
import { MemoryStream } from './memory-stream.ts';
import { seededRandom } from './sim-node.ts';

type Side = 'sender' | 'receiver';
type Step =
  | { readonly do: 'send'; readonly rows: number }
  | { readonly do: 'run'; readonly ms: number }
  | { readonly do: 'break' }
  | { readonly do: 'copy'; readonly of: Side }
  | { readonly do: 'restore'; readonly of: Side; readonly age: number };

/** One way of a message (ms). */
const wayMs = 5;
const side = fc.constantFrom<Side>('sender', 'receiver');
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('send' as const),
      rows: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('run' as const),
      ms: fc.oneof(fc.integer({ min: 1, max: 4 * wayMs }), fc.constant(200)),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('break' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('copy' as const), of: side }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('restore' as const), of: side, age: fc.nat(2) }),
  },
);

/** Both ends and the line between them. */
class Line {
  readonly clock = new SimulatedClock();
  readonly disks: Readonly<Record<Side, MemoryStream>>;
  readonly #runtime: Runtime;
  readonly #copies: Record<Side, ReturnType<MemoryStream['copy']>[]> = { sender: [], receiver: [] };
  #sender: LaneSender;
  #inbox: RelayInbox;
  #ended = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #sent = 0;

  constructor(seed: number) {
    const random = seededRandom(seed);
    this.#runtime = { clock: this.clock, random, log: silentLog };
    this.disks = { sender: new MemoryStream(random), receiver: new MemoryStream(random) };
    this.#sender = this.#makeSender();
    this.#inbox = this.#makeInbox();
    this.#connect();
  }

  get isDrained(): boolean {
    return this.#sender.isIdle && this.disks.sender.held.length === 0;
  }

  /** What one of the two disks holds: it has to arrive. */
  get live(): Set<string> {
    return new Set([...this.disks.sender.held, ...this.disks.receiver.received]);
  }

  async take(one: Step): Promise<void> {
    switch (one.do) {
      case 'send':
        for (let row = 0; row < one.rows; row += 1) this.disks.sender.add(`${(this.#sent += 1)}`);
        this.#sender.notify();
        return;
      case 'run':
        return this.clock.advance(one.ms);
      case 'break':
        return this.#reconnect();
      case 'copy':
        this.#copies[one.of].push(this.disks[one.of].copy());
        return;
      case 'restore': {
        const copy = this.#copies[one.of].at(-1 - one.age);
        if (copy === undefined) return;
        this.disks[one.of].restore(copy);
        // The process is a new one too.
        if (one.of === 'sender') this.#sender = this.#makeSender();
        else this.#inbox = this.#makeInbox();
        return this.#reconnect();
      }
    }
  }

  async close(): Promise<void> {
    this.#ended.abort();
    await this.clock.advance(20_000);
    await this.#running;
  }

  /** A dial takes time, in which more rows may come. */
  async #reconnect(): Promise<void> {
    this.#ended.abort();
    await this.#running;
    this.#ended = new AbortController();
    this.#connectLater(this.#ended);
  }

  #connectLater(ended: AbortController): void {
    this.clock.timer(wayMs, () => {
      if (!ended.signal.aborted) this.#connect();
    });
  }

  #connect(): void {
    const ended = new AbortController();
    this.#ended = ended;
    const sender = this.#sender;
    const inbox = this.#inbox;
    this.#running = (async () => {
      const streams = await this.disks.receiver.inboundStreams();
      const hello = create(FedHelloResponseSchema, {
        streams: streams.map(({ streamId, cursor, chain }) => ({
          lane: Lane.BULK,
          streamId,
          cursor: BigInt(cursor),
          chain,
        })),
        ...inbox.credit('sender', 'bulk'),
      });
      // A session that the sender gives up is followed by the next one.
      await sender.run(this.#session(hello, inbox, ended)).catch(() => undefined);
      if (!ended.signal.aborted) this.#connectLater(ended);
    })();
  }

  #session(hello: FedHelloResponse, inbox: RelayInbox, ended: AbortController): LinkSession {
    const { signal } = ended;
    const gone = (): TransportError => new TransportError('closed', 'the line broke');
    const call = async (_method: unknown, request: unknown): Promise<unknown> => {
      const broken = new Promise<never>((_, reject) =>
        signal.addEventListener('abort', () => reject(gone()), { once: true }),
      );
      if (signal.aborted) throw gone();
      const answer = async (): Promise<unknown> => {
        await this.clock.sleep(wayMs);
        if (signal.aborted) throw gone();
        const reply = await inbox.relay('sender', create(FedRelayRequestSchema, request as object));
        await this.clock.sleep(wayMs);
        return create(FedRelayResponseSchema, reply);
      };
      return Promise.race([answer(), broken]);
    };
    const end = (reason: unknown): void => ended.abort(reason);
    const spkiSha256 = new Uint8Array(32);
    return { hello, spkiSha256, signal, end, call: call as LinkSession['call'] };
  }

  #makeSender(): LaneSender {
    const { sender: store } = this.disks;
    const lane = new LaneSender({ peer: 'receiver', lane: 'bulk', store, runtime: this.#runtime });
    lane.notify();
    return lane;
  }

  #makeInbox(): RelayInbox {
    return new RelayInbox({ store: this.disks.receiver, runtime: this.#runtime });
  }
}

/** Throws when a row is lost, or the stream hangs. */
async function holds(steps: readonly Step[], seed: number): Promise<void> {
  const line = new Line(seed);
  let live = line.live;
  for (const one of steps) {
    await line.take(one);
    const now = line.live;
    // Between losses of a disk every row is on one of the two at every moment.
    if (one.do !== 'restore')
      assert.ok(
        [...live].every((row) => now.has(row)),
        'a row is gone',
      );
    live = now;
  }
  const isDrained = await line.clock.runUntil(() => line.isDrained, 600_000);
  assert.ok(isDrained, 'the stream hangs');
  const received = new Set(line.disks.receiver.received);
  assert.ok(
    [...live].every((row) => received.has(row)),
    'a row did not arrive',
  );
  await line.close();
}

test('no history of restores of either side hangs a stream or loses a row that a disk holds', async () => {
  const numRuns = Number(process.env['QPC_HISTORIES'] ?? 1_500);
  const steps = fc.array(step, { minLength: 6, maxLength: 30 });
  const property = fc.asyncProperty(steps, fc.nat(1_000_000), holds);
  await fc.assert(property, { numRuns });
});
