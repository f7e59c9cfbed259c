/**
 * This node as one hub of three (docs: protocol/group-log): commits that it leads with or passes on to
 * the leader, takeovers, and what the other hubs ask of it. All that it says is on its disk first.
 */
import {
  hasReason,
  InvalidArgumentError,
  NotFoundError,
  PermissionDeniedError,
  QpcError,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  SubmitCommitRequestSchema,
  toBinary,
  type CertifiedEntry,
  type FedHubInstallRequest,
  type FedHubInstallResponseSchema,
  type FedHubPromiseRequest,
  type FedHubPromiseResponseSchema,
  type FedHubReplicateRequest,
  type FedHubReplicateResponseSchema,
  type GroupTakeoverRequest,
  type GroupTakeoverResponseSchema,
  type MessageInitShape,
  type SignedGroupEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { storeBounds } from '../store/bounds.ts';
import type { AcceptedCommit, HubState, PreparedCommit } from '../store/group-store.ts';
import { GroupLocks } from './group-locks.ts';
import {
  fencedBy,
  hubLimits,
  keyOf,
  leads,
  ownerOf,
  unavailable,
  type HubParts,
} from './hub-parts.ts';
import { HubLeader } from './leader.ts';
import { HubRecovery } from './recovery.ts';
import { install, verified } from './repair.ts';
import { takeOver } from './takeover.ts';
import { weigh } from './verdicts.ts';

/** Who submits, and how far it has come. */
export interface Submission {
  /** Device key of this node's device. */
  readonly sender?: Uint8Array | undefined;
  /** It came from a hub that does not lead: it goes no further. */
  readonly fromHub: boolean;
  readonly signal?: AbortSignal | undefined;
}

interface Takeover {
  readonly term: Promise<number>;
  /** By a member, so the other hubs hear. */
  readonly isWanted: boolean;
}

export class HubSet implements Disposable {
  readonly #parts: HubParts;
  readonly #leader: HubLeader;
  readonly #recovery: HubRecovery;
  readonly #locks = new GroupLocks(hubLimits.waitersPerGroup);
  readonly #takeovers = new Map<string, Takeover>();
  readonly #stop = new AbortController();

  constructor(parts: HubParts) {
    this.#parts = parts;
    const learn = (group: Uint8Array): void => void this.#learn(group).catch(() => undefined);
    this.#leader = new HubLeader(parts, learn);
    this.#recovery = new HubRecovery(parts, learn);
  }

  /** Goes on with what was PREPARED here before, and learns what was forgotten. Throws what the store throws. */
  async resume(): Promise<void> {
    await this.#leader.resume();
    void this.#learnUntilStopped();
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.#leader.stop();
    this.#recovery[Symbol.dispose]();
  }

  /** As HubRecovery's. Throws InvalidArgumentError BAD_FIELD. */
  isBroughtBack(request: SubmitCommitRequest): Promise<boolean> {
    return this.#recovery.isBroughtBack(request);
  }

  /** True when this hub leads the group in a term that a majority confirmed: nothing need be looked up. */
  isLeading(group: Uint8Array): boolean {
    return this.#leader.confirmedTerm(group) !== undefined;
  }

  /** Entry 0. Throws as the store's `prepareGroup`, and HUB_UNAVAILABLE while not both other hubs have it. */
  async create(
    entry: SignedGroupEntry | undefined,
    hubs: readonly string[],
    creator: Uint8Array,
  ): Promise<{ readonly entry: CertifiedEntry | undefined; readonly wasNew: boolean }> {
    const { offers, store, runtime } = this.#parts;
    const { parsed } = offers.entry(entry, 0);
    // Of this beginning: others refuse it under a second one, which is of a hub that forgot the first.
    const mid = runtime.random.bytes(storeBounds.midBytes);
    const request = create(SubmitCommitRequestSchema, { mid, ...(entry && { entry }) });
    const submit = toBinary(SubmitCommitRequestSchema, request);
    const made = await store.prepareGroup({ parsed, hubs, creator, submit });
    if (made.outcome === 'accepted') return { entry: certifiedIn(made.control), wasNew: false };
    const accepted = await this.#decided(parsed.entry.group);
    const { controls } = await store.groupLog(parsed.entry.group, new Uint8Array(0), 1);
    const control = accepted?.control ?? controls[0];
    return {
      entry: control && certifiedIn(control),
      wasNew: accepted?.isNew ?? false,
    };
  }

  /**
   * A commit, accepted here or at the hub that leads. Throws as the store's `prepareCommit`; UnavailableError
   * HUB_UNAVAILABLE when it is open whether it was accepted, or no leader can be reached.
   */
  async submit(
    request: SubmitCommitRequest,
    submission: Submission,
  ): Promise<CertifiedEntry | undefined> {
    const offered = this.#parts.offers.submitted(request, submission.sender);
    const { group } = offered.parsed.entry;
    const back = await this.#recovery.takeBack(request);
    if (back !== undefined) return back;
    const here = await this.#locks.run(keyOf(group), () => this.#submitHere(group, offered));
    return here === undefined ? this.#passOn(group, request, submission) : certifiedIn(here);
  }

  /** Undefined: this hub does not lead. */
  async #submitHere(group: Uint8Array, offered: PreparedCommit): Promise<Uint8Array | undefined> {
    const { store, domain } = this.#parts;
    for (;;) {
      const confirmed = this.#leader.confirmedTerm(group);
      // A term that this hub does not lead in: it can still tell what was accepted.
      const term = confirmed ?? (await this.#needState(group)).promised;
      let prepared;
      try {
        prepared = await store.prepareCommit(term, offered, confirmed !== undefined);
      } catch (error) {
        if (fencedBy(error) === undefined) throw error;
        this.#leader.stepDown(group);
        return undefined;
      }
      if (prepared.outcome === 'accepted') return prepared.control;
      const isLed = confirmed !== undefined || leads(await this.#needState(group), domain);
      if (!isLed) return undefined;
      let decided;
      try {
        decided = await this.#decided(group);
      } catch (error) {
        // The leader of a higher term knows by its hash whether this commit came through.
        if (!leads(await this.#needState(group), domain)) return undefined;
        throw error;
      }
      if (prepared.outcome === 'prepared' && decided !== undefined) return decided.control;
    }
  }

  /** What a majority decided. Throws HUB_UNAVAILABLE too where a higher term ended it: who leads in that knows, and is to be asked. */
  async #decided(group: Uint8Array): Promise<AcceptedCommit | undefined> {
    try {
      return await this.#inTime(this.#leader.drive(group));
    } catch (error) {
      throw unlessFenced(error);
    }
  }

  async #passOn(
    group: Uint8Array,
    request: SubmitCommitRequest,
    { fromHub, sender, signal }: Submission,
  ): Promise<CertifiedEntry | undefined> {
    const { domain, peers } = this.#parts;
    const { hubs, promised } = await this.#needState(group);
    const leader = ownerOf(hubs, promised);
    if (fromHub || leader === undefined || leader === domain) throw unavailable('no hub leads now');
    try {
      return (await peers.submit(leader, request, { fromHub: true, signal })).entry;
    } catch (error) {
      await weigh(this.#parts, error, { leader, hubs, request, sender });
      throw unavailable(`${leader} does not answer as the leader`, error);
    }
  }

  /**
   * A member reached no leader. When this hub reaches it, the commit is passed on; else this hub takes
   * over. Throws as `submit`, NotFoundError UNKNOWN_GROUP, HUB_UNAVAILABLE without a majority.
   */
  async takeover(
    { group, submit }: GroupTakeoverRequest,
    submission: Submission,
  ): Promise<MessageInitShape<typeof GroupTakeoverResponseSchema>> {
    const { domain } = this.#parts;
    const state = await this.#needState(group);
    if (!leads(state, domain)) {
      const answer = await this.#askLeader(group, state, submit, submission);
      if (answer !== undefined) return answer;
      await this.#takeOver(group, true);
    }
    await this.#decided(group);
    const { promised } = await this.#needState(group);
    const done = { leader: domain, term: BigInt(promised) };
    if (submit === undefined) return done;
    const entry = await this.submit(submit, submission);
    return { ...done, submitted: entry === undefined ? {} : { entry } };
  }

  /** Undefined: the leader, if there is one, cannot be reached, leads no longer, or refuses what it should not. */
  async #askLeader(
    group: Uint8Array,
    { hubs, promised, head }: HubState,
    submit: SubmitCommitRequest | undefined,
    { sender, signal }: Submission,
  ): Promise<MessageInitShape<typeof GroupTakeoverResponseSchema> | undefined> {
    const { domain, peers } = this.#parts;
    const leader = ownerOf(hubs, promised);
    if (leader === undefined || leader === domain) return undefined;
    const found = { leader, term: BigInt(promised) };
    // Who was killed did not say goodbye: without a doubt this would wait for a call to time out.
    peers.doubt(leader);
    try {
      if (submit === undefined) {
        await peers.log(leader, { group, after: head, maxEntries: 1 }, signal);
        return found;
      }
      return {
        ...found,
        submitted: await peers.submit(leader, submit, { fromHub: true, signal }),
      };
    } catch (error) {
      await weigh(this.#parts, error, { leader, hubs, request: submit, sender });
      return undefined;
    }
  }

  /**
   * One at a time for each group; whoever asks meanwhile gets the same one. Only a wish asks anew where a hub that asked by
   * itself comes to nothing: hubs that forgot begin their time with a wish, and have heard of none.
   */
  #takeOver(group: Uint8Array, isWanted = false): Promise<number> {
    const key = keyOf(group);
    const known = this.#takeovers.get(key);
    if (known !== undefined) {
      if (known.isWanted || !isWanted) return known.term;
      return known.term.catch(() => this.#takeOver(group, true));
    }
    if (this.#takeovers.size >= hubLimits.groups) throw unavailable('too many takeovers at once');
    this.#leader.stepDown(group);
    const term = takeOver(this.#parts, group, isWanted)
      .catch(async (error: unknown) => {
        if (!isWanted || !hasReason(error, 'HUB_RESTORED')) throw unlessFenced(error);
        throw await this.#recovery.wait(group, error.retryAfterMs ?? 0);
      })
      .finally(() => this.#takeovers.delete(key));
    this.#takeovers.set(key, { term, isWanted });
    return term;
  }

  /** The log of the owner of a term. Throws PEER_DENIED to all others, and as the store's `adoptLog`. */
  async replicate(
    from: string,
    request: FedHubReplicateRequest,
  ): Promise<MessageInitShape<typeof FedHubReplicateResponseSchema>> {
    const { store, offers } = this.#parts;
    const { group, hubs, head } = request;
    const term = Number(request.term);
    this.#needMembers(hubs, from);
    if (ownerOf(hubs, term) !== from) throw denied(`term ${term} is another hub's`);
    const prepared = request.prepared && offers.taken(request.prepared);
    if (prepared !== undefined) needGroup(prepared.parsed.entry.group, group);
    const position = Number(request.position);
    const leaderLog = { group, hubs, from, term, position, head, ...(prepared && { prepared }) };
    let end;
    try {
      end = await store.adoptLog(leaderLog);
    } catch (error) {
      // The store says so of a hub that forgot.
      if (hasReason(error, 'HUB_UNAVAILABLE')) void this.#learn(group).catch(() => undefined);
      if (hasReason(error, 'SEQ_CONFLICT')) {
        this.#parts.forks.compare(from, group, hubs).catch(() => undefined);
      }
      throw error;
    }
    if (end === undefined) {
      const state = await store.hubState(group);
      const { position: has = 0, head: newest = new Uint8Array(0) } = state ?? {};
      return { isBehind: true, position: BigInt(has), head: newest };
    }
    this.#leader.stepDown(group);
    const hash = prepared?.parsed.hash ?? end.head;
    return {
      position: BigInt(end.position),
      head: end.head,
      signature: offers.sign(hash, term),
    };
  }

  /** Throws PEER_DENIED unless the caller owns the term, and as the store's `promiseTerm`. */
  async promise(
    from: string,
    request: FedHubPromiseRequest,
  ): Promise<MessageInitShape<typeof FedHubPromiseResponseSchema>> {
    const { group } = request;
    const term = Number(request.term);
    const { hubs } = await this.#needState(group);
    this.#needMembers(hubs, from);
    if (ownerOf(hubs, term) !== from) throw denied(`term ${term} is another hub's`);
    let state;
    try {
      state = await this.#parts.store.promiseTerm(group, term, undefined, request.recovers);
    } catch (error) {
      if (!request.isWanted || !hasReason(error, 'HUB_RESTORED')) throw error;
      throw await this.#recovery.wait(group, 0);
    }
    this.#leader.stepDown(group);
    const { adopted, position, head, prepared, forgot } = state;
    return {
      forgot: forgot !== undefined,
      adopted: BigInt(adopted),
      position: BigInt(position),
      head,
      ...(prepared && { prepared: fromBinary(SubmitCommitRequestSchema, prepared.submit) }),
    };
  }

  /** Entries that prove themselves. Throws PEER_DENIED, and as `verified` and `installEntries`. */
  async install(
    from: string,
    request: FedHubInstallRequest,
  ): Promise<MessageInitShape<typeof FedHubInstallResponseSchema>> {
    const { group, hubs, groupInfo, groupInfoEntry, isRepair } = request;
    this.#needMembers(hubs, from);
    if (hubs.length !== 3) throw new InvalidArgumentError('BAD_FIELD', 'hubs: need three');
    const end = await install(this.#parts, {
      ...{ group, hubs, from, groupInfo, groupInfoEntry, isRepair },
      position: Number(request.position),
      entries: verified(this.#parts, hubs, request.entries),
    });
    return { position: BigInt(end.position), head: end.head };
  }

  /**
   * Groups rest for months: a hub that forgot must not wait for their next commit, and as long as it has not learnt, no
   * second one may forget. So it asks soon, and again at growing intervals.
   */
  async #learnUntilStopped(): Promise<void> {
    const { store, runtime } = this.#parts;
    const { signal } = this.#stop;
    const { learnSoonMs, learnMs } = hubLimits;
    let waitMs: number = learnSoonMs;
    while (!signal.aborted) {
      let forgotten = 0;
      try {
        let after: Uint8Array = new Uint8Array(0);
        for (;;) {
          const groups = await store.learnerGroups(after);
          const last = groups.at(-1);
          if (last === undefined || signal.aborted) break;
          after = last;
          forgotten += groups.length;
          for (const group of groups) await this.#learn(group);
        }
      } catch (error) {
        if (!signal.aborted) runtime.log.error('hub does not learn', { error: String(error) });
      }
      waitMs = forgotten > 0 ? Math.min(2 * waitMs, learnMs) : learnMs;
      // The only rejection is the own stop.
      await runtime.clock.sleep(waitMs, signal).catch(() => undefined);
    }
  }

  /** A hub that does not remember what it promised leads once, with the word of both others. */
  async #learn(group: Uint8Array): Promise<void> {
    if (this.#stop.signal.aborted) return;
    try {
      await this.#takeOver(group);
      await this.#decided(group);
    } catch (error) {
      // It is tried again: in a minute, and by the next question of a leader.
      if (!(error instanceof QpcError)) throw error;
    }
  }

  #needMembers(hubs: readonly string[], from: string): void {
    if (
      from !== this.#parts.domain &&
      [from, this.#parts.domain].every((hub) => hubs.includes(hub))
    )
      return;
    throw denied('not both of us are hubs of this group');
  }

  async #needState(group: Uint8Array): Promise<HubState> {
    const state = await this.#parts.store.hubState(group);
    if (state === undefined) throw new NotFoundError('UNKNOWN_GROUP', 'this node is no hub of it');
    return state;
  }

  /** Throws HUB_UNAVAILABLE after 5 s: the hub goes on, and the outcome is open. */
  async #inTime<T>(work: Promise<T>): Promise<T> {
    const over = new AbortController();
    const limit = this.#parts.runtime.clock.sleep(hubLimits.majorityMs, over.signal).then(() => {
      throw unavailable('no majority of the hubs yet; the outcome is open');
    });
    limit.catch(() => undefined);
    return Promise.race([work, limit]).finally(() => over.abort());
  }
}

function needGroup(one: Uint8Array, other: Uint8Array): void {
  if (Buffer.compare(one, other) === 0) return;
  throw new InvalidArgumentError('BAD_FIELD', 'prepared: of another group');
}

function denied(what: string): PermissionDeniedError {
  return new PermissionDeniedError('PEER_DENIED', what);
}

function certifiedIn(control: Uint8Array): CertifiedEntry | undefined {
  return fromBinary(GroupControlSchema, control).entry;
}

/** A member is told of a higher term as of a hub that is away: who leads in that is to be asked. */
function unlessFenced(error: unknown): unknown {
  return fencedBy(error) === undefined ? error : unavailable('another hub leads by now', error);
}
