/**
 * The duties of a label's owner over a transport (protocol sections 8.3, 9, 13.3 to 13.5): start,
 * new versions of one's own, versions that somebody else made, monitoring. Browser-safe.
 */
import {
  ConflictError,
  FailedPreconditionError,
  InvalidArgumentError,
  QpcError,
  Status,
} from '@quicprochat/proto/status';
import type { Changes, ClientCore } from './client-core.ts';
import type { OwnerRecord } from './client-records.ts';
import { clientLimits } from './client-records.ts';
import type { CallOptions, LogAnswer, LogTransport, Send } from './client-transport.ts';
import { sameBytes } from './hash.ts';
import type { FoundValue } from './log-client.ts';
import { maxVersion } from './ladder.ts';
import * as operations from './operations.ts';
import { decode, encode } from './presentation.ts';
import { VerificationError } from './verification-error.ts';
import type { CreatedVersion } from './verify-owner.ts';
import {
  greatestKnown,
  ownerMonitorRequestOf,
  verifyOwnerInit,
  verifyOwnerMonitor,
  verifyUpdate,
} from './verify-owner.ts';

/** Rounds of one call: a log that is not done by then goes on at the next one. */
const roundsMax = 256;

/** A version of one's label that the log showed. */
export interface OwnVersion extends CreatedVersion {
  /** This device announced the value before it was logged; false: somebody else made it. */
  readonly isAnnounced: boolean;
}
export interface OwnUpdateResult {
  /** False: the log had news first. They are in `created`; the values asked for were not made. */
  readonly isMade: boolean;
  readonly created: readonly OwnVersion[];
}

/** What the owner's part needs of the client, inside a turn. */
interface InTurn {
  search(transport: { search: Send }, label: Uint8Array, call: CallOptions): Promise<FoundValue>;
  distinguished(
    transport: Pick<LogTransport, 'distinguished' | 'treeHead'>,
    call: CallOptions,
  ): Promise<unknown>;
}

type UpdateTransport = Pick<LogTransport, 'search' | 'update'>;
type MonitorTransport = UpdateTransport & Pick<LogTransport, 'ownerMonitor'>;
export type OwnerTransport = MonitorTransport &
  Pick<LogTransport, 'ownerInit' | 'distinguished' | 'treeHead'>;

export class ClientOwner {
  readonly #core: ClientCore;
  readonly #inTurn: InTurn;

  constructor(core: ClientCore, inTurn: InTurn) {
    this.#core = core;
    this.#inTurn = inTurn;
  }

  /** Labels of one's own, and when their next round is due. Throws DataLossError. */
  labels(): readonly { readonly label: Uint8Array; readonly dueMs: number }[] {
    return this.#core.duties('owned');
  }
  /** Greatest version of a label of one's own; undefined: there is none yet, or it is not owned. */
  greatest(label: Uint8Array): number | undefined {
    const record = this.#core.owner(label);
    return record && greatestKnown(record.owner);
  }

  /**
   * Takes ownership of a label from the newest distinguished entry on, and learns the versions made
   * since, which the caller judges: none of them is an alarm. Does nothing for a label that is owned
   * already but return its news.
   */
  start(
    transport: OwnerTransport,
    label: Uint8Array,
    call: CallOptions = {},
  ): Promise<readonly OwnVersion[]> {
    const core = this.#core;
    return core.inTurn(async () => {
      const isNew = core.owner(label) === undefined;
      if (isNew) {
        await this.#inTurn.distinguished(transport, call);
        await this.#init(transport, label, call);
      }
      const news = await this.#news(transport, label, call);
      if (isNew) this.acknowledge(label, maxVersion);
      return news;
    });
  }

  async #init(
    transport: Pick<LogTransport, 'ownerInit'>,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<void> {
    const core = this.#core;
    const start = core.distinguished().at(-1)?.position;
    if (start === undefined) {
      throw new FailedPreconditionError('BAD_CURSOR', 'log client: no distinguished entry yet');
    }
    const request = { last: core.last(), label, start };
    const bytes = encode(operations.ownerInitRequest, request);
    const answer = await transport.ownerInit(bytes, call);
    const before = core.stateAt(request.last);
    const started = verifyOwnerInit(core.log, before, request, answer.response, core.now());
    const changes: Changes = new Map();
    core.acceptHead(started.state, answer.checkpoint, changes);
    core.putOwner(changes, { owner: started.owner, announced: [], alarms: [] });
    core.putDuty(changes, 'owned', label, core.now());
    core.save(changes);
  }

  #record(label: Uint8Array): OwnerRecord {
    const record = this.#core.owner(label);
    if (record === undefined) {
      throw new FailedPreconditionError('BAD_CURSOR', 'log client: not the owner of this label');
    }
    return record;
  }

  /**
   * Says, durably, that this device is about to have these values logged by whatever RPC: versions
   * with them are its own from then on. At most 16 are remembered. update() does it itself.
   */
  announce(label: Uint8Array, values: readonly Uint8Array[]): void {
    const record = this.#record(label);
    const { sha256 } = this.#core.options.suite;
    const hashes = values.map((value) => sha256(value));
    const old = record.announced.filter((hash) => !hashes.some((one) => sameBytes(one, hash)));
    const announced = [...old, ...hashes].slice(-clientLimits.announcedMax);
    const changes: Changes = new Map();
    this.#core.putOwner(changes, { ...record, announced });
    this.#core.save(changes);
  }

  /**
   * UpdateRequest bytes for an RPC that carries an update along; empty values ask for news. Only for
   * who runs one request at a time; everybody else takes carryUpdate.
   */
  updateRequest(label: Uint8Array, values: readonly Uint8Array[]): Uint8Array {
    const { owner } = this.#record(label);
    const request = { last: this.#core.last(), label, values };
    return encode(operations.updateRequest, { ...request, greatestVersion: greatestKnown(owner) });
  }

  /**
   * Verifies the answer to `request` and stores what it showed. When the new versions stand in a
   * distinguished entry already, the proof of them comes with the next monitor(), which is due then.
   * Throws VerificationError, ConflictError SEQ_CONFLICT, what checkValue throws.
   */
  acceptUpdate(label: Uint8Array, request: Uint8Array, answer: LogAnswer): OwnUpdateResult {
    const core = this.#core;
    const asked = decode(operations.updateRequest, request);
    const record = this.#record(label);
    if (!sameBytes(asked.label, label) || asked.greatestVersion !== greatestKnown(record.owner)) {
      throw new InvalidArgumentError('BAD_FIELD', 'log client: a request of another state');
    }
    const before = core.stateAt(asked.last);
    const shown = verifyUpdate(core.log, before, record.owner, asked, answer.response, core.now());
    const changes: Changes = new Map();
    core.acceptHead(shown.state, answer.checkpoint, changes);
    const created = this.#checkCreated(label, record, shown.created, changes);
    core.putOwner(changes, { owner: shown.owner, ...this.#noticed(record, created) });
    const isMonitored = shown.owner.map.some((entry) => entry.version === created.at(-1)?.version);
    if (!isMonitored) core.putDuty(changes, 'owned', label, core.now());
    core.save(changes);
    // A request without values has nothing made, whatever the log says.
    return { isMade: shown.isOwnRequest && asked.values.length > 0, created };
  }

  /** Versions in order through the application's rules, the greatest into the label's record. */
  #checkCreated(
    label: Uint8Array,
    record: OwnerRecord,
    created: readonly CreatedVersion[],
    changes: Changes,
  ): OwnVersion[] {
    const core = this.#core;
    const known = core.label(label);
    let previous = known?.greatest;
    const own = created.map((one): OwnVersion => {
      const { version, value } = one;
      if (previous?.version === version && !sameBytes(previous.value, value)) {
        const expected = 'the one that was verified before';
        throw new VerificationError('CHAIN', `value of version ${version}`, expected);
      }
      const isNewer = previous === undefined || previous.version < version;
      core.checkValue({ label, version, value, previous: isNewer ? previous : undefined });
      if (isNewer) previous = one;
      const hash = core.options.suite.sha256(value);
      const isAnnounced = record.announced.some((other) => sameBytes(other, hash));
      return { ...one, isAnnounced };
    });
    if (previous !== known?.greatest) {
      const { map = [], versions = new Map() } = known ?? {};
      core.putLabel(changes, { label, greatest: previous, map, versions });
    }
    return own;
  }

  /** What is left to be seen of the announced values, and who else made versions. */
  #noticed(
    record: OwnerRecord,
    created: readonly OwnVersion[],
  ): Pick<OwnerRecord, 'announced' | 'alarms'> {
    const { sha256 } = this.#core.options.suite;
    const seen = created.filter((one) => one.isAnnounced).map((one) => sha256(one.value));
    const others = created.filter((one) => !one.isAnnounced);
    return {
      announced: record.announced.filter((hash) => !seen.some((one) => sameBytes(one, hash))),
      alarms: [...record.alarms, ...others].slice(0, clientLimits.alarmsMax),
    };
  }

  /** Versions of a label of one's own that others made, until they are acknowledged. */
  alarms(label: Uint8Array): readonly CreatedVersion[] {
    return this.#core.owner(label)?.alarms ?? [];
  }
  /** Durably forgets the alarms about versions up to this one: somebody has dealt with them. */
  acknowledge(label: Uint8Array, version: number): void {
    const record = this.#record(label);
    const changes: Changes = new Map();
    const alarms = record.alarms.filter((one) => one.version > version);
    this.#core.putOwner(changes, { ...record, alarms });
    this.#core.save(changes);
  }

  /** Runs an update inside an RPC of one's own, in turn, after announcing its values. */
  carryUpdate(
    label: Uint8Array,
    values: readonly Uint8Array[],
    send: (request: Uint8Array) => Promise<LogAnswer>,
  ): Promise<OwnUpdateResult> {
    return this.#core.inTurn(async () => {
      this.announce(label, values);
      const request = this.updateRequest(label, values);
      return this.acceptUpdate(label, request, await send(request));
    });
  }

  /** Section 13.5: has versions with these values made, one after the other, in one entry. */
  update(
    transport: MonitorTransport,
    label: Uint8Array,
    values: readonly Uint8Array[],
    call: CallOptions = {},
  ): Promise<OwnUpdateResult> {
    return this.#core.inTurn(async () => {
      this.announce(label, values);
      const request = this.updateRequest(label, values);
      const answer = await transport.update(request, call);
      const result = this.acceptUpdate(label, request, answer);
      const duty = this.labels().find((one) => sameBytes(one.label, label));
      // Versions in a distinguished entry are proven by the round that follows at once.
      const isDue = duty !== undefined && duty.dueMs <= this.#core.now();
      const more = isDue ? await this.#monitorNow(transport, label, call) : [];
      return { ...result, created: [...result.created, ...more] };
    });
  }

  /** Versions that the log has beyond those known; the ones not announced were made by others. */
  updates(
    transport: UpdateTransport,
    label: Uint8Array,
    call: CallOptions = {},
  ): Promise<readonly OwnVersion[]> {
    return this.#core.inTurn(() => this.#news(transport, label, call));
  }

  /** In turn. A search shows whether there are news; the log then has to tell all of them. */
  async #news(
    transport: UpdateTransport,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<OwnVersion[]> {
    const shown = await this.#greatestShown(transport, label, call);
    const news: OwnVersion[] = [];
    for (let round = 0; round < roundsMax; round++) {
      const known = greatestKnown(this.#record(label).owner);
      if (shown === undefined || (known !== undefined && known >= shown)) break;
      news.push(...(await this.#nextNews(transport, label, call)));
    }
    return news;
  }

  async #nextNews(
    transport: UpdateTransport,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<readonly OwnVersion[]> {
    const request = this.updateRequest(label, []);
    let answer: LogAnswer;
    try {
      answer = await transport.update(request, call);
    } catch (error) {
      throw withheld(error, 'new versions of one’s own label');
    }
    return this.acceptUpdate(label, request, answer).created;
  }

  /** Greatest version of one's label at the newest head; undefined: the log says there is none. */
  async #greatestShown(
    transport: UpdateTransport,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<number | undefined> {
    try {
      return (await this.#inTurn.search(transport, label, call)).version;
    } catch (error) {
      if (!(error instanceof QpcError) || error.status !== Status.NotFound) throw error;
      const isKnown =
        this.greatest(label) !== undefined || this.#core.label(label)?.greatest !== undefined;
      if (isKnown) throw withheld(error, 'one’s own label');
      return undefined;
    }
  }

  /**
   * Section 13.4, until the log has shown every distinguished entry; versions made by others come
   * first. Throws VerificationError LADDER when an entry holds another version than it should.
   */
  monitor(
    transport: MonitorTransport,
    label: Uint8Array,
    call: CallOptions = {},
  ): Promise<readonly OwnVersion[]> {
    return this.#core.inTurn(async () => {
      const news = await this.#news(transport, label, call);
      return [...news, ...(await this.#monitorNow(transport, label, call))];
    });
  }

  async #monitorNow(
    transport: MonitorTransport,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<readonly OwnVersion[]> {
    const core = this.#core;
    const news: OwnVersion[] = [];
    for (let round = 0; round < roundsMax; round++) {
      const record = this.#record(label);
      const last = core.last();
      const request = ownerMonitorRequestOf(record.owner, last);
      const bytes = encode(operations.ownerMonitorRequest, request);
      const answer = await transport.ownerMonitor(bytes, call);
      const before = core.stateAt(last);
      const { response } = answer;
      const shown = verifyOwnerMonitor(core.log, before, record.owner, response, core.now());
      const changes: Changes = new Map();
      core.acceptHead(shown.state, answer.checkpoint, changes);
      core.putOwner(changes, { ...record, owner: shown.owner });
      const dueMs = shown.isCaughtUp ? core.nextRoundMs() : core.now();
      core.putDuty(changes, 'owned', label, dueMs);
      core.save(changes);
      if (shown.isCaughtUp) break;
      // The log stopped at a version that is not known here: it has to tell it.
      if (!shown.hasProgressed) news.push(...(await this.#nextNews(transport, label, call)));
    }
    return news;
  }
}

/** A definite no to a question that the log's own proofs say yes to. Other failures stay what they are. */
function withheld(error: unknown, what: string): unknown {
  const isDefinite =
    error instanceof QpcError &&
    !(error instanceof VerificationError) &&
    !(error instanceof ConflictError) &&
    (error.status === Status.NotFound || error.status === Status.InvalidArgument);
  if (!isDefinite) return error;
  return new VerificationError('NOT_FOUND', what, 'what the log has shown to exist', error);
}
