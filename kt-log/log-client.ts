/**
 * The client of one log on one device: searches, contact monitoring and distinguished heads over a
 * transport, on a stored state that only moves forward (protocol section 13; kt-log/README.md).
 * What fails changes nothing but the list of evidence. Browser-safe.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { checkCheckpoint, checkSameSize } from './client-checkpoint.ts';
import type { Changes, LogClientOptions, VerifiedHead } from './client-core.ts';
import { ClientCore } from './client-core.ts';
import { ClientCredentials } from './client-credentials.ts';
import { ClientOwner } from './client-owner.ts';
import type { DailyRecord, DistinguishedRecord, LabelRecord } from './client-records.ts';
import { clientLimits } from './client-records.ts';
import type { CallOptions, LogAnswer, LogTransport, Send } from './client-transport.ts';
import { sameBytes } from './hash.ts';
import type { HeadsCompared } from './heads-exchange.ts';
import { ClientHeard } from './client-heard.ts';
import { compareHeads, encodeHeads } from './heads-exchange.ts';
import { baseLadder } from './ladder.ts';
import { openCheckpoint } from './note.ts';
import * as operations from './operations.ts';
import { decode, encode } from './presentation.ts';
import { verify } from './verification-error.ts';
import type { DistinguishedView, FoundVersion } from './verify-search.ts';
import {
  monitorFound,
  verifyAbsence,
  verifyContactMonitor,
  verifyDistinguished,
  verifySearch,
} from './verify-search.ts';

/** A verified and stored search result. */
export interface FoundValue extends VerifiedHead {
  readonly label: Uint8Array;
  readonly version: number;
  readonly value: Uint8Array;
  /** Entry where the search ended, and its time: the version was there then. */
  readonly position: number;
  readonly entryTimeMs: number;
  /** Greatest version that was known before; undefined: the label is new here. */
  readonly previousVersion: number | undefined;
}

/** A label as it was verified last; needs no log. */
export interface KnownValue {
  readonly version: number;
  readonly value: Uint8Array;
  readonly opening: Uint8Array;
}

export class LogClient {
  readonly #core: ClientCore;
  /** Duties for labels of one's own. */
  readonly owner: ClientOwner;
  /** Credentials: one's own to hand out, others' to check. */
  readonly credentials: ClientCredentials;

  /** Throws InvalidArgumentError, VerificationError BAD_VRF for a configuration that is none. */
  constructor(options: LogClientOptions) {
    this.#core = new ClientCore(options);
    this.owner = new ClientOwner(this.#core, {
      search: (transport, label, call) => this.#searchNow(transport, label, {}, call),
      distinguished: (transport, call) => this.#distinguishedNow(transport, call),
    });
    this.credentials = new ClientCredentials(this.#core, (transport, call) =>
      this.#distinguishedNow(transport, call),
    );
  }

  /** What came from others than the log. */
  get heard(): ClientHeard {
    return new ClientHeard(this.#core);
  }

  get origin(): string {
    return this.#core.options.identity.origin;
  }
  get options(): LogClientOptions {
    return this.#core.options;
  }

  /** The newest verified head; undefined before the first answer. Throws DataLossError. */
  head():
    | (Pick<VerifiedHead, 'size' | 'root' | 'timestampMs'> & {
        readonly answeredMs: number;
        /** Since when no head that was used has had the quorum; undefined: this one has, or none is asked for. */
        readonly unwitnessedSinceMs: number | undefined;
        /** Greatest size that had the quorum; 0: none had. */
        readonly witnessedSize: number;
        /** Its signed checkpoint. */
        readonly note: Uint8Array;
      })
    | undefined {
    const record = this.#core.record();
    if (record === undefined) return undefined;
    const { size, frontier } = record.user.view;
    const { root, note, answeredMs, witnessedSize } = record;
    // Who is to vouch for the log may have become known only after that head came.
    const isOwed = witnessedSize < size && this.options.policy !== undefined;
    const unwitnessedSinceMs = record.unwitnessedSinceMs ?? (isOwed ? answeredMs : undefined);
    const timestampMs = frontier.at(-1)?.timestampMs ?? 0;
    return { size, root, timestampMs, answeredMs, unwitnessedSinceMs, witnessedSize, note };
  }

  /** When what is done once a day is due; undefined: it was never done. Throws DataLossError. */
  daily(): DailyRecord | undefined {
    return this.#core.daily();
  }
  keepDaily(record: DailyRecord): void {
    const changes: Changes = new Map();
    this.#core.putDaily(changes, record);
    this.#core.save(changes);
  }

  /** The greatest verified version of a label. Throws DataLossError. */
  known(label: Uint8Array): KnownValue | undefined {
    return this.#core.label(label)?.greatest;
  }
  /** The recent distinguished entries that were verified, left to right. Throws DataLossError. */
  distinguishedHeads(): readonly DistinguishedRecord[] {
    return this.#core.distinguished();
  }
  /** Evidence against the log (evidence.ts), at most 8 pieces. Throws DataLossError. */
  evidence(): readonly Uint8Array[] {
    return this.#core.evidence();
  }
  /**
   * Compares with what a contact sent of the same log. Throws VerificationError FORK when there are
   * two logs; what proves it is kept.
   */
  compareHeads(theirs: Uint8Array): HeadsCompared {
    const core = this.#core;
    return core.keepingEvidence(() => compareHeads(core.options, this.headsMessage(), theirs));
  }
  /**
   * Asks the log, after an answer that does not continue what was seen, for its checkpoint of the
   * size that was seen. Throws VerificationError FORK when it is another one; the evidence is kept.
   */
  confront(transport: Pick<LogTransport, 'treeHead'>, call: CallOptions = {}): Promise<void> {
    const core = this.#core;
    return core.inTurn(async () => {
      const record = core.record();
      if (record === undefined) return;
      const theirs = await transport.treeHead(record.user.view.size, call);
      const { size } = openCheckpoint(core.log.suite, theirs, core.options.identity).checkpoint;
      verify(size === record.user.view.size, 'CHAIN', 'checkpoint size', 'the one asked for');
      core.keepingEvidence(() => checkSameSize(core.options, record.note, theirs));
    });
  }
  /** What contacts send each other to compare; undefined before the first answer. */
  headsMessage(): Uint8Array | undefined {
    const record = this.#core.record();
    if (record === undefined) return undefined;
    const distinguished = this.#core.distinguished().map((one) => one.note);
    return encodeHeads(this.#core.options, distinguished, record.note);
  }

  /**
   * SearchRequest bytes for an RPC that carries the search along. Only for who runs one request at a
   * time; everybody else takes carrySearch.
   */
  searchRequest(label: Uint8Array, options: { readonly version?: number } = {}): Uint8Array {
    const request = { last: this.#core.last(), label, version: options.version };
    return encode(operations.searchRequest, request);
  }

  /**
   * Verifies the answer to `request`, and stores what it showed. Throws VerificationError for a lie,
   * ConflictError SEQ_CONFLICT when another answer came in between (ask again), what checkValue
   * throws.
   */
  acceptSearch(label: Uint8Array, request: Uint8Array, answer: LogAnswer): FoundValue {
    const core = this.#core;
    const asked = decode(operations.searchRequest, request);
    if (!sameBytes(asked.label, label)) {
      throw new InvalidArgumentError('BAD_FIELD', 'log client: a request for another label');
    }
    const before = core.stateAt(asked.last);
    const { state, found } = verifySearch(core.log, before, asked, answer.response, core.now());
    const changes: Changes = new Map();
    const head = core.acceptHead(state, answer.checkpoint, changes);
    const known = core.label(label);
    const record = this.#labelAfter(known, found, asked.version === undefined);
    core.putLabel(changes, record);
    const isWatched = core.duties('watched').some((duty) => sameBytes(duty.label, label));
    if (record.map.length > 0 && !isWatched) {
      core.putDuty(changes, 'watched', label, core.nextRoundMs());
    }
    core.save(changes);
    const { version, value, terminal: position, terminalMs: entryTimeMs } = found;
    const previousVersion = known?.greatest?.version;
    return { ...head, label, version, value, position, entryTimeMs, previousVersion };
  }

  /** What is kept of a label after a search. Throws VerificationError ROLLBACK, CHAIN. */
  #labelAfter(
    known: LabelRecord | undefined,
    found: FoundVersion,
    isGreatest: boolean,
  ): LabelRecord {
    const { label, version, value, opening } = found;
    const greatest = known?.greatest;
    if (greatest !== undefined) {
      const isBack = isGreatest && version < greatest.version;
      verify(!isBack, 'ROLLBACK', 'greatest version', `at least ${greatest.version}`);
      const isSame = version !== greatest.version || sameBytes(value, greatest.value);
      verify(isSame, 'CHAIN', `value of version ${version}`, 'the one that was verified before');
    }
    const below = greatest !== undefined && greatest.version < version ? greatest : undefined;
    this.#core.checkValue({ label, version, value, previous: below });
    const isNewest = isGreatest && version !== greatest?.version;
    const contact = monitorFound(known, found);
    // A version below one that is proven further left adds nothing, and no log takes such a map.
    const map = contact.map.every((entry, i) => entry.version > (contact.map[i - 1]?.version ?? -1))
      ? contact.map.slice(-clientLimits.mapEntriesMax)
      : (known?.map ?? []);
    return {
      label,
      greatest: isNewest ? { version, value, opening } : greatest,
      ...neededFor(map, contact),
    };
  }

  /**
   * Runs a search inside an RPC of one's own: `send` gets the request and returns the answer. Waits
   * for its turn: one request to a log is under way at a time (client-core.ts).
   */
  carrySearch(
    label: Uint8Array,
    send: (request: Uint8Array) => Promise<LogAnswer>,
    options: { readonly version?: number } = {},
  ): Promise<FoundValue> {
    return this.#core.inTurn(() => this.#searchNow({ search: send }, label, options, {}));
  }

  /** Section 13.1: the greatest version, or `version`. Throws VerificationError, NotFoundError. */
  search(
    transport: Pick<LogTransport, 'search'>,
    label: Uint8Array,
    options: CallOptions & { readonly version?: number } = {},
  ): Promise<FoundValue> {
    return this.#core.inTurn(() => this.#searchNow(transport, label, options, options));
  }

  async #searchNow(
    transport: { readonly search: Send },
    label: Uint8Array,
    options: { readonly version?: number },
    call: CallOptions,
  ): Promise<FoundValue> {
    const request = this.searchRequest(label, options);
    return this.acceptSearch(label, request, await transport.search(request, call));
  }

  /**
   * Proves that the label does not exist at the head returned. Throws VerificationError, also when a
   * version of it is known.
   */
  absence(
    transport: Pick<LogTransport, 'absence'>,
    label: Uint8Array,
    call: CallOptions = {},
  ): Promise<VerifiedHead> {
    const core = this.#core;
    return core.inTurn(async () => {
      const last = core.last();
      const answer = await transport.absence(
        encode(operations.searchRequest, { last, label }),
        call,
      );
      const before = core.stateAt(last);
      const { state } = verifyAbsence(core.log, before, label, answer.response, core.now());
      const changes: Changes = new Map();
      const head = core.acceptHead(state, answer.checkpoint, changes);
      const isKnown = core.label(label)?.greatest !== undefined;
      verify(!isKnown, 'ROLLBACK', 'absence of a label', 'the version that was verified before');
      core.save(changes);
      return head;
    });
  }

  /** Labels that contact monitoring follows, and when each one's next round is due (section 8.2). */
  watched(): readonly { readonly label: Uint8Array; readonly dueMs: number }[] {
    return this.#core.duties('watched');
  }
  /**
   * Ends the monitoring of a label without having seen it covered. For a label that its owner closed:
   * the log forgets those, and cannot answer for them any more.
   */
  unwatch(label: Uint8Array): void {
    const changes: Changes = new Map();
    const record = this.#core.label(label);
    if (record !== undefined) {
      this.#core.putLabel(changes, { ...record, map: [], versions: new Map() });
    }
    this.#core.putDuty(changes, 'watched', label, undefined);
    this.#core.save(changes);
  }
  /** Those that are due. */
  dueMonitoring(nowMs = this.#core.now()): readonly Uint8Array[] {
    return this.watched()
      .filter((duty) => duty.dueMs <= nowMs)
      .map((duty) => duty.label);
  }

  /**
   * Section 13.2: one round for every label that is due, or for one label. Throws VerificationError
   * for the first that fails; the ones before it are done.
   */
  async monitor(
    transport: Pick<LogTransport, 'contactMonitor'>,
    options: CallOptions & { readonly label?: Uint8Array } = {},
  ): Promise<readonly Uint8Array[]> {
    const labels = options.label === undefined ? this.dueMonitoring() : [options.label];
    for (const label of labels) {
      await this.#core.inTurn(() => this.#monitorNow(transport, label, options));
    }
    return labels;
  }

  async #monitorNow(
    transport: Pick<LogTransport, 'contactMonitor'>,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<void> {
    const core = this.#core;
    const record = core.label(label);
    if (record === undefined || record.map.length === 0) {
      const changes: Changes = new Map();
      core.putDuty(changes, 'watched', label, undefined);
      return core.save(changes);
    }
    const last = core.last();
    const request = { last, label, entries: record.map };
    const bytes = encode(operations.contactMonitorRequest, request);
    const answer = await transport.contactMonitor(bytes, call);
    const before = core.stateAt(last);
    const { state, contact } = verifyContactMonitor(
      core.log,
      before,
      record,
      answer.response,
      core.now(),
    );
    const changes: Changes = new Map();
    core.acceptHead(state, answer.checkpoint, changes);
    const { greatest } = record;
    core.putLabel(changes, { label, greatest, ...neededFor(contact.map, contact) });
    const dueMs = contact.map.length === 0 ? undefined : core.nextRoundMs();
    core.putDuty(changes, 'watched', label, dueMs);
    core.save(changes);
  }

  /** Section 13.6: takes in new distinguished entries. Returns those that are new, left to right. */
  distinguished(
    transport: Pick<LogTransport, 'distinguished' | 'treeHead'>,
    call: CallOptions = {},
  ): Promise<readonly DistinguishedRecord[]> {
    return this.#core.inTurn(() => this.#distinguishedNow(transport, call));
  }

  async #distinguishedNow(
    transport: Pick<LogTransport, 'distinguished' | 'treeHead'>,
    call: CallOptions,
  ): Promise<readonly DistinguishedRecord[]> {
    const core = this.#core;
    const known = core.distinguished();
    const newestKnown = known.at(-1);
    const stop = newestKnown?.position;
    const last = core.last();
    const bytes = encode(operations.distinguishedRequest, { last, stop });
    const answer = await transport.distinguished(bytes, call);
    const asked = { ...core.recency, stop };
    const before = core.stateAt(last);
    const { state, heads } = verifyDistinguished(
      core.log,
      before,
      asked,
      answer.response,
      core.now(),
    );
    const fresh: DistinguishedRecord[] = [];
    for (const head of heads.toReversed()) {
      fresh.push({ ...head, note: await this.#noteOf(transport, head, call) });
    }
    // The notes took their time: whoever answered out of turn meanwhile is not overwritten.
    core.stateAt(last);
    const changes: Changes = new Map();
    const { timestampMs } = core.acceptHead(state, answer.checkpoint, changes);
    // Entries between the last known one and the first new one may be missing when the walk ended
    // for another reason than `stop`; the list has no gaps, so it starts anew then.
    const isJoined =
      newestKnown !== undefined &&
      heads.length < core.recency.countMax &&
      timestampMs - newestKnown.timestampMs < core.recency.recentMs;
    const list = isJoined || fresh.length === 0 ? [...known, ...fresh] : fresh;
    core.putDistinguished(changes, list.slice(-clientLimits.distinguishedMax));
    core.save(changes);
    return fresh;
  }

  /** The signed checkpoint of the tree that ends with a distinguished entry: it names its root. */
  async #noteOf(
    transport: Pick<LogTransport, 'treeHead'>,
    head: DistinguishedView,
    call: CallOptions,
  ): Promise<Uint8Array> {
    const { options } = this.#core;
    const size = head.position + 1;
    const bytes = await transport.treeHead(size, call);
    const shown = { size, root: head.root };
    return this.#core.keepingEvidence(
      () => checkCheckpoint(options, options.policy, bytes, shown).note,
    );
  }
}

/** A monitoring map with the search keys that its ladders ask for. */
function neededFor(
  map: LabelRecord['map'],
  from: Pick<LabelRecord, 'versions'>,
): Pick<LabelRecord, 'map' | 'versions'> {
  const needed = new Set(map.flatMap((entry) => baseLadder(entry.version)));
  return { map, versions: new Map([...from.versions].filter(([version]) => needed.has(version))) };
}
