/**
 * Calls to hubs at peers: what this node's users ask of the hub of a group (methods 911 and 914, one
 * hop), and what the hubs of one group tell each other (912, 913, 915). Entries, commits and
 * certificates pass unchanged; members verify them. Which user asks is not told.
 */
import { methods } from '@quicprochat/proto';
import type {
  FedHubInstallRequestSchema,
  FedHubInstallResponse,
  FedHubPromiseRequestSchema,
  FedHubPromiseResponse,
  FedHubReplicateRequestSchema,
  FedHubReplicateResponse,
  GroupLogRequestSchema,
  GroupLogResponse,
  GroupTakeoverRequest,
  GroupTakeoverResponse,
  MessageInitShape,
  SubmitCommitRequest,
  SubmitCommitResponse,
} from '@quicprochat/proto/messages';
import type { PeerLink } from './link.ts';
import { answered, askPeer } from './proxy.ts';

export interface HubCall {
  readonly signal?: AbortSignal | undefined;
  /** This node is a hub that does not lead: the other one does not pass it on. */
  readonly fromHub?: boolean;
}

/** Errors are those of PeerProxy; an unanswered submit may have been accepted all the same. */
export class HubProxy {
  readonly #linkOf: (domain: string) => PeerLink;

  constructor(linkOf: (domain: string) => PeerLink) {
    this.#linkOf = linkOf;
  }

  /** A hub is said to be gone: a dead link to it is found out in 2 s, and calls on it end. */
  doubt(domain: string): void {
    this.#linkOf(domain).doubt();
  }

  async submit(
    domain: string,
    submit: SubmitCommitRequest,
    { signal, fromHub = false }: HubCall = {},
  ): Promise<SubmitCommitResponse> {
    const link = this.#linkOf(domain);
    const request = { submit: { ...submit, hub: '' }, fromHub };
    const answer = await askPeer(domain, link, methods.fedHubSubmit, request, signal);
    return answered(answer.submitted, domain);
  }

  async takeover(
    domain: string,
    takeover: GroupTakeoverRequest,
    signal?: AbortSignal,
  ): Promise<GroupTakeoverResponse> {
    const link = this.#linkOf(domain);
    const request = { takeover: { ...takeover, hub: '' } };
    const answer = await askPeer(domain, link, methods.fedHubSubmit, request, signal);
    return answered(answer.takenOver, domain);
  }

  async log(
    domain: string,
    log: MessageInitShape<typeof GroupLogRequestSchema>,
    signal?: AbortSignal,
  ): Promise<GroupLogResponse> {
    const link = this.#linkOf(domain);
    const request = { log: { ...log, hub: '' } };
    const answer = await askPeer(domain, link, methods.fedHubLog, request, signal);
    return answered(answer.found, domain);
  }

  async replicate(
    domain: string,
    request: MessageInitShape<typeof FedHubReplicateRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FedHubReplicateResponse> {
    return askPeer(domain, this.#linkOf(domain), methods.fedHubReplicate, request, signal);
  }

  async promise(
    domain: string,
    request: MessageInitShape<typeof FedHubPromiseRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FedHubPromiseResponse> {
    return askPeer(domain, this.#linkOf(domain), methods.fedHubPromise, request, signal);
  }

  async install(
    domain: string,
    request: MessageInitShape<typeof FedHubInstallRequestSchema>,
    signal?: AbortSignal,
  ): Promise<FedHubInstallResponse> {
    return askPeer(domain, this.#linkOf(domain), methods.fedHubInstall, request, signal);
  }
}
