/**
 * Handlers of methods 800 and 801: which swarm a device has, for the node's relay, also one of a peer's
 * user; and where a device of this node is, for who has a delivery token of it.
 */
import {
  checkManifest,
  FailedPreconditionError,
  InvalidArgumentError,
  manifestOfValue,
  NotFoundError,
  PermissionDeniedError,
  sameBytes,
  type CallContext,
  type Handlers,
} from '@quicprochat/proto';
import type { PublishEndpointRequest } from '@quicprochat/proto/messages';
import type { PeerAudits } from '../peer-audits.ts';
import type { NodeStore } from '../store/store.ts';
import type { Reservers } from '../swarm/reservers.ts';

/** Peers that a device is told of. */
const peersToldMax = 64;

export interface EndpointParts {
  /** Undefined where the node has no swarm. */
  readonly swarm:
    | {
        readonly reservers: Reservers;
        readonly relays: readonly string[];
        /** Domains of peers that have a swarm. */
        readonly peers: () => readonly string[];
      }
    | undefined;
  readonly store: Pick<NodeStore, 'opensInbox'>;
  readonly audits: Pick<PeerAudits, 'openCredential'>;
}

export function endpointHandlers({
  swarm,
  store,
  audits,
}: EndpointParts): Pick<Handlers, 'publishEndpoint' | 'resolveEndpoint'> {
  function needSwarm(): NonNullable<EndpointParts['swarm']> {
    if (swarm !== undefined) return swarm;
    throw new FailedPreconditionError('FEATURE_OFF', 'this node has no swarm');
  }

  /** A device of a peer's user. Throws what keeps it from being one. */
  async function publishGuest(request: PublishEndpointRequest, reservers: Reservers) {
    const { endpoint, credential } = request;
    const { label, value } = await audits.openCredential(credential);
    const userId = new TextDecoder().decode(label);
    const { devices, closed } = checkManifest(manifestOfValue(value), userId);
    const device = reservers.deviceOf(endpoint);
    const isOfUser = devices.some(({ identityPub }) => sameBytes(identityPub, device));
    if (closed || !isOfUser) {
      throw new PermissionDeniedError('BLOCKED', 'credential: the device is not in its manifest');
    }
    reservers.publishGuest(endpoint, device, userId);
  }

  return {
    async publishEndpoint(request: PublishEndpointRequest, context: CallContext) {
      const { reservers, relays, peers } = needSwarm();
      const { caller, connection } = context;
      if (caller.class === 'device') {
        const { identityPub: device } = caller;
        const transportKey = connection.peer.spkiSha256;
        const { endpoint, isShared } = request;
        reservers.publish(endpoint, { device, transportKey, isShared });
        return { relays: [...relays], peers: peers().slice(0, peersToldMax) };
      } else {
        if (request.credential.length === 0) {
          throw new InvalidArgumentError('BAD_FIELD', 'credential: needed of a guest');
        }
        await publishGuest(request, reservers);
      }
      return { relays: [...relays] };
    },

    async resolveEndpoint({ rid, token }) {
      const { reservers } = needSwarm();
      // Who has no token learns nothing, not even whether there is such a device.
      if (!(await store.opensInbox(rid, token))) {
        throw new PermissionDeniedError('BLOCKED', 'token: opens no inbox of this device here');
      }
      const endpoint = await reservers.shared(rid);
      if (endpoint === undefined) {
        throw new NotFoundError('UNKNOWN_DEVICE', 'rid: has told no endpoint that is shared');
      }
      return { endpoint };
    },
  };
}
