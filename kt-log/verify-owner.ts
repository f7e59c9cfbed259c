/**
 * Verification of what the owner of a label receives (protocol sections 8.3, 9, 13.3 to 13.5), and
 * the state that an owner keeps. Pure; browser-safe. Process new versions (verifyUpdate) before the
 * next round of monitoring.
 */
import type { UpdateValue } from './codec.ts';
import { DeploymentMode } from './codec.ts';
import { rightmostDistinguished } from './combined-tree.ts';
import { zeroHash } from './hash.ts';
import { baseLadder, maxVersion } from './ladder.ts';
import { checkOwnerStart, monitorContact, monitorOwner, ownerStartEntries } from './monitoring.ts';
import type {
  MonitorMapEntry,
  OwnerInitRequest,
  OwnerMonitorRequest,
  UpdateRequest,
  UpdateResponse,
} from './operations.ts';
import { ownerInitResponse, ownerMonitorResponse, updateResponse } from './operations.ts';
import { decode } from './presentation.ts';
import type { KnownVersion, KnownVersions } from './replayer.ts';
import type { OwnerKnowledge } from './updating.ts';
import { checkUpdate, updateLadder } from './updating.ts';
import { verify, VerificationError } from './verification-error.ts';
import type { LogVerifier, UserState } from './verify-response.ts';
import {
  commitmentTo,
  knownVersion,
  pairLadder,
  verifyResponse,
  verifyUpdateValue,
} from './verify-response.ts';
import { insertMonitored } from './verify-search.ts';

/** New versions of the label in one entry: the greatest of them. */
export interface OwnUpdate {
  readonly position: number;
  readonly greatestVersion: number;
}

/** What an owner keeps of a label. */
export interface OwnerState {
  readonly label: Uint8Array;
  /** Rightmost distinguished entry that was verified. */
  readonly start: number;
  /** Greatest version there; undefined: the label did not exist. */
  readonly versionAtStart: number | undefined;
  /** Updates right of `start`, ascending. */
  readonly updates: readonly OwnUpdate[];
  /** Versions not yet seen in a distinguished entry (section 8.2). */
  readonly map: readonly MonitorMapEntry[];
  /** Search keys of every version that a ladder may ask for. */
  readonly versions: KnownVersions;
}

/** Paths of a tree below 2^52 entries are shorter: more greatest versions cannot be right. */
const startEntriesMax = 53;

/** Greatest version that the owner knows of in the entry at `position`. */
function versionAt(owner: OwnerState, position: number): number | undefined {
  const update = owner.updates.findLast((one) => one.position <= position);
  return update?.greatestVersion ?? (position >= owner.start ? owner.versionAtStart : undefined);
}
/** Greatest version that the owner knows of at all. */
export function greatestKnown(owner: OwnerState): number | undefined {
  return owner.updates.at(-1)?.greatestVersion ?? owner.versionAtStart;
}
/** Where that version was inserted, or the start position if it was there already. */
function greatestPosition(owner: OwnerState): number {
  return owner.updates.at(-1)?.position ?? owner.start;
}

/** Versions that ladders for these greatest versions look up, with version zero (section 8.3). */
export function ownerInitLadder(greatestVersions: readonly number[]): number[] {
  const versions = new Set([0, ...greatestVersions.flatMap(baseLadder)]);
  return [...versions].sort((a, b) => a - b);
}

/** Section 13.3: takes ownership of a label from a distinguished entry on. */
export function verifyOwnerInit(
  log: LogVerifier,
  before: UserState | undefined,
  request: Pick<OwnerInitRequest, 'label' | 'start'>,
  bytes: Uint8Array,
  nowMs: number,
  viewRestart = true,
): { readonly state: UserState; readonly owner: OwnerState } {
  const { label, start } = request;
  const response = decode(ownerInitResponse(log.config.mode), bytes);
  const { greatestVersions, fullTreeHead, init: proof } = response;
  const descends = greatestVersions.every((v, i) => v <= (greatestVersions[i - 1] ?? maxVersion));
  verify(descends, 'LADDER', 'greatest versions', 'descending ones');
  verify(greatestVersions.length <= startEntriesMax, 'COUNT', 'greatest versions', 'one per entry');
  const [versionAtStart] = greatestVersions;
  const versions = new Map<number, KnownVersion>();
  for (const [version, step] of pairLadder(
    ownerInitLadder(greatestVersions),
    response.binaryLadder,
  )) {
    const exists = step.commitment !== undefined;
    const mustExist = greatestVersions.includes(version);
    const mustNot = version > (versionAtStart ?? -1);
    const isRight = exists ? !mustNot : !mustExist;
    verify(isRight, 'LADDER', 'binary ladder', 'commitments of the versions that exist');
    versions.set(version, knownVersion(log, label, version, step));
  }
  const { state } = verifyResponse(
    log,
    before,
    { fullTreeHead, proof },
    versions,
    nowMs,
    function* (tree) {
      const entries = yield* ownerStartEntries(tree, start);
      const fits = greatestVersions.length <= entries.length;
      verify(fits, 'COUNT', 'greatest versions', `at most ${entries.length}`);
      yield* checkOwnerStart(tree, entries, greatestVersions);
    },
    viewRestart,
  );
  return { state, owner: { label, start, versionAtStart, updates: [], map: [], versions } };
}

/** The request that continues an owner's monitoring. */
export function ownerMonitorRequestOf(
  owner: OwnerState,
  last: number | undefined,
): OwnerMonitorRequest {
  const { label, map: entries, start } = owner;
  return { last, label, entries, start, greatestVersion: greatestKnown(owner) };
}

/** Result of a round of owner monitoring. */
export interface OwnerMonitored {
  readonly state: UserState;
  readonly owner: OwnerState;
  /** False: the response ended early, another round has to follow. */
  readonly isCaughtUp: boolean;
  /**
   * False: no distinguished entry was shown. Neither this nor caught up means that the log stopped at
   * a version the owner does not know: ask for it by an update without values. A log that then has
   * none to tell withholds it.
   */
  readonly hasProgressed: boolean;
}

/**
 * Section 13.4. Throws VerificationError LADDER when a distinguished entry holds another greatest
 * version than the owner made: somebody changed the label.
 */
export function verifyOwnerMonitor(
  log: LogVerifier,
  before: UserState | undefined,
  owner: OwnerState,
  bytes: Uint8Array,
  nowMs: number,
  viewRestart = true,
): OwnerMonitored {
  const response = decode(ownerMonitorResponse(log.config.mode), bytes);
  const { result, state } = verifyResponse(
    log,
    before,
    response,
    owner.versions,
    nowMs,
    function* (tree) {
      const map = yield* monitorContact(tree, owner.map, owner.start);
      const inspected = yield* monitorOwner(tree, owner.start, (at) => versionAt(owner, at));
      const newest = yield* rightmostDistinguished(tree);
      return { map, inspected, newest };
    },
    viewRestart,
  );
  const start = result.inspected.at(-1) ?? owner.start;
  const map = result.map
    .filter(({ isSettled, settledBy }) => !isSettled && !result.inspected.includes(settledBy ?? -1))
    .map(({ position, version }) => ({ position, version }));
  const moved: OwnerState = {
    ...owner,
    start,
    versionAtStart: versionAt(owner, start),
    updates: owner.updates.filter((update) => update.position > start),
    map,
  };
  const isCaughtUp = start >= (result.newest ?? -1);
  const hasProgressed = result.inspected.length > 0;
  return { state, owner: forgetUnused(moved), isCaughtUp, hasProgressed };
}

/** Keeps the search keys that a later ladder can ask for. */
function forgetUnused(owner: OwnerState): OwnerState {
  const greatest = [owner.versionAtStart, ...owner.updates.map((one) => one.greatestVersion)];
  const monitored = owner.map.map((entry) => entry.version);
  const needed = new Set([
    0,
    ...[...greatest, ...monitored].flatMap((v) => (v === undefined ? [] : baseLadder(v))),
  ]);
  const versions = new Map([...owner.versions].filter(([version]) => needed.has(version)));
  return { ...owner, versions };
}

/** A version that was created, in the order of creation. */
export interface CreatedVersion {
  readonly version: number;
  readonly value: Uint8Array;
  readonly opening: Uint8Array;
}
export interface OwnerUpdated {
  readonly state: UserState;
  readonly owner: OwnerState;
  readonly created: readonly CreatedVersion[];
  /** True: these are the request's own values. False: versions that existed before; ask again. */
  readonly isOwnRequest: boolean;
}

/**
 * Section 13.5, for one of the responses. When the new versions stand in an entry that is already
 * distinguished, section 9.1 gives no proof of them: they are shown by the next verifyOwnerMonitor,
 * which is due before anybody relies on them. Throws VerificationError.
 */
export function verifyUpdate(
  log: LogVerifier,
  before: UserState | undefined,
  owner: OwnerState,
  request: Pick<UpdateRequest, 'values'>,
  bytes: Uint8Array,
  nowMs: number,
  viewRestart = true,
): OwnerUpdated {
  const { label } = owner;
  const response = decode(updateResponse(log.config.mode), bytes);
  const { position, fullTreeHead, update: proof } = response;
  const greatestBefore = greatestKnown(owner);
  const isOwnRequest = response.values.length === 0;
  const created = createdVersions(log, label, greatestBefore, response, request.values);
  const first = (greatestBefore ?? -1) + 1;
  const greatest = created.at(-1)?.version ?? -1;
  const added = { position, first, greatest };
  const versions = new Map(owner.versions);
  const steps = pairLadder(updateLadder(greatestBefore, added), response.binaryLadder);
  for (const [version, step] of steps) {
    const isOld = version < first;
    verify(
      (step.commitment !== undefined) === isOld,
      'LADDER',
      'binary ladder',
      'commitments of the versions before the update only',
    );
    versions.set(version, knownVersion(log, label, version, step));
  }
  for (let version = first; version <= greatest; version++) {
    const made = created.find((one) => one.version === version);
    // A skipped version has the all-zero commitment (section 9.1).
    const commitment = made === undefined ? zeroHash : commitmentTo(log, label, made);
    const known = versions.get(version);
    verify(known !== undefined, 'LADDER', `version ${version}`, 'its VRF proof');
    versions.set(version, { ...known, commitment });
  }
  const knowledge: OwnerKnowledge = {
    greatestVersion: greatestBefore,
    greatestPosition: greatestPosition(owner),
    versionAt: (at) => versionAt(owner, at),
  };
  const { result, state } = verifyResponse(
    log,
    before,
    { fullTreeHead, proof },
    versions,
    nowMs,
    (tree) => checkUpdate(tree, knowledge, added),
    viewRestart,
  );
  const mapped = { position, version: greatest };
  return {
    state,
    isOwnRequest,
    created: created.map(({ version, opening, update }) => ({
      version,
      opening,
      value: update.value,
    })),
    owner: {
      ...owner,
      updates: [...owner.updates, { position, greatestVersion: greatest }],
      map: result.isDistinguished ? owner.map : insertMonitored(owner.map, mapped),
      versions,
    },
  };
}

/** Section 13.5, steps 2 and 3: the versions that a response is about, with their openings. */
function createdVersions(
  log: LogVerifier,
  label: Uint8Array,
  greatestBefore: number | undefined,
  response: UpdateResponse,
  requested: readonly Uint8Array[],
): { version: number; opening: Uint8Array; update: UpdateValue }[] {
  const values = response.values.length > 0 ? response.values : requested;
  const { info } = response;
  if (info.length === 0 || info.length !== values.length) {
    const expected = `one for each of ${values.length} values, at least one`;
    throw new VerificationError('COUNT', 'update info', expected);
  }
  const isManaged = log.config.mode === DeploymentMode.thirdPartyManagement;
  const skipped = isManaged ? (response.skippedVersions ?? 0) : 0;
  // One entry holds few versions; a log that skips more is not worth following.
  verify(skipped <= 255, 'COUNT', 'skipped versions', 'at most 255');
  const first = (greatestBefore ?? -1) + 1 + skipped;
  verify(first + info.length - 1 <= maxVersion, 'COUNT', 'versions', 'none above 2^32 - 1');
  return info.map(({ opening, suffix }, i) => {
    const update = { value: values[i] ?? zeroHash, suffix };
    const version = first + i;
    verifyUpdateValue(log, label, version, update);
    return { version, opening, update };
  });
}
