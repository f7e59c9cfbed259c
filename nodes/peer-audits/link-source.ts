/** The log of a peer, read over the link to it: methods 534, 520 and the heads of 916. */
import { VerificationError, type LogSource, type SignedHead } from '@quicprochat/kt-log';
import { hasReason, maxAuditEntries, maxKtHeads, methods, type Clock } from '@quicprochat/proto';
import type { KtHead, KtHeadsResponse } from '@quicprochat/proto/messages';
import type { LinkSession } from '@quicprochat/federation';

/** A peer that asks for a pause up to this gets it inside the pull (ms); a longer one ends the pull. */
const pauseMaxMs = 5_000;
const pausesMax = 100;

/** Calls of a source end with its session; errors are those of the calls. */
export function linkSource(session: LinkSession, origin: string, clock: Clock): LogSource {
  /** A long log is read at the pace that its node allows. */
  async function paced<T>(ask: () => Promise<T>): Promise<T> {
    for (let pauses = 0; ; pauses++) {
      try {
        return await ask();
      } catch (error) {
        const pauseMs = hasReason(error, 'RATE_LIMITED') ? error.retryAfterMs : undefined;
        if (pauseMs === undefined || pauseMs > pauseMaxMs || pauses >= pausesMax) throw error;
        await clock.sleep(pauseMs, session.signal);
      }
    }
  }
  const until = (signal?: AbortSignal) => (signal === undefined ? {} : { signal });
  return {
    async checkpoint(signal) {
      const request = { domain: '', size: 0n };
      return (await session.call(methods.ktTreeHead, request, until(signal))).checkpoint;
    },
    async bundle(from, max, signal) {
      const request = { from: BigInt(from), max: Math.min(max, maxAuditEntries) };
      const { bundle } = await paced(() =>
        session.call(methods.auditKeyTransparency, request, until(signal)),
      );
      return bundle.length === 0 ? undefined : bundle;
    },
    async heads(from, max, signal) {
      const { heads } = await paced(() => askHeads(session, origin, from, max, signal));
      return heads.map(headFromWire).slice(0, max);
    },
  };
}

/** Heads that the peer holds of any log. */
export async function askHeads(
  session: LinkSession,
  origin: string,
  from: number,
  max: number,
  signal?: AbortSignal,
): Promise<KtHeadsResponse> {
  const value = { origin, fromSize: BigInt(from), max: Math.min(max, maxKtHeads) };
  const options = signal === undefined ? {} : { signal };
  const { op } = await session.call(methods.fedKt, { op: { case: 'heads', value } }, options);
  if (op.case === 'heads') return op.value;
  throw new VerificationError('MALFORMED', 'answer about heads', 'heads');
}

/** Throws VerificationError MALFORMED; the signature is not verified yet. */
export function headFromWire({ size, root, signature }: KtHead): SignedHead {
  const isHead =
    root.length === 32 && signature.length === 64 && size <= BigInt(Number.MAX_SAFE_INTEGER);
  if (!isHead) throw new VerificationError('MALFORMED', 'signed head', 'size, 32 and 64 bytes');
  return { size: Number(size), root, signature };
}
