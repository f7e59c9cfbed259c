/**
 * Test support: the hub of test devices' groups, in memory. It accepts one commit for each epoch and
 * certifies it with the key that its domain's record names; what follows lies here for its devices.
 */
import {
  checkEntry,
  checkRoom,
  ConflictError,
  factsOf,
  methods,
  NotFoundError,
  parseEntry,
  parseOffered,
  RowKind,
  signCertificate,
  UnavailableError,
  verifyCertified,
  type ParsedEntry,
  type SigningKey,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  GroupControlSchema,
  GroupLogResponseSchema,
  toBinary,
  type CertifiedEntry,
  type CreateGroupRequest,
  type GroupControl,
  type GroupLogRequest,
  type GroupTakeoverRequest,
  type SignedGroupEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import type { InboxRow } from './store/inbox-rows.ts';

/** A row that a hub wrote for a device, and whose commit it came with. */
interface HubRow extends Pick<InboxRow, 'mid' | 'payload' | 'kind'> {
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

/** The sealed state of a group, and the hash of the entry that it is of. */
export interface HubInfo {
  readonly entry: Uint8Array;
  readonly bytes: Uint8Array;
}

interface HubEntry {
  readonly parsed: ParsedEntry;
  readonly control: GroupControl;
}

/** The log of one hub, or of three, which are of one mind here. */
interface HubLog {
  readonly domains: readonly string[];
  readonly entries: HubEntry[];
}

export class TestHub {
  readonly #signingOf: (domain: string) => SigningKey;
  readonly #logs = new Map<string, HubLog>();
  readonly #rows: HubRow[] = [];
  readonly #infos = new Map<string, HubInfo>();
  /** Something happens before a device's commit is looked at; an error is the answer. */
  beforeSubmit: ((from: Uint8Array, request: SubmitCommitRequest) => Promise<void>) | undefined;
  /** The same before a page of a log is answered; what it resolves to is the answer, if anything. */
  beforeLog: ((request: GroupLogRequest) => Promise<unknown>) | undefined;
  /** An older copy of itself that waits for what it lost: it takes what it certified, and nothing else. */
  isRestored = false;
  /** Shows nobody its logs, as a hub does that has something to hide. */
  isSilent = false;

  constructor(signingOf: (domain: string) => SigningKey) {
    this.#signingOf = signingOf;
  }

  /** Rows of a device's commits for another one, in order. */
  rowsOf(from: Uint8Array, to: Uint8Array): readonly HubRow[] {
    return this.#rows.filter((row) => same(row.from, from) && same(row.to, to));
  }

  /** A group's log as it is now, for a hub that goes back to it. */
  copyOf(group: Uint8Array): readonly HubEntry[] {
    return [...this.#log(group).entries];
  }
  restore(group: Uint8Array, entries: readonly HubEntry[]): void {
    this.#logs.set(hex(group), { ...this.#log(group), entries: [...entries] });
  }

  /** The group never was. */
  forget(group: Uint8Array): void {
    this.#logs.delete(hex(group));
  }

  /** What it keeps of a group for members that lost their place; another one, for a hub that lies. */
  infoOf(group: Uint8Array): HubInfo {
    return this.#infos.get(hex(group)) ?? { entry: new Uint8Array(0), bytes: new Uint8Array(0) };
  }
  putInfo(group: Uint8Array, info: HubInfo): void {
    this.#infos.set(hex(group), info);
  }

  /** The same, and never again. */
  takeRows(from: Uint8Array, to: Uint8Array): readonly HubRow[] {
    const taken = this.rowsOf(from, to);
    for (const row of taken) this.#rows.splice(this.#rows.indexOf(row), 1);
    return taken;
  }

  /** The answer to a call of a device; undefined for a method that is not a hub's. */
  async answer(from: Uint8Array, methodId: number, request: unknown): Promise<unknown> {
    switch (methodId) {
      case methods.createGroup.id:
        return this.#create(request as CreateGroupRequest);
      case methods.submitCommit.id:
        await this.beforeSubmit?.(from, request as SubmitCommitRequest);
        return { entry: this.#submit(from, request as SubmitCommitRequest) };
      case methods.groupTakeover.id: {
        // Whoever is asked leads, and takes it as any other one.
        const { hub, submit } = request as GroupTakeoverRequest;
        if (submit === undefined) return { leader: hub };
        const submitted = await this.answer(from, methods.submitCommit.id, { ...submit, hub });
        return { leader: hub, submitted };
      }
      case methods.groupLog.id: {
        const { group, after, withGroupInfo } = request as GroupLogRequest;
        const answer = await this.beforeLog?.(request as GroupLogRequest);
        if (answer !== undefined) return answer;
        if (this.isSilent) return { entries: [], hasMore: false };
        const entries = this.#behind(this.#log(group).entries, after);
        if (!withGroupInfo) return { entries, hasMore: false };
        const { entry: groupInfoEntry, bytes: groupInfo } = this.infoOf(group);
        return { entries, hasMore: false, groupInfo, groupInfoEntry };
      }
      default:
        return undefined;
    }
  }

  #create({ entry, hubs: domains }: CreateGroupRequest): unknown {
    const parsed = parseEntry(entry);
    checkEntry(parsed, undefined);
    const known = this.#logs.get(hex(parsed.entry.group));
    if (known !== undefined) return { entry: known.entries[0]?.control.entry, wasNew: false };
    const control = create(GroupControlSchema, { entry: this.certify(domains, parsed, entry) });
    this.#logs.set(hex(parsed.entry.group), { domains, entries: [{ parsed, control }] });
    return { entry: control.entry, wasNew: true };
  }

  #submit(from: Uint8Array, request: SubmitCommitRequest): CertifiedEntry | undefined {
    const parsed = parseOffered(request.entry);
    const { domains, entries } = this.#log(parsed.entry.group);
    const before = entries.find((one) => same(one.parsed.hash, parsed.hash));
    if (before !== undefined) return before.control.entry;
    const parent = entries.find((one) => same(one.parsed.hash, parsed.entry.parent));
    const children = entries.filter((one) => same(one.parsed.entry.parent, parsed.entry.parent));
    try {
      if (parent === undefined) throw new ConflictError('EPOCH_CONFLICT', 'unknown parent');
      checkEntry(parsed, factsOf(parent.parsed));
      checkRoom(
        parsed,
        children.map((one) => one.parsed.hash),
      );
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      const found = { entries: this.#behind(entries, parsed.entry.parent), hasMore: false };
      const details = toBinary(GroupLogResponseSchema, create(GroupLogResponseSchema, found));
      throw new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch', { details });
    }
    const { commit, mid, targets, welcomes, sharedWelcome, groupInfo } = request;
    if (this.isRestored && !this.#certified(domains, request)) {
      throw new UnavailableError('HUB_RESTORED', 'it waits', { retryAfterMs: 1_000 });
    }
    if (groupInfo.length > 0) {
      this.putInfo(parsed.entry.group, { entry: parsed.hash, bytes: groupInfo });
    }
    const entry = this.certify(domains, parsed, request.entry);
    const control = create(GroupControlSchema, { entry, commit });
    entries.push({ parsed, control });
    const put = (to: Uint8Array, rowMid: Uint8Array, row: GroupControl): void => {
      const payload = toBinary(GroupControlSchema, row);
      this.#rows.push({ from, to, mid: rowMid, payload, kind: RowKind.GroupControl });
    };
    for (const { rid } of targets) put(rid, mid, control);
    const welcomeKeys = welcomes.map(({ welcome }) => welcome);
    for (const { target, mid: welcomeMid, welcome } of welcomes) {
      const row = create(
        GroupControlSchema,
        sharedWelcome.length === 0
          ? { entry, welcome }
          : { entry, welcome: sharedWelcome, welcomeKeys },
      );
      if (target !== undefined) put(target.rid, welcomeMid, row);
    }
    return entry;
  }

  /** Whether it says in the request that it accepted this before. */
  #certified(domains: readonly string[], { entry, signatures }: SubmitCommitRequest): boolean {
    const known = create(CertifiedEntrySchema, { signatures, ...(entry && { entry }) });
    try {
      verifyCertified(known, domains, (one) => [this.#signingOf(one).publicKey]);
      return true;
    } catch {
      return false;
    }
  }

  #behind(entries: readonly HubEntry[], after: Uint8Array): GroupControl[] {
    const position = entries.findIndex(({ parsed }) => same(parsed.hash, after));
    return entries.slice(position + 1).map(({ control }) => control);
  }

  #log(group: Uint8Array): HubLog {
    const log = this.#logs.get(hex(group));
    if (log === undefined) throw new NotFoundError('UNKNOWN_GROUP', 'this node is not its hub');
    return log;
  }

  /** The word of hubs, for whatever entry. */
  certify(
    domains: readonly string[],
    { hash }: Pick<ParsedEntry, 'hash'>,
    entry?: SignedGroupEntry,
  ): CertifiedEntry {
    const signatures = domains.map((domain) =>
      signCertificate(hash, 0, { domain, signing: this.#signingOf(domain) }),
    );
    return create(CertifiedEntrySchema, { term: 0n, signatures, ...(entry && { entry }) });
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
