/**
 * What members say to each other inside MLS (docs/protocol/cryptography.md, `Content` of
 * proto/qpc/v1/content.proto): built with bounds, parsed with the same bounds. Text, receipts, delivery
 * tokens, endpoint records, and what members pass on from logs.
 */
import {
  deliveryTokenBytes,
  InvalidArgumentError,
  PayloadTooLargeError,
  QpcError,
  Status,
} from '@quicprochat/proto';
import {
  ContentSchema,
  create,
  fromBinary,
  ReceiptKind as WireReceiptKind,
  SignedEndpointRecordSchema,
  toBinary,
  type KeyEvidence as KeyEvidenceMessage,
  type Content as ContentMessage,
  type DeliveryTokens as DeliveryTokensMessage,
  type DeliveryTokensSchema,
  type KeyEvidenceSchema,
  type MessageInitShape,
  type SignedEndpointRecord,
} from '@quicprochat/proto/messages';
import { groupLimits } from './mls/index.ts';
import type { ReceiptKind } from './store/outbox-copies.ts';

export const contentLimits = {
  contentBytes: 64 * 1024,
  textBytes: 16 * 1024,
  innerIdBytes: 16,
  /** Bytes of one credential and of one log's heads, and logs in one message. */
  credentialBytes: 32 * 1024,
  headsBytes: 16 * 1024,
  headsLogs: 8,
  /** Messages that one receipt is about. */
  receiptIds: 256,
  /** Delivery tokens that travel together. */
  tokens: 256,
  /** Bytes of an endpoint record. */
  endpointBytes: 2_048,
  /** Pieces of evidence against logs, and bytes of each. */
  convictions: 2,
  convictionBytes: 16 * 1024,
} as const;

/** A logical clock beyond this is nonsense, and would leave no room for later messages. */
const lamportMax = 2 ** 48;

/** What may travel beside every content. */
export interface ContentExtras {
  /** Delivery tokens that the sender hands out. */
  readonly tokens?: readonly HandedToken[] | undefined;
  /** Where the sending device is reached without a node; not checked here. */
  readonly endpoint?: SignedEndpointRecord | undefined;
  /** Evidence against logs (kt-log), which proves itself or is nothing. */
  readonly convictions?: readonly Uint8Array[] | undefined;
}

/** What every content begins with. */
export interface ContentHeader extends ContentExtras {
  /** Inner id (16 bytes), once per message as the user sees it. */
  readonly innerId: Uint8Array;
  /** 1, 2, 3 .. per conversation and sending device; 0 for what may be missing, such as receipts. */
  readonly n: number;
  readonly lamport: number;
  /** Sender's wall clock (ms); a claim. */
  readonly sentMs: number;
}

/** A delivery token (16 bytes) of the device `rid` (32 bytes). */
export interface HandedToken {
  readonly rid: Uint8Array;
  readonly token: Uint8Array;
  /** Not to be passed on to others. */
  readonly isKeptBack?: boolean;
}

/** A message as its sender wrote it. */
export interface TextMessage extends ContentHeader {
  readonly text: string;
  /** The text goes so long after it was sent (at its author) or shown; 0, and unless told: it stays. */
  readonly expirySeconds?: number | undefined;
  /** What the sender passes on from key-transparency logs, if anything. */
  readonly evidence?: KeyEvidence | undefined;
}

/** Statements of logs that a member passes on; they prove themselves or are nothing. */
export interface KeyEvidence {
  /** The sender's wrapped credential (kt-log); empty: none. */
  readonly credential: Uint8Array;
  /** Signed heads of logs (kt-log). */
  readonly heads: readonly Uint8Array[];
}

/** What became of messages of others. */
export interface ReceiptMessage extends ContentHeader {
  readonly kind: ReceiptKind;
  /** Inner ids (16 bytes), at most 256. */
  readonly ids: readonly Uint8Array[];
}

export type ParsedContent =
  | { readonly type: 'text'; readonly content: TextMessage }
  | { readonly type: 'receipt'; readonly content: ReceiptMessage }
  /** The sender's user wants to leave. */
  | { readonly type: 'leave'; readonly content: ContentHeader }
  /** Nothing but what its header brings. */
  | { readonly type: 'extras'; readonly content: ContentHeader }
  /** Of a kind that a later version knows; its number counts. */
  | { readonly type: 'unknown'; readonly content: ContentHeader };

/** Content that a member sealed but that is none of ours, or out of bounds. */
export class ContentError extends QpcError {
  override name = 'ContentError';
  constructor(message: string) {
    super(Status.InvalidArgument, 'BAD_CONTENT', `content: ${message}`);
  }
}

/** Throws PayloadTooLargeError above 16 KiB of UTF-8, InvalidArgumentError when it is empty. */
export function checkText(text: string): void {
  const bytes = Buffer.byteLength(text);
  if (bytes === 0) throw new InvalidArgumentError('BAD_FIELD', 'text: is empty');
  if (bytes > contentLimits.textBytes) {
    throw new PayloadTooLargeError(`text: ${bytes} bytes, at most ${contentLimits.textBytes}`);
  }
}

export function encodeContent(message: TextMessage): Uint8Array {
  return encode(message, {
    n: BigInt(message.n),
    body: { case: 'text', value: { utf8: message.text } },
    expirySeconds: message.expirySeconds ?? 0,
    ...(message.evidence === undefined ? {} : { evidence: evidenceMessage(message.evidence) }),
    ...extrasMessage(message),
  });
}

/** Extras alone; not counted, like a receipt. */
export function encodeExtras(header: Omit<ContentHeader, 'n'>): Uint8Array {
  return encode(header, extrasMessage(header));
}

/** The own user wants to leave; not counted, like a receipt. */
export function encodeLeave(header: Omit<ContentHeader, 'n'>): Uint8Array {
  return encode(header, { body: { case: 'leave', value: {} } });
}

/** A receipt for at most 256 messages; not counted, so its loss is no hole. */
export function encodeReceipt({ kind, ids, ...header }: Omit<ReceiptMessage, 'n'>): Uint8Array {
  const wireKind = kind === 'READ' ? WireReceiptKind.READ : WireReceiptKind.DELIVERED;
  return encode(header, {
    body: { case: 'receipt', value: { kind: wireKind, ids: [...ids] } },
  });
}

function encode(
  { innerId, lamport, sentMs }: Omit<ContentHeader, 'n'>,
  rest: MessageInitShape<typeof ContentSchema>,
): Uint8Array {
  const header = { id: innerId, lamport: BigInt(lamport), sentMs: BigInt(sentMs) };
  return toBinary(ContentSchema, create(ContentSchema, { ...header, ...rest }));
}

function extrasMessage({
  tokens,
  endpoint,
  convictions,
}: ContentExtras): Pick<
  MessageInitShape<typeof ContentSchema>,
  'tokens' | 'endpoint' | 'convictions'
> {
  return {
    ...(tokens === undefined ? {} : { tokens: tokensMessage(tokens) }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(convictions === undefined ? {} : { convictions: [...convictions] }),
  };
}

/** Throws ContentError; bounds are checked before anything is decoded or kept. */
export function parseContent(bytes: Uint8Array): ParsedContent {
  if (bytes.length > contentLimits.contentBytes) {
    throw new ContentError(`${bytes.length} bytes, at most ${contentLimits.contentBytes}`);
  }
  let content;
  try {
    content = fromBinary(ContentSchema, bytes);
  } catch {
    throw new ContentError('no encoded message');
  }
  const header = headerOf(content);
  const { body } = content;
  switch (body.case) {
    case 'text': {
      const { utf8 } = body.value;
      if (Buffer.byteLength(utf8) > contentLimits.textBytes) {
        throw new ContentError(`text above ${contentLimits.textBytes} bytes`);
      }
      const evidence = parseEvidence(content.evidence);
      const expirySeconds = Math.min(content.expirySeconds, groupLimits.expirySeconds);
      return { type: 'text', content: { ...header, text: utf8, evidence, expirySeconds } };
    }
    case 'receipt': {
      const { kind, ids } = body.value;
      const isBounded =
        ids.length <= contentLimits.receiptIds &&
        ids.every(({ length }) => length === contentLimits.innerIdBytes);
      if (!isBounded) throw new ContentError('receipt: ids out of bounds');
      if (kind !== WireReceiptKind.READ && kind !== WireReceiptKind.DELIVERED) {
        return { type: 'unknown', content: header };
      }
      const said = kind === WireReceiptKind.READ ? 'READ' : 'DELIVERED';
      return { type: 'receipt', content: { ...header, kind: said, ids } };
    }
    case 'leave':
      return { type: 'leave', content: header };
    case undefined:
      return {
        type: hasExtras(header) ? 'extras' : 'unknown',
        content: header,
      };
  }
}

function headerOf(content: ContentMessage): ContentHeader {
  if (content.id.length !== contentLimits.innerIdBytes) {
    throw new ContentError(`id of ${content.id.length} bytes, need ${contentLimits.innerIdBytes}`);
  }
  return {
    innerId: content.id,
    n: bounded(content.n, Number.MAX_SAFE_INTEGER, 'n'),
    lamport: bounded(content.lamport, lamportMax, 'lamport'),
    sentMs: bounded(content.sentMs, Number.MAX_SAFE_INTEGER, 'sent_ms'),
    tokens: parseTokens(content.tokens),
    endpoint: parseEndpoint(content.endpoint),
    convictions: parseConvictions(content.convictions),
  };
}

const hasExtras = ({ tokens, endpoint, convictions }: ContentExtras): boolean =>
  tokens !== undefined || endpoint !== undefined || convictions !== undefined;

/** Undefined for none, and for what is beyond its bounds: it is an extra and costs no message. */
function parseConvictions(all: readonly Uint8Array[]): readonly Uint8Array[] | undefined {
  const { convictions, convictionBytes } = contentLimits;
  const isBounded = all.length > 0 && all.length <= convictions;
  if (!isBounded || all.some(({ length }) => length > convictionBytes)) return undefined;
  return all.map((one) => Uint8Array.from(one));
}

/** For the wire. */
export function tokensMessage(
  tokens: readonly HandedToken[],
): MessageInitShape<typeof DeliveryTokensSchema> {
  return {
    tokens: tokens.map(({ rid, token, isKeptBack = false }) => ({
      rid,
      token,
      keptBack: isKeptBack,
    })),
  };
}

/** Undefined for none, and for what is beyond its bounds: it is an extra and costs no message. */
export function parseTokens(
  message: DeliveryTokensMessage | undefined,
): readonly HandedToken[] | undefined {
  const tokens = message?.tokens ?? [];
  const isBounded =
    tokens.length > 0 &&
    tokens.length <= contentLimits.tokens &&
    tokens.every(({ rid, token }) => rid.length === 32 && token.length === deliveryTokenBytes);
  if (!isBounded) return undefined;
  return tokens.map(({ rid, token, keptBack }) => ({
    rid: Uint8Array.from(rid),
    token: Uint8Array.from(token),
    ...(keptBack && { isKeptBack: true }),
  }));
}

/** Undefined for none, and for what is beyond its bounds: it is an extra and costs no message. */
function parseEndpoint(
  message: SignedEndpointRecord | undefined,
): SignedEndpointRecord | undefined {
  if (message === undefined) return undefined;
  const { record, signature } = message;
  if (record.length > contentLimits.endpointBytes || signature.length !== 64) return undefined;
  return create(SignedEndpointRecordSchema, {
    record: Uint8Array.from(record),
    signature: Uint8Array.from(signature),
  });
}

/** For the wire. */
export function evidenceMessage({
  credential,
  heads,
}: KeyEvidence): MessageInitShape<typeof KeyEvidenceSchema> {
  return { credential, heads: [...heads] };
}

/** Undefined for none, and for what is beyond its bounds: it is an extra and costs no message. */
export function parseEvidence(message: KeyEvidenceMessage | undefined): KeyEvidence | undefined {
  if (message === undefined) return undefined;
  const { credential, heads } = message;
  const { credentialBytes, headsBytes, headsLogs } = contentLimits;
  const isSmall =
    credential.length <= credentialBytes &&
    heads.length <= headsLogs &&
    heads.every(({ length }) => length <= headsBytes);
  // The decoder's bytes are a view of the whole plaintext; what is kept must stand alone.
  return isSmall
    ? { credential: Uint8Array.from(credential), heads: heads.map((one) => Uint8Array.from(one)) }
    : undefined;
}

function bounded(value: bigint, max: number, name: string): number {
  if (value > BigInt(max)) throw new ContentError(`${name} above ${max}`);
  return Number(value);
}
