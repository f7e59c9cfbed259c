/**
 * What the door's page tells of the node's log and of the logs that the node audits, gathered from
 * log and store; page.ts puts it into words.
 */
import {
  logStatuses,
  type AuditStore,
  type Configuration,
  type EvidenceRecord,
  type KtLog,
  type LogIdentity,
  type LogStatus,
  type TreeStore,
} from '@quicprochat/kt-log';

const hourMs = 3_600_000;
export const shownHours = 24;

/** One key that may cosign this log. */
export interface CosignerFact {
  readonly vkey: string;
  readonly name: string;
  /** Newest size that it signed, and when it came (Unix ms); undefined: not since the start. */
  readonly signed: { readonly size: number; readonly atMs: number } | undefined;
}

/** One log that this node replays. */
export interface AuditFact {
  readonly origin: string;
  readonly status: LogStatus | undefined;
  /** Entries replayed, and how many the log was last said to have. */
  readonly size: number;
  readonly knownSize: number;
}

/** What the node's peers add; a node without peers has empty lists. */
export interface PeerFacts {
  cosigners(): readonly CosignerFact[];
  /** C2SP policy that clients use by default; empty: nobody has to cosign. */
  policyText(): string;
  audits(): Promise<readonly AuditFact[]>;
}

export interface FactSources {
  readonly domain: string;
  readonly log: KtLog;
  readonly config: Configuration;
  readonly identity: LogIdentity;
  readonly tree: Pick<TreeStore, 'entries'>;
  readonly audits: Pick<AuditStore, 'evidence' | 'status'>;
  readonly peers: PeerFacts;
}

export interface PageFacts {
  readonly domain: string;
  readonly identity: LogIdentity;
  readonly config: Configuration;
  readonly nowMs: number;
  readonly size: number;
  readonly head:
    | { readonly root: Uint8Array; readonly rfc6962Root: Uint8Array; readonly timestampMs: number }
    | undefined;
  /** Entries of each of the last 24 hours, oldest first. */
  readonly hourly: readonly number[];
  readonly cosigners: readonly CosignerFact[];
  readonly policyText: string;
  readonly audits: readonly AuditFact[];
  readonly evidence: readonly EvidenceRecord[];
}

export async function gatherFacts(sources: FactSources, nowMs: number): Promise<PageFacts> {
  const { domain, identity, config, log, tree, audits, peers } = sources;
  const { head, size } = log;
  const [newest] = size === 0 ? [] : await tree.entries(size - 1, size);
  return {
    domain,
    identity,
    config,
    nowMs,
    size,
    head:
      head === undefined || newest === undefined
        ? undefined
        : {
            root: head.root,
            rfc6962Root: head.rfc6962Root,
            timestampMs: newest.timestampMs,
          },
    hourly: await hourlyEntries(tree, size, nowMs),
    cosigners: peers.cosigners(),
    policyText: peers.policyText(),
    audits: await peers.audits(),
    evidence: await audits.evidence(),
  };
}

/** Times of entries never go back, so each hour's first entry is found by halving. */
async function hourlyEntries(
  tree: FactSources['tree'],
  size: number,
  nowMs: number,
): Promise<number[]> {
  let low = 0;
  const bounds: number[] = [];
  for (let hour = 0; hour <= shownHours; hour++) {
    const fromMs = nowMs - (shownHours - hour) * hourMs;
    let high = size;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const [entry] = await tree.entries(middle, middle + 1);
      if ((entry?.timestampMs ?? 0) < fromMs) low = middle + 1;
      else high = middle;
    }
    bounds.push(low);
  }
  return bounds.slice(1).map((bound, hour) => bound - (bounds[hour] ?? 0));
}

/** How bad a status is, for sorting: the worst first. */
export function severity(status: LogStatus | undefined): number {
  return status === undefined ? 0 : logStatuses.indexOf(status);
}
