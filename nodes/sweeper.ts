/** Work that a node does again and again while it runs. */
import type { Runtime, Timer } from '@quicprochat/proto';

/** Removes what is past its time, again and again; an error is logged and the next turn tries again. */
export function startSweeper(
  { clock, log }: Runtime,
  everyMs: number,
  sweep: () => Promise<void>,
): { stop(): Promise<void> } {
  let timer: Timer;
  let running = Promise.resolve();
  let isStopped = false;
  const turn = (): void => {
    running = sweep()
      .catch((error: unknown) => log.error('sweep failed', { error: String(error) }))
      .finally(() => {
        if (!isStopped) timer = clock.timer(everyMs, turn);
      });
  };
  timer = clock.timer(everyMs, turn);
  return {
    async stop() {
      isStopped = true;
      timer.cancel();
      await running;
    },
  };
}
