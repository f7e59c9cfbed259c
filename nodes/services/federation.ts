/**
 * Handlers of the node-to-node methods that are not look-ups: FedHello, the relay stream, and what
 * is not worth a stream. Blobs are not built yet: 917 says so.
 */
import { FailedPreconditionError, type Handlers } from '@quicprochat/proto';
import type { Federation } from '@quicprochat/federation';
import type { Sessions } from '../sessions.ts';
import { peerOf } from './caller.ts';

export interface FederationParts {
  readonly federation: Federation;
  readonly sessions: Sessions;
  /** A peer has typing for a device, which may be another node's or nobody's. Never throws. */
  readonly onEphemeral: (rid: Uint8Array, payload: Uint8Array) => void;
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
      const response = await parts.federation.acceptHello(spkiSha256, request, isRepeated);
      parts.sessions.bindPeer(connection, request.domain);
      return response;
    },
    fedRelay: relay,
    fedRelayBatch: relay,
    async fedEphemeral({ items }) {
      for (const { rids, payload } of items) {
        for (const rid of rids) parts.onEphemeral(rid, payload);
      }
      return {};
    },
    async fedBlob() {
      throw new FailedPreconditionError('FEATURE_OFF', 'this node keeps no blobs');
    },
  };
}
