/**
 * Look-ups at a peer on behalf of this node's users (methods 902-904), over the link to it. The
 * answer's bytes travel unchanged; whoever asked verifies them. A peer in back-off gets one dial.
 */
import {
  methods,
  QpcError,
  Status,
  TransportError,
  UnavailableError,
  type Method,
} from '@quicprochat/proto';
import type {
  FetchHybridKeyRequestSchema,
  FetchHybridKeyResponse,
  FetchKeyPackageRequestSchema,
  FetchKeyPackageResponse,
  MessageInitShape,
  MessageShape,
  ResolveUserRequestSchema,
  ResolveUserResponse,
} from '@quicprochat/proto/messages';
import type { PeerLink } from './link.ts';

export const proxyLimits = {
  /** Time for the peer's answer once the link is up (ms). */
  callMs: 10_000,
} as const;

/** Who asks and until when. */
export interface ProxyOptions {
  /** This node's pseudonym of its user, for the peer's limits (16 bytes). */
  readonly requester: Uint8Array;
  readonly signal?: AbortSignal;
}

/**
 * The look-ups. Each throws the peer's own typed error; PermissionDeniedError PEER_DENIED for a
 * domain that is no peer; UnavailableError PEER_UNREACHABLE when the peer does not answer: within
 * 5 s without a link, within 10 s with one.
 */
export class PeerProxy {
  readonly #linkOf: (domain: string) => PeerLink;

  constructor(linkOf: (domain: string) => PeerLink) {
    this.#linkOf = linkOf;
  }

  async resolveUser(
    domain: string,
    resolve: MessageInitShape<typeof ResolveUserRequestSchema>,
    { requester, signal }: ProxyOptions,
  ): Promise<ResolveUserResponse> {
    const request = { resolve, requester };
    const { resolved } = await this.#ask(domain, methods.proxyResolveUser, request, signal);
    return answered(resolved, domain);
  }

  async fetchKeyPackage(
    domain: string,
    fetch: MessageInitShape<typeof FetchKeyPackageRequestSchema>,
    { requester, signal }: ProxyOptions,
  ): Promise<FetchKeyPackageResponse> {
    const request = { fetch, requester };
    const { fetched } = await this.#ask(domain, methods.proxyFetchKeyPackage, request, signal);
    return answered(fetched, domain);
  }

  async fetchHybridKey(
    domain: string,
    fetch: MessageInitShape<typeof FetchHybridKeyRequestSchema>,
    { requester, signal }: ProxyOptions,
  ): Promise<FetchHybridKeyResponse> {
    const request = { fetch, requester };
    const { fetched } = await this.#ask(domain, methods.proxyFetchHybridKey, request, signal);
    return answered(fetched, domain);
  }

  #ask<I extends Method['request'], O extends Method['response']>(
    domain: string,
    method: Method<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal | undefined,
  ): Promise<MessageShape<O>> {
    return askPeer(domain, this.#linkOf(domain), method, request, signal);
  }
}

/** One look-up over the link to a peer. Throws as PeerProxy does. */
export async function askPeer<I extends Method['request'], O extends Method['response']>(
  domain: string,
  link: PeerLink,
  method: Method<I, O>,
  request: MessageInitShape<I>,
  signal: AbortSignal | undefined,
): Promise<MessageShape<O>> {
  const session = await link.session(signal);
  try {
    return await session.call(method, request, {
      deadlineMs: proxyLimits.callMs,
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    // No answer: is the link dead, or only this call? The probe finds out.
    if (error instanceof TransportError && error.failure === 'timeout') link.wake();
    // The peer's Internal is its own matter and its log's; to our user it did not answer.
    if (!(error instanceof TransportError) && error.status !== Status.Internal) throw error;
    throw unreachable(domain, error);
  }
}

/** Throws UnavailableError PEER_UNREACHABLE for an answer without content. */
export function answered<T>(answer: T | undefined, domain: string): T {
  if (answer === undefined) throw unreachable(domain, undefined);
  return answer;
}

function unreachable(domain: string, cause: unknown): UnavailableError {
  return new UnavailableError('PEER_UNREACHABLE', `${domain} did not answer`, { cause });
}
