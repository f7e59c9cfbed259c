/**
 * A device that was removed looks whether that was so (docs/protocol/group-log.md, "A removal that is none"): it cannot
 * check the confirmation of the commit that takes it out, so the rest of that may be junk that all others
 * pass over. What the log says later, or a row for it, makes it ask; what those who stayed say decides.
 */
import {
  parseEntry,
  QpcError,
  sameBytes,
  verifyCertified,
  type ParsedEntry,
  type Runtime,
} from '@quicprochat/proto';
import type { CertifiedEntry, GroupControl } from '@quicprochat/proto/messages';
import { channelOf } from '../../channels/channel.ts';
import type { EventBus } from '../../events.ts';
import { encodeIntent } from '../intents/group-intents.ts';
import type { GroupPull } from '../log/group-pull.ts';
import { logBehind } from '../log/hub-calls.ts';
import type { HubKeys } from '../log/hub-keys.ts';
import type { HubLanes } from '../log/hub-lanes.ts';
import { KeyedWork } from '../../keyed-work.ts';
import type { Caller } from '../../dial.ts';
import type { Mls, MlsGroup } from '../../mls/index.ts';
import { firstRekey } from '../intents/rekeys.ts';
import type { Standings } from '../standings/standings.ts';
import type { ClientStore } from '../../store/store.ts';
import type { Batch, Writer } from '../../writer.ts';

export interface RemovalWatchParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly caller: Caller;
  readonly lanes: HubLanes;
  readonly hubKeys: Pick<HubKeys, 'of'>;
  readonly pull: Pick<GroupPull, 'view'>;
  readonly standings: Pick<Standings, 'of' | 'suspect'>;
  /** This device is in the group: its log is to be read, and its intents are to be done. */
  readonly onMoved: (groupId: Uint8Array) => void;
}

export class RemovalWatch {
  readonly #parts: RemovalWatchParts;
  readonly #work: KeyedWork<Uint8Array>;

  constructor(parts: RemovalWatchParts) {
    this.#parts = parts;
    this.#work = new KeyedWork({
      ...{ runtime: parts.runtime, atOnce: 64, backOffMinMs: 1_000, backOffMaxMs: 300_000 },
      run: (groupId, signal) => this.#check(groupId, signal),
    });
  }

  /** It is time to look at the log once more, or those who stayed have said what they made of it. */
  want(groupId: Uint8Array): void {
    this.#work.want(Buffer.from(groupId).toString('hex'), groupId);
  }

  get isIdle(): boolean {
    return this.#work.isIdle;
  }
  idle(): Promise<void> {
    return this.#work.idle();
  }
  stop(): Promise<void> {
    return this.#work.stop();
  }

  /** A row for a group that this device was removed from; the result makes the changes. */
  saw(batch: Batch, { entry }: GroupControl): () => void {
    const { groupId, group, head } = this.#removal(batch, parseEntry(entry?.entry).entry.group);
    if (group === undefined || head === undefined) return () => undefined;
    const said = this.#verified(entry, group);
    // Who goes on without this device sends it no commits.
    const isAgainst = said !== undefined && (said.epoch > head.epoch || rejects(said, head));
    return () => {
      if (isAgainst) this.#parts.standings.suspect(batch, groupId, head.hash);
    };
  }

  #removal(
    batch: Batch,
    groupId: Uint8Array,
  ): {
    readonly groupId: Uint8Array;
    readonly group: MlsGroup | undefined;
    readonly head: { readonly epoch: number; readonly hash: Uint8Array } | undefined;
  } {
    const group = batch.group(groupId);
    const head = this.#parts.store.groupLog.head(groupId);
    return { groupId, group: group?.isActive === false ? group : undefined, head };
  }

  #verified(entry: CertifiedEntry | undefined, group: MlsGroup): ParsedEntry | undefined {
    if (entry === undefined) return undefined;
    try {
      return verifyCertified(entry, group.hubs, this.#parts.hubKeys.of);
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      return undefined;
    }
  }

  /** Always true: the next look has its time. */
  async #check(groupId: Uint8Array, signal: AbortSignal): Promise<boolean> {
    const { runtime, writer, standings, pull, caller, lanes } = this.#parts;
    try {
      if (await writer.run((batch) => this.#reinstate(batch, groupId))) return true;
      const view = await pull.view(groupId);
      if (view === undefined || view.group.isActive) return true;
      const { group, head } = view;
      for (const hub of group.hubs) {
        const isAgainst = await lanes.run(hub, signal, async (turn) => {
          const place = { hub, groupId, after: head.entry.parent };
          for await (const page of logBehind(caller, place, signal)) {
            const isRejecting = page.some(({ entry }) => {
              const said = this.#verified(entry, group);
              return said !== undefined && rejects(said, head);
            });
            if (isRejecting) return true;
            turn.check();
          }
          return false;
        });
        if (!isAgainst) continue;
        await writer.run(async (batch) => standings.suspect(batch, groupId, head.hash));
        return true;
      }
    } catch (error) {
      if (!(error instanceof QpcError)) {
        runtime.log.error('looking at a removal', { error: String(error) });
      }
    }
    return true;
  }

  /** More than half of those who stayed will not have that removal: it is undone. False: they did not say so. */
  async #reinstate(batch: Batch, groupId: Uint8Array): Promise<boolean> {
    const { store, runtime, mls, events, standings, onMoved } = this.#parts;
    const { group, head } = this.#removal(batch, groupId);
    const conversation = batch.conversationOfGroup(groupId);
    if (group === undefined || head === undefined || conversation === undefined) return false;
    const row = store.standings.doubt(groupId, head.hash);
    const isRefuted = standings.of(group, head.hash)?.decision === 'rejected';
    if (row === undefined || !isRefuted) return false;
    const { next, wipe } = await mls.reinstated(group);
    const { id: conversationId, ended, sentCount } = conversation;
    batch.useKeys(next, next.epoch, wipe);
    batch.write(() => {
      // For others that ask about it, and for the walk: no part of the log.
      store.standings.putDoubt({ ...row, cause: 'VOID', voteMs: undefined, askMs: undefined });
      store.groupLog.dropHeadsFrom(groupId, head.epoch);
      store.channels.follow(groupId, channelOf(next)?.cid, batch.nowMs);
      store.groups.setEnded(conversationId, undefined);
      store.groupLog.putRekey(firstRekey(groupId, sentCount, batch.nowMs, runtime.random));
      if (ended !== 'LEFT') return;
      const leave = encodeIntent({ kind: 'leave' });
      store.groupLog.addIntent({ groupId, dueMs: batch.nowMs, ...leave }, batch.nowMs);
    });
    batch.after(() => {
      const { epoch, author } = row;
      const by = author === '' ? undefined : author;
      events.emit({ type: 'commitRefused', conversationId, epoch, by, isVoted: true });
      events.emit({ type: 'cameBack', conversationId, epoch: epoch - 1, cause: 'BEHIND' });
      onMoved(groupId);
    });
    return true;
  }
}

const rejects = ({ entry }: ParsedEntry, { hash }: { readonly hash: Uint8Array }): boolean =>
  entry.rejects.some((one) => sameBytes(one, hash));
