/**
 * The leading side of a hub of three: brings the log of a group, as it lies on this disk, to the other
 * hubs, and accepts what is PREPARED once one of them has it on disk too: with this one that is a
 * majority. It goes on until that happens or a higher term ends it. Entry 0 takes both others, so that
 * one that knows more of the group than this disk does can say so.
 */
import { hasReason, isCertifiedBy, jitter, QpcError } from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  SubmitCommitRequestSchema,
  type HubSignature,
} from '@quicprochat/proto/messages';
import type { AcceptedCommit, HubState } from '../store/group-store.ts';
import {
  fencedBy,
  hubLimits,
  isRefusal,
  keyOf,
  leads,
  unavailable,
  type HubParts,
} from './hub-parts.ts';
import { peersOf } from './offers.ts';
import { push } from './repair.ts';

/** What a majority decided; undefined: it has the log, and nothing was PREPARED. */
type Decided = AcceptedCommit | undefined;

interface Drive {
  readonly done: Promise<Decided>;
  readonly stop: AbortController;
}

export class HubLeader {
  readonly #parts: HubParts;
  readonly #forgot: (group: Uint8Array) => void;
  readonly #drives = new Map<string, Drive>();
  /** Terms in which a majority took this hub's log in this life of the process; oldest first. */
  readonly #confirmed = new Map<string, number>();
  /** Groups whose third hub is still being asked. */
  readonly #lingering = new Map<string, AbortController>();
  #isStopped = false;

  /** `forgot`: another hub knows a group that this one was about to begin. */
  constructor(parts: HubParts, forgot: (group: Uint8Array) => void) {
    this.#parts = parts;
    this.#forgot = forgot;
  }

  /** The term that a majority confirmed for this hub, if it still leads as far as it knows. */
  confirmedTerm(group: Uint8Array): number | undefined {
    return this.#confirmed.get(keyOf(group));
  }

  /** A higher term is there, or may be: it does not lead before a majority takes its log anew. */
  stepDown(group: Uint8Array): void {
    const key = keyOf(group);
    this.#confirmed.delete(key);
    this.#drives.get(key)?.stop.abort(unavailable('another hub leads'));
    this.#drives.delete(key);
  }

  /**
   * Resolves when a majority has the log, and what is PREPARED is accepted. Throws UnavailableError
   * HUB_UNAVAILABLE when this hub does not lead (any more), or both others refuse.
   */
  drive(group: Uint8Array): Promise<Decided> {
    const key = keyOf(group);
    const known = this.#drives.get(key);
    if (known !== undefined) return known.done;
    if (this.#isStopped || this.#drives.size >= hubLimits.groups) {
      return Promise.reject(unavailable('too many groups wait for their hubs'));
    }
    const stop = new AbortController();
    const done = this.#decide(group, stop.signal).finally(() => {
      if (this.#drives.get(key)?.stop === stop) this.#drives.delete(key);
    });
    // Whoever waits hears of it; nobody may be waiting any more.
    done.catch(() => undefined);
    this.#drives.set(key, { done, stop });
    return done;
  }

  /** Goes on with what was PREPARED before this process began; who wants a group begun asks for it again. */
  async resume(): Promise<void> {
    const { store, domain } = this.#parts;
    for (const group of await store.preparedGroups()) {
      const state = await store.hubState(group);
      if (state === undefined || state.isBeginning || !leads(state, domain)) continue;
      this.drive(group).catch(() => undefined);
    }
  }

  stop(): void {
    this.#isStopped = true;
    for (const { stop } of this.#drives.values()) stop.abort(unavailable('the node stops'));
    this.#drives.clear();
    for (const end of this.#lingering.values()) end.abort();
    this.#lingering.clear();
  }

  async #decide(group: Uint8Array, stop: AbortSignal): Promise<Decided> {
    const { store, domain, offers, notify } = this.#parts;
    const state = await store.hubState(group);
    if (state === undefined || !leads(state, domain)) throw unavailable('this hub does not lead');
    const { adopted: term, prepared } = state;
    const asked = this.#ask(group, state, stop);
    const word = await asked.enough;
    stop.throwIfAborted();
    let accepted: Decided;
    if (prepared !== undefined) {
      const commit = offers.decided(prepared, term, [word]);
      accepted = await store.acceptPrepared(term, commit);
      for (const peer of peersOf(commit)) notify(peer);
      for (const [hub, answer] of asked.all)
        this.#tell(hub, answer, group, state, accepted.control);
    }
    if (!stop.aborted) this.#confirm(group, term);
    return accepted;
  }

  #confirm(group: Uint8Array, term: number): void {
    const key = keyOf(group);
    this.#confirmed.delete(key);
    this.#confirmed.set(key, term);
    const [oldest] = this.#confirmed.keys();
    if (this.#confirmed.size > hubLimits.groups && oldest !== undefined) {
      this.#confirmed.delete(oldest);
    }
  }

  /**
   * Asks both others for their signatures; `enough`: of one that has the log on disk, when as many have it as are
   * needed.
   */
  #ask(
    group: Uint8Array,
    state: HubState,
    stop: AbortSignal,
  ): {
    readonly enough: Promise<HubSignature>;
    readonly all: readonly (readonly [hub: string, answer: Promise<HubSignature>])[];
  } {
    const { domain, runtime } = this.#parts;
    const { isBeginning } = state;
    const enough = Promise.withResolvers<HubSignature>();
    const patience = this.#patience(group, enough.promise);
    stop.addEventListener('abort', () => enough.reject(stop.reason as Error), { once: true });
    if (isBeginning) {
      const over = (): void => enough.reject(unavailable('not both other hubs begin the group'));
      const limit = runtime.clock.timer(hubLimits.beginMs, over);
      const forget = (): void => limit.cancel();
      enough.promise.then(forget, forget);
    }
    const all = state.hubs
      .filter((hub) => hub !== domain)
      .map((hub) => {
        const answer = this.#askUntil(hub, group, state, AbortSignal.any([stop, patience]));
        return [hub, answer] as const;
      });
    const needed = isBeginning ? all.length : 1;
    let open = all.length;
    let have = 0;
    const take = (word: HubSignature): void => {
      have += 1;
      if (have >= needed) enough.resolve(word);
    };
    for (const [hub, answer] of all) {
      answer.then(take, async (error: unknown) => {
        open -= 1;
        const fence = fencedBy(error);
        if (fence === undefined) {
          if (open < needed) enough.reject(unavailable('the other hubs refuse', error));
          if (isBeginning && hasReason(error, 'SEQ_CONFLICT')) this.#forgot(group);
          return;
        }
        runtime.log.info('hub leads no longer', { by: hub, term: state.adopted, fence });
        // As if it had been asked itself: it knows then who leads.
        await this.#parts.store.promiseTerm(group, fence, {}).catch(() => undefined);
        enough.reject(unavailable('another hub leads', error));
        this.stepDown(group);
      });
    }
    return { enough: enough.promise, all };
  }

  /** Ends a while after enough answers, or when the next entry is brought to the hubs. */
  #patience(group: Uint8Array, enough: Promise<unknown>): AbortSignal {
    const key = keyOf(group);
    this.#lingering.get(key)?.abort();
    const end = new AbortController();
    this.#lingering.set(key, end);
    const forget = (): void => {
      end.abort();
      if (this.#lingering.get(key) === end) this.#lingering.delete(key);
    };
    const { clock } = this.#parts.runtime;
    const lingerMs = this.#lingering.size > hubLimits.groups ? 0 : hubLimits.lingerMs;
    enough.then(() => clock.timer(lingerMs, forget), forget);
    return end.signal;
  }

  /** Asks until there is an answer; when `patience` ends it is not asked again. */
  async #askUntil(
    hub: string,
    group: Uint8Array,
    state: HubState,
    patience: AbortSignal,
  ): Promise<HubSignature> {
    const { forks, runtime } = this.#parts;
    const { log } = runtime;
    return this.#again(async () => {
      try {
        return await this.#askOnce(hub, group, state);
      } catch (error) {
        if (isRefusal(error) && fencedBy(error) === undefined) {
          log.warn('hub refuses', { hub, reason: error.reason, error: error.message });
          if (error.reason === 'SEQ_CONFLICT') {
            forks.compare(hub, group, state.hubs).catch(() => undefined);
          }
        }
        throw error;
      }
    }, patience);
  }

  /** One question, with the entries that the other hub lacks if need be. */
  async #askOnce(hub: string, group: Uint8Array, state: HubState): Promise<HubSignature> {
    const { peers, keysOf } = this.#parts;
    const { hubs, adopted: term, position, head, prepared } = state;
    const request = {
      ...{ group, hubs: [...hubs], term: BigInt(term), position: BigInt(position), head },
      ...(prepared && { prepared: fromBinary(SubmitCommitRequestSchema, prepared.submit) }),
    };
    let answer = await peers.replicate(hub, request);
    if (answer.isBehind) {
      const there = { position: Number(answer.position), head: answer.head };
      await push(this.#parts, hub, group, state, there);
      answer = await peers.replicate(hub, request);
    }
    const { signature } = answer;
    const hash = prepared?.hash ?? head;
    if (signature === undefined || !isCertifiedBy(hub, keysOf(hub), signature, hash, term)) {
      // A hub that does not sign has no say; it may be a record of its new keys that is missing here.
      throw unavailable(`${hub} did not sign what it has`);
    }
    return signature;
  }

  /**
   * A hub that has the entry learns that it was accepted; else it does by the next commit. Of entry 0 it is told again for
   * a while: before that it has no say, and this hub may be gone by then.
   */
  #tell(
    hub: string,
    answer: Promise<HubSignature>,
    group: Uint8Array,
    { hubs, position, isBeginning }: HubState,
    control: Uint8Array,
  ): void {
    const { peers } = this.#parts;
    const entries = [fromBinary(GroupControlSchema, control)];
    const request = { group, hubs: [...hubs], position: BigInt(position + 1), entries };
    const patience = isBeginning ? this.#lingering.get(keyOf(group))?.signal : undefined;
    const tell = (): Promise<unknown> => peers.install(hub, request);
    answer
      .then(() => (patience === undefined ? tell() : this.#again(tell, patience)))
      .catch(() => undefined);
  }

  /** Until it is done, refused or `patience` is over. */
  async #again<T>(work: () => Promise<T>, patience: AbortSignal): Promise<T> {
    const { clock, random } = this.#parts.runtime;
    for (let tries = 0; ; tries += 1) {
      try {
        return await work();
      } catch (error) {
        if (isRefusal(error) || !(error instanceof QpcError)) throw error;
        const boundMs = Math.min(
          hubLimits.retryMaxMs,
          hubLimits.retryMs * 2 ** Math.min(tries, 10),
        );
        await clock.sleep(boundMs / 2 + jitter(random, boundMs / 2), patience);
      }
    }
  }
}
