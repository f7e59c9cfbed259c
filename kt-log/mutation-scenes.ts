/**
 * Test support: a log with a history, and what users receive of it, each message with the check that
 * its receiver makes. What the log itself says to peers is in mutation-statements.ts.
 */
import type { Random } from '@quicprochat/proto';
import assert from 'node:assert/strict';
import {
  credential,
  credentialUpdate,
  verifyCredential,
  verifyCredentialUpdate,
} from './credential.ts';
import { defaultRecency } from './log.ts';
import type { Field, Mutable } from './mutants.ts';
import { fieldsOf } from './mutants.ts';
import type { MutationSuite } from './mutation-suite.ts';
import * as operations from './operations.ts';
import type { Structure } from './presentation.ts';
import { encode } from './presentation.ts';
import { labelOf, testKeys, testLog } from './test-log.ts';
import {
  ownerMonitorRequestOf,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifyUpdate,
} from './verify-owner.ts';
import { logVerifier } from './verify-response.ts';
import type { UserState } from './verify-response.ts';
import {
  monitorFound,
  verifyAbsence,
  verifyContactMonitor,
  verifyDistinguished,
  verifySearch,
} from './verify-search.ts';

/** A message, and what its receiver understands. */
export interface Scene extends Mutable {
  readonly name: string;
  /** What the message says; throws VerificationError for what is refused. */
  readonly check: (bytes: Uint8Array) => unknown;
  /** What it says unchanged; undefined: it is refused, and so has every mutant to be. */
  readonly says: unknown;
  /** Throws where a mutant that was accepted says something else. */
  readonly compare: (said: unknown, honest: unknown) => void;
  /** Every byte counts: no mutant at all may be accepted. */
  readonly isExact: boolean;
}

export type Face = Awaited<ReturnType<typeof faceOf>>;

const mode = 1;
const alice = labelOf('alice@red.example');
const bob = labelOf('bob@red.example');
const carol = labelOf('carol@red.example');

/** A log with the keys that every face of it has, under a suite that knows what they sign. */
export async function faceOf(suite: MutationSuite, random: Random) {
  const { keys, config } = testKeys(40);
  const treeHead = suite.recorded(keys.treeHead);
  const note = suite.recorded(keys.note);
  const made = await testLog({ random, keys: { ...keys, treeHead, note } });
  return {
    ...made,
    keys: { ...keys, treeHead, note },
    suite,
    verifier: logVerifier(config, suite),
  };
}

/** One entry of the log, 20 s after the one before: a new version for each of `names`. */
export async function put(face: Face, ...names: readonly string[]): Promise<void> {
  face.clock.advance(20_000);
  await Promise.all(
    names.map(async (name) => {
      const label = labelOf(`${name}@red.example`);
      const greatest = (await face.store.positions(label)).length - 1;
      const values = [labelOf(`${name} ${greatest + 1}`)];
      await face.log.append({ label, greatest, values });
    }),
  );
}

/** A scene of a message that is one structure, in which every byte counts. */
export function sceneOf<T>(
  name: string,
  structure: Structure<T>,
  bytes: Uint8Array,
  check: (bytes: Uint8Array) => unknown,
): Scene {
  return { ...sceneWith(name, bytes, fieldsOf(structure, bytes), check), isExact: true };
}
/** A scene of any message. */
export function sceneWith(
  name: string,
  bytes: Uint8Array,
  fields: readonly Field[],
  check: (bytes: Uint8Array) => unknown,
  compare: Scene['compare'] = (said, honest) => assert.deepEqual(said, honest),
): Scene {
  return { name, bytes, fields, donors: [], check, says: check(bytes), compare, isExact: false };
}
/** A message that says something else than what is asked: no mutant of it may be accepted. */
export function refusedScene<T>(
  name: string,
  structure: Structure<T>,
  bytes: Uint8Array,
  { check, compare }: Scene,
): Scene {
  assert.throws(() => check(bytes), { name: 'VerificationError' }, name);
  const fields = fieldsOf(structure, bytes);
  return { name, bytes, fields, donors: [], says: undefined, check, compare, isExact: true };
}

/** Scenes of one kind give parts to each other. */
function kin(...scenes: readonly Scene[]): Scene[] {
  return scenes.map((scene) => ({
    ...scene,
    donors: [...scene.donors, ...scenes.filter((one) => one !== scene).map((one) => one.bytes)],
  }));
}

/** Every answer to a user, for somebody new and for somebody who has seen an older head. */
export async function userScenes(face: Face): Promise<Scene[]> {
  const { log, clock, verifier } = face;
  const greatest = operations.searchResponse(mode, false);
  const fixed = operations.searchResponse(mode, true);
  const searched = async (last: number | undefined, label: Uint8Array, version?: number) =>
    encode(version === undefined ? greatest : fixed, await log.search({ last, label, version }));
  const look = (before: UserState | undefined, label: Uint8Array, bytes: Uint8Array) =>
    verifySearch(verifier, before, { label }, bytes, clock.now());

  await put(face, 'eve', 'alice');
  for (const names of [['bob'], ['alice'], ['dave', 'frank'], ['eve']]) await put(face, ...names);
  await put(face, 'alice');
  // What users keep of the log at this size.
  const early = look(undefined, alice, await searched(undefined, alice));
  const { state } = early;
  const last = state.view.size;
  const contact = monitorFound(undefined, early.found);
  assert.ok(contact.map.length > 0, 'a version that has to be monitored');
  const headsOf = async (before: UserState | undefined) => {
    const answer = await log.distinguished({ last: before?.view.size });
    const bytes = encode(operations.distinguishedResponse(mode), answer);
    return verifyDistinguished(verifier, before, defaultRecency, bytes, clock.now());
  };
  const { heads: earlyHeads } = await headsOf(state);
  const start = earlyHeads[0]?.position ?? assert.fail('no distinguished entry');
  const initBytes = async () =>
    encode(operations.ownerInitResponse(mode), await log.ownerInit({ last, label: alice, start }));
  const owner = verifyOwnerInit(
    verifier,
    state,
    { label: alice, start },
    await initBytes(),
    clock.now(),
  );
  const provisional = encode(credential(mode), await log.credential(alice));
  const pending = verifyCredential(verifier, earlyHeads, provisional).pending;
  assert.ok(pending !== undefined, 'a credential of a young version');
  // She makes one version herself, which her answer shows, and learns of one that she did not make.
  const known = owner.owner.versionAtStart ?? -1;
  const news = await log.update({ last, label: alice, greatestVersion: known, values: [] });
  const newsBytes = encode(operations.updateResponse(mode), news);
  const learned = verifyUpdate(
    verifier,
    state,
    owner.owner,
    { values: [] },
    newsBytes,
    clock.now(),
  );
  clock.advance(20_000);
  const made = await log.update({
    last,
    label: alice,
    greatestVersion: known + learned.created.length,
    values: [labelOf('alice new')],
  });
  const madeBytes = encode(operations.updateResponse(mode), made);
  const ownRequest = { values: [labelOf('alice new')] };
  const own = verifyUpdate(verifier, state, learned.owner, ownRequest, madeBytes, clock.now());
  const atUpdate = clock.now();
  for (const names of [['gina', 'bob'], ['hugo'], ['ida'], ['judy'], ['kim'], ['lea']]) {
    await put(face, ...names);
  }

  const now = clock.now();
  const final = look(undefined, alice, await searched(undefined, alice)).state;
  const searchScene = async (name: string, before: UserState | undefined, version?: number) => {
    const bytes = await searched(before?.view.size, alice, version);
    const check = (given: Uint8Array) =>
      verifySearch(verifier, before, { label: alice, version }, given, now);
    if (version === undefined) return sceneOf(name, greatest, bytes, check);
    // Its ladder shows commitments of greater versions, which nothing looks up and nobody keeps.
    return sceneWith(name, bytes, fieldsOf(fixed, bytes), check);
  };
  const fresh = await searchScene('search', undefined);
  const absenceScene = async (name: string, before: UserState | undefined) => {
    const answer = await log.absence({ last: before?.view.size, label: carol });
    const check = (given: Uint8Array) => verifyAbsence(verifier, before, carol, given, now);
    const structure = operations.absenceProof(mode);
    return sceneOf(name, structure, encode(structure, answer), check);
  };
  const absence = await absenceScene('absence', undefined);
  const monitored = await log.contactMonitor({ last, label: alice, entries: contact.map });
  const contactStructure = operations.contactMonitorResponse(mode);
  const ownerStructure = operations.ownerMonitorResponse(mode);
  const ownerRequest = ownerMonitorRequestOf(own.owner, last);
  const distinguishedScene = async (name: string, before: UserState | undefined) => {
    const structure = operations.distinguishedResponse(mode);
    const answer = await log.distinguished({ last: before?.view.size });
    const check = (given: Uint8Array) =>
      verifyDistinguished(verifier, before, defaultRecency, given, now);
    return sceneOf(name, structure, encode(structure, answer), check);
  };
  const { heads } = await headsOf(final);
  const standard = encode(credential(mode), await log.credential(bob));
  const toSettle = { position: pending.terminal, version: pending.version };
  const settled = await log.credentialUpdate(alice, pending.view.size, toSettle);
  return [
    ...kin(fresh, await searchScene('search, known head', state)),
    refusedScene('search of another label', greatest, await searched(undefined, bob), fresh),
    ...kin(
      await searchScene('search, fixed version', undefined, 1),
      await searchScene('search, fixed version, known head', state, 1),
    ),
    ...kin(absence, await absenceScene('absence, known head', state)),
    sceneOf('contact monitor', contactStructure, encode(contactStructure, monitored), (given) =>
      verifyContactMonitor(verifier, state, contact, given, now),
    ),
    sceneOf('owner init', operations.ownerInitResponse(mode), await initBytes(), (given) =>
      verifyOwnerInit(verifier, state, { label: alice, start }, given, now),
    ),
    sceneOf(
      'owner monitor',
      ownerStructure,
      encode(ownerStructure, await log.ownerMonitor(ownerRequest)),
      (given) => verifyOwnerMonitor(verifier, state, own.owner, given, now),
    ),
    sceneOf('update, news', operations.updateResponse(mode), newsBytes, (given) =>
      verifyUpdate(verifier, state, owner.owner, { values: [] }, given, atUpdate),
    ),
    sceneOf('update, own', operations.updateResponse(mode), madeBytes, (given) =>
      verifyUpdate(verifier, state, learned.owner, ownRequest, given, atUpdate),
    ),
    ...kin(
      await distinguishedScene('distinguished', undefined),
      await distinguishedScene('distinguished, known head', state),
    ),
    sceneOf('credential, standard', credential(mode), standard, (given) =>
      verifyCredential(verifier, heads, given),
    ),
    sceneOf('credential, provisional', credential(mode), provisional, (given) =>
      verifyCredential(verifier, earlyHeads, given),
    ),
    sceneOf('credential update', credentialUpdate, encode(credentialUpdate, settled), (given) => {
      verifyCredentialUpdate(verifier, pending, heads, given);
      return 'settled';
    }),
  ];
}
