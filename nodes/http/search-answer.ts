/**
 * The body that `POST /kt/search` answers with: uint32 length of the SearchResponse, the
 * SearchResponse, then the checkpoint of its tree up to the end. Browser-safe.
 */
import type { LogAnswer } from '@quicprochat/kt-log/verify';

export function encodeSearchAnswer({ response, checkpoint }: LogAnswer): Uint8Array {
  const bytes = new Uint8Array(4 + response.length + checkpoint.length);
  new DataView(bytes.buffer).setUint32(0, response.length);
  bytes.set(response, 4);
  bytes.set(checkpoint, 4 + response.length);
  return bytes;
}

/** Undefined for bytes that are no such answer; what is in it, the verifier judges. */
export function decodeSearchAnswer(bytes: Uint8Array): LogAnswer | undefined {
  if (bytes.length < 4) return undefined;
  const end = 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  if (end > bytes.length) return undefined;
  return { response: bytes.slice(4, end), checkpoint: bytes.slice(end) };
}
