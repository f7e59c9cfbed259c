/** A relay as others reach it over a wire that can be made to swallow every byte, without a word. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { startRelay, type Relay } from './devices.ts';

export interface DroppingRelay extends AsyncDisposable {
  readonly relay: Relay;
  /** Of the wire in front of it. */
  readonly address: string;
  /** From now on bytes are read and lost, in both directions; connections stay. */
  swallow(isSwallowing: boolean): void;
}

export async function startDroppingRelay(): Promise<DroppingRelay> {
  const relay = await startRelay();
  let isSwallowing = false;
  const sockets = new Set<Socket>();
  const pass = (from: Socket, to: Socket): void => {
    sockets.add(from);
    from.on('data', (chunk) => {
      if (!isSwallowing) to.write(chunk);
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
  };
  const server = createServer((socket) => {
    const inner = connect(relay.port, '127.0.0.1');
    pass(socket, inner);
    pass(inner, socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    relay,
    address: `/ip4/127.0.0.1/tcp/${port}/p2p/${relay.key.peerId}`,
    swallow: (is) => void (isSwallowing = is),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await relay[Symbol.asyncDispose]();
    },
  };
}
