/**
 * Verification of searches, of absence, and of distinguished heads (protocol sections 10, 13.1,
 * 13.6), and of contact monitoring (13.2). Pure; browser-safe.
 */
import { DeploymentMode } from './codec.ts';
import type { Found } from './combined-tree.ts';
import { searchAbsence, searchFixed, searchGreatest, walkDistinguished } from './combined-tree.ts';
import type { Hash } from './hash.ts';
import { sameBytes } from './hash.ts';
import { baseLadder } from './ladder.ts';
import { monitorContact } from './monitoring.ts';
import type { MonitorMapEntry, SearchRequest } from './operations.ts';
import {
  absenceProof,
  contactMonitorResponse,
  distinguishedResponse,
  searchResponse,
} from './operations.ts';
import { decode } from './presentation.ts';
import type { KnownVersion, KnownVersions, LogView } from './replayer.ts';
import { verify } from './verification-error.ts';
import type { LogVerifier, UserState } from './verify-response.ts';
import {
  knownVersion,
  verifyResponse,
  verifySearchLadder,
  verifyUpdateValue,
} from './verify-response.ts';

/** A version of a label that the log vouches for. */
export interface FoundVersion {
  readonly label: Uint8Array;
  readonly version: number;
  readonly value: Uint8Array;
  readonly opening: Uint8Array;
  /** Entry where the search ended, and its timestamp. */
  readonly terminal: number;
  readonly terminalMs: number;
  /** True: contact monitoring has to follow this version (sections 6.3, 7.2). */
  readonly mustMonitor: boolean;
  /** Search keys and commitments of the ladder, which monitoring needs. */
  readonly versions: KnownVersions;
}

/**
 * Section 13.1. `request.last` is set from `before` by whoever sends it. Throws VerificationError;
 * NOT_FOUND and EXPIRED tell that the proof shows just that.
 */
export function verifySearch(
  log: LogVerifier,
  before: UserState | undefined,
  request: Pick<SearchRequest, 'label' | 'version'>,
  bytes: Uint8Array,
  nowMs: number,
  viewRestart = true,
): { readonly state: UserState; readonly found: FoundVersion } {
  const { label } = request;
  const isGreatest = request.version === undefined;
  const response = decode(searchResponse(log.config.mode, !isGreatest), bytes);
  const version = request.version ?? response.version ?? 0;
  const { opening, value: update, fullTreeHead, search: proof } = response;
  verifyUpdateValue(log, label, version, update);
  const target = { version, opening, update };
  const ladder = baseLadder(version);
  const versions = verifySearchLadder(
    log,
    label,
    target,
    isGreatest,
    ladder,
    response.binaryLadder,
  );
  const { result, state, tree } = verifyResponse<Found>(
    log,
    before,
    { fullTreeHead, proof },
    versions,
    nowMs,
    (shown) => (isGreatest ? searchGreatest(shown, version) : searchFixed(shown, version)),
    viewRestart,
  );
  const isContactMonitoring = log.config.mode === DeploymentMode.contactMonitoring;
  return {
    state,
    found: {
      label,
      version,
      value: update.value,
      opening,
      terminal: result.terminal,
      terminalMs: tree.entry(result.terminal)?.timestampMs ?? 0,
      mustMonitor: isContactMonitoring && result.mustMonitor,
      versions: new Map([...versions].map((one) => proven(one, version))),
    },
  };
}

/**
 * What may be kept of a ladder: a search for a fixed version shows commitments of greater versions
 * too, which its proof does not look up, so nothing vouches for them.
 */
function proven([version, known]: [number, KnownVersion], target: number): [number, KnownVersion] {
  return [version, version > target ? { ...known, commitment: undefined } : known];
}

/** Shows that no version of `label` exists at the state returned. Throws VerificationError. */
export function verifyAbsence(
  log: LogVerifier,
  before: UserState | undefined,
  label: Uint8Array,
  bytes: Uint8Array,
  nowMs: number,
): { readonly state: UserState } {
  const { fullTreeHead, step, search: proof } = decode(absenceProof(log.config.mode), bytes);
  verify(step.commitment === undefined, 'LADDER', 'absence of a label', 'no commitment');
  const versions = new Map([[0, knownVersion(log, label, 0, step)]]);
  const { state } = verifyResponse(
    log,
    before,
    { fullTreeHead, proof },
    versions,
    nowMs,
    searchAbsence,
  );
  return { state };
}

/** What a user keeps of a label looked up that has to be monitored (section 8.2). */
export interface ContactState {
  readonly label: Uint8Array;
  /** Ascending by position; no position and no version twice. Empty: nothing to do. */
  readonly map: readonly MonitorMapEntry[];
  readonly versions: KnownVersions;
}

/** Takes a search's result into a label's monitoring state. */
export function monitorFound(before: ContactState | undefined, found: FoundVersion): ContactState {
  const { label, version, terminal: position } = found;
  const old = before?.map ?? [];
  const versions = new Map(before?.versions);
  for (const [shown, known] of found.versions) {
    // A log that leaves a commitment out does not take it back.
    const isNews = known.commitment !== undefined || versions.get(shown)?.commitment === undefined;
    if (isNews) versions.set(shown, known);
  }
  const isKnown = old.some((entry) => entry.version === version);
  if (!found.mustMonitor || isKnown) return { label, map: old, versions };
  const map = insertMonitored(old, { position, version });
  return { label, map, versions };
}

/**
 * A monitoring map with one entry more. Its versions ascend with its positions: of two that do not,
 * the greater version at the lesser position covers the other, for its path leads through there.
 */
export function insertMonitored(
  map: readonly MonitorMapEntry[],
  added: MonitorMapEntry,
): MonitorMapEntry[] {
  const covers = (one: MonitorMapEntry, other: MonitorMapEntry): boolean =>
    one.position <= other.position && one.version >= other.version;
  if (map.some((entry) => covers(entry, added))) return [...map];
  const rest = map.filter((entry) => !covers(added, entry));
  return [...rest, added].sort((a, b) => a.position - b.position);
}

/** Section 13.2: one round of monitoring of `contact`. Throws VerificationError. */
export function verifyContactMonitor(
  log: LogVerifier,
  before: UserState | undefined,
  contact: ContactState,
  bytes: Uint8Array,
  nowMs: number,
  viewRestart = true,
): { readonly state: UserState; readonly contact: ContactState } {
  const response = decode(contactMonitorResponse(log.config.mode), bytes);
  const { result, state } = verifyResponse(
    log,
    before,
    response,
    contact.versions,
    nowMs,
    (tree) => monitorContact(tree, contact.map),
    viewRestart,
  );
  const map = result
    .filter((entry) => !entry.isSettled)
    .map(({ position, version }) => ({ position, version }));
  return { state, contact: { ...contact, map } };
}

/** A recent distinguished entry, and the tree that ends with it. */
export interface DistinguishedView {
  readonly position: number;
  readonly timestampMs: number;
  readonly root: Hash;
  /** Full subtrees and frontier at size `position + 1`: what credentials are checked with. */
  readonly view: LogView;
}

/** What an application calls recent (section 10.1). */
export interface Recency {
  /** Less than this before the newest entry. */
  readonly recentMs: number;
  readonly countMax: number;
}

/** Section 13.6: the recent distinguished entries, rightmost first. Throws VerificationError. */
export function verifyDistinguished(
  log: LogVerifier,
  before: UserState | undefined,
  request: { readonly stop?: number | undefined } & Recency,
  bytes: Uint8Array,
  nowMs: number,
): { readonly state: UserState; readonly heads: readonly DistinguishedView[] } {
  const response = decode(distinguishedResponse(log.config.mode), bytes);
  const { result, state, tree } = verifyResponse(log, before, response, new Map(), nowMs, (shown) =>
    walkDistinguished(shown, request),
  );
  const heads = result.map(({ position, timestampMs }) => {
    const root = tree.rootAt(position + 1);
    const view = tree.viewAt(position + 1);
    verify(root !== undefined && view !== undefined, 'COUNT', 'distinguished head', 'a whole tree');
    return { position, timestampMs, root, view };
  });
  return { state, heads };
}

/**
 * Section 10.2: whether two users' lists of root values, left to right, agree: one is the other's
 * prefix or suffix, with at least one root in common. Throws VerificationError FORK.
 */
export function verifySameLog(ours: readonly Hash[], theirs: readonly Hash[]): void {
  verify(ours.length === theirs.length, 'COUNT', 'distinguished heads', 'lists of the same length');
  const overlaps = (a: readonly Hash[], b: readonly Hash[], shift: number): boolean =>
    a
      .slice(0, a.length - shift)
      .every((root, i) => sameBytes(root, b[i + shift] ?? new Uint8Array()));
  for (let shift = 0; shift < ours.length; shift++) {
    if (overlaps(ours, theirs, shift) || overlaps(theirs, ours, shift)) return;
  }
  verify(false, 'FORK', 'distinguished heads', 'a root in common');
}
