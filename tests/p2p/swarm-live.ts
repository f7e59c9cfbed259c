/**
 * Loaded into the swarm's process by swarm-soak.ts: what lives there after a full collection, every so
 * often, one line of JSON each. RSS alone does not tell a leak from memory that V8 and the allocator keep.
 */
import { appendFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { systemClock } from '@quicprochat/proto';

/** Bytes at one moment. */
export interface Live {
  readonly minutes: number;
  /** Reachable objects of JavaScript. */
  readonly heap: number;
  /** What these hold outside of V8's heap. */
  readonly external: number;
  /** What V8 has from the system for its heap, full or empty. */
  readonly heapTotal: number;
  readonly rss: number;
}

const [file, everyMs] = [process.env['QPC_LIVE_FILE'], Number(process.env['QPC_LIVE_MS'])];
if (file !== undefined && process.send !== undefined) {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const startMs = performance.now();
  const look = (): void => {
    // What the first one finalizes the second one frees.
    collect();
    collect();
    const { heapUsed, external, heapTotal, rss } = process.memoryUsage();
    const minutes = (performance.now() - startMs) / 60_000;
    const live: Live = { minutes, heap: heapUsed, external, heapTotal, rss };
    appendFileSync(file, `${JSON.stringify(live)}\n`);
    systemClock.timer(everyMs, look);
  };
  systemClock.timer(everyMs, look);
}
