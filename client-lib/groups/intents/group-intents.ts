/**
 * What somebody wants changed in a group: one durable row until it is done, superseded or refused
 * (docs/protocol/group-log.md, "At a member"). An intent says what is wanted and not how: the commit for
 * it is made for the state that the group has by then, and made anew after a lost race. A new kind is a
 * member of `GroupIntent` and a case of `planOf`.
 */
import { hex, QpcError, Status } from '@quicprochat/proto';
import { switchingChannel } from '../../channels/channel-switch.ts';
import {
  removing,
  removingRevoked,
  settingRole,
  updating,
  type GroupMetadata,
} from '../group-roles.ts';
import type { Invitee } from '../../contacts/invitation.ts';
import type { Change, MlsGroup, Role } from '../../mls/index.ts';
import type { IntentEnd, IntentRow } from '../../store/group-log-rows.ts';

export type GroupIntent =
  /** Every device of these users that is not in the group yet. */
  | { readonly kind: 'add'; readonly userIds: readonly string[] }
  /**
   * Every device of these users, and single ones (`alice@red.example/<device id>`). `isDuty`: they asked
   * for it, and whoever is online does it.
   */
  | { readonly kind: 'remove'; readonly userIds: readonly string[]; readonly isDuty?: boolean }
  | ({ readonly kind: 'update' } & GroupMetadata)
  | { readonly kind: 'setRole'; readonly userId: string; readonly role: Role }
  /** The members are asked to remove all devices of this device's user. */
  | { readonly kind: 'leave' }
  /** The channel that its size asks for, or a fresh one for the one named (hex of its id). */
  | { readonly kind: 'channel'; readonly isDuty: true; readonly replaces?: string }
  /** Fresh keys behind what nobody applies at the end of the log, while the group is in that epoch. */
  | { readonly kind: 'overJunk'; readonly isDuty: true; readonly epoch: number }
  /** Fresh keys for this device and the group. `isDuty`: by the schedule. */
  | { readonly kind: 'rekey'; readonly isDuty?: boolean };

/** A commit that an intent asks for. */
export interface IntentPlan {
  readonly change: Change;
  /** Of `change.add`, in that order: they get Welcomes. */
  readonly invitees?: readonly Invitee[];
  /** False: another commit follows for the same intent. */
  readonly isLast: boolean;
}

/** What the plan of an intent is made of, besides the group. */
export interface PlanParts {
  /** User id of this device. */
  readonly ownUserId: string;
  /** Invitees of an `add`: all devices of its users. */
  readonly invitees: readonly Invitee[];
  /** Most Adds in one commit. */
  readonly addsMax: number;
  /** For a channel, if it gets one (32 random bytes). */
  readonly channelNonce: Uint8Array;
}

/** Why a change of a group did not happen. */
export class GroupChangeError extends QpcError {
  override name = 'GroupChangeError';
  constructor(reason: string) {
    super(Status.FailedPrecondition, reason, `the change of the group was refused: ${reason}`);
  }
}

/** The members have yet to say whether a commit counts that this device cannot judge. */
export class UndecidedError extends QpcError {
  override name = 'UndecidedError';
  constructor() {
    super(
      Status.Unavailable,
      'UNDECIDED_COMMIT',
      'group: others are asked what they make of a commit',
    );
  }
}

/** Users whose KeyPackages the plan needs. */
export function invitedBy(intent: GroupIntent): readonly string[] {
  return intent.kind === 'add' ? intent.userIds : [];
}

/**
 * The commit for an intent in the group as it is now; undefined: the group is that way already. Pure.
 * Whether the rules of the group allow it, the commit itself finds out. Throws what the functions of
 * group-roles.ts throw.
 */
export function planOf(
  intent: GroupIntent,
  group: MlsGroup,
  { invitees, addsMax, ownUserId, channelNonce }: PlanParts,
): IntentPlan | undefined {
  switch (intent.kind) {
    case 'add': {
      const members = new Set(group.members().map(({ identityPub }) => hex(identityPub)));
      const missing = invitees.filter(({ identityPub }) => !members.has(hex(identityPub)));
      const now = missing.slice(0, addsMax);
      if (now.length === 0) return undefined;
      const add = now.map(({ keyPackage }) => keyPackage);
      return { change: { add }, invitees: now, isLast: now.length === missing.length };
    }
    case 'remove':
      if (intent.isDuty === true) return removingRevoked(group, intent.userIds);
      return lastOf(removing(group, intent.userIds));
    case 'update': {
      const { kind: _, ...metadata } = intent;
      return lastOf(updating(group, metadata));
    }
    case 'setRole':
      return lastOf(settingRole(group, intent.userId, intent.role));
    case 'channel':
      return lastOf(switchingChannel(group, intent.replaces, channelNonce));
    case 'leave':
      // Nobody can remove the own leaf: others do, once they were asked.
      throw new Error(`${ownUserId} cannot commit its own leave`);
    case 'overJunk':
      return group.epoch === BigInt(intent.epoch) ? { change: {}, isLast: true } : undefined;
    case 'rekey':
      return { change: {}, isLast: true };
  }
}

const lastOf = (change: Change | undefined): IntentPlan | undefined =>
  change && { change, isLast: true };

/** Whether people wait for its end: then it is told by an event. */
export function isWish(intent: GroupIntent): boolean {
  return !('isDuty' in intent && intent.isDuty);
}

export function encodeIntent(intent: GroupIntent): Pick<IntentRow, 'kind' | 'body'> {
  const { kind, ...body } = intent;
  return { kind, body: JSON.stringify(body) };
}

/** Of the own store, which wrote it with `encodeIntent`. */
export function decodeIntent({ kind, body }: Pick<IntentRow, 'kind' | 'body'>): GroupIntent {
  return { kind, ...(JSON.parse(body) as object) } as GroupIntent;
}

/** As events say it. */
export const intentOutcomes = {
  DONE: 'done',
  SUPERSEDED: 'superseded',
  REFUSED: 'refused',
} as const satisfies Record<IntentEnd, string>;
