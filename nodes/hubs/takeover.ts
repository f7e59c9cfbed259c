/**
 * How a hub of three begins to lead (docs: protocol/group-log, reference/hub-model): the next term that
 * it owns, promises of a majority, of their logs the one with the highest (adopted, length) with what
 * is PREPARED in it. A hub that does not remember what it promised needs both others, and its own
 * disk does not count: only where one of these forgot as well, it goes on with what all three have, after the time in
 * which members bring back what they hold (recovery.ts).
 */
import { hasReason, UnavailableError } from '@quicprochat/proto';
import type { FedHubPromiseResponse } from '@quicprochat/proto/messages';
import type { HubState } from '../store/group-store.ts';
import { fencedBy, hubLimits, unavailable, type HubParts } from './hub-parts.ts';
import { pull, push } from './repair.ts';

interface Answer {
  readonly hub: string;
  readonly promise: FedHubPromiseResponse;
}

/** What became of a question. */
interface Answers {
  /** As many promises as were needed, or none. */
  readonly answers: readonly Answer[];
  /** The highest term that somebody promised instead. */
  readonly fence: number;
  /** Hubs that forgot, and how long they wait for members (ms). */
  readonly forgetful: readonly number[];
  /** Hubs that have nothing of the group that counts. */
  readonly without: readonly string[];
}

/**
 * Returns the term, in which this hub has the log on disk and nobody else has yet. Throws
 * UnavailableError HUB_UNAVAILABLE without a majority, HUB_RESTORED where two forgot and wait, NotFoundError
 * UNKNOWN_GROUP, and what speaks against the logs of the others. `isWanted`: by a member.
 */
export async function takeOver(
  parts: HubParts,
  group: Uint8Array,
  isWanted = false,
): Promise<number> {
  const { domain, store, runtime } = parts;
  let floor = 0;
  let heard: readonly string[] = [];
  for (let tries = 0; tries < hubLimits.takeoverTerms; tries += 1) {
    const before = await store.hubState(group);
    if (before === undefined) break;
    const term = nextOwned(Math.max(before.promised, floor), before.hubs.indexOf(domain));
    const others = before.hubs.filter((hub) => hub !== domain);
    const needed = before.isLearner ? 2 : 1;
    const { restMs } = before.forgot ?? {};
    const request = {
      ...{ group, term: BigInt(term), isWanted: isWanted || restMs !== undefined },
      recovers: restMs === 0,
    };
    const { answers, fence, ...refused } = await promises(parts, request, others, needed);
    if (answers.length === 0) {
      if (fence < term) {
        await refill(parts, group, before, refused.without);
        throw refusal(before, refused.forgetful);
      }
      floor = fence;
      continue;
    }
    // What counts is asked for once all who forgot were heard: what one said of itself before that, with another one that
    // remembered then, may be less than these two had. And in a term that none of them can have forgotten.
    const words = answers.filter(({ promise }) => promise.forgot).map(({ hub }) => hub);
    if (words.some((hub) => !heard.includes(hub))) {
      heard = words;
      floor = term + hubLimits.recoveryLeap;
      continue;
    }
    // Its own promise comes last: a hub that is cut off deposes nobody when it is back. But it must not
    // have promised anything else since it asked.
    let own;
    try {
      own = await store.promiseTerm(group, term, { since: before.promised });
    } catch (error) {
      if (fencedBy(error) === undefined) throw error;
      floor = term;
      continue;
    }
    await choose(parts, group, term, own, answers);
    runtime.log.info('hub takes over', { term, promises: answers.length });
    if (words.length > 0) {
      const position = Math.max(
        own.position,
        ...answers.map((one) => Number(one.promise.position)),
      );
      const forgot = words.length + 1;
      runtime.log.warn('a group goes on with what its three hubs have left', { forgot, position });
    }
    return term;
  }
  throw unavailable('no majority of the hubs promises a term');
}

function nextOwned(above: number, index: number): number {
  const term = above + 1;
  return term + ((index - (term % 3) + 3) % 3);
}

/** Why nothing came of it; two that forgot wait, and others are away or refuse. */
function refusal({ forgot }: HubState, others: readonly number[]): UnavailableError {
  const count = others.length + (forgot === undefined ? 0 : 1);
  if (count < 2) return unavailable('no majority of the hubs promises a term');
  const retryAfterMs = Math.max(...others, forgot?.restMs ?? 0);
  const what = 'hubs of this group forgot, and wait for what members bring back';
  return new UnavailableError('HUB_RESTORED', what, { retryAfterMs });
}

/** A hub that has nothing of the group learns that it forgot, and asks then itself. */
async function refill(
  parts: HubParts,
  group: Uint8Array,
  state: HubState,
  hubs: readonly string[],
): Promise<void> {
  const nothing = { position: 0, head: new Uint8Array(0) };
  for (const hub of hubs) {
    // One that is not there, or knows better, is asked by the next takeover again.
    await push(parts, hub, group, state, nothing).catch(() => undefined);
  }
}

async function promises(
  { peers }: HubParts,
  request: {
    readonly group: Uint8Array;
    readonly term: bigint;
    readonly isWanted: boolean;
    readonly recovers: boolean;
  },
  others: readonly string[],
  needed: number,
): Promise<Answers> {
  const answers: Answer[] = [];
  const forgetful: number[] = [];
  const without: string[] = [];
  let fence = 0;
  let open = others.length;
  await new Promise<void>((resolve) => {
    for (const hub of others) {
      peers
        .promise(hub, request)
        .then(
          (promise) => {
            // Of one that forgot only who asked for its word takes it.
            if (!promise.forgot || request.recovers) answers.push({ hub, promise });
          },
          (error: unknown) => {
            fence = Math.max(fence, fencedBy(error) ?? 0);
            if (hasReason(error, 'HUB_RESTORED')) forgetful.push(error.retryAfterMs ?? 0);
            if (hasReason(error, 'UNKNOWN_GROUP', 'HUB_UNAVAILABLE')) without.push(hub);
          },
        )
        .finally(() => {
          open -= 1;
          if (open === 0 || answers.length >= needed) resolve();
        });
    }
  });
  const enough = answers.length >= needed ? [...answers] : [];
  return { answers: enough, fence, forgetful: [...forgetful], without: [...without] };
}

async function choose(
  parts: HubParts,
  group: Uint8Array,
  term: number,
  own: HubState,
  answers: readonly Answer[],
): Promise<void> {
  const { store, offers } = parts;
  const others = answers.map(({ hub, promise }) => ({
    hub,
    adopted: Number(promise.adopted),
    position: Number(promise.position),
    prepared: promise.prepared,
  }));
  const [first] = others;
  if (first === undefined) throw new Error('a takeover without a promise');
  const best = others.reduce((one, other) => (isBetter(other, one) ? other : one), first);
  const longest = others.reduce((one, other) => (other.position > one.position ? other : one));
  if (longest.position > own.position) {
    await pull(parts, longest.hub, group, own, longest.position);
  }
  const position = Math.max(own.position, longest.position);
  // Its own disk counts, unless it alone forgot.
  const counts = !own.isLearner || answers.some(({ promise }) => promise.forgot);
  if (counts && !isBetter(best, own)) {
    await store.takeLog(group, term, position, 'keeps');
    return;
  }
  // At a place that is taken: it is what was accepted there, or something else was.
  const isOpen = best.position === position;
  const prepared = isOpen && best.prepared ? offers.taken(best.prepared) : undefined;
  await store.takeLog(group, term, position, prepared);
}

interface Candidate {
  readonly adopted: number;
  readonly position: number;
  readonly prepared?: unknown;
}

/** Whether a log is to be taken rather than another one. */
function isBetter(one: Candidate, other: Candidate): boolean {
  const lengthOf = ({ position, prepared }: Candidate): number =>
    position + (prepared === undefined ? 0 : 1);
  return (
    one.adopted > other.adopted ||
    (one.adopted === other.adopted && lengthOf(one) > lengthOf(other))
  );
}
