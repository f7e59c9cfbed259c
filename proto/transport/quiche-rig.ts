/** The QUIC engine on native quiche as the transport contract and its own tests take it. */
import type { ContractEngine, MakeEngine } from './contract.ts';
import { quicheTransport } from './quiche.ts';
import { udpRelay } from './udp-relay.ts';

export const quicheEngine: MakeEngine = (runtime): ContractEngine => {
  const transport = quicheTransport(runtime);
  return {
    transport,
    host: '127.0.0.1',
    dialSession: (endpoint, options) => transport.dialSession(endpoint, options),
    async cuttablePath(t, endpoint) {
      const relay = await udpRelay(endpoint);
      t.after(() => relay.close());
      return {
        endpoint: relay.endpoint,
        cut: () => void (relay.onDatagram = () => []),
      };
    },
  };
};
