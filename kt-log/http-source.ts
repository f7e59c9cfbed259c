/**
 * A log behind an HTTP door, read path by path (mirror.ts). Bounded in bytes and time; follows no
 * redirect, so that nobody sends a reader elsewhere; waits when the door asks for it.
 */
import type { Clock } from '@quicprochat/proto';
import {
  DeadlineExceededError,
  PayloadTooLargeError,
  ResourceExhaustedError,
  UnavailableError,
} from '@quicprochat/proto/status';
import type { MirrorReader } from './mirror.ts';

export const httpSourceLimits = {
  /** For one file, in milliseconds. */
  timeoutMs: 60_000,
  /** A door that wants a longer pause is not waited for, in milliseconds. */
  pauseMsMax: 120_000,
  /** Pauses for one file. */
  pausesMax: 10,
} as const;
export type HttpSourceLimits = { readonly [name in keyof typeof httpSourceLimits]: number };

/** Reads below `base`, such as `https://red.example`. */
export function httpReader(
  base: URL,
  clock: Clock,
  limits: HttpSourceLimits = httpSourceLimits,
): MirrorReader {
  const root = new URL(base.href.endsWith('/') ? base.href : `${base.href}/`);
  return {
    async read(path, bytesMax, signal) {
      for (let pauses = 0; ; pauses++) {
        const answer = await get(new URL(path, root), bytesMax, clock, limits, signal);
        if (!('pauseMs' in answer)) return answer.bytes;
        if (answer.pauseMs > limits.pauseMsMax || pauses >= limits.pausesMax) {
          throw new ResourceExhaustedError('RATE_LIMITED', `${path}: the door allows no more now`);
        }
        await clock.sleep(answer.pauseMs, signal);
      }
    },
  };
}

type Answer = { readonly bytes: Uint8Array | undefined } | { readonly pauseMs: number };

async function get(
  url: URL,
  bytesMax: number,
  clock: Clock,
  limits: HttpSourceLimits,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const late = new AbortController();
  const timer = clock.timer(limits.timeoutMs, () => {
    late.abort(new DeadlineExceededError(`${url.pathname}: no answer in ${limits.timeoutMs} ms`));
  });
  const signals = [late.signal, ...(signal === undefined ? [] : [signal])];
  try {
    const response = await fetch(url, { redirect: 'error', signal: AbortSignal.any(signals) });
    if (response.status === 200) return { bytes: await bodyOf(response, url, bytesMax) };
    await response.body?.cancel();
    if (response.status === 404) return { bytes: undefined };
    if (response.status === 429 || response.status === 503) {
      const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
      if (Number.isFinite(seconds)) return { pauseMs: Math.max(1, Math.ceil(seconds * 1000)) };
    }
    throw new UnavailableError('DISCONNECTED', `${url.pathname}: HTTP status ${response.status}`);
  } catch (error) {
    signal?.throwIfAborted();
    if (late.signal.aborted) throw late.signal.reason;
    if (error instanceof PayloadTooLargeError || error instanceof UnavailableError) throw error;
    const why = error instanceof Error && error.cause instanceof Error ? error.cause.message : '';
    const message = `${url.host}: cannot be read (${why === '' ? String(error) : why})`;
    throw new UnavailableError('PEER_UNREACHABLE', message, { cause: error });
  } finally {
    timer.cancel();
  }
}

async function bodyOf(response: Response, url: URL, bytesMax: number): Promise<Uint8Array> {
  const tooLarge = (): PayloadTooLargeError =>
    new PayloadTooLargeError(`${url.pathname}: more than ${bytesMax} bytes`);
  if (Number(response.headers.get('content-length') ?? 0) > bytesMax) {
    await response.body?.cancel();
    throw tooLarge();
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > bytesMax) throw tooLarge();
    chunks.push(chunk);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
