/**
 * This node's own heads to its peers: only the newest, one in flight per peer, and the cosignatures
 * that come back into the log. A peer that is away gets the newest head once its link is up.
 */
import {
  nativeSuite,
  openCheckpoint,
  parseNote,
  VerificationError,
  type KtLog,
  type LogIdentity,
} from '@quicprochat/kt-log';
import { methods, QpcError, type Runtime } from '@quicprochat/proto';
import { Wakeup, type LinkSession } from '@quicprochat/federation';
import type { OwnHeads } from './own-heads.ts';

export const headPushLimits = {
  /** The peer audits before it answers (ms). */
  answerMs: 35_000,
  /** Pause after an answer without cosignatures; doubled each time up to the second (ms). */
  pauseMs: 1_000,
  pauseMaxMs: 60_000,
} as const;

/** What a cosigner has signed last. */
export interface Signed {
  readonly size: number;
  readonly atMs: number;
}

interface PeerState {
  readonly wakeup: Wakeup;
  /** Largest size that the peer has cosigned, as far as this process knows. */
  cosigned: number;
}

export interface HeadPushOptions {
  readonly log: KtLog;
  readonly identity: LogIdentity;
  readonly peers: readonly string[];
  readonly ownHeads: OwnHeads;
  readonly runtime: Runtime;
  /** There is a head for the peer: its link may be worth dialing. */
  readonly notify: (domain: string) => void;
}

export class HeadPush implements Disposable {
  readonly #options: HeadPushOptions;
  readonly #peers = new Map<string, PeerState>();
  readonly #signed = new Map<string, Signed>();
  readonly #stop: () => void;

  constructor(options: HeadPushOptions) {
    const { log, peers, notify } = options;
    this.#options = options;
    for (const domain of peers) this.add(domain);
    this.#stop = log.onHead(() => {
      for (const [domain, { wakeup }] of this.#peers) {
        wakeup.raise();
        notify(domain);
      }
    });
  }

  /** A peer more. */
  add(domain: string): void {
    this.#peers.set(domain, { wakeup: new Wakeup(this.#options.runtime.clock), cosigned: 0 });
  }

  /** Newest size of each cosigner name whose signature came since the start. */
  get signed(): ReadonlyMap<string, Signed> {
    return this.#signed;
  }

  hasWork(domain: string): boolean {
    const peer = this.#peers.get(domain);
    return peer !== undefined && peer.cosigned < this.#options.log.size;
  }

  /** Pushes until the session ends. */
  async serve(domain: string, session: LinkSession): Promise<void> {
    const peer = this.#peers.get(domain);
    if (peer === undefined) return;
    const { log } = this.#options;
    const { signal } = session;
    const stop = (): void => peer.wakeup.raise();
    signal.addEventListener('abort', stop, { once: true });
    let failures = 0;
    while (!signal.aborted) {
      if (peer.cosigned < log.size) {
        const isDone = await this.#pushOne(domain, peer, session);
        failures = isDone ? 0 : failures + 1;
      }
      if (signal.aborted) break;
      if (peer.cosigned >= log.size) await peer.wakeup.wait();
      else if (failures > 0) await this.#pause(failures, signal);
    }
    signal.removeEventListener('abort', stop);
  }

  async #pause(failures: number, signal: AbortSignal): Promise<void> {
    const { pauseMs, pauseMaxMs } = headPushLimits;
    const ms = Math.min(pauseMs * 2 ** Math.min(failures - 1, 20), pauseMaxMs);
    // The only rejection is the end of the session.
    await this.#options.runtime.clock.sleep(ms, signal).catch(() => undefined);
  }

  /** True when the peer has cosigned the newest head: an older one is no reason to ask again at once. */
  async #pushOne(domain: string, peer: PeerState, session: LinkSession): Promise<boolean> {
    const { log, runtime } = this.#options;
    try {
      const { size } = log;
      const checkpoint = new TextEncoder().encode(await log.checkpoint(size));
      const request = { op: { case: 'checkpoint' as const, value: { checkpoint } } };
      const deadlineMs = headPushLimits.answerMs;
      const { op } = await session.call(methods.fedKt, request, { deadlineMs });
      if (op.case !== 'checkpoint' || op.value.cosigned.length === 0) return false;
      peer.cosigned = Math.max(peer.cosigned, await this.#take(domain, op.value.cosigned));
      return peer.cosigned >= size;
    } catch (error) {
      if (session.signal.aborted) return false;
      if (!(error instanceof QpcError)) throw error;
      const { reason, message } = error;
      runtime.log.warn('head not cosigned', { peer: domain, reason, error: message });
      return false;
    }
  }

  /** The size of a cosigned note, once its cosignatures are in the log. Throws VerificationError. */
  async #take(domain: string, cosigned: Uint8Array): Promise<number> {
    const { log, identity, ownHeads, runtime } = this.#options;
    const { checkpoint } = openCheckpoint(nativeSuite, cosigned, identity);
    try {
      await log.addCosignatures(cosigned);
    } catch (error) {
      // Our signature over a text that is not that of our head: we have lost that head.
      const isLost = error instanceof VerificationError && error.reason === 'CHAIN';
      if (isLost) ownHeads.noteAhead(domain, checkpoint.size);
      throw error;
    }
    const atMs = runtime.clock.now();
    for (const { name } of parseNote(cosigned).signatures) {
      const before = this.#signed.get(name)?.size ?? 0;
      if (name !== identity.key.name && checkpoint.size >= before) {
        this.#signed.set(name, { size: checkpoint.size, atMs });
      }
    }
    return checkpoint.size;
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}
