/** The outbox of a running node, over its admin door. */
import { call, methods } from '@quicprochat/proto';
import type {
  AdminOutboxRequestSchema,
  AdminOutboxResponse,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import { CloseCode, type Connection } from '@quicprochat/proto/transport';
import type { DeadLetter, OutboxControl, OutboxPeer } from './store/outbox-control.ts';

type Ask = MessageInitShape<typeof AdminOutboxRequestSchema>;

/** A look takes the node moments; one that hangs is not waited for longer (ms). */
const lookMs = 5_000;

/** Beside what `OutboxControl` says, each method throws what the node answers and TransportError. */
export class RunningOutbox implements OutboxControl, AsyncDisposable {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  #ask(ask: NonNullable<Ask['ask']>): Promise<AdminOutboxResponse> {
    const isLook = ask.case === 'peers' || ask.case === 'letters';
    const options = isLook ? { deadlineMs: lookMs } : {};
    return call(this.#connection, methods.adminOutbox, { ask }, options);
  }

  async outboxPeers(): Promise<readonly OutboxPeer[]> {
    const all: OutboxPeer[] = [];
    for (;;) {
      const after = all.at(-1)?.domain ?? '';
      const { peers } = await this.#ask({ case: 'peers', value: { after } });
      if (peers.length === 0) return all;
      all.push(...peers.map(peerFromWire));
    }
  }

  /** `max` is at most 500. */
  async deadLetters(after: number, max: number): Promise<readonly DeadLetter[]> {
    const ask = { case: 'letters', value: { after: BigInt(after) } } as const;
    const { letters } = await this.#ask(ask);
    return letters.slice(0, max).map(letterFromWire);
  }

  /** At most 500 at once, as in `dropDead`. */
  async retryDead(ids: readonly number[]): Promise<{ retried: number; expired: number }> {
    return this.#ask({ case: 'retry', value: { ids: ids.map(BigInt) } });
  }

  async dropDead(ids: readonly number[]): Promise<number> {
    return (await this.#ask({ case: 'drop', value: { ids: ids.map(BigInt) } })).dropped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close(CloseCode.Normal, 'done');
  }
}

function peerFromWire(peer: AdminOutboxResponse['peers'][number]): OutboxPeer {
  return {
    domain: peer.domain,
    awaySinceMs: Number(peer.awaySinceMs),
    rows: Number(peer.rows),
    bytes: Number(peer.bytes),
    deadRows: Number(peer.deadRows),
    deadBytes: Number(peer.deadBytes),
  };
}

function letterFromWire(letter: AdminOutboxResponse['letters'][number]): DeadLetter {
  return {
    ...letter,
    id: Number(letter.id),
    bytes: Number(letter.bytes),
    createdMs: Number(letter.createdMs),
    deadMs: Number(letter.deadMs),
    expiresMs: Number(letter.expiresMs),
  };
}
