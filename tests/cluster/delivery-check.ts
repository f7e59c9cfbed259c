/**
 * Judges a finished run from the closed stores of its clients alone: what was acknowledged must be
 * in every other member's store, once, decrypted. Nothing counted while sending is believed.
 */
import { openStore, type ClientStore, type SendState } from '@quicprochat/client-lib/store';

/** Where one client's closed store lies. */
export interface ClosedStore {
  readonly userId: string;
  readonly path: string;
  readonly key: Uint8Array;
}

/** One client's line of the table. */
export interface ClientVerdict {
  readonly userId: string;
  readonly sent: number;
  /** Own messages whose every copy the own node had confirmed. */
  readonly acknowledged: number;
  /** Messages of others in the store. */
  readonly received: number;
  /** Acknowledged messages of other members that are not in the store. */
  readonly lost: number;
  /** Messages that stand in the store more than once. */
  readonly doubled: number;
  /** Rows that were never opened, finally or still waiting. */
  readonly undecryptable: number;
  /** Copies of own messages that were refused for good. */
  readonly refused: number;
}

/** One message in one recipient's store. */
export interface Delivery {
  readonly messageId: string;
  /** Wall clock of the sender when it sealed the message. */
  readonly sentMs: number;
  /** From there to the recipient's commit, by both wall clocks. */
  readonly latencyMs: number;
}

export interface Verdict {
  readonly clients: readonly ClientVerdict[];
  readonly deliveries: readonly Delivery[];
  readonly isClean: boolean;
}

interface Message {
  readonly sender: string;
  readonly innerId: string;
  readonly text: string;
  readonly sentMs: number;
  readonly receivedMs: number | undefined;
  readonly isAcknowledged: boolean;
}

interface Evidence {
  readonly userId: string;
  readonly messages: readonly Message[];
  readonly undecryptable: number;
  readonly refused: number;
}

/** A receipt may come before the OK that a killed client had not written down: that counts as well. */
const acknowledged: ReadonlySet<SendState | undefined> = new Set([
  'accepted',
  'relayed',
  'delivered',
  'read',
]);

/** Members are those whose stores are given; every message must have reached all of them. */
export function checkDelivery(stores: readonly ClosedStore[]): Verdict {
  const evidence = stores.map(readEvidence);
  const clients = evidence.map((mine) => judge(mine, evidence));
  const deliveries = evidence
    .flatMap(({ messages }) => messages)
    .flatMap(({ sender, innerId, sentMs, receivedMs }) =>
      receivedMs === undefined
        ? []
        : [{ messageId: `${sender} ${innerId}`, sentMs, latencyMs: receivedMs - sentMs }],
    );
  const isClean = clients.every(
    ({ lost, doubled, undecryptable, refused }) => lost + doubled + undecryptable + refused === 0,
  );
  return { clients, deliveries, isClean };
}

function readEvidence({ userId, path, key }: ClosedStore): Evidence {
  using store: ClientStore = openStore(path, key);
  const messages = store.groups.conversations().flatMap((conversation) =>
    store.messages.history(conversation.id, Number.MAX_SAFE_INTEGER).map((message) => ({
      sender: message.senderUser,
      innerId: Buffer.from(message.innerId).toString('hex'),
      text: message.text,
      sentMs: message.sentMs,
      receivedMs: message.receivedMs,
      isAcknowledged: acknowledged.has(message.sendState),
    })),
  );
  return {
    userId,
    messages,
    undecryptable: store.inbox.undecryptable().length + store.inbox.parked().length,
    refused: store.outbox.failures().length,
  };
}

function judge(mine: Evidence, all: readonly Evidence[]): ClientVerdict {
  const own = mine.messages.filter(({ receivedMs }) => receivedMs === undefined);
  const received = mine.messages.filter(({ receivedMs }) => receivedMs !== undefined);
  const held = new Set(received.map(keyOf));
  const lost = all
    .filter(({ userId }) => userId !== mine.userId)
    .flatMap(({ messages }) => messages)
    .filter((message) => message.isAcknowledged && !held.has(keyOf(message)));
  return {
    userId: mine.userId,
    sent: own.length,
    acknowledged: own.filter(({ isAcknowledged }) => isAcknowledged).length,
    received: received.length,
    lost: lost.length,
    doubled: doubles(mine.messages),
    undecryptable: mine.undecryptable,
    refused: mine.refused,
  };
}

/** The text counts too: the same words under a second inner id are a double to the reader. */
function keyOf({ sender, innerId, text }: Message): string {
  return `${sender}\n${innerId}\n${text}`;
}

/** Runs give every message a text of its own, so equal (sender, text) or ids are doubles. */
function doubles(messages: readonly Message[]): number {
  const byId = new Set(messages.map(({ sender, innerId }) => `${sender}\n${innerId}`));
  const byText = new Set(messages.map(({ sender, text }) => `${sender}\n${text}`));
  return messages.length - Math.min(byId.size, byText.size);
}

/** Value below which a share of the sorted numbers lies; NaN when there are none. */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
