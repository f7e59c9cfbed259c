/**
 * How a hub of three begins to lead (docs: protocol/group-log, reference/hub-model): the next term that
 * it owns, promises of a majority, of their logs the one with the highest (adopted, length) with what
 * is PREPARED in it. A hub that does not remember what it promised needs both others, and its own
 * disk does not count.
 */
import type { FedHubPromiseResponse } from '@quicprochat/proto/messages';
import type { HubState } from '../store/group-store.ts';
import { fencedBy, hubLimits, unavailable, type HubParts } from './hub-parts.ts';
import { pull } from './repair.ts';

interface Answer {
  readonly hub: string;
  readonly promise: FedHubPromiseResponse;
}

/**
 * Returns the term, in which this hub has the log on disk and nobody else has yet. Throws
 * UnavailableError HUB_UNAVAILABLE without a majority, NotFoundError UNKNOWN_GROUP, and what speaks
 * against the logs of the others.
 */
export async function takeOver(parts: HubParts, group: Uint8Array): Promise<number> {
  const { domain, store, runtime } = parts;
  let floor = 0;
  for (let tries = 0; tries < hubLimits.takeoverTerms; tries += 1) {
    const before = await store.hubState(group);
    if (before === undefined) break;
    const term = nextOwned(Math.max(before.promised, floor), before.hubs.indexOf(domain));
    const others = before.hubs.filter((hub) => hub !== domain);
    const needed = before.isLearner ? 2 : 1;
    const { answers, fence } = await promises(parts, group, term, others, needed);
    if (answers.length === 0) {
      if (fence < term) break;
      floor = fence;
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
    return term;
  }
  throw unavailable('no majority of the hubs promises a term');
}

function nextOwned(above: number, index: number): number {
  const term = above + 1;
  return term + ((index - (term % 3) + 3) % 3);
}

/** As many promises as are needed, or none; and the highest term that somebody promised instead. */
async function promises(
  { peers }: HubParts,
  group: Uint8Array,
  term: number,
  others: readonly string[],
  needed: number,
): Promise<{ readonly answers: readonly Answer[]; readonly fence: number }> {
  const answers: Answer[] = [];
  let fence = 0;
  let open = others.length;
  await new Promise<void>((resolve) => {
    for (const hub of others) {
      peers
        .promise(hub, { group, term: BigInt(term) })
        .then(
          (promise) => void answers.push({ hub, promise }),
          (error: unknown) => {
            fence = Math.max(fence, fencedBy(error) ?? 0);
          },
        )
        .finally(() => {
          open -= 1;
          if (open === 0 || answers.length >= needed) resolve();
        });
    }
  });
  return { answers: answers.length >= needed ? [...answers] : [], fence };
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
  if (!own.isLearner && !isBetter(best, own)) {
    await store.takeLog(group, term, position, 'keeps');
    return;
  }
  const prepared = best.prepared && offers.taken(best.prepared);
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
