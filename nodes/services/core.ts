/** Handlers of the core methods: Hello, the node's signed record, health. */
import {
  batchCapability,
  lanesCapability,
  FailedPreconditionError,
  PermissionDeniedError,
  UnavailableError,
  maxControlBytes,
  maxFetchRows,
  defaultMaxPayloadBytes,
  type Clock,
  type Handlers,
} from '@quicprochat/proto';
import type { SignedNodeRecord } from '@quicprochat/proto/messages';
import { defaultLimits } from '@quicprochat/proto/transport';
import { pushWindow } from '../push.ts';

/** The protocol version that this code speaks; two would be supported during a step. */
export const protocolVersion = 1;
export const capabilities: readonly string[] = ['push', batchCapability, lanesCapability];

/** What Health says; `diskRed`: the operator should look, `diskFull`: nothing new is taken. */
export type NodeHealth = 'ready' | 'draining' | 'diskRed' | 'diskFull';

export interface CoreParts {
  readonly domain: string;
  readonly software: string;
  readonly clock: Clock;
  /** The newest one: it is brought up to date after the start. */
  readonly nodeRecord: () => SignedNodeRecord;
  /** Proven records of peers. */
  readonly peers: {
    knows(domain: string): boolean;
    record(domain: string): SignedNodeRecord | undefined;
  };
  readonly health: () => NodeHealth;
}

export function coreHandlers(
  parts: CoreParts,
): Pick<Handlers, 'hello' | 'getNodeRecord' | 'health'> {
  const startMs = parts.clock.monotonic();
  return {
    async hello(request, { caller }) {
      if (request.versionMin > protocolVersion || request.versionMax < protocolVersion) {
        throw new FailedPreconditionError(
          'VERSION',
          `this node speaks version ${protocolVersion}, the caller ${request.versionMin}-${request.versionMax}`,
        );
      }
      return {
        version: protocolVersion,
        capabilities: [...capabilities],
        domain: parts.domain,
        serverTimeMs: BigInt(parts.clock.now()),
        limits: {
          maxPayloadBytes: defaultMaxPayloadBytes,
          maxCallsInFlight: defaultLimits.callsInFlight,
          maxMessageBytes: maxControlBytes,
          maxFetchRows,
          maxPushWindowRows: pushWindow.rows,
        },
        callerClass: caller.class,
        ...(caller.class === 'device'
          ? { userId: caller.userId, sessionExpiresMs: BigInt(caller.sessionExpiresMs) }
          : {}),
        ...(caller.class === 'enrolling' ? { userId: caller.userId } : {}),
      };
    },
    async getNodeRecord({ domain }) {
      if (domain === '' || domain === parts.domain) return { record: parts.nodeRecord() };
      if (!parts.peers.knows(domain)) {
        throw new PermissionDeniedError('PEER_DENIED', `${domain} is no peer of this node`);
      }
      const record = parts.peers.record(domain);
      if (record === undefined) {
        throw new UnavailableError('PEER_UNREACHABLE', `${domain} has not shown its record yet`);
      }
      return { record };
    },
    async health() {
      return {
        status: parts.health(),
        uptimeMs: BigInt(Math.round(parts.clock.monotonic() - startMs)),
        software: parts.software,
      };
    },
  };
}
