/** Handlers of the node-to-node methods that are not look-ups: FedHello and the relay stream. */
import type { Handlers } from '@quicprochat/proto';
import type { Federation } from '@quicprochat/federation';
import type { Sessions } from '../sessions.ts';
import { peerOf } from './caller.ts';

export interface FederationParts {
  readonly federation: Federation;
  readonly sessions: Sessions;
}

export function federationHandlers(
  parts: FederationParts,
): Pick<Handlers, 'fedHello' | 'fedRelay' | 'fedRelayBatch'> {
  const relay: Handlers['fedRelay'] & Handlers['fedRelayBatch'] = (request, context) =>
    parts.federation.relay(peerOf(context), request);
  return {
    async fedHello(request, { connection }) {
      const response = await parts.federation.acceptHello(connection.peer.spkiSha256, request);
      parts.sessions.bindPeer(connection, request.domain);
      return response;
    },
    fedRelay: relay,
    fedRelayBatch: relay,
  };
}
