/**
 * `qpcd kt`: what an operator asks and decides about key logs while the node is stopped: the own log
 * checked entry by entry, the logs of peers with their verdicts, and the word that ends a verdict.
 */
import {
  checkEvidence,
  Follower,
  KtService,
  MemoryAuditStore,
  nativeSuite,
  type LogStatus,
} from '@quicprochat/kt-log';
import { NotFoundError, type Clock } from '@quicprochat/proto';
import { originOf, type OpenedLog } from './key-log.ts';
import type { NodeStore } from './store/store.ts';

export interface CheckedLog {
  /** Entries that were replayed; the whole log when `failure` is undefined. */
  readonly size: number;
  readonly failure: string | undefined;
  /** Accounts that no entry names: of a database from before the log; the next start logs them. */
  readonly accountsOutsideLog: number;
}

/**
 * Replays the own log from its first entry as an auditor would: every entry, both roots, every
 * signature. Then compares the accounts with it.
 */
export async function checkOwnLog(
  opened: OpenedLog,
  store: NodeStore,
  clock: Clock,
): Promise<CheckedLog> {
  const { log, config, identity } = opened;
  const service = new KtService(log);
  const text = new TextEncoder();
  const follower = new Follower({
    suite: nativeSuite,
    log: { config, identity },
    store: new MemoryAuditStore(),
    clock,
  });
  const pulled = await follower.pull({
    checkpoint: async () => text.encode(await log.checkpoint()),
    bundle: async (from, max) => (from < log.size ? service.auditBundle(from, max) : undefined),
    heads: async () => [],
  });
  const outside = await store.accountsOutsideLog();
  return {
    size: pulled.size,
    failure: pulled.status === 'ok' ? undefined : (pulled.failure?.message ?? pulled.status),
    accountsOutsideLog: outside.length,
  };
}

export interface PeerLogReport {
  readonly origin: string;
  readonly status: LogStatus | undefined;
  readonly size: number;
  /** One line for each piece of evidence. */
  readonly evidence: readonly string[];
}

/** The logs of the domains, as this node has followed them. */
export async function peerLogs(
  store: NodeStore,
  domains: readonly string[],
): Promise<readonly PeerLogReport[]> {
  const { audits } = store;
  const named = (await audits.evidence()).map(({ origin }) => origin);
  const origins = new Set([...domains.map(originOf), ...named]);
  return Promise.all(
    [...origins].toSorted().map(async (origin) => ({
      origin,
      status: await audits.status(origin),
      size: (await audits.followed(origin))?.size ?? 0,
      evidence: (await audits.evidence(origin)).map((record) => {
        const { explain } = checkEvidence(nativeSuite, record.bytes);
        return `${record.kind}: ${explain} (${Buffer.from(record.hash).toString('hex')})`;
      }),
    })),
  );
}

/**
 * The operator's word about a log: from the next start on it is followed again, and cosigned once it
 * is replayed. The evidence stays. Throws NotFoundError for a log that was never judged.
 */
export async function decide(store: NodeStore, origin: string): Promise<LogStatus> {
  const before = await store.audits.status(origin);
  if (before === undefined) {
    throw new NotFoundError('UNKNOWN_USER', `${origin}: this node has not judged such a log`);
  }
  await store.audits.setStatus(origin, 'behind');
  return before;
}

/** One piece of evidence, whole, by the hash that `qpcd kt peers` prints. Throws NotFoundError. */
export async function evidenceByHash(store: NodeStore, hashHex: string): Promise<Uint8Array> {
  const all = await store.audits.evidence();
  const found = all.find(({ hash }) => Buffer.from(hash).toString('hex') === hashHex);
  if (found === undefined) throw new NotFoundError('UNKNOWN_USER', `no evidence ${hashHex}`);
  return found.bytes;
}
