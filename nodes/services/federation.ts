/**
 * Handlers of the node-to-node methods that are not look-ups: FedHello, the relay stream, and what
 * is not worth a stream. Blobs are not built yet: 917 says so.
 */
import { FailedPreconditionError, type Handlers } from '@quicprochat/proto';
import { limitKey } from '@quicprochat/proto/transport';
import type { Federation } from '@quicprochat/federation';
import type { TypingOfPeer } from '../peer-typing.ts';
import type { Sessions } from '../sessions.ts';
import { peerOf } from './caller.ts';

export interface FederationParts {
  readonly federation: Federation;
  readonly sessions: Sessions;
  readonly onTyping: TypingOfPeer;
}

export function federationHandlers(
  parts: FederationParts,
): Pick<Handlers, 'fedHello' | 'fedRelay' | 'fedRelayBatch' | 'fedEphemeral' | 'fedBlob'> {
  const relay: Handlers['fedRelay'] & Handlers['fedRelayBatch'] = (request, context) =>
    parts.federation.relay(peerOf(context), request);
  return {
    async fedHello(request, { connection, caller }) {
      const { spkiSha256 } = connection.peer;
      const isRepeated = caller.class === 'peer' && caller.domain === request.domain;
      const from = { isRepeated, address: limitKey(connection.peer.host) };
      const response = await parts.federation.acceptHello(spkiSha256, request, from);
      parts.sessions.bindPeer(connection, request.domain);
      return response;
    },
    fedRelay: relay,
    fedRelayBatch: relay,
    async fedEphemeral({ items }, context) {
      parts.onTyping(peerOf(context), items);
      return {};
    },
    async fedBlob() {
      throw new FailedPreconditionError('FEATURE_OFF', 'this node keeps no blobs');
    },
  };
}
