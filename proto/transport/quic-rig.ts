/** Both QUIC engines as the transport contract and the QUIC tests take them. */
import type { Runtime } from '../runtime.ts';
import type { ContractEngine, MakeEngine } from './contract.ts';
import { dialSession, quicTransport } from './quic.ts';
import { quicheTransport } from './quiche.ts';
import { forkedQuicheTransport } from './quiche-processes.ts';
import type { Transport } from './transport.ts';
import { udpRelay } from './udp-relay.ts';

/** An engine on loopback, with a path that a test can cut. */
function engineOf(transport: Transport, dial: ContractEngine['dialSession']): ContractEngine {
  return {
    transport,
    host: '127.0.0.1',
    dialSession: dial,
    async cuttablePath(t, endpoint) {
      const relay = await udpRelay(endpoint);
      t.after(() => relay.close());
      return {
        endpoint: relay.endpoint,
        cut: () => void (relay.onDatagram = () => []),
      };
    },
  };
}

/** The stock glue. */
export const quicEngine: MakeEngine = (runtime: Runtime) =>
  engineOf(quicTransport(runtime), (endpoint, options) => dialSession(runtime, endpoint, options));

/** Our glue on native quiche. */
export const quicheEngine: MakeEngine = (runtime: Runtime) => {
  const transport = quicheTransport(runtime);
  return engineOf(transport, (endpoint, options) => transport.dialSession(endpoint, options));
};

/** The same with its listener on two processes. */
export const forkedEngine: MakeEngine = (runtime: Runtime) => {
  const transport = forkedQuicheTransport(runtime, 2);
  return engineOf(transport, (endpoint, options) => transport.dialSession(endpoint, options));
};

/** What is asked of QUIC is asked of both. */
export const quicEngines = { stock: quicEngine, quiche: quicheEngine } as const;
export type QuicEngineName = keyof typeof quicEngines;
export const quicEngineNames: readonly QuicEngineName[] = ['stock', 'quiche'];
