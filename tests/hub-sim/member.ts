/**
 * A member of the group, as hubs that forgot need it (docs: protocol/group-log, "Where two forgot"): it commits behind what it
 * has of the log, reads on, and gives back what a hub lacks, as client-lib/groups/hubs/restored-hub-set.ts does.
 */
import { hex, parseEntry, type ParsedEntry } from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  fromBinary,
  GroupControlSchema,
  GroupTakeoverRequestSchema,
  SubmitCommitRequestSchema,
  type CertifiedEntry,
  type GroupControl,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import type { HubCluster } from './cluster.ts';
import type { SimHub } from './hub.ts';

interface Held {
  readonly parsed: ParsedEntry;
  readonly control: GroupControl;
}

const own = { fromHub: false };

export class Member {
  readonly #cluster: HubCluster;
  readonly #requests: SubmitCommitRequest[] = [];
  /** From entry 0 on. */
  readonly #log: Held[] = [];
  submitted = 0;
  acknowledged = 0;

  constructor(cluster: HubCluster) {
    this.#cluster = cluster;
  }

  has(hash: string): boolean {
    return this.#log.some(({ parsed }) => hex(parsed.hash) === hash);
  }

  /** What a hub shows behind the newest entry here; where it shows another one than this member has, that goes. */
  async read(hub: SimHub): Promise<void> {
    const { groupId } = this.#cluster.group;
    const after = this.#log.at(-1)?.parsed.hash ?? new Uint8Array(0);
    const page = await hub.life?.store.groupLog(groupId, after, 64);
    for (const [index, bytes] of (page?.controls ?? []).entries()) {
      const at = (page?.position ?? 1) - 1 + index;
      const control = fromBinary(GroupControlSchema, bytes);
      const parsed = parseEntry(control.entry?.entry);
      if (hex(parsed.hash) === hex(this.#log[at]?.parsed.hash ?? new Uint8Array(0))) continue;
      this.#log.length = Math.min(at, this.#log.length);
      this.#log.push({ parsed, control });
    }
  }

  /** A commit behind the newest entry, or one of before once more; now and then with the wish for a takeover. `isNew`: always with it. */
  async commit(hub: SimHub, isNew = false): Promise<void> {
    const { random, group } = this.#cluster;
    const parent = this.#log.at(-1)?.parsed;
    const set = hub.life?.set;
    if (parent === undefined || set === undefined) return;
    const isRepeat = !isNew && this.#requests.length > 0 && random.chance(0.3);
    const submit = isRepeat ? random.pick(this.#requests) : this.#cluster.newCommit(parent);
    if (!isRepeat) this.#requests.push(submit);
    this.submitted += 1;
    if (isNew || random.chance(0.3)) {
      const request = create(GroupTakeoverRequestSchema, { group: group.groupId, submit });
      const { submitted } = await set.takeover(request, own);
      this.#hold(submitted?.entry as CertifiedEntry | undefined, submit);
    } else this.#hold(await set.submit(submit, own), submit);
  }

  /** To a hub that wants entries all that it has, oldest first. `unasked`: whether it wants them or not. */
  async giveBack(hub: SimHub, unasked = false): Promise<void> {
    const { life } = hub;
    const { groupId } = this.#cluster.group;
    const page = await life?.store.groupLog(groupId, this.#cluster.group.groupId, 1);
    if (life === undefined || (page?.wantsEntries !== true && !unasked)) return;
    const state = await life.store.hubState(groupId);
    for (const { control } of this.#log.slice(state?.position ?? 0)) {
      if (hub.life !== life) return;
      await life.set.submit(backOf(control.entry, control.commit), own);
    }
  }

  /** A lie: an entry that nobody accepted beside the certificate of another one. */
  async forge(hub: SimHub): Promise<void> {
    const { life } = hub;
    const state = await life?.store.hubState(this.#cluster.group.groupId);
    const end = this.#log[(state?.position ?? 0) - 1];
    const newest = this.#log.at(-1);
    if (life === undefined || end === undefined || newest === undefined) return;
    const { entry, commit } = this.#cluster.newCommit(end.parsed);
    const { signatures = [], term = 0n } = newest.control.entry ?? {};
    const certified = create(CertifiedEntrySchema, { signatures, term, ...(entry && { entry }) });
    await life.set.submit(backOf(certified, commit), own);
  }

  #hold(entry: CertifiedEntry | undefined, { commit }: SubmitCommitRequest): void {
    if (entry === undefined) return;
    this.acknowledged += 1;
    const parsed = parseEntry(entry.entry);
    const end = this.#log.at(-1)?.parsed.hash ?? new Uint8Array(0);
    if (hex(parsed.entry.parent) !== hex(end)) return;
    this.#log.push({ parsed, control: create(GroupControlSchema, { entry, commit }) });
  }
}

function backOf(certified: GroupControl['entry'], commit: Uint8Array): SubmitCommitRequest {
  const { entry, signatures = [], term = 0n } = certified ?? {};
  const mid = new Uint8Array(16);
  return create(SubmitCommitRequestSchema, {
    ...{ commit, mid, signatures, term },
    ...(entry && { entry }),
  });
}
