/** Test support: a TCP relay in front of a listener, which a test can cut without closing anything. */
import { connect, createServer, type Socket } from 'node:net';
import type { Endpoint } from './transport.ts';

export interface TcpRelay {
  readonly endpoint: Endpoint;
  /** From now on bytes vanish in both directions. */
  cut(): void;
  close(): Promise<void>;
}

export async function tcpRelay(target: Endpoint): Promise<TcpRelay> {
  const sockets = new Set<Socket>();
  let isCut = false;
  const server = createServer((near) => {
    const far = connect(target.port, target.host);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on('data', (chunk) => {
        if (!isCut) to.write(chunk);
      });
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        if (!isCut) to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
  return {
    endpoint: { host: '127.0.0.1', port },
    cut: () => void (isCut = true),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
