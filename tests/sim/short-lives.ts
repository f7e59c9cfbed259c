/**
 * Messages of clients with a short time to live. Clients ask for the longest one; here the nodes' stores
 * are asked for another, as if the senders had said so.
 */
import type { OperationRequest } from '@quicprochat/nodes/store/simulation';
import { RowKind } from '@quicprochat/proto';

/** The request with this time to live (ms), where it brings messages to devices. */
export function shortLived(request: OperationRequest, ttlMs: number): OperationRequest {
  const shorten = <T extends { readonly kind: number }>(row: T): T =>
    row.kind === RowKind.Envelope ? { ...row, ttlMs } : row;
  switch (request.name) {
    case 'enqueue':
      return { ...request, args: [shorten(request.args[0])] };
    case 'enqueueRemote':
      return { ...request, args: [request.args[0], shorten(request.args[1])] };
    case 'enqueueBatch':
      return { ...request, args: [shorten(request.args[0])] };
    default:
      return request;
  }
}
