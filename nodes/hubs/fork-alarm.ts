/**
 * The alarm of a hub that is shown a certified entry beside another one that it holds (docs: protocol/group-log, "A lying
 * hub"): together the two convict whoever signed both. No hub takes back what it accepted, so the operator has to know.
 */
import {
  checkEvidence,
  groupLogLimits,
  hasReason,
  hex,
  parseEntry,
  QpcError,
  verifyCertified,
  type Clock,
  type HubKeys,
  type Log,
  type ParsedEntry,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  type CertifiedEntry,
  type GroupLogRequestSchema,
  type GroupLogResponse,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import type { NodeStore } from '../store/store.ts';

const limits = {
  /** Groups that are remembered as told, and as compared; more are forgotten, and told again. */
  groups: 4_096,
  /** A group's log is compared with those of others once in this time (ms)... */
  compareMs: 60_000,
  /** ...page by page: more than a hub keeps. */
  pages: 1_024,
} as const;
const nothing: Uint8Array = new Uint8Array(0);

/** Instead of the domain of a hub, in the log. */
export const aMember = 'a member';

export interface ForkAlarmParts {
  readonly store: Pick<NodeStore, 'entryKey' | 'childEntries'>;
  readonly keysOf: HubKeys;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly log: Log;
  readonly peers: {
    log(
      domain: string,
      request: MessageInitShape<typeof GroupLogRequestSchema>,
    ): Promise<GroupLogResponse>;
  };
}

/** Certified entries of one group. */
export interface ShownEntries {
  readonly group: Uint8Array;
  readonly hubs: readonly string[];
  /** Domain of the hub that shows them, or `aMember`. */
  readonly from: string;
  readonly entries: readonly (CertifiedEntry | undefined)[];
}

export class ForkAlarm {
  readonly #parts: ForkAlarmParts;
  /** By group, in hex. */
  readonly #told = new Set<string>();
  /** Monotonic ms, by group in hex and domain. */
  readonly #compared = new Map<string, number>();

  constructor(parts: ForkAlarmParts) {
    this.#parts = parts;
  }

  /**
   * Whether one of the entries convicts somebody together with one that is held here, which is logged once for each group in
   * the life of a process. What is malformed, or signed by too few, convicts nobody. Throws what the store throws.
   */
  async look({ group, hubs, from, entries }: ShownEntries): Promise<boolean> {
    const { keysOf, log } = this.#parts;
    const key = hex(group);
    if (this.#told.has(key)) return true;
    for (const shown of entries) {
      const parsed = shown && readable(() => parseEntry(shown.entry));
      if (shown === undefined || parsed === undefined || hex(parsed.entry.group) !== key) continue;
      if ((await this.#parts.store.entryKey(group, parsed.hash)) !== undefined) continue;
      // Before anything is read for it.
      if (readable(() => verifyCertified(shown, hubs, keysOf)) === undefined) continue;
      for (const held of await this.#siblings(parsed)) {
        const convicted = checkEvidence(held, shown, hubs, keysOf);
        if (convicted.length === 0 || this.#told.has(key)) continue;
        if (this.#told.size >= limits.groups) this.#told.clear();
        this.#told.add(key);
        log.error('a hub of a group is convicted', {
          ...{ group: key.slice(0, 16), hubs: convicted.join(' '), epoch: parsed.epoch, from },
        });
        return true;
      }
    }
    return false;
  }

  /** Reads the log of another hub that contradicts this one's, up to where somebody is convicted. Never rejects for what that hub does. */
  async compare(domain: string, group: Uint8Array, hubs: readonly string[]): Promise<void> {
    const { peers, clock } = this.#parts;
    const key = `${hex(group)} ${domain}`;
    const nowMs = clock.monotonic();
    if (nowMs - (this.#compared.get(key) ?? -Infinity) < limits.compareMs) return;
    if (this.#compared.size >= limits.groups) this.#compared.clear();
    this.#compared.set(key, nowMs);
    let after: Uint8Array = nothing;
    for (let pages = 0; pages < limits.pages && !this.#told.has(hex(group)); pages += 1) {
      try {
        const page = await peers.log(domain, { group, after });
        const entries = page.entries.map(({ entry }) => entry);
        await this.look({ group, hubs, from: domain, entries });
        if (!page.hasMore || entries.length === 0) return;
        after = parseEntry(entries.at(-1)?.entry).hash;
      } catch (error) {
        if (error instanceof QpcError) return;
        throw error;
      }
    }
  }

  /** Entries that are held behind the same parent; none where the group is not here. */
  async #siblings({ entry: { group, parent } }: ParsedEntry): Promise<CertifiedEntry[]> {
    const { store } = this.#parts;
    const siblings: CertifiedEntry[] = [];
    for (let after = nothing; ;) {
      let page;
      try {
        page = await store.childEntries(group, parent, after, groupLogLimits.pageEntries);
      } catch (error) {
        if (hasReason(error, 'UNKNOWN_GROUP')) return siblings;
        throw error;
      }
      for (const control of page.controls) {
        const { entry } = fromBinary(GroupControlSchema, control);
        if (entry !== undefined) siblings.push(entry);
      }
      const last = siblings.at(-1);
      if (!page.hasMore || last === undefined) return siblings;
      after = parseEntry(last.entry).hash;
    }
  }
}

function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof QpcError) return undefined;
    throw error;
  }
}
