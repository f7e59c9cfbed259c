/**
 * How a conversation begins: with the keys of everybody who is invited and a suite that all of them have, one
 * hub or three, and the wish to add them; or, where no node answers, with one person whose card is here.
 */
import { hasReason, InvalidArgumentError, parseUserId } from '@quicprochat/proto';
import { create, GroupControlSchema } from '@quicprochat/proto/messages';
import { refreshKeys } from '../account/fresh-keys.ts';
import { createInTheDark, type DarkParts } from '../contacts/first-contact.ts';
import { fetchInvitees, type Invitee } from '../contacts/invitation.ts';
import type { Caller } from '../dial.ts';
import { chooseSuite, mandatorySuite, xwingSuite, type MlsSuite } from '../mls/index.ts';
import type { Committer } from './intents/committer.ts';
import { checkMetadata } from './group-roles.ts';
import { callCreateGroup } from './log/hub-calls.ts';
import { makeGroup, storeGroup, type NewGroup } from './new-group.ts';

export const conversationLimits = {
  /** Direct mode copies every message to each device; larger groups need channels. */
  devices: 256,
} as const;

export interface CreateParts extends DarkParts {
  readonly committer: Pick<Committer, 'addIn' | 'ended' | 'wake'>;
  readonly caller: Caller;
}

/**
 * Creates a conversation with every device of these users, among whom the own one is not, and with the account's
 * other devices; returns its id (32 bytes) when its hub, the own node, accepted them. Throws what fetchInvitees and the MLS adapter throw;
 * nothing was made then. Ended by the signal or a crash once it was made, it goes on by itself.
 */
export async function createConversation(
  parts: CreateParts,
  name: string,
  others: readonly string[],
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const { writer, identity, committer } = parts;
  checkMetadata({ name });
  const dark = await createInTheDark(parts, name, others, signal);
  if (dark !== undefined) return dark;
  await refreshKeys(parts, [identity.userId], signal);
  const { suite, invitees } = await findInitial(parts, others, signal);
  const mine = await ownInvitees(parts, suite, signal);
  const made =
    (await makeWithThree(parts, { suite, name }, invitees, signal)) ??
    (await makeGroup(parts, { suite, name }));
  const { groupId } = made.group;
  const intent = await writer.run(async (batch) => {
    storeGroup(parts, batch, made);
    const all = [...invitees, ...mine];
    if (all.length === 0) return undefined;
    const userIds = [...new Set(all.map(({ userId }) => userId))];
    return committer.addIn(batch, groupId, { kind: 'add', userIds }, all);
  });
  if (intent !== undefined) await committer.ended(intent.id(), signal);
  return groupId;
}

/**
 * With three hubs, where members of as many domains are invited and their nodes are peers of each other.
 * Undefined: then one hub has to do.
 */
async function makeWithThree(
  parts: CreateParts,
  options: { readonly suite: MlsSuite; readonly name: string },
  invitees: readonly Invitee[],
  signal: AbortSignal | undefined,
): Promise<NewGroup | undefined> {
  const { identity, caller, runtime } = parts;
  const users = [identity.userId, ...invitees.map(({ userId }) => userId)];
  const hubs = [...new Set(users.map((userId) => parseUserId(userId).domain))].slice(0, 3);
  if (hubs.length < 3) return undefined;
  const made = await makeGroup(parts, { ...options, hubs });
  try {
    const entry = await callCreateGroup(caller, made.control.entry ?? {}, hubs, signal);
    return { ...made, control: create(GroupControlSchema, { entry }) };
  } catch (error) {
    signal?.throwIfAborted();
    runtime.log.info('no three hubs', { hubs: hubs.join(' '), error: String(error) });
    return undefined;
  }
}

/** The suite that all initial devices have, and their packages of that suite. */
async function findInitial(
  parts: CreateParts,
  userIds: readonly string[],
  signal?: AbortSignal,
): Promise<{ readonly suite: MlsSuite; readonly invitees: readonly Invitee[] }> {
  const preferred = [xwingSuite, mandatorySuite];
  const found = await fetchAll(parts, userIds, preferred, signal);
  const suite = chooseSuite([
    preferred,
    ...found.map((invitee) => (invitee.suite === xwingSuite ? preferred : [mandatorySuite])),
  ]);
  if (found.every((invitee) => invitee.suite === suite)) return { suite, invitees: found };
  return { suite, invitees: await fetchAll(parts, userIds, [suite], signal) };
}

/** The account's other devices. One that has no key for it is left out: it must not keep others from talking. */
async function ownInvitees(
  parts: CreateParts,
  suite: MlsSuite,
  signal?: AbortSignal,
): Promise<readonly Invitee[]> {
  const { userId, deviceId } = parts.identity;
  const devices = parts.contacts.get(userId)?.devices ?? [];
  const skip = devices.filter((one) => one.deviceId === deviceId).map((one) => one.identityPub);
  if (devices.length === skip.length) return [];
  const options = { skip, ...(signal === undefined ? {} : { signal }) };
  try {
    return await fetchInvitees(parts, parts.caller, userId, [suite], options);
  } catch (error) {
    if (!hasReason(error, 'NO_KEY_PACKAGE')) throw error;
    return [];
  }
}

async function fetchAll(
  parts: CreateParts,
  userIds: readonly string[],
  suites: readonly MlsSuite[],
  signal?: AbortSignal,
): Promise<readonly Invitee[]> {
  const options = signal === undefined ? {} : { signal };
  const found = await Promise.all(
    userIds.map((userId) => fetchInvitees(parts, parts.caller, userId, suites, options)),
  );
  const invitees = found.flat();
  if (invitees.length >= conversationLimits.devices) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `conversation: ${invitees.length + 1} devices, at most ${conversationLimits.devices}`,
    );
  }
  return invitees;
}
