/**
 * Rows of kind 2, written by hubs (docs/protocol/group-log.md): a commit or a Welcome beside the certified entry
 * that it belongs to. Neither is taken any other way, so nobody is led into a group, or along in one, by
 * what its hub did not accept.
 */
import { hasReason, parseEntry, verifyCertified, type Runtime } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  type CertifiedEntry,
  type GroupControl,
} from '@quicprochat/proto/messages';
import { sameBytes } from '@quicprochat/proto';
import type { Contacts } from '../../contacts/contacts.ts';
import type { HandedToken, KeyEvidence } from '../../content.ts';
import type { SealedContent } from '../../crypto/envelope.ts';
import type { DeliveryTokens } from '../../sending/delivery-tokens.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { EventBus } from '../../events.ts';
import {
  certifyHead,
  hasNoWord,
  mayFollow,
  type FirstContactRules,
} from '../../contacts/first-contact.ts';
import { leadsTo } from './group-log.ts';
import { headOf, type GroupWalker, type Prepared } from './group-walker.ts';
import { UnknownHubError, type HubKeys } from './hub-keys.ts';
import {
  CredentialError,
  inspectWelcome,
  keepPast,
  type Joined,
  type Mls,
  type MlsGroup,
  type SignatureKey,
} from '../../mls/index.ts';
import { passBy } from './closed-epochs.ts';
import { isOvertaken, letGo } from '../welcomes/overtaken-welcome.ts';
import { firstRekey } from '../intents/rekeys.ts';
import type { RemovalWatch } from '../returning/removal-watch.ts';
import { markOf, never, park, Unopened } from '../../receiving/row-verdict.ts';
import { openWelcome } from '../welcomes/shared-welcome.ts';
import type { EnvelopeKey } from '../../store/group-rows.ts';
import type { InboxRow } from '../../store/inbox-rows.ts';
import type { ClientStore } from '../../store/store.ts';
import type { Batch } from '../../writer.ts';

/** Manifests looked up this lately need not be looked up again before a commit is called invalid (ms). */
const freshMs = 10 * 60_000;

export interface ControlRowsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly hubKeys: Pick<HubKeys, 'of' | 'isFresh'>;
  readonly walker: GroupWalker;
  readonly removals: Pick<RemovalWatch, 'saw'>;
  /** At the end of this log is what nobody applies: it is to be read. */
  readonly onJunk: (groupId: Uint8Array) => void;
  readonly rid: Uint8Array;
  readonly userId: string;
  readonly cards?: FirstContactRules['cards'];
  readonly signatureKey: SignatureKey;
  readonly tokens: Pick<DeliveryTokens, 'takeAtJoin' | 'changed' | 'wake'>;
  /** A member passed on what logs say; done when it is taken in. */
  readonly onEvidence: (evidence: KeyEvidence) => Promise<void>;
  /** A group is in a new epoch. */
  readonly onMoved: (groupId: Uint8Array) => void;
  /** A certified Welcome let this device in; its group may be further by now. */
  readonly onJoined: (groupId: Uint8Array) => void;
}

export class ControlRows {
  readonly #parts: ControlRowsParts;

  constructor(parts: ControlRowsParts) {
    this.#parts = parts;
  }

  /** What can fail or wait of a row; the result makes the changes. Throws what row-verdict.ts judges. */
  async prepare(row: InboxRow, batch: Batch): Promise<() => void> {
    const control = parsed(row.payload);
    return control.welcome.length > 0
      ? this.#welcome(control, row, batch)
      : this.#commit(control, batch);
  }

  async #commit(control: GroupControl, batch: Batch): Promise<() => void> {
    const { entry, epoch } = parseEntry(control.entry?.entry);
    const groupId = entry.group;
    const prepared = await this.#walk(groupId, control, batch);
    if (prepared === undefined) {
      // Who was removed hears no more of it, unless that was none; who is not in it yet may be soon.
      if (batch.group(groupId) !== undefined) return this.#parts.removals.saw(batch, control);
      throw park('UNKNOWN_GROUP', groupId);
    }
    const { walk } = prepared;
    // What comes between is in the log, if it is not on its way.
    if (walk.isBeyond) throw park('FUTURE_EPOCH', groupId);
    // The log is read for what others made of it; if nobody can apply it, the way behind it is there too.
    if (walk.doubts.length > 0) return () => prepared.apply();
    const isTaken = walk.steps.length > 0 || walk.passed.length > 0;
    // Nobody can apply it, or it follows an entry that was passed over: both come to nothing.
    if (walk.invalid.length > 0) this.#parts.onJunk(groupId);
    if (!isTaken) throw never(walk.invalid.length > 0 ? 'INVALID_COMMIT' : `EPOCH_LOST_${epoch}`);
    return () => prepared.apply();
  }

  async #walk(
    groupId: Uint8Array,
    control: GroupControl,
    batch: Batch,
  ): Promise<Prepared | undefined> {
    const { walker } = this.#parts;
    try {
      return await walker.prepare(batch, groupId, [control]);
    } catch (error) {
      if (!(error instanceof CredentialError)) throw certified(error);
      // The log is read then, and who is not known is looked up first.
      if (!this.#isFresh(error)) throw park('FUTURE_EPOCH', groupId);
      return walker.prepare(batch, groupId, [control], 'fresh');
    }
  }

  /** Whether the manifests that do not vouch are new: then the commit is invalid, and not they are old. */
  #isFresh({ failures, reason }: CredentialError): boolean {
    const { contacts, runtime } = this.#parts;
    if (reason === 'UNKNOWN_CREDENTIAL') return false;
    const nowMs = runtime.clock.now();
    return failures.every(({ userId }) => {
      if (userId === '') return true;
      const { verifiedMs } = contacts.get(userId) ?? {};
      return verifiedMs !== undefined && Math.abs(nowMs - verifiedMs) < freshMs;
    });
  }

  async #welcome(control: GroupControl, row: InboxRow, batch: Batch): Promise<() => void> {
    const { store, rid } = this.#parts;
    const seedOf = (keyId: Uint8Array): Uint8Array | undefined => store.keys.hybridKey(keyId)?.seed;
    const content = openWelcome(control, row.mid, rid, seedOf);
    if (content.evidence !== undefined) await this.#parts.onEvidence(content.evidence);
    return this.prepareWelcome({ ...content, entry: control.entry }, batch);
  }

  /** The same for a Welcome beside its entry that no hub brought. */
  async prepareWelcome(
    {
      bytes,
      tokens = [],
      entry,
      joinKey,
    }: Pick<SealedContent, 'bytes' | 'tokens' | 'entry' | 'joinKey'>,
    batch: Batch,
  ): Promise<() => void> {
    const { store, mls, signatureKey } = this.#parts;
    const mark = markOf(bytes);
    // It comes again until somebody hears of this device in the group, or with the word of a hub that was away.
    if (batch.hasSeen(mark)) return this.#certifying(entry, batch);
    const { refs } = inspectWelcome(bytes);
    const rows = refs.flatMap((ref) => store.keys.keyPackage(ref) ?? []);
    if (rows.length === 0) {
      throw never(
        refs.some((ref) => store.keys.wasKeyPackageConsumed(ref))
          ? 'KEY_PACKAGE_USED'
          : 'NO_KEY_PACKAGE',
      );
    }
    const open = async (): Promise<Joined> => {
      const opened = await mls.joinFromWelcome(bytes, rows, signatureKey);
      if (!isStorable(opened)) throw never('INVALID_WELCOME');
      await this.#requireCertified(opened, entry);
      return opened;
    };
    if (isOvertaken(entry, batch)) {
      const settle = await letGo(this.#parts, batch, open);
      return () => {
        batch.addSeen(mark);
        settle();
      };
    }
    const joined = await open();
    const { group } = joined;
    const before = batch.group(group.groupId);
    if (before?.isActive === true) {
      if (group.epoch <= before.epoch) throw never('ALREADY_MEMBER');
      // Somebody removed and invited this device again: the log says so, to who can follow it.
      const isBehind = batch.conversationOfGroup(group.groupId)?.ended === 'BEHIND';
      if (!isBehind) throw park('FUTURE_EPOCH', group.groupId);
    }
    const key = await envelopeKeyOf(mls, group);
    const control = create(GroupControlSchema, { ...(entry && { entry }) });
    return () => {
      batch.addSeen(mark);
      this.#join(batch, joined, before, key, control, tokens);
      batch.write(() => {
        store.resync.putJoinKey(group.groupId, joinKey);
        store.resync.drop(group.groupId);
      });
    };
  }

  #certifying(entry: CertifiedEntry | undefined, batch: Batch): () => void {
    const { hubKeys, onMoved } = this.#parts;
    try {
      const certify = certifyHead(this.#parts, batch, entry);
      if (certify === undefined) throw new Unopened({ kind: 'known' });
      const groupId = parseEntry(entry?.entry).entry.group;
      return () => {
        certify();
        batch.after(() => onMoved(groupId));
      };
    } catch (error) {
      if (!hasReason(error, 'BAD_SIGNATURE')) throw error;
      const [hub = ''] = batch.group(parseEntry(entry?.entry).entry.group)?.hubs ?? [];
      if (!hubKeys.isFresh(hub)) throw new UnknownHubError(hub);
      throw never('UNCERTIFIED');
    }
  }

  /** The entry is of the very epoch that the Welcome leads to, and the group's hubs certified it. */
  async #requireCertified(joined: Joined, entry: CertifiedEntry | undefined): Promise<void> {
    const { mls, hubKeys } = this.#parts;
    const { group } = joined;
    if (entry === undefined) throw never('UNCERTIFIED');
    if (hasNoWord(entry)) {
      if (await mayFollow(this.#parts, joined, entry)) return;
      throw never('UNCERTIFIED');
    }
    try {
      const parsedEntry = verifyCertified(entry, group.hubs, hubKeys.of);
      const isItsOwn =
        sameBytes(parsedEntry.entry.group, group.groupId) &&
        BigInt(parsedEntry.epoch) === group.epoch &&
        (await leadsTo(mls, parsedEntry, group));
      if (!isItsOwn) throw never('UNCERTIFIED');
    } catch (error) {
      if (!hasReason(error, 'BAD_SIGNATURE')) throw error;
      const unknown = group.hubs.find((hub) => !hubKeys.isFresh(hub));
      if (unknown !== undefined) throw new UnknownHubError(unknown);
      throw never('UNCERTIFIED');
    }
  }

  #join(
    batch: Batch,
    { group, ref, isLastResort, inviter }: Joined,
    before: MlsGroup | undefined,
    key: EnvelopeKey,
    control: GroupControl,
    tokens: readonly HandedToken[],
  ): void {
    const { store, runtime, events, onMoved, onJoined } = this.#parts;
    const { groupId, suite, info } = group;
    const { conversationId: id, name } = info;
    const { nowMs } = batch;
    const known = batch.conversationOfGroup(groupId);
    if (before !== undefined && before.epoch < group.epoch && before.suite === suite) {
      // What was sealed for this device while it was in may come still.
      const { next, wipe } = keepPast(before, group);
      batch.enterEpoch(next, key, []);
      batch.useKeys(next, before.epoch, wipe);
    } else {
      batch.enterEpoch(group, key, []);
    }
    batch.write(() => {
      if (!isLastResort) store.keys.consumeKeyPackage(ref, nowMs);
      if (known === undefined) {
        const creator = inviter.userId;
        const counters = { joinedMs: nowMs, sentCount: 0, lamport: 0 };
        store.groups.addConversation({ id, groupId, suite, name, creator, ...counters });
      } else {
        store.groups.rejoin({ id, suite, name });
      }
      const entry = parseEntry(control.entry?.entry);
      if (!hasNoWord(control.entry)) passBy(store, groupId, entry.hash, nowMs);
      store.groupLog.putHead(groupId, headOf(entry, control));
      store.groupLog.deletePendings(groupId);
      const sentCount = known?.sentCount ?? 0;
      store.groupLog.putRekey(firstRekey(groupId, sentCount, nowMs, runtime.random));
      this.#parts.tokens.takeAtJoin(tokens, group, nowMs);
    });
    batch.after(() => {
      events.emit({ type: 'joined', conversationId: id, name, creator: inviter.userId });
      onMoved(groupId);
      if (control.entry !== undefined && !hasNoWord(control.entry)) onJoined(groupId);
      this.#parts.tokens.changed();
      this.#parts.tokens.wake();
    });
  }
}

function parsed(payload: Uint8Array): GroupControl {
  try {
    return fromBinary(GroupControlSchema, payload);
  } catch {
    throw never('MALFORMED');
  }
}

/** A certificate or an entry that no honest hub sends. */
function certified(error: unknown): unknown {
  return hasReason(error, 'BAD_SIGNATURE') ? never('UNCERTIFIED') : error;
}

/**
 * Whether the store takes the group: its inviter chose every value of it, and one that the store
 * refuses would come back for ever, with all rows behind it. A conversation has one group as long as
 * there are no reboots, so a second group cannot pass for it.
 */
function isStorable({ group: { groupId, epoch, info } }: Joined): boolean {
  return sameBytes(groupId, info.conversationId) && epoch < BigInt(Number.MAX_SAFE_INTEGER);
}
