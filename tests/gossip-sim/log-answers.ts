/** What the writer of a log answers to its auditors (520, 534, heads of 916), from a history as it is. */
import { methods, UnimplementedError, type Method } from '@quicprochat/proto';
import type { AuditKeyTransparencyRequest, KtTreeHeadRequest } from '@quicprochat/proto/messages';
import type { History } from './histories.ts';

/** Undefined for a method that is not about the log alone. */
export async function answerAboutLog(
  { log, tree, service }: History,
  method: Method,
  request: unknown,
): Promise<Record<string, unknown> | undefined> {
  switch (method.id) {
    case methods.ktTreeHead.id: {
      const size = Number((request as KtTreeHeadRequest).size) || log.size;
      const head = await tree.head(size);
      if (head === undefined) throw new UnimplementedError('no such head');
      const { root, signature } = head;
      const checkpoint = Buffer.from(await log.checkpoint(size));
      return { head: { size: BigInt(size), root, signature }, checkpoint };
    }
    case methods.auditKeyTransparency.id: {
      const { from, max } = request as AuditKeyTransparencyRequest;
      const size = BigInt(log.size);
      if (from >= size) return { size };
      return { bundle: await service.auditBundle(Number(from), max), size };
    }
    default:
      return undefined;
  }
}

export async function headsOf({ log, tree }: History, fromSize: number, max: number) {
  const heads = [];
  for (let size = fromSize; size <= log.size && heads.length < max; size += 1) {
    const head = await tree.head(size);
    if (head === undefined) break;
    heads.push({ size: BigInt(size), root: head.root, signature: head.signature });
  }
  return { heads, checkpoint: Buffer.from(await log.checkpoint()) };
}
