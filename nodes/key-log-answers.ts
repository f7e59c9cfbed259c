/**
 * Answers of the node's own log to the look-ups of wire methods 520 and 530-535 (and 916, where a
 * peer asks for its user). KEYTRANS bytes in and out; here is who may ask about which label
 * (docs/protocol/key-transparency.md).
 */
import {
  decode,
  KtService,
  searchRequest,
  updateRequest,
  contactMonitorRequest,
  ownerInitRequest,
  ownerMonitorRequest,
  VerificationError,
  type KtServed,
  type Structure,
  type UpdateRequest,
} from '@quicprochat/kt-log';
import {
  defaultMaxPayloadBytes,
  InvalidArgumentError,
  maxAuditEntries,
  NotFoundError,
  PermissionDeniedError,
} from '@quicprochat/proto';
import type {
  AuditKeyTransparencyResponseSchema,
  KtAnswerSchema,
  KtCredentialRequest,
  KtCredentialResponseSchema,
  KtDistinguishedRequest,
  KtDistinguishedResponseSchema,
  KtMonitorRequest,
  KtMonitorResponseSchema,
  KtSearchRequest,
  KtSearchResponseSchema,
  KtTreeHeadRequest,
  KtTreeHeadResponseSchema,
  MessageInitShape,
} from '@quicprochat/proto/messages';
import { userLabel } from './key-log.ts';
import type { KeyLog } from './key-log.ts';
import type { AccountEffect } from './store/account-store.ts';
import type { NodeStore } from './store/store.ts';

/** What an answer about entries may take of a response; the rest is its frame (bytes). */
const auditBytesMax = defaultMaxPayloadBytes - 16 * 1024;
const sizeMax = BigInt(Number.MAX_SAFE_INTEGER);
const latin1 = new TextDecoder('latin1');

type Answer = MessageInitShape<typeof KtAnswerSchema>;

export interface KeyLogAnswersOptions {
  readonly domain: string;
  readonly keyLog: KeyLog;
  readonly store: Pick<NodeStore, 'keyLog'>;
}

/**
 * Every method throws InvalidArgumentError BAD_FIELD for bytes that are no such request and for a
 * label of another domain, and what the KtService method behind it throws.
 */
export class KeyLogAnswers implements Disposable {
  readonly #options: KeyLogAnswersOptions;
  readonly #service: KtService;

  constructor(options: KeyLogAnswersOptions) {
    this.#options = options;
    this.#service = new KtService(options.keyLog.log);
  }

  /** 530. NotFoundError UNKNOWN_USER for an unknown label, unless its absence is wanted proved. */
  async search({
    request,
    wantAbsence,
  }: KtSearchRequest): Promise<MessageInitShape<typeof KtSearchResponseSchema>> {
    this.#needOwn(labelIn(searchRequest, request));
    try {
      return { answer: { case: 'found', value: wire(await this.#service.search(request)) } };
    } catch (error) {
      if (!wantAbsence || !(error instanceof NotFoundError)) throw error;
      return { answer: { case: 'absent', value: await this.#absence(request, error) } };
    }
  }

  async #absence(request: Uint8Array, unknown: NotFoundError): Promise<Answer> {
    try {
      return wire(await this.#service.absence(request));
    } catch (error) {
      // The label is there, only the version is not, which no absence proves.
      throw error instanceof InvalidArgumentError ? unknown : error;
    }
  }

  /** The same for 500 and 511, where `userId` says which label it has to be. */
  async searchFor(userId: string, request: Uint8Array): Promise<Answer> {
    needLabel(labelIn(searchRequest, request), userId);
    return wire(await this.#service.search(request));
  }

  /** What a 531 asks for; its label has to be the owner's. */
  updateRequest(bytes: Uint8Array, owner: string): UpdateRequest {
    const request = read(updateRequest, bytes);
    needLabel(request.label, owner);
    return request;
  }

  /** 531, with what the store has to write along. */
  async update(bytes: Uint8Array, effects: readonly AccountEffect[] = []): Promise<Answer> {
    return wire(await this.#service.update(bytes, { effects }));
  }

  /** 532. Owner operations only for `owner`'s own label; without one they are refused. */
  async monitor(
    { request }: KtMonitorRequest,
    owner?: string,
  ): Promise<MessageInitShape<typeof KtMonitorResponseSchema>> {
    switch (request.case) {
      case undefined:
        throw new InvalidArgumentError('BAD_FIELD', 'request: is missing');
      case 'contact':
        this.#needOwn(labelIn(contactMonitorRequest, request.value));
        return { answer: wire(await this.#service.contactMonitor(request.value)) };
      case 'ownerInit':
        needLabel(labelIn(ownerInitRequest, request.value), needOwner(owner));
        return { answer: wire(await this.#service.ownerInit(request.value)) };
      case 'ownerMonitor':
        needLabel(labelIn(ownerMonitorRequest, request.value), needOwner(owner));
        return { answer: wire(await this.#service.ownerMonitor(request.value)) };
    }
  }

  /** 533. */
  async distinguished({
    request,
  }: KtDistinguishedRequest): Promise<MessageInitShape<typeof KtDistinguishedResponseSchema>> {
    return { answer: wire(await this.#service.distinguished(request)) };
  }

  /** 534. Throws InvalidArgumentError BAD_FIELD for a size above the log's. */
  async treeHead(
    request: Pick<KtTreeHeadRequest, 'size'>,
  ): Promise<MessageInitShape<typeof KtTreeHeadResponseSchema>> {
    const { log } = this.#options.keyLog;
    const size = Number(request.size) || log.size;
    const head = size > log.size ? undefined : await this.#options.store.keyLog.head(size);
    if (head === undefined) {
      throw new InvalidArgumentError('BAD_FIELD', `size: ${size}, the log has ${log.size} entries`);
    }
    const { root, signature } = head;
    return {
      head: { size: BigInt(size), root, signature },
      checkpoint: Buffer.from(await log.checkpoint(size)),
    };
  }

  /** 535. An own credential only for `owner`'s label; without one it is refused. */
  async credential(
    { request }: KtCredentialRequest,
    owner?: string,
  ): Promise<MessageInitShape<typeof KtCredentialResponseSchema>> {
    switch (request.case) {
      case undefined:
        throw new InvalidArgumentError('BAD_FIELD', 'request: is missing');
      case 'own': {
        const made = await this.#service.credential(userLabel(needOwner(owner)));
        const { response: credential, checkpoint, entry, inclusion } = made;
        return { credential, checkpoint, entry, inclusion: [...inclusion] };
      }
      case 'settle': {
        const { label, last, entry } = request.value;
        this.#needOwn(label);
        if (last > sizeMax) throw new InvalidArgumentError('BAD_FIELD', 'last: above 2^53 - 1');
        const made = await this.#service.credentialUpdate(label, Number(last), entry);
        return { credential: made.response, checkpoint: made.checkpoint };
      }
    }
  }

  /** 520: fewer entries than asked for when they would not fit in the response; none past the end. */
  async audit(request: {
    readonly from: bigint;
    readonly max: number;
  }): Promise<MessageInitShape<typeof AuditKeyTransparencyResponseSchema>> {
    const { size } = this.#options.keyLog.log;
    const from = Number(request.from);
    if (from >= size) return { size: BigInt(size) };
    const max = request.max === 0 ? maxAuditEntries : request.max;
    const bundle = await this.#service.auditBundle(from, max, auditBytesMax);
    return { bundle, size: BigInt(size) };
  }

  /** The log's labels are its users and its own, all of one domain. */
  #needOwn(label: Uint8Array): void {
    const { domain } = this.#options;
    const text = latin1.decode(label);
    if (!text.endsWith(`@${domain}`) && text !== `@${domain}/heads`) {
      throw new InvalidArgumentError('BAD_FIELD', `label: this log is that of ${domain}`);
    }
  }

  [Symbol.dispose](): void {
    this.#service[Symbol.dispose]();
  }
}

function needOwner(owner: string | undefined): string {
  if (owner === undefined) {
    throw new PermissionDeniedError('CALLER_CLASS', 'only for the owner of the label');
  }
  return owner;
}

function needLabel(label: Uint8Array, userId: string): void {
  if (Buffer.compare(label, userLabel(userId)) !== 0) {
    throw new InvalidArgumentError('BAD_FIELD', 'label: not that of the user in question');
  }
}

function wire({ response, checkpoint }: KtServed): Answer {
  return { response, checkpoint };
}

function labelIn<T extends { readonly label: Uint8Array }>(
  structure: Structure<T>,
  bytes: Uint8Array,
): Uint8Array {
  return read(structure, bytes).label;
}

function read<T>(structure: Structure<T>, bytes: Uint8Array): T {
  try {
    return decode(structure, bytes);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
    throw new InvalidArgumentError('BAD_FIELD', `request: ${error.message}`, { cause: error });
  }
}
