/** The channel between a process and one that it forked, as a Port of port-rpc.ts. */
import type { ChildProcess } from 'node:child_process';
import type { Port } from './port-rpc.ts';

/** Messages that the system has not taken yet, of one turn each, from which on a side is behind. */
const behindAfter = 64;

/** What a ChildProcess and the forked side's `process` have in common. */
interface Channel {
  readonly connected: boolean;
  send?(message: object, callback: () => void): boolean;
  on(event: 'message', listener: (message: unknown) => void): unknown;
}

export interface ProcessPort extends Port {
  /** The other side reads more slowly than this one writes: what can be left out, should be. */
  readonly isBehind: boolean;
}

export function processPort(channel: Channel): ProcessPort {
  let waiting = 0;
  return {
    get isBehind() {
      return waiting > behindAfter;
    },
    post(messages) {
      // What is said to a process that is going away is lost, as its connections are.
      if (!channel.connected || !channel.send) return;
      waiting += 1;
      channel.send([...messages], () => (waiting -= 1));
    },
    onMessages: (listener) => {
      channel.on('message', (messages) => {
        if (Array.isArray(messages)) listener(messages);
      });
    },
  };
}

/**
 * Calls back once, when the process is gone or never was: a fork that failed (no memory, no process
 * left) has an `error` and no `exit`.
 */
export function onGone(
  child: ChildProcess,
  callback: (code: number | null, signal: NodeJS.Signals | null) => void,
): void {
  child.once('exit', callback);
  child.once('error', () => {
    if (child.pid === undefined) callback(null, null);
  });
}
