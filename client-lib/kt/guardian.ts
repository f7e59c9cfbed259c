/**
 * Keeps watch over the logs that this device relies on, in the background and for as long as it is
 * online (docs/developer/verification.md): the own label, labels that were looked up, heads,
 * witnesses. What it finds becomes events, durable first.
 */
import { LogMonitor, type MonitorEvent } from '@quicprochat/kt-log/verify';
import { hasReason, parseUserId, QpcError, type Runtime } from '@quicprochat/proto';
import { ContactError } from '../contacts/contact.ts';
import type { Contacts } from '../contacts/contacts.ts';
import type { ClientEvent, EventBus } from '../events.ts';
import type { Caller } from '../dial.ts';
import type { Session } from '../session.ts';
import type { ClientStore } from '../store/store.ts';
import type { LogError } from './log-record.ts';
import { labelOf, type DomainLog, type Logs } from './logs.ts';
import { untilShown } from './until-shown.ts';

export const guardianLimits = {
  /**
   * Shortest and longest wait between two looks at what is due (ms). Look-ups of others make new
   * duties without a word here, such as a head that waits for its quorum; a look costs a few reads.
   */
  waitMinMs: 100,
  waitMaxMs: 5_000,
  /** How often the records of nodes are asked for again, and the wait after a failure (ms). */
  renewMs: 24 * 3_600_000,
  renewRetryMs: 60_000,
  /** Users that a node's hints may name at once; more hints are dropped. */
  touched: 1024,
} as const;

type AlarmKind = Extract<ClientEvent, { type: 'logAlarm' }>['kind'];

export interface GuardianParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly logs: Logs;
  readonly contacts: Contacts;
  readonly userId: string;
}

export class Guardian {
  readonly #parts: GuardianParts;
  readonly #monitors = new Map<DomainLog, LogMonitor>();
  /** By domain: when its record could not be had, on the monotonic clock. */
  readonly #notRenewedMs = new Map<string, number>();
  readonly #touched = new Set<string>();
  #looking: Promise<void> | undefined;
  #wake: (() => void) | undefined;

  constructor(parts: GuardianParts) {
    this.#parts = parts;
  }

  /**
   * Verifies the own account in the log of its node, and takes on the owner's duties for it. Nothing
   * of the account is used before. A log that has contradicted itself shows nothing new, but takes no
   * known account off the air: messages among those who know each other go on. Throws what
   * Contacts.resolve throws.
   */
  async begin(caller: Caller): Promise<void> {
    const { logs, store, runtime, userId } = this.#parts;
    const log = await logs.of(parseUserId(userId).domain, caller);
    const isFirst = store.contacts.get(userId) === undefined;
    // An account that was just made may not be in the head that the log answers from.
    const look = (): Promise<true | undefined> => this.#beginNow(log, caller, isFirst);
    try {
      if ((await untilShown(runtime.clock, look)) === undefined)
        await this.#beginNow(log, caller, false);
    } catch (error) {
      if (isFirst || !hasReason(error, 'LOG_CONVICTED')) throw error;
    }
  }

  async #beginNow(log: DomainLog, caller: Caller, isFirst: boolean): Promise<true | undefined> {
    const { contacts, userId } = this.#parts;
    const label = labelOf(userId);
    await log.client.owner.start(log.transport(caller), label);
    try {
      // Judges the versions since the last one that was kept, and says which of them others made.
      await contacts.resolve(userId, caller);
    } catch (error) {
      if (isFirst && hasReason(error, 'UNKNOWN_USER')) return undefined;
      throw error;
    }
    log.client.owner.acknowledge(label, Number.MAX_SAFE_INTEGER);
    return true;
  }

  /** Works over this session until it ends. */
  async watch(session: Session): Promise<void> {
    const { runtime } = this.#parts;
    while (!session.signal.aborted) {
      this.#looking ??= this.#lookAtTouched(session).finally(() => (this.#looking = undefined));
      for (const domain of this.#parts.logs.domains()) {
        if (session.signal.aborted) return;
        await this.#run(domain, session);
      }
      const waitMs = this.#nextMs() - runtime.clock.now();
      const { waitMinMs, waitMaxMs } = guardianLimits;
      await this.#sleep(Math.min(waitMaxMs, Math.max(waitMinMs, waitMs)), session.signal);
    }
    await this.#looking;
  }

  /** A node's hint that a user's keys changed; without a user, the own ones. */
  touch(userId = this.#parts.userId): void {
    if (this.#touched.size < guardianLimits.touched) this.#touched.add(userId);
    this.#wake?.();
  }

  /** Something is wrong with a log: durable, then told, once for each reason. */
  readonly alarm = (
    domain: string,
    kind: AlarmKind,
    { reason, message }: { readonly reason: string; readonly message: string },
  ): void => {
    const { store, runtime, events } = this.#parts;
    const stored = { type: `log ${kind}`, subject: domain, reason: `${reason}: ${message}` };
    if (store.logs.addEvent({ ...stored, atMs: runtime.clock.now() })) {
      events.emit({ type: 'logAlarm', domain, kind, reason, message });
    }
  };
  readonly onLie = (domain: string, error: QpcError): void => {
    this.alarm(domain, error.reason === 'FORK' ? 'fork' : 'lie', error);
  };
  readonly onRefused = (domain: string, error: LogError): void => {
    this.alarm(domain, 'record', error);
  };

  /** Looks up whom a hint named, until the log shows what it was about or does not for a while. */
  async #lookAtTouched(session: Session): Promise<void> {
    const { contacts, store, userId: own, runtime } = this.#parts;
    for (const userId of this.#touched) {
      this.#touched.delete(userId);
      const before = store.contacts.get(userId)?.version;
      // Hints about people that nobody asked for are noise.
      if (before === undefined) continue;
      const look = async (): Promise<true | undefined> => {
        if (userId === own) await this.begin(session);
        else await contacts.resolve(userId, session, session.signal);
        return (store.contacts.get(userId)?.version ?? 0) > before ? true : undefined;
      };
      try {
        await untilShown(runtime.clock, look, session.signal);
      } catch (error) {
        if (session.signal.aborted) return;
        if (!(error instanceof QpcError)) throw error;
        runtime.log.info('look-up after a hint failed', { reason: error.reason });
      }
    }
  }

  async #run(domain: string, session: Session): Promise<void> {
    const { logs, runtime } = this.#parts;
    if (this.#isRenewalDue(domain)) {
      try {
        await logs.renew(domain, session);
        this.#notRenewedMs.delete(domain);
      } catch (error) {
        if (!(error instanceof QpcError)) throw error;
        this.#notRenewedMs.set(domain, runtime.clock.monotonic());
        runtime.log.info('record of a node was not renewed', { domain, reason: error.reason });
      }
    }
    const log = logs.known(domain);
    if (log === undefined) return;
    const monitor = this.#monitorOf(log);
    const { signal } = session;
    for (const event of await monitor.run(log.transport(session), { signal })) {
      await this.#take(log, event, session);
    }
  }

  #isRenewalDue(domain: string): boolean {
    const { logs, runtime } = this.#parts;
    const { renewMs, renewRetryMs } = guardianLimits;
    const failedMs = this.#notRenewedMs.get(domain);
    if (failedMs !== undefined && runtime.clock.monotonic() < failedMs + renewRetryMs) return false;
    // A clock that was ahead when it was asked puts it off no longer either.
    const sinceMs = runtime.clock.now() - logs.askedMs(domain);
    return sinceMs < 0 || sinceMs >= renewMs;
  }

  #monitorOf(log: DomainLog): LogMonitor {
    const known = this.#monitors.get(log);
    if (known !== undefined) return known;
    const monitor = new LogMonitor(log.client);
    this.#monitors.set(log, monitor);
    return monitor;
  }

  async #take(log: DomainLog, event: MonitorEvent, session: Session): Promise<void> {
    const { domain } = log;
    switch (event.type) {
      case 'UnexpectedKey': {
        const { contacts, userId, runtime } = this.#parts;
        try {
          await contacts.resolve(userId, session, session.signal);
        } catch (error) {
          if (!(error instanceof QpcError)) throw error;
          runtime.log.info('own keys are not believed', { reason: error.reason });
          // Told by now. Other failures are tried again: the alarm stays.
          if (!(error instanceof ContactError)) return;
        }
        return log.client.owner.acknowledge(event.label, event.version);
      }
      case 'KeyChange':
        // Only labels that were touched come here, and this class looks them up itself.
        return;
      case 'Unwitnessed': {
        const since = new Date(event.sinceMs).toISOString();
        const message = `no auditor has cosigned its heads since ${since}`;
        return this.alarm(domain, 'unwitnessed', { reason: 'UNWITNESSED', message });
      }
      case 'Stale': {
        const since =
          event.answeredMs === undefined ? 'ever' : new Date(event.answeredMs).toISOString();
        const message = `it has not answered since ${since}`;
        return this.alarm(domain, 'stale', { reason: 'UNANSWERED', message });
      }
      case 'Fork':
        return this.alarm(domain, 'fork', event.error);
      case 'Lie':
        return this.alarm(domain, 'lie', event.error);
      case 'Refused':
        // A log that is only busy or draining answers later.
        if (!hasReason(event.error, 'RATE_LIMITED')) this.alarm(domain, 'refused', event.error);
        return;
      case 'Damaged':
        return this.alarm(domain, 'damaged', event.error);
    }
  }

  #nextMs(): number {
    const { logs } = this.#parts;
    const times = logs.domains().flatMap((domain) => {
      const log = logs.known(domain);
      return log === undefined ? [] : this.#monitorOf(log).next();
    });
    return Math.min(Number.MAX_SAFE_INTEGER, ...times);
  }

  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#touched.size > 0) return;
    const waking = new AbortController();
    this.#wake = () => waking.abort();
    const either = AbortSignal.any([signal, waking.signal]);
    await this.#parts.runtime.clock.sleep(ms, either).catch(() => undefined);
    this.#wake = undefined;
  }
}
