/** What became of a device's own messages to another node, as far as this node remembers. */
import { storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { MessageStatus } from '../message-store.ts';
import type { LogAppend } from './log-append.ts';
import { splitRids } from './outbox-exits.ts';
import type { PeerQueries } from './peers.ts';

type Key = [peer: number, sender: number, mid: Uint8Array, max: number];

export function relayStatusQueries(
  { db }: QueryContext,
  logs: LogAppend,
  peers: PeerQueries,
): Pick<Operations, 'relayStatus'> {
  const ofMessage = 'WHERE peer = ? AND sender = ? AND mid = ? LIMIT (? + 0)';
  const held = db.prepare<Key, { readonly rids: Uint8Array; readonly seq: number | null }>(
    `SELECT rids, seq FROM outbox ${ofMessage}`,
  );
  const passed = db.prepare<Key, Uint8Array>(`SELECT rids FROM outbox_tomb ${ofMessage}`).pluck();
  const dead = db.prepare<Key, { readonly rid: Uint8Array; readonly reason: string }>(
    `SELECT rid, reason FROM dead_letter ${ofMessage}`,
  );

  function statusesOf(peer: number, sender: number, mid: Uint8Array): readonly MessageStatus[] {
    const key: Key = [peer, sender, mid, storeBounds.statusesPerAnswer];
    const byDevice = new Map<string, MessageStatus>();
    const add = (status: MessageStatus): void => {
      const device = Buffer.from(status.rid).toString('hex');
      if (!byDevice.has(device)) byDevice.set(device, status);
    };
    // In this order: a dead letter may have been sent anew, and may have arrived then.
    for (const { rids, seq } of held.all(...key)) {
      const state = seq === null ? 'deferred' : 'queued';
      for (const rid of splitRids(rids)) add({ mid, rid, state, reason: '' });
    }
    for (const rids of passed.all(...key)) {
      for (const rid of splitRids(rids)) add({ mid, rid, state: 'relayed', reason: '' });
    }
    for (const { rid, reason } of dead.all(...key)) add({ mid, rid, state: 'bounced', reason });
    return [...byDevice.values()];
  }

  return {
    relayStatus(_nowMs, rid, domain, mids) {
      const peer = peers.peer(domain);
      const sender = logs.byKey(rid);
      const statuses: MessageStatus[] = [];
      for (const mid of mids) {
        const known =
          peer === undefined || sender === undefined ? [] : statusesOf(peer.id, sender.id, mid);
        const none: MessageStatus = { mid, rid: new Uint8Array(0), state: 'unknown', reason: '' };
        const next = known.length > 0 ? known : [none];
        const isFull = statuses.length + next.length > storeBounds.statusesPerAnswer;
        // A message with more devices than an answer takes is told as far as it goes.
        if (isFull && statuses.length > 0) break;
        statuses.push(...next.slice(0, storeBounds.statusesPerAnswer));
      }
      return { awaySinceMs: peer?.failing_since_ms ?? 0, statuses };
    },
  };
}
