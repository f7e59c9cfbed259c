/** Handler of what an operator asks the running node: its outbox, and what is to become of dead letters. */
import { InvalidArgumentError, maxAdminPage, type Handlers, type Log } from '@quicprochat/proto';
import type {
  DeadLetterSchema,
  MessageInitShape,
  OutboxPeerSchema,
} from '@quicprochat/proto/messages';
import type { Federation } from '@quicprochat/federation';
import type { DeadLetter, OutboxPeer } from '../store/outbox-control.ts';
import type { NodeStore } from '../store/store.ts';

export interface AdminParts {
  readonly store: NodeStore;
  readonly federation: Pick<Federation, 'notify' | 'wakeAll'>;
  readonly log: Log;
}

export function adminHandlers({
  store,
  federation,
  log,
}: AdminParts): Pick<Handlers, 'adminOutbox'> {
  /** The rows leave now, also those for peers that are to be dialed only later. */
  async function send(): Promise<void> {
    for (const domain of await store.peersWithRows()) federation.notify(domain);
    federation.wakeAll();
  }

  return {
    async adminOutbox({ ask }) {
      switch (ask.case) {
        case undefined:
          throw new InvalidArgumentError('BAD_FIELD', 'ask: is missing');
        case 'peers': {
          const { after } = ask.value;
          const behind = (await store.outboxPeers()).filter(({ domain }) => domain > after);
          return { peers: behind.slice(0, maxAdminPage).map(peerToWire) };
        }
        case 'letters': {
          const letters = await store.deadLetters(Number(ask.value.after), maxAdminPage);
          return { letters: letters.map(letterToWire) };
        }
        case 'retry': {
          const { ids } = ask.value;
          const counts = await store.retryDead(ids.map(Number));
          log.info('dead letters sent again', { asked: ids.length, ...counts });
          if (counts.retried > 0) await send();
          return counts;
        }
        case 'drop': {
          const { ids } = ask.value;
          const dropped = await store.dropDead(ids.map(Number));
          log.info('dead letters dropped', { asked: ids.length, dropped });
          return { dropped };
        }
      }
    },
  };
}

function peerToWire(peer: OutboxPeer): MessageInitShape<typeof OutboxPeerSchema> {
  return {
    domain: peer.domain,
    awaySinceMs: BigInt(peer.awaySinceMs),
    rows: BigInt(peer.rows),
    bytes: BigInt(peer.bytes),
    deadRows: BigInt(peer.deadRows),
    deadBytes: BigInt(peer.deadBytes),
  };
}

function letterToWire(letter: DeadLetter): MessageInitShape<typeof DeadLetterSchema> {
  return {
    ...letter,
    id: BigInt(letter.id),
    bytes: BigInt(letter.bytes),
    createdMs: BigInt(letter.createdMs),
    deadMs: BigInt(letter.deadMs),
    expiresMs: BigInt(letter.expiresMs),
  };
}
