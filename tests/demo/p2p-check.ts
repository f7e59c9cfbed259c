/**
 * Judges a finished run of the p2p demo from the closed stores of its clients: by which path each message
 * came, and whether the messages of each sender came in the order in which they were written.
 */
import { openStore, type ClientStore } from '@quicprochat/client-lib/store';
import type { ClosedStore } from '../cluster/delivery-check.ts';

export type ReceivedBy = Readonly<Record<'node' | 'direct' | 'relay', number>>;
export type LeftBy = Readonly<Record<'node' | 'guest' | 'direct' | 'relay', number>>;

export interface PathVerdict {
  readonly userId: string;
  /** Messages of others by how they came. */
  readonly received: ReceivedBy;
  /** Own messages by how their copies left; one may count under several. */
  readonly left: LeftBy;
  /** Messages that came after a later one of the same sender. */
  readonly disordered: number;
  /** When the first message came past the nodes, by the receiver's clock. */
  readonly firstPastNodesMs: number | undefined;
  /** Of what came past the nodes and was written after `sinceMs`. */
  readonly pastNodes: readonly {
    readonly sentMs: number;
    /** From sealing to the receiver's disk. */
    readonly latencyMs: number;
  }[];
}

export function checkPaths(stores: readonly ClosedStore[], sinceMs: number): PathVerdict[] {
  return stores.map((closed) => judge(closed, sinceMs));
}

function judge({ userId, path, key }: ClosedStore, sinceMs: number): PathVerdict {
  using store: ClientStore = openStore(path, key);
  const messages = store.groups
    .conversations()
    .flatMap(({ id }) => store.messages.history(id, Number.MAX_SAFE_INTEGER))
    // Row ids are the order of arrival.
    .toSorted((a, b) => a.id - b.id);
  const received = { node: 0, mailbox: 0, direct: 0, relay: 0 };
  const left = { node: 0, guest: 0, mailbox: 0, direct: 0, relay: 0 };
  const newest = new Map<string, number>();
  const pastNodes: PathVerdict['pastNodes'][number][] = [];
  let disordered = 0;
  let firstPastNodesMs: number | undefined;
  for (const { senderDevice, n, receivedMs, sentMs, via, paths } of messages) {
    if (receivedMs === undefined) {
      for (const one of paths) left[one] += 1;
      continue;
    }
    received[via ?? 'node'] += 1;
    if (n < (newest.get(senderDevice) ?? 0)) disordered += 1;
    newest.set(senderDevice, Math.max(n, newest.get(senderDevice) ?? 0));
    if (via === undefined) continue;
    firstPastNodesMs ??= receivedMs;
    if (sentMs >= sinceMs) pastNodes.push({ sentMs, latencyMs: receivedMs - sentMs });
  }
  return { userId, received, left, disordered, firstPastNodesMs, pastNodes };
}
