/**
 * Finding what it takes to invite somebody: the verified manifest, one KeyPackage and a valid
 * prekey for each of the person's devices. The claim id is on disk before the question leaves, so
 * that a repeat after a lost answer burns no second package.
 */
import {
  hasReason,
  InvalidArgumentError,
  methods,
  NotFoundError,
  type RpcOptions,
  type Runtime,
  sameBytes,
  TransportError,
} from '@quicprochat/proto';
import type { DeviceKeyPackage } from '@quicprochat/proto/messages';
import type { Cards } from '../cards/cards.ts';
import type { Contact } from './contact.ts';
import type { Contacts } from './contacts.ts';
import type { Recipient } from '../sending/fan-out.ts';
import type { Caller } from '../dial.ts';
import type { Mls, MlsSuite } from '../mls/index.ts';
import type { ClientStore } from '../store/store.ts';

/** The same claim id answers with the same packages for 10 minutes; a minute less is safe (ms). */
const claimReuseMs = 9 * 60 * 1000;

/** A device that can be added now. */
export interface Invitee extends Recipient {
  readonly suite: MlsSuite;
  readonly keyPackage: Uint8Array;
}

export interface InvitationParts {
  /** For people whose node serves nothing now. */
  readonly cards?: Pick<Cards, 'invitees'> | undefined;
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly contacts: Contacts;
  readonly mls: Mls;
}

/**
 * One invitee per live device of the user, except for `skip`; suites are in order of preference.
 * Throws NotFoundError UNKNOWN_USER or NO_KEY_PACKAGE (no device, or one without a package or a
 * valid prekey), InvalidArgumentError (what the node served is not the device's), and what
 * Contacts.verified throws.
 */
export async function fetchInvitees(
  parts: InvitationParts,
  caller: Caller,
  userId: string,
  suites: readonly MlsSuite[],
  options: RpcOptions & { readonly skip?: readonly Uint8Array[] },
): Promise<readonly Invitee[]> {
  const { store, runtime, contacts } = parts;
  const nowMs = runtime.clock.now();
  const { claimName, free } = take(store, `${userId} ${suites.join(',')}`);
  using _taken = free;
  let claim = store.contacts.claim(claimName);
  if (claim === undefined || nowMs - claim.madeMs > claimReuseMs || claim.madeMs > nowMs) {
    claim = { claimId: runtime.random.bytes(16), madeMs: nowMs };
    const { claimId } = claim;
    store.transaction(() => store.contacts.putClaim(claimName, claimId, nowMs));
  }
  const { claimId } = claim;
  const { skip = [], ...rpc } = options;
  let answer;
  try {
    const request = { userId, claimId, suites: [...suites] };
    answer = await caller.call(methods.fetchKeyPackage, request, rpc);
  } catch (error) {
    // Last-resort packages of a card, if there is one: the Welcome goes by whatever way there is.
    const isAway = error instanceof TransportError || hasReason(error, 'PEER_UNREACHABLE');
    const byCard = isAway ? ((await parts.cards?.invitees(userId, suites)) ?? []) : [];
    const left = byCard.filter(
      ({ identityPub }) => !skip.some((rid) => sameBytes(rid, identityPub)),
    );
    if (left.length === 0) throw error;
    return left;
  }
  if (answer.manifest === undefined) {
    throw new InvalidArgumentError('BAD_FIELD', 'fetch key package: the answer has no manifest');
  }
  const contact = await contacts.verified(userId, answer.manifest, caller, rpc.signal);
  if (contact.devices.length === 0) {
    throw new NotFoundError('NO_KEY_PACKAGE', 'invitation: the user has no device');
  }
  const wanted = contact.devices.filter(
    ({ identityPub }) => !skip.some((rid) => sameBytes(rid, identityPub)),
  );
  const invitees = await Promise.all(
    wanted.map(async ({ identityPub }) => {
      const found = answer.packages.find((one) => sameBytes(one.identityPub, identityPub));
      if (found === undefined) {
        throw new NotFoundError('NO_KEY_PACKAGE', 'invitation: a device has no KeyPackage left');
      }
      return checkInvitee(parts, contact, found, suites);
    }),
  );
  // From here on the packages are the caller's, who uses each once.
  store.transaction(() => store.contacts.deleteClaim(claimName));
  return invitees;
}

/** Claims that a question is under way with. */
const underWay = new WeakMap<ClientStore, Set<string>>();

/** The claim of a question: another one while the same is asked already, or both got the same packages. */
function take(
  store: ClientStore,
  name: string,
): { readonly claimName: string; readonly free: Disposable } {
  const taken = underWay.get(store) ?? new Set<string>();
  underWay.set(store, taken);
  let claimName = name;
  for (let n = 2; taken.has(claimName); n += 1) claimName = `${name} ${n}`;
  taken.add(claimName);
  return { claimName, free: { [Symbol.dispose]: () => void taken.delete(claimName) } };
}

async function checkInvitee(
  { mls, contacts }: InvitationParts,
  contact: Contact,
  found: DeviceKeyPackage,
  suites: readonly MlsSuite[],
): Promise<Invitee> {
  const { userId } = contact;
  const { identityPub, keyPackage, prekey } = found;
  const info = await mls.inspectKeyPackage(keyPackage);
  const device = contact.devices.find((one) => sameBytes(one.identityPub, identityPub));
  // The manifest vouches for the device key; the package must be that device's and no other's.
  if (
    device === undefined ||
    info.userId !== userId ||
    info.deviceId !== device.deviceId ||
    !sameBytes(info.signatureKey, identityPub) ||
    !suites.includes(info.suite)
  ) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      'invitation: the node served a KeyPackage that is not the device’s',
    );
  }
  if (prekey === undefined) {
    throw new NotFoundError('NO_KEY_PACKAGE', 'invitation: a device has no prekey');
  }
  try {
    contacts.acceptPrekey(identityPub, prekey);
  } catch (cause) {
    if (!(cause instanceof InvalidArgumentError)) throw cause;
    const message = 'invitation: a device has no prekey that anything can be sealed to';
    throw new NotFoundError('NO_KEY_PACKAGE', message, { cause });
  }
  return { userId, identityPub, suite: info.suite, keyPackage };
}
