/**
 * One visit to a mailbox of this device: a connection of its own, the proof by which the node keeps it
 * longer, and everything that lies there, taken in and then acknowledged. What the node says is believed
 * as far as rows prove themselves: it may lose, repeat, reorder or make up what it likes.
 */
import {
  call,
  deliveryTokenHash,
  maxFetchRows,
  maxWaitMs,
  methods,
  hasReason,
  sameBytes,
  signGuestProof,
  TransportError,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import type {
  FetchResponse,
  MessageInitShape,
  NodeRecord,
  RequestMailboxResponse,
} from '@quicprochat/proto/messages';
import {
  CloseCode,
  makeIdentity,
  type Connection,
  type Transport,
} from '@quicprochat/proto/transport';
import { nodeAddressIn } from '../kt/log-record.ts';
import { dialNode } from '../dial.ts';
import { inTime } from '../in-time.ts';
import type { Receiver } from '../receiving/receiver.ts';
import { mailboxLog } from '../store/mailbox-rows.ts';
import type { ClientStore } from '../store/store.ts';
import { seqOf } from '../receiving/sync.ts';

export const visitLimits = {
  /** Rows of one visit; a node that has more is visited again later. */
  rows: 4_096,
  /** A visit that waits for rows ends after this time, and the next one proves itself anew (ms). */
  waitMs: 3_600_000,
  /** One question, beyond what it may wait (ms). */
  callMs: 15_000,
} as const;

export interface VisitParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly identityKey: SigningKey;
  readonly receive: Receiver['receiveMailbox'];
  /** Rows of one visit, unless it is as many as `visitLimits` says. */
  readonly rowsMax?: number;
}

export interface Visited {
  readonly domain: string;
  readonly node: NodeRecord;
  /** The own user's, which the node has cosigned. */
  readonly credential: Uint8Array;
  /** That opens it. */
  readonly token: Uint8Array;
  /** The node keeps it for so long from now on (ms). Before anything is read. */
  readonly onGranted: (lifetimeMs: number) => void;
  /** Whether to wait there for more. */
  readonly isWanted: () => boolean;
}

/** Throws TransportError and the node's refusals; what was taken in by then stays, and is not asked for again. */
export async function visitMailbox(
  parts: VisitParts,
  visited: Visited,
  signal: AbortSignal,
): Promise<void> {
  const tokenHashes = [deliveryTokenHash(visited.token)];
  await atNode(parts, visited, signal, async (connection, ask) => {
    const { lifetimeMs } = await ask({ tokenHashes });
    visited.onGranted(seqOf(lifetimeMs));
    await new Reading(parts, visited, connection, signal).run();
  });
}

/**
 * The last visit: takes in what is there, as far as the node shows it, and gives the mailbox back. Throws as
 * `visitMailbox`; without an error it is gone.
 */
export async function endMailbox(
  parts: VisitParts,
  visited: Pick<Visited, 'domain' | 'node' | 'credential'>,
  signal: AbortSignal,
): Promise<void> {
  await atNode(parts, visited, signal, async (connection, ask) => {
    try {
      // Nobody's token opens it from here on: nothing comes behind the last row.
      await ask({ tokenHashes: [] });
      const reading = { ...visited, isWanted: () => false };
      await new Reading(parts, reading, connection, signal).run();
    } catch (error) {
      // One that shows nothing keeps nobody: these are copies, and others bring them.
      if (
        error instanceof TransportError &&
        error.failure !== 'protocol' &&
        error.failure !== 'limit'
      ) {
        throw error;
      }
    }
    await ask({ tokenHashes: [], ends: true });
  });
}

type Ask = (
  request: Pick<MessageInitShape<typeof methods.requestMailbox.request>, 'tokenHashes' | 'ends'>,
) => Promise<RequestMailboxResponse>;

/** With a connection of its own to the node, and what proves there whose device this is. */
async function atNode(
  parts: VisitParts,
  visited: Pick<Visited, 'node' | 'credential'>,
  signal: AbortSignal,
  work: (connection: Connection, ask: Ask) => Promise<void>,
): Promise<void> {
  const { runtime, transport } = parts;
  const nodeAddress = nodeAddressIn(visited.node, runtime.clock.now());
  if (nodeAddress === undefined) throw new TransportError('unreachable', 'no address of the node');
  const identity = await makeIdentity(runtime.random);
  const { connection } = await inTime(runtime.clock, visitLimits.callMs, signal, (both) =>
    dialNode({ runtime, transport, nodeAddress, identity }, both),
  );
  try {
    const clientSpki = identity.spkiSha256;
    const nodeSpki = connection.peer.spkiSha256;
    const issuedMs = runtime.clock.now();
    const { identityKey } = parts;
    const proof = {
      credential: visited.credential,
      device: identityKey.publicKey,
      issuedMs: BigInt(issuedMs),
      signature: signGuestProof({ clientSpki, nodeSpki, issuedMs }, identityKey),
    };
    const options = { signal, deadlineMs: visitLimits.callMs };
    const ask: Ask = (request) =>
      call(connection, methods.requestMailbox, { ...proof, ...request }, options);
    await work(connection, ask);
  } finally {
    await connection.close(CloseCode.Normal, 'done');
  }
}

class Reading {
  readonly #parts: VisitParts;
  readonly #visited: Pick<Visited, 'domain' | 'isWanted'>;
  readonly #connection: Connection;
  readonly #signal: AbortSignal;
  readonly #log: Uint8Array;
  #rows = 0;
  #isStartedOver = false;

  constructor(
    parts: VisitParts,
    visited: Pick<Visited, 'domain' | 'isWanted'>,
    connection: Connection,
    signal: AbortSignal,
  ) {
    this.#parts = parts;
    this.#visited = visited;
    this.#connection = connection;
    this.#signal = signal;
    this.#log = mailboxLog(visited.domain);
  }

  /** Everything that is there; while somebody wants that, also what comes. */
  async run(): Promise<void> {
    const { clock } = this.#parts.runtime;
    const untilMs = clock.monotonic() + visitLimits.waitMs;
    await this.#drain();
    while (this.#visited.isWanted() && clock.monotonic() < untilMs) {
      const cursor = this.#cursor();
      const after = BigInt(cursor?.seq ?? 0);
      const storeId = cursor?.storeId ?? new Uint8Array(0);
      const cursors = [{ log: {}, after, storeId }];
      const startMs = clock.monotonic();
      await call(
        this.#connection,
        methods.fetchWait,
        { cursors, waitMs: maxWaitMs },
        { signal: this.#signal, deadlineMs: maxWaitMs + visitLimits.callMs },
      );
      // That there are rows, the wait may say; which ones, the log does.
      await this.#drain();
      const isStill = this.#cursor()?.seq === cursor?.seq;
      // One that does not wait, or was overtaken by a newer visit, is not asked in a circle.
      if (isStill && clock.monotonic() - startMs < maxWaitMs / 2) return;
    }
  }

  async #drain(): Promise<void> {
    for (;;) {
      const fetched = await this.#fetch();
      const before = this.#cursor()?.seq ?? 0;
      for (const row of fetched.rows.slice(0, maxFetchRows)) {
        this.#rows += 1;
        await this.#parts.receive({ ...row, seq: seqOf(row.seq) }, fetched.storeId, this.#log);
      }
      const cursor = this.#cursor();
      const upTo = BigInt(cursor?.seq ?? 0);
      // Also what a crash kept from being acknowledged after it was taken in.
      if (upTo > 0n && upTo >= fetched.floor && upTo <= fetched.head) await this.#ack(upTo);
      if (fetched.rows.length === 0) return;
      if (Number(upTo) <= before) throw new TransportError('protocol', 'mailbox: old rows again');
      if (this.#rows >= (this.#parts.rowsMax ?? visitLimits.rows)) {
        throw new TransportError('limit', 'mailbox: more rows than one visit takes');
      }
    }
  }

  /** What follows the cursor, which is of this making of the mailbox from now on. */
  async #fetch(): Promise<FetchResponse> {
    const { store } = this.#parts;
    const cursor = this.#cursor();
    const fetched = await this.#ask(cursor?.seq ?? 0).catch((error: unknown) => {
      // A cursor beyond the head: it was made anew.
      if (hasReason(error, 'BAD_CURSOR')) return undefined;
      throw error;
    });
    if (fetched !== undefined && cursor !== undefined) {
      if (sameBytes(fetched.storeId, cursor.storeId)) return fetched;
    }
    if (this.#isStartedOver) throw new TransportError('protocol', 'mailbox: another one again');
    this.#isStartedOver = true;
    const anew = fetched === undefined || cursor !== undefined ? await this.#ask(0) : fetched;
    const { storeId } = anew;
    if (storeId.length !== 8) throw new TransportError('protocol', 'mailbox: no store id');
    store.transaction(() => store.inbox.putCursor(this.#log, { storeId, seq: 0 }));
    return anew;
  }

  #ask(after: number): Promise<FetchResponse> {
    const request = { log: {}, after: BigInt(after), maxRows: maxFetchRows };
    return call(this.#connection, methods.fetch, request, this.#options());
  }

  async #ack(upTo: bigint): Promise<void> {
    const storeId = this.#cursor()?.storeId ?? new Uint8Array(8);
    await call(this.#connection, methods.ack, { log: {}, storeId, upTo }, this.#options());
  }

  #options() {
    return { signal: this.#signal, deadlineMs: visitLimits.callMs };
  }

  #cursor() {
    return this.#parts.store.inbox.cursor(this.#log);
  }
}
