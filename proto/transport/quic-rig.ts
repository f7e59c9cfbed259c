/** The QUIC engine as the transport contract and the QUIC tests take it. */
import type { ContractEngine, MakeEngine } from './contract.ts';
import { dialSession, quicTransport } from './quic.ts';
import { udpRelay } from './udp-relay.ts';

export const quicEngine: MakeEngine = (runtime): ContractEngine => ({
  transport: quicTransport(runtime),
  host: '127.0.0.1',
  dialSession: (endpoint, options) => dialSession(runtime, endpoint, options),
  async cuttablePath(t, endpoint) {
    const relay = await udpRelay(endpoint);
    t.after(() => relay.close());
    return {
      endpoint: relay.endpoint,
      cut: () => void (relay.onDatagram = () => []),
    };
  },
});
