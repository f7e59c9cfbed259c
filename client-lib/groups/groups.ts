/**
 * The parts that keep this device in the logs of its groups, wired: rows of hubs in, own changes out, reading
 * what is missing, the schedule of new keys. Knows the wiring and the order of start and stop only.
 */
import { deviceIdOf, parseUserId, QpcError } from '@quicprochat/proto';
import { ChannelDuty } from '../channels/channel-duty.ts';
import { ClosedEpochs } from './log/closed-epochs.ts';
import { Committer } from './intents/committer.ts';
import { ControlRows, type ControlRowsParts } from './log/control-rows.ts';
import type { FirstContactRules } from '../contacts/first-contact.ts';
import { ForkWatch } from './hubs/fork-watch.ts';
import { GroupPull } from './log/group-pull.ts';
import { GroupWalker } from './log/group-walker.ts';
import { HubKeys } from './log/hub-keys.ts';
import { HubLanes } from './log/hub-lanes.ts';
import { HubWays, type PastOwnNode } from './log/hub-ways.ts';
import type { InvitationParts } from '../contacts/invitation.ts';
import { HubRepair } from './hubs/hub-repair.ts';
import type { EvidenceExchange } from '../kt/evidence-exchange.ts';
import type { Logs } from '../kt/logs.ts';
import { JoinKeyAnswers } from './returning/join-key-answers.ts';
import { Leaves } from './intents/leaves.ts';
import type { Caller } from '../dial.ts';
import { RemovalWatch } from './returning/removal-watch.ts';
import { RestoredHubs } from './hubs/restored-hub.ts';
import { RestoredHubSets } from './hubs/restored-hub-set.ts';
import { Rekeys } from './intents/rekeys.ts';
import { Resyncs } from './returning/resync.ts';
import { Revocations } from './intents/revocations.ts';
import type { DeliveryTokens } from '../sending/delivery-tokens.ts';
import { Standings } from './standings/standings.ts';
import type { ParkReason } from '../store/inbox-rows.ts';
import type { Writer } from '../writer.ts';

export interface GroupsParts extends Omit<
  ControlRowsParts,
  'hubKeys' | 'walker' | 'tokens' | 'removals' | 'onMoved' | 'onJoined' | 'onJunk'
> {
  readonly writer: Writer;
  readonly cards?: InvitationParts['cards'] & FirstContactRules['cards'];
  readonly logs: Logs;
  readonly evidence: EvidenceExchange;
  readonly tokens: Pick<DeliveryTokens, 'takeAtJoin' | 'changed' | 'wake' | 'forInvitees' | 'grew'>;
  readonly caller: Caller;
  readonly past?: PastOwnNode | undefined;
  readonly userId: string;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
  /** Rows that waited for this may be opened now. */
  readonly onMendable: (reason: ParkReason, waitsFor: string) => Promise<void>;
}

export class Groups {
  readonly rows: ControlRows;
  readonly committer: Committer;
  readonly leaves: Leaves;
  readonly pull: GroupPull;
  readonly closed: ClosedEpochs;
  readonly repair: HubRepair;
  readonly rekeys: Rekeys;
  readonly resyncs: Resyncs;
  readonly revocations: Revocations;
  readonly forks: ForkWatch;
  readonly joinKeys: JoinKeyAnswers;
  readonly restored: RestoredHubs;
  readonly restoredSets: RestoredHubSets;
  readonly standings: Standings;
  readonly removals: RemovalWatch;
  readonly channels: ChannelDuty;
  readonly #parts: GroupsParts;
  readonly #hubKeys: HubKeys;
  /** Records of hubs that are being asked for. */
  readonly #asking = new Map<string, Promise<void>>();
  #stop = new AbortController();
  #listening: Disposable | undefined;

  constructor(parts: GroupsParts & Pick<ControlRowsParts, 'onMoved'>) {
    this.#parts = parts;
    const hubKeys = new HubKeys(parts);
    this.#hubKeys = hubKeys;
    const onMoved = (groupId: Uint8Array): void => {
      parts.onMoved(groupId);
      this.channels.look(groupId);
      this.committer.wake(groupId);
    };
    this.standings = new Standings({
      ...parts,
      onNews: (groupId) => {
        this.pull.want(groupId);
        this.committer.wake(groupId);
      },
      onRemoval: (groupId) => this.removals.want(groupId),
    });
    const { standings } = this;
    const onLost = (): void => this.resyncs.wake();
    const walker = new GroupWalker({ ...parts, hubKeys, standings, onLost, onMoved });
    const { domain } = parseUserId(parts.userId);
    // What waits for the own node, however long, takes no place of what goes past it.
    const ownLanes = new HubLanes(parts.runtime.clock);
    const lanes = parts.past === undefined ? ownLanes : new HubLanes(parts.runtime.clock);
    this.repair = new HubRepair({ ...parts, domain, lanes: ownLanes });
    const { repair } = this;
    const ways = new HubWays({ ...parts, domain, view: (groupId) => this.pull.view(groupId) });
    const { home: caller } = ways;
    this.pull = new GroupPull({ ...parts, caller, ways, hubKeys, walker, repair, lanes });
    this.closed = new ClosedEpochs({
      ...{ ...parts, lanes: ownLanes, pull: this.pull },
      onClosed: parts.onMoved,
    });
    const onJoined = (groupId: Uint8Array): void => {
      this.pull.joined(groupId);
      this.closed.wake();
    };
    const onJunk = (groupId: Uint8Array): void => this.pull.want(groupId);
    this.removals = new RemovalWatch({
      ...{ ...parts, hubKeys, standings, lanes: ownLanes, pull: this.pull },
      onMoved: (groupId) => {
        this.pull.want(groupId);
        onMoved(groupId);
      },
    });
    const { removals } = this;
    this.rows = new ControlRows({
      ...{ ...parts, hubKeys, walker, removals, onMoved, onJoined, onJunk },
    });
    const onIntents = (): void => this.committer.kick();
    this.leaves = new Leaves({ ...parts, walker, onIntents });
    const joinKeys = new JoinKeyAnswers({ ...parts, onKey: onLost });
    this.joinKeys = joinKeys;
    this.forks = new ForkWatch({
      ...parts,
      hubKeys,
      joinKeys,
      onBehind: (groupId) => this.pull.want(groupId),
      onAhead: (groupId) => this.restored.isBehind(groupId),
      onStuck: () => this.pull.wantAll(),
    });
    this.restored = new RestoredHubs({
      runtime: parts.runtime,
      tell: (groupId) => this.forks.tellNewest(groupId),
      look: (groupId) => {
        this.pull.want(groupId);
        this.restoredSets.look(groupId);
      },
    });
    this.restoredSets = new RestoredHubSets({ view: (groupId) => this.pull.view(groupId), repair });
    const identity = { userId: parts.userId, deviceId: deviceIdOf(parts.rid) };
    this.resyncs = new Resyncs({
      ...{ ...parts, hubKeys, walker, standings, lanes: ownLanes, onMoved, identity },
      pull: this.pull,
      repair,
      onUselessEnd: (groupId, end) => this.forks.tellEnd(groupId, end),
    });
    this.rekeys = new Rekeys({ ...parts, onIntents });
    const onBehind = (groupId: Uint8Array): void => this.pull.want(groupId);
    this.channels = new ChannelDuty({ ...parts, onIntents, onBehind });
    this.revocations = new Revocations({ ...parts, onIntents });
    this.committer = new Committer({
      ...parts,
      ...{ caller, ways },
      hubKeys,
      walker,
      pull: this.pull,
      repair,
      leaves: this.leaves,
      onRestored: (groupId) => this.restored.heard(groupId),
    });
  }

  start(): void {
    this.#stop = new AbortController();
    this.#listening?.[Symbol.dispose]();
    this.#listening = this.#parts.events.listen(({ type }) => {
      // The own node is an older copy: what it lost as a hub may be here.
      if (type !== 'storeChanged') return;
      this.pull.wantAll();
      const { domain } = parseUserId(this.#parts.userId);
      for (const { groupId, ended } of this.#parts.store.groups.conversations()) {
        if (ended === undefined) this.restoredSets.look(groupId, domain);
      }
    });
    this.committer.start();
    this.rekeys.start();
    this.channels.start();
    this.resyncs.start();
    this.revocations.start();
    this.forks.start();
    this.standings.start();
    this.closed.wake();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#listening?.[Symbol.dispose]();
    this.rekeys.stop();
    this.channels.stop();
    await this.resyncs.stop();
    await this.revocations.stop();
    await this.forks.stop();
    await this.joinKeys.idle();
    await this.standings.stop();
    await this.removals.stop();
    await this.committer.stop();
    await this.closed.stop();
    await this.pull.stop();
    await this.restored.stop();
    await this.restoredSets.idle();
    await this.repair.stop();
    await Promise.all(this.#asking.values());
  }

  /** The own node is back. */
  kick(): void {
    this.committer.kick();
    this.pull.hurry();
  }

  get isIdle(): boolean {
    const { pull, closed, repair, committer, revocations, removals, standings } = this;
    const isRead = pull.isIdle && closed.isIdle && this.restoredSets.isIdle;
    const isQuiet = isRead && repair.isIdle && removals.isIdle && revocations.isIdle;
    return isQuiet && standings.isIdle && committer.isIdle && this.#asking.size === 0;
  }
  /** Resolves when nothing is read, asked for or committed; intents may rest. */
  async idle(): Promise<void> {
    await this.revocations.idle();
    await this.pull.idle();
    await this.closed.idle();
    await this.restoredSets.idle();
    await this.repair.idle();
    await this.committer.idle();
    await this.forks.idle();
    await this.joinKeys.idle();
    await this.standings.idle();
    await this.removals.idle();
    await Promise.all(this.#asking.values());
  }

  /** A row waits for something that can be asked for. */
  waits(reason: ParkReason, waitsFor: string): void {
    switch (reason) {
      case 'FUTURE_EPOCH': {
        const groupId = new Uint8Array(Buffer.from(waitsFor, 'hex'));
        this.pull.want(groupId);
        this.resyncs.news(groupId);
        break;
      }
      case 'UNKNOWN_KEY':
        this.pull.wantAll();
        this.closed.wake();
        break;
      case 'UNKNOWN_HUB':
        this.#learn(waitsFor);
        break;
      case 'UNKNOWN_GROUP':
      case 'UNKNOWN_USER':
        break;
    }
  }

  #learn(hub: string): void {
    if (this.#stop.signal.aborted || this.#asking.has(hub)) return;
    const { caller, runtime, onMendable } = this.#parts;
    const work = async (): Promise<void> => {
      try {
        await this.#hubKeys.learn(hub, caller);
        await onMendable('UNKNOWN_HUB', hub);
      } catch (error) {
        // Asked again when the row is tried again: at the next start or session.
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.info('asking for the record of a hub failed', { hub, reason });
      }
    };
    const asking = work().finally(() => this.#asking.delete(hub));
    this.#asking.set(hub, asking);
  }
}
