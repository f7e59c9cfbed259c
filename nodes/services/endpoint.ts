/** Handler of method 800: which swarm a device of this node has, for the node's relay. */
import { FailedPreconditionError, type Handlers } from '@quicprochat/proto';
import type { Reservers } from '../swarm/reservers.ts';
import { deviceOf } from './caller.ts';

export interface EndpointParts {
  /** Undefined where the node has no swarm. */
  readonly swarm: { readonly reservers: Reservers; readonly relays: readonly string[] } | undefined;
}

export function endpointHandlers({ swarm }: EndpointParts): Pick<Handlers, 'publishEndpoint'> {
  return {
    async publishEndpoint({ endpoint }, context) {
      const { identityPub } = deviceOf(context);
      if (swarm === undefined) {
        throw new FailedPreconditionError('FEATURE_OFF', 'this node has no swarm');
      }
      swarm.reservers.publish(endpoint, {
        device: identityPub,
        transportKey: context.connection.peer.spkiSha256,
      });
      return { relays: [...swarm.relays] };
    },
  };
}
