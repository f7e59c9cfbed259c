/**
 * Look-ups in the key log of a peer on behalf of this node's users (method 916, one hop). KEYTRANS
 * bytes and checkpoints pass unchanged in both directions; whoever asked verifies them.
 */
import { InvalidArgumentError, methods } from '@quicprochat/proto';
import type {
  FedKtRequest,
  FedKtRequestSchema,
  FedKtResponse,
  KtCredentialRequest,
  KtCredentialResponse,
  KtDistinguishedRequest,
  KtDistinguishedResponse,
  KtMonitorRequest,
  KtMonitorResponse,
  KtSearchRequest,
  KtSearchResponse,
  KtTreeHeadRequest,
  KtTreeHeadResponse,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import type { PeerLink } from './link.ts';
import { answered, askPeer, type ProxyOptions } from './proxy.ts';

type Answers = Extract<FedKtResponse['op'], { readonly value: unknown }>;
/** The answer that belongs to a kind of question. */
type Answer<K extends Answers['case']> = Extract<Answers, { readonly case: K }>['value'];

/** The look-ups. Errors are those of PeerProxy. */
export class KtProxy {
  readonly #linkOf: (domain: string) => PeerLink;

  constructor(linkOf: (domain: string) => PeerLink) {
    this.#linkOf = linkOf;
  }

  search(domain: string, value: KtSearchRequest, options: ProxyOptions): Promise<KtSearchResponse> {
    return this.#ask(domain, { case: 'search', value }, 'search', options);
  }

  /** Throws InvalidArgumentError BAD_FIELD for what only an owner asks: of the home node, directly. */
  async monitor(
    domain: string,
    value: KtMonitorRequest,
    options: ProxyOptions,
  ): Promise<KtMonitorResponse> {
    if (value.request.case !== 'contact') throw ownersOnly();
    return this.#ask(domain, { case: 'monitor', value }, 'monitor', options);
  }

  distinguished(
    domain: string,
    value: KtDistinguishedRequest,
    options: ProxyOptions,
  ): Promise<KtDistinguishedResponse> {
    return this.#ask(domain, { case: 'distinguished', value }, 'distinguished', options);
  }

  /** Throws InvalidArgumentError BAD_FIELD for what only an owner asks. */
  async credential(
    domain: string,
    value: KtCredentialRequest,
    options: ProxyOptions,
  ): Promise<KtCredentialResponse> {
    if (value.request.case !== 'settle') throw ownersOnly();
    return this.#ask(domain, { case: 'credential', value }, 'credential', options);
  }

  treeHead(
    domain: string,
    value: KtTreeHeadRequest,
    options: ProxyOptions,
  ): Promise<KtTreeHeadResponse> {
    return this.#ask(domain, { case: 'treeHead', value }, 'treeHead', options);
  }

  async #ask<K extends Answers['case']>(
    domain: string,
    op: FedKtRequest['op'],
    kind: K,
    { requester, signal }: ProxyOptions,
  ): Promise<Answer<K>> {
    const request: MessageInitShape<typeof FedKtRequestSchema> = { requester, op };
    const response = await askPeer(domain, this.#linkOf(domain), methods.fedKt, request, signal);
    const isAnswer = response.op.case === kind;
    // `kind` chose the member of the union, which the compiler cannot follow through a generic.
    return answered(isAnswer ? (response.op.value as Answer<K>) : undefined, domain);
  }
}

function ownersOnly(): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', 'request: for an own label, of the home node only');
}
