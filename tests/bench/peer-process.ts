/**
 * A process of one job: it gets one input and gives one answer over the child process channel, then
 * lives until it is stopped, so that every number of a bench comes from fresh processes.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';

/** Longer than any single measurement; a peer that says nothing until then hangs (ms). */
const answerMs = 60_000;
const stopMs = 5_000;

/** The answer of a peer that still runs. */
export interface Peer extends AsyncDisposable {
  readonly pid: number;
  readonly answer: unknown;
}

/** Starts `module`, hands it the input; rejects when it fails, ends or says nothing for `waitMs`. */
export async function startPeer(module: URL, input: object, waitMs = answerMs): Promise<Peer> {
  const child = fork(module, {
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const exited = once(child, 'exit');
  const answered = Promise.withResolvers<unknown>();
  const timer = setTimeout(
    () => answered.reject(new Error(`${module.pathname}: no answer in ${waitMs} ms`)),
    waitMs,
  );
  child.once('message', (message: { readonly value?: unknown; readonly error?: string }) => {
    if (message.error === undefined) answered.resolve(message.value);
    else answered.reject(new Error(message.error));
  });
  child.once('error', (error) => answered.reject(error));
  child.once('exit', (code, signal) =>
    answered.reject(new Error(`${module.pathname} ended (${code ?? signal}) without an answer`)),
  );
  const stop = async (): Promise<void> => {
    if (child.connected) child.disconnect();
    const killer = setTimeout(() => child.kill('SIGKILL'), stopMs);
    await exited;
    clearTimeout(killer);
  };
  try {
    child.send(input);
    const answer = await answered.promise;
    return { pid: child.pid ?? 0, answer, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a peer, takes its answer and ends it. */
export async function askPeer(module: URL, input: object, waitMs?: number): Promise<unknown> {
  await using peer = await startPeer(module, input, waitMs);
  return peer.answer;
}

/** The peer's side: answers the one input with what `handle` resolves with, or with its error. */
export function answerParent<I>(handle: (input: I) => Promise<unknown>): void {
  process.once('message', (input: I) => {
    handle(input).then(
      (value) => process.send?.({ value }),
      (error: unknown) =>
        process.send?.({
          error: error instanceof Error ? (error.stack ?? error.message) : String(error),
        }),
    );
  });
  // Stopped, or the parent is gone: nobody needs this process any more.
  process.once('disconnect', () => process.exit(0));
}
