/**
 * How a hub is asked now (docs/protocol/group-log.md, "Without a login"): through the own node, or, while that is
 * away and the application wants ways past it, at the hub's own node, which is shown the key of the epoch and
 * not told who asks. Whoever asks tries again; nothing here waits for a node that is away.
 */
import {
  entryHash,
  methods,
  QpcError,
  sameBytes,
  signMemberProof,
  Status,
  TransportError,
  UnavailableError,
  type Runtime,
} from '@quicprochat/proto';
import {
  create,
  MemberProofSchema,
  type GroupControl,
  type MemberProof,
} from '@quicprochat/proto/messages';
import type { Caller, LineCaller } from '../../dial.ts';
import type { Mls } from '../../mls/index.ts';
import { commitKeyOf, type LogView } from './group-log.ts';
import { callSubmit, hubCallLimits, logBehind, pageOptions } from './hub-calls.ts';
import type { LogPlace, SubmitAnswer } from './hub-calls.ts';

/** Ways past the own node, where the application wants them. */
export interface PastOwnNode {
  /** Whether it counts as away, once that is known. Rejects with the signal's reason, and as Link.session. */
  readonly isAway: (signal?: AbortSignal) => Promise<boolean>;
  /** Calls another domain's node without saying who asks. Throws as SealedSender.send. */
  readonly callerOf: (domain: string) => Promise<LineCaller>;
}

export interface HubWaysParts {
  readonly runtime: Pick<Runtime, 'clock'>;
  readonly mls: Mls;
  /** Of the own node. */
  readonly caller: Caller;
  readonly domain: string;
  readonly past?: PastOwnNode | undefined;
  /** Where this device stands in a group. */
  readonly view: (groupId: Uint8Array) => Promise<LogView | undefined>;
}

/** One attempt at one hub. */
export interface Submission {
  /** Domain. */
  readonly hub: string;
  readonly groupId: Uint8Array;
  /** Encoded SubmitCommitRequest, always the same bytes. */
  readonly request: Uint8Array;
  /** The hub is to lead, if none does. */
  readonly takesOver?: boolean;
}

export class HubWays {
  /** The own node, while it is not away: then a call fails, instead of waiting for it. */
  readonly home: Caller;
  readonly #parts: HubWaysParts;

  constructor(parts: HubWaysParts) {
    this.#parts = parts;
    const { caller, past } = parts;
    this.home =
      past === undefined
        ? caller
        : {
            async call(method, request, options) {
              if (!(await past.isAway(options?.signal))) {
                return caller.call(method, request, options);
              }
              throw new TransportError('unreachable', 'the own node is away');
            },
          };
  }

  /** Throws as callSubmit. */
  async submit(
    { hub, groupId, request, takesOver = false }: Submission,
    signal: AbortSignal,
  ): Promise<SubmitAnswer> {
    const line = await this.#lineTo(hub, signal);
    if (line === undefined) return callSubmit(this.home, request, signal, { hub, takesOver });
    return this.#unknown(signal, async () => {
      const { proof } = await this.#stand(groupId, line);
      return callSubmit(line, request, signal, { hub, takesOver, proof });
    });
  }

  /** Pages of the log behind a place, each to be applied before the next one. Throws as logBehind. */
  async *pages(place: LogPlace, signal: AbortSignal): AsyncGenerator<readonly GroupControl[]> {
    const line = await this.#lineTo(place.hub, signal);
    if (line === undefined) yield* logBehind(this.home, place, signal);
    else yield* this.#children(line, place, signal);
  }

  /** Undefined: the own node is asked. */
  async #lineTo(hub: string, signal: AbortSignal): Promise<LineCaller | undefined> {
    const { past, domain } = this.#parts;
    if (past === undefined || hub === domain || !(await past.isAway(signal))) return undefined;
    return this.#unknown(signal, () => past.callerOf(hub));
  }

  /** What stands behind the own entry, then behind the one that this device came to by that. */
  async *#children(
    line: LineCaller,
    { hub, groupId: group }: LogPlace,
    signal: AbortSignal,
  ): AsyncGenerator<readonly GroupControl[]> {
    let count = 0;
    let stood: Uint8Array | undefined;
    let after: Uint8Array = new Uint8Array(0);
    let hasMore = true;
    for (;;) {
      const { entry, proof } = await this.#stand(group, line);
      if (stood !== undefined && sameBytes(stood, entry)) {
        if (!hasMore) return;
      } else after = entry;
      stood = entry;
      const request = { hub, group, after, proof };
      const page = await this.#unknown(signal, () =>
        line.call(methods.groupLog, request, pageOptions(signal)),
      );
      count += page.entries.length;
      if (count > hubCallLimits.entries) {
        throw new TransportError('protocol', `the group log has more than ${count - 1} entries`);
      }
      yield page.entries;
      const newest = page.entries.at(-1)?.entry?.entry;
      if (newest === undefined) return;
      ({ hasMore } = page);
      after = entryHash(newest.entry);
    }
  }

  /** The own entry, and what shows a hub over this connection that it is. */
  async #stand(
    groupId: Uint8Array,
    { clientSpki, nodeSpki }: LineCaller,
  ): Promise<{ readonly entry: Uint8Array; readonly proof: MemberProof }> {
    const { mls, runtime, view } = this.#parts;
    const { group, head } = (await view(groupId)) ?? {};
    if (group?.isActive !== true || head === undefined) {
      throw new UnavailableError('HUB_UNAVAILABLE', 'not in this group: its hub tells nothing');
    }
    const issuedMs = runtime.clock.now();
    const entry = head.hash;
    const binding = { clientSpki, nodeSpki, group: groupId, entry, issuedMs };
    const signature = signMemberProof(binding, await commitKeyOf(mls, group));
    const fields = { entry, issuedMs: BigInt(issuedMs), signature };
    return { entry, proof: create(MemberProofSchema, fields) };
  }

  /** What is refused to somebody whom nobody knows is not decided by that: the own node may have it. */
  async #unknown<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof QpcError) || passing.has(error.status)) throw error;
      const message = `without the own node: ${error.message}`;
      throw new UnavailableError('HUB_UNAVAILABLE', message, { cause: error });
    }
  }
}

const passing: ReadonlySet<number> = new Set([
  Status.Unavailable,
  Status.DeadlineExceeded,
  Status.ResourceExhausted,
]);
