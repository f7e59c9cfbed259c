/**
 * Where two or three hubs of one group forgot (docs: protocol/group-log, "Where two forgot"): they wait for what
 * members bring back, from the first who wants a change, and go on with what all three have. How one of them takes over
 * then is takeover.ts.
 */
import {
  hasReason,
  hex,
  parseEntry,
  UnavailableError,
  verifyCertified,
  type HubKeys,
  type Timer,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  GroupControlSchema,
  type CertifiedEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { aMember } from './fork-alarm.ts';
import { hubLimits, type HubParts } from './hub-parts.ts';
import { verified } from './repair.ts';

export class HubRecovery implements Disposable {
  readonly #parts: HubParts;
  readonly #recover: (group: Uint8Array) => void;
  /** When the time of a group is over, by its id in hex. */
  readonly #waiting = new Map<string, Timer>();

  /** `recover`: takes over a group whose time is over. */
  constructor(parts: HubParts, recover: (group: Uint8Array) => void) {
    this.#parts = parts;
    this.#recover = recover;
  }

  [Symbol.dispose](): void {
    for (const timer of this.#waiting.values()) timer.cancel();
    this.#waiting.clear();
  }

  /**
   * A member wants a change of a group in which two hubs forgot, and others wait for `othersMs` still: what to tell it.
   * Where this hub forgot too, its own time begins. Throws what the store throws.
   */
  async wait(group: Uint8Array, othersMs: number): Promise<UnavailableError> {
    const ownMs = await this.#parts.store.holdGroup(group);
    if (ownMs > 0) this.#wake(group, ownMs);
    const retryAfterMs = Math.max(ownMs, othersMs);
    const what = 'hubs of this group forgot, and wait for what members bring back';
    return new UnavailableError('HUB_RESTORED', what, { retryAfterMs });
  }

  /** Not all three at once: a question is void where its asker is asked meanwhile. */
  #wake(group: Uint8Array, restMs: number): void {
    const { runtime, domain, store } = this.#parts;
    const key = hex(group);
    if (this.#waiting.has(key) || this.#waiting.size >= hubLimits.groups) return;
    const heldMs = Math.round(restMs);
    runtime.log.warn('a group whose hubs forgot waits for what members bring back', { heldMs });
    const wake = async (): Promise<void> => {
      const { hubs = [] } = (await store.hubState(group)) ?? {};
      const apartMs = hubLimits.recoverApartMs * Math.max(0, hubs.indexOf(domain));
      const timer = runtime.clock.timer(apartMs, () => {
        this.#waiting.delete(key);
        this.#recover(group);
      });
      this.#waiting.set(key, timer);
    };
    // A store that fails ends the node; the next round of learning asks again.
    const over = (): void => void wake().catch(() => this.#waiting.delete(key));
    this.#waiting.set(key, runtime.clock.timer(restMs, over));
  }

  /**
   * Whether a member brings one of three hubs back what it lost, so that no quota of new commits is for it. A node on the
   * way does not know the hubs; the one that is meant does, and whether it wants anything.
   */
  async isBroughtBack(request: SubmitCommitRequest): Promise<boolean> {
    const { store, domain, keysOf } = this.#parts;
    if (request.signatures.length < 2) return false;
    const state = await store.hubState(parseEntry(request.entry).entry.group);
    const isMeant = request.hub === '' || request.hub === domain;
    if (isMeant && state?.forgot?.gaveWord !== false) return false;
    return isOfTwo(keysOf, request, state?.hubs);
  }

  /**
   * An entry with the word of two hubs that a member brings; undefined: none came along, or this hub does not want it.
   * Throws InvalidArgumentError, ConflictError SEQ_CONFLICT, as the store's `installEntries`.
   */
  async takeBack(request: SubmitCommitRequest): Promise<CertifiedEntry | undefined> {
    const { store, domain } = this.#parts;
    const { entry, commit, signatures, term, groupInfo } = request;
    if (signatures.length === 0) return undefined;
    const parsed = parseEntry(entry);
    const { group } = parsed.entry;
    const state = await store.hubState(group);
    const certified = certifiedOf({ entry, signatures, term });
    const shown = { group, hubs: state?.hubs ?? [], entries: [certified] };
    await this.#parts.forks.look({ ...shown, from: aMember });
    if (state?.forgot?.gaveWord !== false) return undefined;
    const { hubs, position } = state;
    const entries = verified(this.#parts, hubs, [
      create(GroupControlSchema, { entry: certified, commit }),
    ]);
    const end = await store.installEntries({
      ...{ group, hubs, from: domain, entries, position: position + 1 },
      ...{ groupInfo, groupInfoEntry: groupInfo.length > 0 ? parsed.hash : new Uint8Array(0) },
      ...{ isRepair: false, isBrought: true },
    });
    return Buffer.compare(end.head, parsed.hash) === 0 ? certified : undefined;
  }
}

/** Whether two of the hubs gave their word for the entry in its term; `of` undefined: of those that signed. */
function isOfTwo(keysOf: HubKeys, request: SubmitCommitRequest, of?: readonly string[]): boolean {
  const hubs = of ?? [...new Set(request.signatures.map(({ domain }) => domain))];
  if (hubs.length < 2 || hubs.length > 3) return false;
  try {
    verifyCertified(certifiedOf(request), hubs, keysOf);
    return true;
  } catch (error) {
    if (hasReason(error, 'BAD_SIGNATURE')) return false;
    throw error;
  }
}

function certifiedOf({
  entry,
  signatures,
  term,
}: Pick<SubmitCommitRequest, 'entry' | 'signatures' | 'term'>): CertifiedEntry {
  return create(CertifiedEntrySchema, { term, signatures, ...(entry && { entry }) });
}
