/** What a hub that was restored from an older copy of its disk gets back from a member. */
import { parseEntry, TransportError, type ParsedEntry, type Runtime } from '@quicprochat/proto';
import { create, SubmitCommitRequestSchema, toBinary } from '@quicprochat/proto/messages';
import { controlOf } from './group-walker.ts';
import { callSubmit, logBehind } from './hub-calls.ts';
import type { Caller } from './link.ts';
import type { ClientStore } from './store/store.ts';

export interface HubRepairParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly caller: Caller;
}

/**
 * The hub does not know the entry that this device stands at: it was restored from an older copy. It
 * gets back what is kept here, and certifies the same entries again.
 */
export async function giveBack(
  { store, caller, runtime }: HubRepairParts,
  {
    groupId,
    hub,
    head,
  }: { readonly groupId: Uint8Array; readonly hub: string; readonly head: ParsedEntry },
  signal: AbortSignal,
): Promise<void> {
  let known = -1;
  const place = { hub, groupId, after: head.hash };
  for await (const page of logBehind(caller, place, signal)) {
    for (const { entry } of page) known = Math.max(known, parseEntry(entry?.entry).epoch);
  }
  // It went on meanwhile: then its next answer is a conflict like any other.
  if (known >= head.epoch) return;
  for (let epoch = known + 1; epoch <= head.epoch; epoch += 1) {
    const kept = store.groupLog.headAt(groupId, epoch);
    const control = kept && controlOf(kept);
    if (control?.entry?.entry === undefined || control.commit.length === 0) {
      throw new TransportError('protocol', `the hub lost entry ${epoch}, which is not here either`);
    }
    const { entry } = control.entry;
    const { commit } = control;
    const request = { hub, entry, commit, mid: runtime.random.bytes(16) };
    const bytes = toBinary(SubmitCommitRequestSchema, create(SubmitCommitRequestSchema, request));
    const { isAccepted } = await callSubmit(caller, bytes, signal);
    if (!isAccepted) return;
  }
  runtime.log.warn('a hub got entries back', { hub, from: known + 1, to: head.epoch });
}
