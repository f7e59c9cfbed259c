/**
 * When a log client does its duties, and what comes of them as events (protocol section 8;
 * kt-log/README.md): its own labels, looked-up labels, distinguished heads, credentials, witnesses.
 * Whoever owns it calls run() at next(); it sets no timers. Browser-safe.
 */
import { DataLossError, QpcError, Status } from '@quicprochat/proto/status';
import { ForkError } from './client-checkpoint.ts';
import type { OwnVersion } from './client-owner.ts';
import type { DailyRecord } from './client-records.ts';
import type { CallOptions, LogTransport } from './client-transport.ts';
import { sameBytes } from './hash.ts';
import type { LogClient } from './log-client.ts';
import { VerificationError } from './verification-error.ts';

/** All in milliseconds. */
export interface MonitorLimits {
  /** Between looks for new distinguished entries, and between refreshes of a credential. */
  readonly dailyMs: number;
  /** How long a head may go without quorum before it is an alarm. */
  readonly unwitnessedMs: number;
  /** First wait for a quorum, as it takes auditors some seconds; doubles up to the last one. */
  readonly witnessMinMs: number;
  readonly witnessRetryMs: number;
  /** How long the log may not answer before it is an alarm. */
  readonly staleMs: number;
  /** First wait after a failure; doubles up to the last one. */
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
}
const hourMs = 3_600_000;
export const defaultMonitorLimits: MonitorLimits = {
  dailyMs: 24 * hourMs,
  unwitnessedMs: 24 * hourMs,
  witnessMinMs: 2_000,
  witnessRetryMs: hourMs / 4,
  staleMs: 24 * hourMs,
  backoffMinMs: hourMs / 60,
  backoffMaxMs: hourMs,
};

/** Labels that wait to be looked up again. */
const touchedMax = 1024;

export type DutyName = 'distinguished' | 'owner' | 'contacts' | 'lookup' | 'credential' | 'witness';

export type MonitorEvent =
  /** Somebody else had a version of one's own label logged; comes again until it is acknowledged. */
  | ({ readonly type: 'UnexpectedKey'; readonly label: Uint8Array } & OwnVersion)
  /** A label that was looked up before has a new version. */
  | {
      readonly type: 'KeyChange';
      readonly label: Uint8Array;
      readonly version: number;
      readonly value: Uint8Array;
      readonly previousVersion: number;
    }
  /** No quorum has cosigned any head used since `sinceMs`. */
  | { readonly type: 'Unwitnessed'; readonly sinceMs: number }
  /** The log has not answered since `answeredMs`; undefined: never. */
  | {
      readonly type: 'Stale';
      readonly answeredMs: number | undefined;
      readonly error: Error;
    }
  /** The log contradicts itself. `evidence` convicts it, where there is some. */
  | { readonly type: 'Fork'; readonly error: ForkError; readonly evidence: Uint8Array | undefined }
  /** An answer failed its verification. */
  | Failure<'Lie', VerificationError>
  /** The log said no to a duty. */
  | Failure<'Refused', QpcError>
  /** What is stored of the log is damaged; nothing was changed. */
  | Failure<'Damaged', DataLossError>;

interface Failure<T extends string, E extends Error> {
  readonly type: T;
  readonly duty: DutyName;
  readonly label: Uint8Array | undefined;
  readonly error: E;
}

interface Attempt {
  readonly duty: DutyName;
  readonly label: Uint8Array | undefined;
  /** Names it among others of its kind. */
  readonly key: string;
  readonly dueMs: number;
  run(transport: LogTransport, call: CallOptions): Promise<MonitorEvent[]>;
}

/** What a definite no looks like; everything else means that there was no answer. */
const definite: readonly Status[] = [
  Status.InvalidArgument,
  Status.PermissionDenied,
  Status.NotFound,
  Status.Conflict,
  Status.FailedPrecondition,
];

const keyOf = (duty: DutyName, label: Uint8Array | undefined): string =>
  `${duty}/${label?.join() ?? ''}`;

export class LogMonitor {
  readonly #client: LogClient;
  readonly #limits: MonitorLimits;
  readonly #touched = new Map<string, Uint8Array>();
  /** Duties that failed: not before this time, and how often in a row. */
  readonly #held = new Map<string, { readonly untilMs: number; readonly failures: number }>();
  readonly #startMs: number;
  /** As it is stored, so that a program that starts many times a day asks no more often. */
  #daily: DailyRecord | undefined;
  /** Asking for a quorum: since which head there was none, how often it was asked, when next. */
  #witness = { sinceMs: Number.NaN, tries: 0, dueMs: 0 };
  #reportedUnwitnessedMs = Number.NEGATIVE_INFINITY;
  #reportedStaleMs = Number.NEGATIVE_INFINITY;

  constructor(client: LogClient, limits: Partial<MonitorLimits> = {}) {
    this.#client = client;
    this.#limits = { ...defaultMonitorLimits, ...limits };
    this.#startMs = this.#now();
  }

  #now(): number {
    return this.#client.options.clock.now();
  }

  #dailyNow(): DailyRecord {
    if (this.#daily !== undefined) return this.#daily;
    const stored = this.#client.daily();
    // Further away than a day: the clock was ahead when that was stored, so it is due.
    const dueOf = (ms: number): number =>
      ms > this.#startMs + this.#limits.dailyMs ? this.#startMs : ms;
    this.#daily = {
      distinguishedMs: dueOf(stored?.distinguishedMs ?? this.#startMs),
      credentials: (stored?.credentials ?? []).map((one) => ({ ...one, dueMs: dueOf(one.dueMs) })),
    };
    return this.#daily;
  }

  #keepDaily(changes: Partial<DailyRecord>): void {
    this.#daily = { ...this.#dailyNow(), ...changes };
    this.#client.keepDaily(this.#daily);
  }

  /** `ms` less up to an eighth. */
  #jittered(ms: number): number {
    const [byte = 0] = this.#client.options.random.bytes(1);
    return Math.floor(ms - (ms / 8) * (byte / 256));
  }

  /** A node's hint that a label has changed: it is looked up at the next run. */
  touch(label: Uint8Array): void {
    if (this.#touched.size < touchedMax) this.#touched.set(label.join(), label);
  }

  /** When run() is to be called next, as Unix time; in the past: now. Throws DataLossError. */
  next(): number {
    return Math.min(...this.#attempts().map((one) => this.#dueOf(one)));
  }

  #dueOf(one: Attempt): number {
    return Math.max(one.dueMs, this.#held.get(one.key)?.untilMs ?? 0);
  }

  /**
   * Does what is due, in the order in which one thing builds on another. Never rejects for what the
   * log or the way to it does: that becomes events, and a lie becomes one every time it is told. Rejects
   * for a broken program, and DataLossError when the duties themselves cannot be read.
   */
  async run(transport: LogTransport, call: CallOptions = {}): Promise<readonly MonitorEvent[]> {
    const events: MonitorEvent[] = [];
    const done = new Set<string>();
    const isAborted = (): boolean => call.signal?.aborted === true;
    while (!isAborted()) {
      // One duty can make another one due, so the list is made anew after each.
      const due = this.#attempts().find(
        (one) => !done.has(one.key) && this.#dueOf(one) <= this.#now(),
      );
      if (due === undefined) break;
      done.add(due.key);
      try {
        events.push(...(await due.run(transport, call)));
        this.#held.delete(due.key);
      } catch (error) {
        if (isAborted()) break;
        const wasAnswered = this.#failed(due, error, events);
        // Nobody there: the other duties would only wait for the same.
        if (!wasAnswered) break;
        if (error instanceof VerificationError)
          await this.#confront(transport, call, error, events);
      }
    }
    for (const { label } of this.#client.owner.labels()) {
      if (done.has(keyOf('owner', label))) events.push(...this.#unexpected(label));
    }
    this.#alarm(events);
    return events;
  }

  /** After a lie: whether the log forked, which it then signs itself. */
  async #confront(
    transport: LogTransport,
    call: CallOptions,
    lie: VerificationError,
    events: MonitorEvent[],
  ): Promise<void> {
    if (lie instanceof ForkError) return;
    try {
      await this.#client.confront(transport, call);
    } catch (error) {
      if (error instanceof ForkError) {
        events.push({ type: 'Fork', error, evidence: error.evidence });
      } else if (!(error instanceof QpcError)) throw error;
      // A log that does not answer this has lied all the same; that is reported.
    }
  }

  /** Holds a failed duty back, and tells what the failure means. False: there was no answer. */
  #failed(due: Attempt, error: unknown, events: MonitorEvent[]): boolean {
    const failures = (this.#held.get(due.key)?.failures ?? 0) + 1;
    const { backoffMinMs, backoffMaxMs } = this.#limits;
    const waitMs = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(failures - 1, 30));
    const held = { untilMs: this.#now() + this.#jittered(waitMs), failures };
    this.#held.set(due.key, held);
    const { duty, label } = due;
    if (error instanceof ForkError) {
      events.push({ type: 'Fork', error, evidence: error.evidence });
    } else if (error instanceof VerificationError) {
      events.push({ type: 'Lie', duty, label, error });
    } else if (error instanceof DataLossError) {
      events.push({ type: 'Damaged', duty, label, error });
    } else if (error instanceof QpcError && definite.includes(error.status)) {
      // No credential exists before the first distinguished entry holds the label: only too early.
      const isEarly = duty === 'credential' && error.status === Status.FailedPrecondition;
      if (!isEarly) events.push({ type: 'Refused', duty, label, error });
    } else if (error instanceof QpcError) {
      for (const one of this.#attempts()) this.#held.set(one.key, held);
      this.#stale(error, events);
      return false;
    } else throw error;
    return true;
  }

  #stale(error: QpcError, events: MonitorEvent[]): void {
    const answeredMs = this.#client.head()?.answeredMs;
    const since = Math.max(answeredMs ?? this.#startMs, this.#reportedStaleMs);
    if (this.#now() - since < this.#limits.staleMs) return;
    this.#reportedStaleMs = this.#now();
    events.push({ type: 'Stale', answeredMs, error });
  }

  #alarm(events: MonitorEvent[]): void {
    const sinceMs = this.#client.head()?.unwitnessedSinceMs;
    if (sinceMs === undefined) return;
    const since = Math.max(sinceMs, this.#reportedUnwitnessedMs);
    if (this.#now() - since < this.#limits.unwitnessedMs) return;
    this.#reportedUnwitnessedMs = this.#now();
    events.push({ type: 'Unwitnessed', sinceMs });
  }

  #attempts(): Attempt[] {
    const client = this.#client;
    const one = (
      duty: DutyName,
      label: Uint8Array | undefined,
      dueMs: number,
      run: Attempt['run'],
    ): Attempt => ({ duty, label, dueMs, run, key: keyOf(duty, label) });
    const owned = client.owner.labels();
    const daily = this.#dailyNow();
    const unwitnessedMs = client.head()?.unwitnessedSinceMs;
    return [
      one('distinguished', undefined, daily.distinguishedMs, async (transport, call) => {
        await client.distinguished(transport, call);
        this.#keepDaily({ distinguishedMs: this.#now() + this.#jittered(this.#limits.dailyMs) });
        return [];
      }),
      ...owned.map(({ label, dueMs }) =>
        one('owner', label, dueMs, async (transport, call) => {
          await client.owner.monitor(transport, label, call);
          return [];
        }),
      ),
      ...client.watched().map(({ label, dueMs }) =>
        one('contacts', label, dueMs, async (transport, call) => {
          await client.monitor(transport, { ...call, label });
          return [];
        }),
      ),
      ...[...this.#touched.values()].map((label) =>
        one('lookup', label, 0, (transport, call) => this.#lookUp(transport, label, call)),
      ),
      ...owned.flatMap(({ label }) => {
        const version = client.owner.greatest(label);
        const made = daily.credentials.find((kept) => sameBytes(kept.label, label));
        if (version === undefined) return [];
        const dueMs = made?.version === version ? made.dueMs : this.#startMs;
        return one('credential', label, dueMs, async (transport, call) => {
          const isMade = (await client.credentials.refresh(transport, label, call)) !== undefined;
          const { dailyMs, backoffMinMs } = this.#limits;
          const nextMs = this.#now() + this.#jittered(isMade ? dailyMs : backoffMinMs);
          const others = this.#dailyNow().credentials.filter(
            (kept) => !sameBytes(kept.label, label),
          );
          this.#keepDaily({ credentials: [...others, { label, version, dueMs: nextMs }] });
          return [];
        });
      }),
      ...(unwitnessedMs === undefined ? [] : [this.#witnessAttempt(unwitnessedMs)]),
    ];
  }

  #witnessAttempt(sinceMs: number): Attempt {
    const { witnessMinMs, witnessRetryMs } = this.#limits;
    const asked =
      this.#witness.sinceMs === sinceMs
        ? this.#witness
        : { sinceMs, tries: 0, dueMs: sinceMs + Math.min(witnessMinMs, witnessRetryMs) };
    return {
      duty: 'witness',
      label: undefined,
      key: keyOf('witness', undefined),
      dueMs: asked.dueMs,
      run: async (transport, call) => {
        const tries = asked.tries + 1;
        const waitMs = Math.min(witnessRetryMs, witnessMinMs * 2 ** Math.min(tries, 30));
        this.#witness = { sinceMs, tries, dueMs: this.#now() + this.#jittered(waitMs) };
        await this.#client.distinguished(transport, call);
        return [];
      },
    };
  }

  #unexpected(label: Uint8Array): MonitorEvent[] {
    return this.#client.owner
      .alarms(label)
      .map((one) => ({ type: 'UnexpectedKey', label, ...one, isAnnounced: false }));
  }

  async #lookUp(
    transport: LogTransport,
    label: Uint8Array,
    call: CallOptions,
  ): Promise<MonitorEvent[]> {
    const found = await this.#client.search(transport, label, call);
    this.#touched.delete(label.join());
    const { version, value, previousVersion } = found;
    if (previousVersion === undefined || previousVersion === version) return [];
    return [{ type: 'KeyChange', label, version, value, previousVersion }];
  }
}
