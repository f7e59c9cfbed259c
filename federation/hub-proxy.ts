/**
 * Calls to the hub of a group on behalf of this node's users (methods 911 and 914, one hop). Entries,
 * commits and certificates pass unchanged; members verify them. Who asks is not told.
 */
import { methods } from '@quicprochat/proto';
import type {
  GroupLogRequest,
  GroupLogResponse,
  SubmitCommitRequest,
  SubmitCommitResponse,
} from '@quicprochat/proto/messages';
import type { PeerLink } from './link.ts';
import { answered, askPeer } from './proxy.ts';

/** Errors are those of PeerProxy; an unanswered submit may have been accepted all the same. */
export class HubProxy {
  readonly #linkOf: (domain: string) => PeerLink;

  constructor(linkOf: (domain: string) => PeerLink) {
    this.#linkOf = linkOf;
  }

  async submit(
    domain: string,
    submit: SubmitCommitRequest,
    signal?: AbortSignal,
  ): Promise<SubmitCommitResponse> {
    const link = this.#linkOf(domain);
    const request = { submit: { ...submit, hub: '' } };
    const answer = await askPeer(domain, link, methods.fedHubSubmit, request, signal);
    return answered(answer.submitted, domain);
  }

  async log(domain: string, log: GroupLogRequest, signal?: AbortSignal): Promise<GroupLogResponse> {
    const link = this.#linkOf(domain);
    const request = { log: { ...log, hub: '' } };
    const answer = await askPeer(domain, link, methods.fedHubLog, request, signal);
    return answered(answer.found, domain);
  }
}
