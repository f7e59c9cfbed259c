/** The channel between a process and one that it forked, as a Port of port-rpc.ts. */
import type { Port } from './port-rpc.ts';

/** What a ChildProcess and the forked side's `process` have in common. */
interface Channel {
  readonly connected: boolean;
  send?(message: object, callback: () => void): boolean;
  on(event: 'message', listener: (message: unknown) => void): unknown;
}

export function processPort(channel: Channel): Port {
  return {
    post(messages) {
      // What is said to a process that is going away is lost, as its connections are.
      if (channel.connected) channel.send?.([...messages], () => {});
    },
    onMessages: (listener) => {
      channel.on('message', (messages) => {
        if (Array.isArray(messages)) listener(messages);
      });
    },
  };
}
