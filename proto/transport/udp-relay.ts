/**
 * A UDP relay for tests: passes datagrams between one listener and its dialers, lets a test change
 * or drop them, and knows both sides' addresses. Loopback only.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Endpoint } from './transport.ts';

export interface UdpRelay {
  readonly endpoint: Endpoint;
  /** Runs for each datagram; what it returns is sent on. Default: the datagram alone. */
  onDatagram: (datagram: Buffer, towards: 'listener' | 'dialer') => readonly Uint8Array[];
  /** Sends a datagram of the test's own on every path, as if it came from the other side. */
  inject(datagram: Uint8Array, towards: 'listener' | 'dialer'): void;
  close(): void;
}

export async function udpRelay(listener: Endpoint): Promise<UdpRelay> {
  const front = createSocket('udp4');
  front.bind(0, '127.0.0.1');
  await once(front, 'listening');
  /** One socket towards the listener per dialer, so that the listener tells them apart. */
  const backs = new Map<number, Socket>();
  const relay: UdpRelay = {
    endpoint: { host: '127.0.0.1', port: front.address().port },
    onDatagram: (datagram) => [datagram],
    inject(datagram, towards) {
      for (const [port, back] of backs) {
        if (towards === 'dialer') front.send(datagram, port, '127.0.0.1');
        else back.send(datagram, listener.port, '127.0.0.1');
      }
    },
    close() {
      front.close();
      for (const back of backs.values()) back.close();
    },
  };
  front.on('message', (datagram, from) => {
    let back = backs.get(from.port);
    if (!back) {
      back = createSocket('udp4');
      backs.set(from.port, back);
      back.on('message', (answer) => {
        for (const bytes of relay.onDatagram(answer, 'dialer'))
          front.send(bytes, from.port, from.address);
      });
    }
    for (const bytes of relay.onDatagram(datagram, 'listener')) {
      back.send(bytes, listener.port, '127.0.0.1');
    }
  });
  return relay;
}
