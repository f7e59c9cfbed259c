/**
 * Test support: the parts of a device that receive and converse, wired as device.ts does it but for the link;
 * what a device does in its own time is left to the tests.
 */
import type { Runtime, SigningKey } from '@quicprochat/proto';
import type { Cards } from './cards/cards.ts';
import { Contacts } from './contacts/contacts.ts';
import { UserLookup } from './contacts/user-lookup.ts';
import type { EventBus } from './events.ts';
import { Conversations } from './groups/conversation.ts';
import { Groups } from './groups/groups.ts';
import { EvidenceExchange } from './kt/evidence-exchange.ts';
import { Logs } from './kt/logs.ts';
import { createMls, type Mls, type SignatureKey } from './mls/index.ts';
import { Holes } from './receiving/holes.ts';
import { Receipts } from './receiving/receipts.ts';
import { Receiver } from './receiving/receiver.ts';
import { DeliveryTokens } from './sending/delivery-tokens.ts';
import { Extras } from './sending/extras.ts';
import { Resender } from './sending/resender.ts';
import type { ClientStore } from './store/store.ts';
import { ownDomain, ownPin, type TestDirectory } from './test-directory.ts';
import { Writer } from './writer.ts';

export interface DeviceTestParts {
  readonly groups: Groups;
  readonly logs: Logs;
  readonly evidence: EvidenceExchange;
  readonly contacts: Contacts;
  readonly mls: Mls;
  readonly writer: Writer;
  readonly receipts: Receipts;
  readonly holes: Holes;
  readonly resender: Resender;
  readonly receiver: Receiver;
  readonly lookup: UserLookup;
  readonly conversations: Conversations;
}

/** Whose parts they are. */
export interface PartsOwner {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly directory: TestDirectory;
  readonly userId: string;
  readonly deviceId: string;
  readonly rid: Uint8Array;
  readonly identityKey: SigningKey;
  readonly signatureKey: SignatureKey;
  /** People whose card this device has, as of now. */
  readonly cards: Cards | undefined;
  /** Takes the reasons for which answers of logs are refused. */
  readonly lies: string[];
}

export function buildParts(device: PartsOwner, events: EventBus): DeviceTestParts {
  const { store, runtime, directory, userId, deviceId, identityKey, signatureKey } = device;
  const logs = new Logs({
    store,
    runtime,
    own: { domain: ownDomain, pin: ownPin },
    onRefused: () => undefined,
  });
  const contacts = new Contacts({
    store,
    runtime,
    events,
    logs,
    ownUserId: userId,
    onLie: (_domain, error) => device.lies.push(error.reason),
    checkOwn: () => undefined,
    onOwnRefused: () => undefined,
  });
  const evidence = new EvidenceExchange({
    store,
    runtime,
    logs,
    contacts,
    userId,
    onFork: (_domain, error) => device.lies.push(error.reason),
    onKnown: () => undefined,
  });
  const mls = createMls({ ...runtime, manifests: contacts.lookup });
  const writer = new Writer(store, runtime);
  const identity = { userId, deviceId };
  const caller = directory.callerOf(device.rid);
  const sending = {
    store,
    runtime,
    writer,
    mls,
    contacts,
    caller,
    onOutbox: () => undefined,
    cards: {
      invitees: async (...asked: Parameters<Cards['invitees']>) =>
        (await device.cards?.invitees(...asked)) ?? [],
      holder: (of: string) => device.cards?.holder(of),
    },
  };
  const receipts = new Receipts(sending);
  const tokens = new DeliveryTokens({
    ...{ ...sending, rid: device.rid, identityKey },
    session: () => undefined,
    onDue: () => undefined,
  });
  const extras = new Extras(sending, [tokens]);
  const holes = new Holes({ ...sending, events, identityKey });
  const resender = new Resender({ ...sending, identity, identityKey });
  const groups: Groups = new Groups({
    ...{ ...sending, events, logs, evidence, tokens, rid: device.rid, signatureKey, userId },
    onEvidence: (taken) => evidence.take(taken),
    onMoved: (groupId) => receiver.retryGroup(groupId),
    onMendable: (reason, waitsFor) =>
      receiver.retryParked((row) => row.reason === reason && row.waitsFor === waitsFor),
  });
  // The schedule of keys is a test's to run.
  groups.committer.start();
  const receiver: Receiver = new Receiver({
    store,
    runtime,
    events,
    writer,
    mls,
    identity,
    rid: device.rid,
    tokens,
    controls: groups.rows,
    leaves: groups.leaves,
    forks: groups.forks,
    standings: groups.standings,
    onWaits: (reason, waitsFor) => {
      if (reason === 'UNKNOWN_USER') lookup.want(waitsFor.split(' '));
      else groups.waits(reason, waitsFor);
    },
    onEvidence: (taken) => evidence.take(taken),
    onEndpoint: () => undefined,
    onConvictions: () => undefined,
    onMessages: () => undefined,
    holes,
    resender,
    onReceiptsDue: () => undefined,
    onDue: () => undefined,
    onStuckPost: () => undefined,
  });
  const lookup: UserLookup = new UserLookup({
    runtime,
    contacts,
    caller,
    onFound: () =>
      receiver.retryParked(
        (row) => row.reason === 'UNKNOWN_USER' && lookup.isThrough(row.waitsFor),
      ),
    onRefused: (userIds, reason) => receiver.refuseUsers(userIds, reason),
  });
  const conversations = new Conversations({
    store,
    runtime,
    contacts,
    evidence,
    committer: groups.committer,
    rekeys: groups.rekeys,
    extras,
    tokens,
    cards: sending.cards,
    isDark: async () => directory.isDown,
    writer,
    mls,
    caller,
    identity,
    signatureKey,
    onOutbox: () => undefined,
    onTimed: () => undefined,
    onUnsealed: () => undefined,
  });
  return {
    groups,
    logs,
    evidence,
    contacts,
    mls,
    writer,
    receipts,
    holes,
    resender,
    receiver,
    lookup,
    conversations,
  };
}
