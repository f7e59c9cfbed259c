/**
 * Watches the start of a node: writes each step down as it begins, says again what is waited for, and
 * gives up on a step that does not end. A start that hangs without a word tells nobody where.
 */
import type { Clock, Log, Timer } from '@quicprochat/proto';

/** What a start waits for, in this order. */
export type StartStep =
  | 'database'
  | 'secrets'
  | 'key log'
  | 'password library'
  | 'listener'
  | 'http door'
  | 'swarm'
  | 'peers'
  | 'hubs';

/** Between two words about a step that still runs (ms). */
const wordMs = 10_000;
/** Words after which a step is given up: ten minutes. */
const words = 60;
/** Work that grows with the database, as its migrations: six hours. */
const longWords = 2_160;
const longSteps: ReadonlySet<StartStep> = new Set<StartStep>(['database', 'key log']);

interface StartRuntime {
  readonly clock: Pick<Clock, 'timer'>;
  readonly log: Log;
}

export class StartWatch implements Disposable {
  readonly #runtime: StartRuntime;
  readonly #giveUp: (step: StartStep) => void;
  #timer: Timer | undefined;

  /** `giveUp` is called once at most, and has to end the process. */
  constructor(runtime: StartRuntime, giveUp: (step: StartStep) => void) {
    this.#runtime = runtime;
    this.#giveUp = giveUp;
  }

  /** The step before is over, this one begins. */
  begin(step: StartStep): void {
    this.#timer?.cancel();
    this.#runtime.log.info('starting', { step });
    this.#wait(step, 1);
  }

  // Words are counted, not time: a process that was stopped for a day must not give up for it.
  #wait(step: StartStep, word: number): void {
    const { clock, log } = this.#runtime;
    this.#timer = clock.timer(wordMs, () => {
      const fields = { step, waitedSeconds: (word * wordMs) / 1_000 };
      if (word === (longSteps.has(step) ? longWords : words)) {
        log.error('start given up', fields);
        this.#giveUp(step);
        return;
      }
      log.warn('starting takes long', fields);
      this.#wait(step, word + 1);
    });
  }

  /** The start is over. Idempotent. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
  }
}
