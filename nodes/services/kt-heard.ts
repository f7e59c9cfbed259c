/**
 * What this node has heard of logs, for whoever asks (536, 537): clients compare it with what they were
 * shown themselves, and check evidence without believing anybody.
 */
import {
  FailedPreconditionError,
  maxEvidenceBytes,
  NotFoundError,
  type Handlers,
} from '@quicprochat/proto';
import type { PeerAudits } from '../peer-audits.ts';

export function ktHeardHandlers(
  audits: Pick<PeerAudits, 'heard' | 'evidence'>,
): Pick<Handlers, 'ktHeard' | 'ktEvidence'> {
  return {
    ktHeard: async ({ logs }) => ({
      logs: await audits.heard(logs.map(({ origin, size }) => ({ origin, size: Number(size) }))),
    }),

    async ktEvidence({ hash, offset }) {
      const evidence = await audits.evidence(hash);
      if (evidence === undefined) {
        throw new NotFoundError('UNKNOWN_EVIDENCE', 'hash: no evidence of that name is held here');
      }
      const from = Number(offset);
      if (from > evidence.length) {
        throw new FailedPreconditionError('BAD_CURSOR', `offset: it has ${evidence.length} bytes`);
      }
      // Two contradicting bundles of a log are larger than any frame.
      const page = evidence.subarray(from, from + maxEvidenceBytes);
      return { evidence: page, total: BigInt(evidence.length) };
    },
  };
}
