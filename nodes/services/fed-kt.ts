/**
 * Handler of method 916: a peer's look-ups in this node's log for its users, one hop and no further,
 * and what auditors tell each other: heads, checkpoints to cosign, evidence.
 */
import { VerificationError } from '@quicprochat/kt-log';
import {
  InvalidArgumentError,
  PermissionDeniedError,
  ResourceExhaustedError,
  TokenBuckets,
  type Clock,
  type Handlers,
  type Rate,
} from '@quicprochat/proto';
import type { FedKtResponseSchema, MessageInitShape } from '@quicprochat/proto/messages';
import type { KeyLogAnswers } from '../key-log-answers.ts';
import type { PeerAudits } from '../peer-audits.ts';
import { peerOf } from './caller.ts';

type Response = MessageInitShape<typeof FedKtResponseSchema>;

export interface FedKtParts {
  readonly domain: string;
  readonly clock: Clock;
  readonly answers: Pick<
    KeyLogAnswers,
    'search' | 'monitor' | 'distinguished' | 'credential' | 'treeHead'
  >;
  readonly audits: Pick<PeerAudits, 'heads' | 'checkpointPushed' | 'evidenceShown'>;
  /** What one user of a peer may look up, as a user of this node may. */
  readonly lookups: Rate;
}

export function fedKtHandlers(parts: FedKtParts): Pick<Handlers, 'fedKt'> {
  const { domain, answers, audits, lookups } = parts;
  const buckets = new TokenBuckets(parts.clock);

  /** Throws unless the question is about this node's log, and its user has the right to ask now. */
  function admit(peer: string, requester: Uint8Array, asked: { readonly domain: string }): void {
    if (asked.domain !== '' && asked.domain !== domain) {
      throw new PermissionDeniedError('PEER_DENIED', `this node serves ${domain} only`);
    }
    if (requester.length !== 16) {
      throw new InvalidArgumentError('BAD_FIELD', `requester: ${requester.length} bytes, need 16`);
    }
    const user = `${peer} ${Buffer.from(requester).toString('hex')}`;
    const retryAfterMs = buckets.take(user, lookups);
    if (retryAfterMs === 0) return;
    const message = `one of the peer's users: more than ${lookups.perSecond}/s`;
    throw new ResourceExhaustedError('RATE_LIMITED', message, { retryAfterMs });
  }

  return {
    async fedKt({ requester, op }, context): Promise<Response> {
      const peer = peerOf(context);
      switch (op.case) {
        case undefined:
          throw new InvalidArgumentError('BAD_FIELD', 'op: is missing');
        case 'search':
          admit(peer, requester, op.value);
          return { op: { case: 'search', value: await answers.search(op.value) } };
        case 'monitor':
          admit(peer, requester, op.value);
          return { op: { case: 'monitor', value: await answers.monitor(op.value) } };
        case 'distinguished':
          admit(peer, requester, op.value);
          return { op: { case: 'distinguished', value: await answers.distinguished(op.value) } };
        case 'credential':
          admit(peer, requester, op.value);
          return { op: { case: 'credential', value: await answers.credential(op.value) } };
        case 'treeHead':
          admit(peer, requester, op.value);
          return { op: { case: 'treeHead', value: await answers.treeHead(op.value) } };
        case 'heads':
          return { op: { case: 'heads', value: await audits.heads(op.value) } };
        case 'checkpoint': {
          const cosigned = await cosignedOrRefused(audits, peer, op.value.checkpoint);
          return { op: { case: 'checkpoint', value: cosigned === undefined ? {} : { cosigned } } };
        }
        case 'evidence':
          await audits.evidenceShown(peer, op.value.evidence);
          return { op: { case: 'evidence', value: {} } };
      }
    },
  };
}

async function cosignedOrRefused(
  audits: FedKtParts['audits'],
  peer: string,
  checkpoint: Uint8Array,
): Promise<Uint8Array | undefined> {
  try {
    return await audits.checkpointPushed(peer, checkpoint);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
    const message = `checkpoint: ${error.message}`;
    throw new InvalidArgumentError('BAD_SIGNATURE', message, { cause: error });
  }
}
