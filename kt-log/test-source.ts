/**
 * Test support: a log in this process as a source of followers, which may switch to another face of
 * the same keys, and logs that share a prefix to the byte. Not library code.
 */
import { auditBundle } from './auditor.ts';
import type { SignedHead } from './evidence.ts';
import type { LogSource } from './log-source.ts';
import { encode } from './presentation.ts';
import { labelOf, testLog } from './test-log.ts';

export type Face = Awaited<ReturnType<typeof testLog>>;

/** A log of `size` entries, of which those from `fork` on are `face`'s own, openings included. */
export async function faceOf(face: string, fork: number, size: number): Promise<Face> {
  let drawn = 0;
  const random = { bytes: (length: number) => new Uint8Array(length).fill(drawn++) };
  const made = await testLog({ random });
  await growTo(made, face, fork, size);
  return made;
}

/** Adds entries up to `size`. */
export async function growTo(made: Face, face: string, fork: number, size: number): Promise<void> {
  for (let i = made.log.size; i < size; i++) {
    const label = labelOf(i < fork ? `user-${i}` : `${face}-${i}`);
    await made.log.update({ label, values: [labelOf('value')] });
    made.clock.advance(1000);
  }
}

/** Answers as the node of the log would. */
export class FaceSource implements LogSource {
  face: Face;
  /** Whether it gives heads, as nodes do and mirrors do not. */
  hasHeads = true;
  /** Above 1, bundles are this long and start at multiples of it, as those of mirrors do with 256. */
  align = 1;

  constructor(face: Face) {
    this.face = face;
  }
  async checkpoint(): Promise<Uint8Array> {
    return new TextEncoder().encode(await this.face.log.checkpoint());
  }
  async bundle(from: number, max: number): Promise<Uint8Array | undefined> {
    const { log } = this.face;
    const start = from - (from % this.align);
    const to = Math.min(log.size, this.align > 1 ? start + this.align : from + max);
    return to > from ? encode(auditBundle, await log.auditBundle(start, to)) : undefined;
  }
  async heads(from: number, max: number): Promise<readonly SignedHead[]> {
    const heads: SignedHead[] = [];
    for (let size = from; this.hasHeads && size < from + max; size++) {
      const head = await this.face.store.head(size);
      if (head === undefined) break;
      heads.push({ size, root: head.root, signature: head.signature });
    }
    return heads;
  }
}
