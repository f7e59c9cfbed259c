/**
 * One user as both clients see it: every response goes to our verifier and to katie's algorithms, on
 * states that have to stay equal, and so do mutants of it. Differences are told, not judged, here.
 */
import assert from 'node:assert/strict';
import {
  decode,
  greatestKnown,
  monitorFound,
  searchRequest,
  updateRequest,
  VerificationError,
  verifyContactMonitor,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifySearch,
  verifyUpdate,
  ownerInitRequest,
  contactMonitorRequest,
  ownerMonitorRequest,
  type ContactState,
  type LogVerifier,
  type OwnerState,
  type UserState,
} from '@quicprochat/kt-log/verify';
import type { Dice } from '../../cluster/dice.ts';
import type { KatieServer, Outcome } from './katie-process.ts';
import { toBase64 } from './katie-process.ts';
import type { Kind } from './logs.ts';

/** What our verifier took from a response, and the states that follow from it. */
interface Taken {
  readonly outcome: Partial<Outcome>;
  readonly state: UserState;
  /** False: owner monitoring ended before the rightmost distinguished entry. */
  readonly isCaughtUp?: boolean;
  keep(): void;
}
type Verdict = { readonly taken: Taken } | { readonly reason: string };

export interface Question {
  readonly kind: Kind;
  readonly request: Uint8Array;
  /** Asked as somebody who has seen nothing of the log yet; leaves no state. */
  readonly isFresh: boolean;
  readonly viewRestart: boolean;
}

/** What both made of one response: a reason where it was refused. */
export interface Judged {
  readonly ours: string | undefined;
  readonly katie: string | undefined;
  /** katie's own Client, for searches and contact monitoring. */
  readonly library: string | undefined;
  /** Both accept it, and katie's monitoring map is another one. */
  readonly map: 'forgets' | 'lesser' | undefined;
  readonly root: Uint8Array | undefined;
  /** What both took from it. */
  readonly taken?: Outcome;
}

export class User {
  readonly #log: LogVerifier;
  readonly #katie: KatieServer;
  readonly #katieId: number;
  state: UserState | undefined;
  readonly contacts = new Map<string, ContactState>();
  readonly owners = new Map<string, OwnerState>();

  constructor(log: LogVerifier, katie: KatieServer, katieId: number) {
    this.#log = log;
    this.#katie = katie;
    this.#katieId = katieId;
  }

  get size(): number | undefined {
    return this.state?.view.size;
  }

  /** Both verify the response; when both accept it, they have to have taken the same from it. */
  async verify(question: Question, response: Uint8Array, nowMs: number): Promise<Judged> {
    const { isFresh } = question;
    const ours = this.#verifyOurs(question, response, nowMs);
    const theirs = await this.#askKatie(question, response, nowMs, isFresh, true);
    const judged = {
      ours: 'reason' in ours ? ours.reason : undefined,
      katie: theirs.refused,
      library: theirs.library,
    };
    if (!('taken' in ours) || theirs.outcome === undefined) {
      return { ...judged, map: undefined, root: undefined };
    }
    const map = mapDifference(ours.taken, theirs.outcome);
    const { outcome } = ours.taken;
    const expected = map === undefined ? outcome : { ...outcome, map: theirs.outcome.map };
    assertSame(question.kind, expected, theirs.outcome);
    if (!isFresh) {
      this.state = ours.taken.state;
      ours.taken.keep();
    }
    return {
      ...judged,
      map,
      root: Buffer.from(theirs.outcome.root, 'base64'),
      taken: theirs.outcome,
    };
  }

  /**
   * Flips bits of one byte. Whoever accepts it has to take the same from it as from the original.
   * Undefined: not compared, because one of the two does not accept the original, or because its
   * value may claim gigabytes, for which katie makes room before it reads.
   */
  async verifyMutant(question: Question, response: Uint8Array, nowMs: number, dice: Dice) {
    const mutant = Uint8Array.from(response);
    const at = dice.int(mutant.length);
    mutant[at] = (mutant[at] ?? 0) ^ (1 + dice.int(255));
    const original = this.#verifyOurs(question, response, nowMs);
    const theirOriginal = await this.#askKatie(question, response, nowMs, true);
    if (!('taken' in original) || theirOriginal.refused !== undefined) return undefined;
    const ours = this.#verifyOurs(question, mutant, nowMs);
    const hasValues = question.kind === 'search' || question.kind === 'update';
    if (hasValues && 'reason' in ours && ours.reason.startsWith('MALFORMED')) return undefined;
    const theirs = await this.#askKatie(question, mutant, nowMs, true);
    // Section 9.1 gives no proof of versions in a distinguished entry: owner monitoring does.
    const isLater = question.kind === 'update' && addedToMap(ours) === 0;
    if ('taken' in ours && !isLater) {
      assert.deepEqual(ours.taken.outcome, original.taken.outcome, 'a mutant changed the meaning');
    }
    return { at, ours: 'reason' in ours ? ours.reason : undefined, katie: theirs.refused };
  }

  #askKatie(
    { kind, request, isFresh }: Question,
    response: Uint8Array,
    nowMs: number,
    dry: boolean,
    ask = false,
  ) {
    const fields = { id: this.#katieId, kind, request, response, dry, fresh: isFresh, ask };
    return this.#katie.ask('verify', nowMs, fields);
  }

  #verifyOurs(question: Question, response: Uint8Array, nowMs: number): Verdict {
    try {
      return { taken: this.#take(question, response, nowMs) };
    } catch (error) {
      if (!(error instanceof VerificationError)) throw error;
      return { reason: `${error.reason}: ${error.message}` };
    }
  }

  #take(question: Question, bytes: Uint8Array, nowMs: number): Taken {
    const log = this.#log;
    const { kind, request, isFresh, viewRestart } = question;
    const before = isFresh ? undefined : this.state;
    switch (kind) {
      case 'search': {
        const asked = decode(searchRequest, request);
        const { state, found } = verifySearch(log, before, asked, bytes, nowMs, viewRestart);
        const { version, terminal, mustMonitor } = found;
        const name = toBase64(asked.label);
        return {
          state,
          outcome: { ...seen(state), version, terminal, mustMonitor, value: toBase64(found.value) },
          keep: () => this.contacts.set(name, monitorFound(this.contacts.get(name), found)),
        };
      }
      case 'contactMonitor': {
        const name = toBase64(decode(contactMonitorRequest, request).label);
        const contact = known(this.contacts, name);
        const after = verifyContactMonitor(log, before, contact, bytes, nowMs, viewRestart);
        return {
          state: after.state,
          outcome: { ...seen(after.state), map: after.contact.map.map(pairOf) },
          keep: () => this.contacts.set(name, after.contact),
        };
      }
      case 'ownerInit': {
        const asked = decode(ownerInitRequest, request);
        const { state, owner } = verifyOwnerInit(log, before, asked, bytes, nowMs, viewRestart);
        return this.#owned(asked.label, state, owner);
      }
      case 'ownerMonitor': {
        const { label } = decode(ownerMonitorRequest, request);
        const owner = known(this.owners, toBase64(label));
        const after = verifyOwnerMonitor(log, before, owner, bytes, nowMs, viewRestart);
        const taken = this.#owned(label, after.state, after.owner);
        return { ...taken, isCaughtUp: after.isCaughtUp };
      }
      case 'update': {
        const asked = decode(updateRequest, request);
        const owner = known(this.owners, toBase64(asked.label));
        const after = verifyUpdate(log, before, owner, asked, bytes, nowMs, viewRestart);
        const taken = this.#owned(asked.label, after.state, after.owner);
        const created = after.created.map((one) => toBase64(one.value));
        // katie is asked about this update alone, so only what it added to the map is compared.
        const map = after.owner.map.filter((entry) => !owner.map.includes(entry)).map(pairOf);
        return { ...taken, outcome: { ...taken.outcome, map, created } };
      }
    }
  }

  #owned(label: Uint8Array, state: UserState, owner: OwnerState): Taken {
    const { start, versionAtStart = -1 } = owner;
    return {
      state,
      outcome: {
        ...seen(state),
        start,
        versionAtStart,
        map: owner.map.map(pairOf),
        upcoming: upcomingOf(owner),
      },
      keep: () => this.owners.set(toBase64(label), owner),
    };
  }
}

/**
 * How katie's monitoring map after a round differs from ours where section 8.2 tells it apart:
 * forgotten entries, when owner monitoring ended before the distinguished entry that settles them;
 * a lesser version where two met at one entry.
 */
function mapDifference(
  { outcome, isCaughtUp }: Taken,
  theirs: Outcome,
): 'forgets' | 'lesser' | undefined {
  if (outcome.map === undefined || outcome.map === null) return undefined;
  const ours = new Map(outcome.map);
  const kept = theirs.map ?? [];
  const isPart = kept.every(([position, version]) => version <= (ours.get(position) ?? -1));
  if (!isPart || (kept.length < ours.size && isCaughtUp !== false)) return undefined;
  if (kept.some(([position, version]) => version < (ours.get(position) ?? -1))) return 'lesser';
  return kept.length < ours.size ? 'forgets' : undefined;
}

/** Entries that an update added to the map; none where its own entry is distinguished. */
const addedToMap = (verdict: Verdict): number | undefined =>
  'taken' in verdict ? verdict.taken.outcome.map?.length : undefined;

const pairOf = (entry: { readonly position: number; readonly version: number }) =>
  [entry.position, entry.version] as const;

function known<T>(states: ReadonlyMap<string, T>, name: string): T {
  const state = states.get(name);
  assert.ok(state !== undefined, 'a question without the state that it needs');
  return state;
}

function seen({ heads, view }: UserState): Partial<Outcome> {
  return { size: Math.max(heads.treeHead.treeSize, view.size) };
}

/** One position for each version that is not in a verified distinguished entry yet. */
function upcomingOf(owner: OwnerState): number[] {
  let before = owner.versionAtStart ?? -1;
  return owner.updates.flatMap(({ position, greatestVersion }) => {
    const added = greatestVersion - before;
    before = greatestVersion;
    return Array.from({ length: added }, () => position);
  });
}

export { greatestKnown };

/** Fields that one kind of response says nothing of stay out of it. */
function assertSame(kind: Kind, ours: Partial<Outcome>, theirs: Outcome): void {
  for (const [field, value] of Object.entries(ours)) {
    const other = theirs[field as keyof Outcome] ?? [];
    assert.deepEqual(other, value, `${kind}: ${field} as katie took it, and as we did`);
  }
}
