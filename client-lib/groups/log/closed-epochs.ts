/**
 * Epochs that this device was not in and gets no keys of (docs/protocol/delivery.md, "Rows that nothing opens any more").
 * Who comes in by a Welcome, or comes back, passes by the log up to there, and no earlier invitation leads anywhere any
 * more. A commit travels in the envelope of the epoch that it ends, so the log says which key is of which of these
 * epochs; and each entry names its parent, so no hub can put another one on the way to the own. Read only where rows
 * wait for a key.
 */
import {
  commitHash,
  hasReason,
  hex,
  NotFoundError,
  parseEntry,
  QpcError,
  sameBytes,
  type Runtime,
} from '@quicprochat/proto';
import type { GroupControl } from '@quicprochat/proto/messages';
import { parseEnvelope } from '../../crypto/envelope.ts';
import type { Caller } from '../../dial.ts';
import { KeyedWork } from '../../keyed-work.ts';
import type { LogSpan } from '../../store/closed-rows.ts';
import type { ClientStore } from '../../store/store.ts';
import type { GroupPull } from './group-pull.ts';
import { logBehind } from './hub-calls.ts';
import type { HubLanes, Turn } from './hub-lanes.ts';

export const closedLimits = {
  /** Groups that are read at once. */
  atOnce: 2,
  /** First and longest wait after a failure (ms). */
  backOffMinMs: 1_000,
  backOffMaxMs: 5 * 60_000,
  /** From a row under an unknown key to the look at it (ms): mostly the end of a log brings its key. */
  waitMs: 15_000,
} as const;

export interface ClosedEpochsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly caller: Caller;
  readonly lanes: HubLanes;
  readonly pull: Pick<GroupPull, 'view'>;
  /** Rows of this group that wait for a key can be told now. */
  readonly onClosed: (groupId: Uint8Array) => void;
}

/** What is left of an entry that was read. */
interface Passed {
  readonly parent: Uint8Array;
  /** Of the epoch that it ends. */
  readonly keyId: Uint8Array | undefined;
}

export class ClosedEpochs {
  readonly #parts: ClosedEpochsParts;
  readonly #reads: KeyedWork<LogSpan>;
  #timer: { cancel(): void } | undefined;

  constructor(parts: ClosedEpochsParts) {
    this.#parts = parts;
    this.#reads = new KeyedWork({
      ...closedLimits,
      runtime: parts.runtime,
      run: (span, signal) => this.#read(span, signal),
    });
  }

  /** A row waits for a key, or may since it was closed: logs are read for it if it still does in a while. */
  wake(): void {
    const { clock } = this.#parts.runtime;
    if (this.#timer !== undefined || this.#reads.signal.aborted) return;
    this.#timer = clock.timer(closedLimits.waitMs, () => {
      this.#timer = undefined;
      this.look();
    });
  }

  /** The same, now. */
  look(): void {
    const { store } = this.#parts;
    if (!store.inbox.hasParked('UNKNOWN_KEY')) return;
    // Another span of the same group is another reading.
    for (const span of store.closed.spans()) this.#reads.want(hex(span.entry), span);
  }

  get isIdle(): boolean {
    return this.#reads.isIdle;
  }
  /** Resolves when nothing is read. */
  idle(): Promise<void> {
    return this.#reads.idle();
  }

  async stop(): Promise<void> {
    this.#timer?.cancel();
    await this.#reads.stop();
  }

  /** False: the same question may have another answer later. */
  async #read(span: LogSpan, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#close(span, signal);
      return true;
    } catch (error) {
      if (signal.aborted) return true;
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      const { log } = this.#parts.runtime;
      log.info('reading passed epochs failed', { reason, error: String(error) });
      // A hub that has none of it, or lies, is asked again when another row waits.
      return hasReason(error, 'UNKNOWN_GROUP', 'BAD_FIELD', 'PEER_DENIED');
    }
  }

  /** Throws what the last of the hubs answers. */
  async #close(span: LogSpan, signal: AbortSignal): Promise<void> {
    const { store, pull, lanes, onClosed } = this.#parts;
    const { groupId } = span;
    // Whoever was taken out since knows its hubs still.
    const { hubs = [] } = (await pull.view(groupId))?.group ?? {};
    for (const hub of hubs) {
      let keyIds: readonly Uint8Array[];
      try {
        const work = (turn: Turn) => this.#keysAt(hub, span, turn, signal);
        keyIds = await lanes.run(hub, signal, work);
      } catch (error) {
        if (hub === hubs.at(-1) || !(error instanceof QpcError)) throw error;
        continue;
      }
      const isOurs = (keyId: Uint8Array): boolean =>
        store.groups.envelopeKeys(keyId).length > 0 || store.groups.isPassedKey(keyId);
      store.transaction(() => {
        store.closed.addKeys(keyIds.filter((keyId) => !isOurs(keyId)));
        store.closed.dropSpan(span);
      });
      onClosed(groupId);
      return;
    }
  }

  /** Key ids of epochs that end on the way to the span's entry. Throws what the hub answers, NotFoundError without that. */
  async #keysAt(
    hub: string,
    { groupId, after, entry }: LogSpan,
    turn: Turn,
    signal: AbortSignal,
  ): Promise<readonly Uint8Array[]> {
    const passed = new Map<string, Passed>();
    for await (const page of logBehind(this.#parts.caller, { hub, groupId, after }, signal)) {
      for (const control of page) {
        const { entry: named, hash } = parseEntry(control.entry?.entry);
        // Copies: what was read is not to be held by them.
        const parent = Uint8Array.from(named.parent);
        passed.set(hex(hash), { parent, keyId: keyIdIn(control, named.commitHash) });
      }
      if (passed.has(hex(entry))) break;
      turn.check();
    }
    if (!passed.has(hex(entry))) throw new NotFoundError('UNKNOWN_GROUP', `${hub} lost an entry`);
    const keyIds: Uint8Array[] = [];
    // From the end: what lies beside the way is nobody's word.
    for (let at = passed.get(hex(entry)); at !== undefined; at = passed.get(hex(at.parent))) {
      if (at.keyId !== undefined) keyIds.push(at.keyId);
    }
    return keyIds.toReversed();
  }
}

/** Part of the transaction in which this device comes in by an entry: nothing before that is for it any more. */
export function passBy(
  { closed, groupLog }: Pick<ClientStore, 'closed' | 'groupLog'>,
  groupId: Uint8Array,
  entry: Uint8Array,
  atMs: number,
): void {
  const after = groupLog.head(groupId)?.hash ?? new Uint8Array(0);
  closed.addSpan({ groupId, after, entry, atMs });
}

/** Undefined for what is not the entry's commit, or lies in no envelope of a group. */
function keyIdIn({ commit }: GroupControl, ofEntry: Uint8Array): Uint8Array | undefined {
  if (!sameBytes(commitHash(commit), ofEntry)) return undefined;
  try {
    const envelope = parseEnvelope(commit);
    return envelope.mode === 'channel' ? Uint8Array.from(envelope.keyId) : undefined;
  } catch {
    return undefined;
  }
}
