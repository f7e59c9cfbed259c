/** The QUIC engine (RFC 9000, RFC 9001) on @matrixai/quic: ALPN `qpc`, mutual TLS, pinned by SPKI. */
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import type { Transport } from './transport.ts';

export function quicTransport(_runtime: Runtime): Transport {
  const pending = (): never => {
    throw new TransportError('internal', 'quic: follows in the next commit');
  };
  return { name: 'quic', listen: async () => pending(), dial: async () => pending() };
}
