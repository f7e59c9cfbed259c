/**
 * Group state in store rows, in three parts so that a message costs one small write:
 *
 *   cold  once per epoch: everything but message keys and past epochs
 *   hot   after each message sent or received in the current epoch: 0.6-2 KB
 *   past  per kept past epoch: written when the epoch is left and when a late message used it
 *
 * All three hold secrets and belong into the encrypted store, in the transaction of whatever
 * changed them. Formats are the library's own, under a header that says what belongs together.
 */
import type { ClientState, Decoder, EpochReceiverData, GroupState, SecretTree } from 'ts-mls';
import { concat } from '../crypto/octets.ts';
import { MlsError } from './errors.ts';
import { MlsGroup, stateOf } from './group.ts';
import {
  clientStateDecoder,
  clientStateEncoder,
  encode,
  groupStateDecoder,
  groupStateEncoder,
} from './library.ts';
import { Reader, uint64, vector } from './presentation.ts';
import { sameBytes } from './suite.ts';

const formatVersion = 1;
const partKinds = { cold: 1, hot: 2, past: 3 } as const;
type PartKind = keyof typeof partKinds;

/** The rows of one group. */
export interface GroupRows {
  readonly cold: Uint8Array;
  readonly hot: Uint8Array;
  readonly past: readonly Uint8Array[];
}

const empty = new Uint8Array(0);
const noKeys: SecretTree = { leafWidth: 1, intermediateNodes: {}, leafNodes: {} };

/** The cold part: no message key and no past epoch is in it. Once per epoch. */
export function encodeCold(group: MlsGroup): Uint8Array {
  const state = stateOf(group);
  const cold = { ...state, secretTree: noKeys, historicalReceiverData: new Map() };
  return part('cold', group.groupId, group.epoch, encode(clientStateEncoder, cold));
}

/** The hot part: after every message of the current epoch, and with each cold one. */
export function encodeHot(group: MlsGroup): Uint8Array {
  const hot = { ...stateOf(group), historicalReceiverData: new Map() };
  return part('hot', group.groupId, group.epoch, encode(groupStateEncoder, hot));
}

/** The part of one past epoch, of {@link MlsGroup.pastEpochs}. Throws MlsError EPOCH_GONE. */
export function encodePast(group: MlsGroup, epoch: bigint): Uint8Array {
  const data = stateOf(group).historicalReceiverData.get(epoch);
  if (data === undefined) throw new MlsError('EPOCH_GONE', `group state: epoch ${epoch} not kept`);
  return part('past', group.groupId, epoch, encode(groupStateEncoder, onlyHistory(epoch, data)));
}

/** All rows of a group, for a first write. */
export function encodeGroup(group: MlsGroup): GroupRows {
  return {
    cold: encodeCold(group),
    hot: encodeHot(group),
    past: group.pastEpochs().map((epoch) => encodePast(group, epoch)),
  };
}

/**
 * The group that these rows hold: cold, overlaid with hot, with its past epochs. Shares no
 * memory with the rows. Throws MlsError BAD_STATE when a row is damaged, of another group or
 * epoch, or a past epoch is not past or stands there twice.
 */
export function restoreGroup(rows: GroupRows): MlsGroup {
  const cold = open('cold', rows.cold);
  const hot = open('hot', rows.hot);
  if (!sameBytes(cold.groupId, hot.groupId) || cold.epoch !== hot.epoch) {
    throw new MlsError(
      'BAD_STATE',
      `group state: hot of epoch ${hot.epoch}, cold of ${cold.epoch}`,
    );
  }
  const base = decodeAll(clientStateDecoder, cold.body);
  const overlay = decodeAll(groupStateDecoder, hot.body);
  const history = new Map<bigint, EpochReceiverData>();
  for (const row of rows.past) {
    const past = open('past', row);
    const data = decodeAll(groupStateDecoder, past.body).historicalReceiverData.get(past.epoch);
    if (
      data === undefined ||
      history.has(past.epoch) ||
      past.epoch >= cold.epoch ||
      !sameBytes(past.groupId, cold.groupId)
    ) {
      throw new MlsError('BAD_STATE', `group state: past epoch ${past.epoch} does not belong`);
    }
    history.set(past.epoch, data);
  }
  const state: ClientState = { ...base, ...overlay, historicalReceiverData: history };
  if (
    !sameBytes(state.groupContext.groupId, cold.groupId) ||
    state.groupContext.epoch !== cold.epoch
  ) {
    throw new MlsError('BAD_STATE', 'group state: header and body differ');
  }
  return new MlsGroup(state);
}

// The codec of one EpochReceiverData is not exported: it travels in an otherwise empty state.
function onlyHistory(epoch: bigint, data: EpochReceiverData): GroupState {
  return {
    keySchedule: {
      senderDataSecret: empty,
      exporterSecret: empty,
      externalSecret: empty,
      confirmationKey: empty,
      membershipKey: empty,
      resumptionPsk: empty,
      epochAuthenticator: empty,
      initSecret: empty,
    },
    secretTree: noKeys,
    privatePath: { leafIndex: 0, privateKeys: {} },
    signaturePrivateKey: empty,
    unappliedProposals: {},
    confirmationTag: empty,
    historicalReceiverData: new Map([[epoch, data]]),
    groupActiveState: { kind: 'active' },
  };
}

function part(kind: PartKind, groupId: Uint8Array, epoch: bigint, body: Uint8Array): Uint8Array {
  return concat(
    Uint8Array.of(formatVersion, partKinds[kind]),
    uint64(epoch),
    vector(groupId),
    body,
  );
}

function open(
  kind: PartKind,
  bytes: Uint8Array,
): { readonly groupId: Uint8Array; readonly epoch: bigint; readonly body: Uint8Array } {
  const reader = new Reader(bytes);
  try {
    const version = reader.uint(1);
    const partKind = reader.uint(1);
    if (version !== formatVersion || partKind !== partKinds[kind]) {
      throw new MlsError('BAD_STATE', `group state: not a ${kind} row of format ${formatVersion}`);
    }
    return { epoch: reader.uint64(), groupId: reader.vector(255), body: reader.rest() };
  } catch (cause) {
    throw new MlsError('BAD_STATE', `group state: damaged ${kind} row`, { cause });
  }
}

function decodeAll<T>(decoder: Decoder<T>, body: Uint8Array): T {
  let decoded: [T, number] | undefined;
  try {
    decoded = decoder(body, 0);
  } catch (cause) {
    throw new MlsError('BAD_STATE', 'group state: cannot be decoded', { cause });
  }
  if (decoded === undefined || decoded[1] !== body.length) {
    throw new MlsError('BAD_STATE', 'group state: cannot be decoded');
  }
  return decoded[0];
}
