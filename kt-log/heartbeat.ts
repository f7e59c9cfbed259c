/**
 * The value of a log's heartbeat label `@domain/heads` (kt-log/README.md): which heads of other logs
 * it had audited by then. The logs pin one another: a later fork of one is contradicted by entries of
 * the others. Browser-safe.
 */
import { maxTreeSize } from './codec.ts';
import type { Hash } from './hash.ts';
import { hashBytes } from './hash.ts';
import type { Structure } from './presentation.ts';
import { maxUint8 } from './presentation.ts';
import { VerificationError } from './verification-error.ts';

/** The value stays below 20 KiB; its usual size is 60 bytes a log. */
export const heartbeatLimits = { logsMax: 64, originBytesMax: 255 } as const;

/** Another log as it was audited last. */
export interface PinnedLog {
  readonly origin: string;
  readonly size: number;
  readonly rfc6962Root: Hash;
}
export interface Heartbeat {
  /** Ascending by origin, none twice. */
  readonly logs: readonly PinnedLog[];
}

const utf8 = new TextEncoder();
const fatalUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const layout = 1;

/** Writing sorts the logs; reading refuses everything that writing does not make. */
export const heartbeat: Structure<Heartbeat> = {
  name: 'Heartbeat',
  write(w, { logs }) {
    const sorted = logs.toSorted((a, b) => (a.origin < b.origin ? -1 : 1));
    w.u8(layout, 'layout').count(sorted.length, heartbeatLimits.logsMax, 'logs');
    for (const { origin, size, rfc6962Root } of sorted) {
      w.opaque(utf8.encode(origin), heartbeatLimits.originBytesMax, 'origin');
      w.u64(size, 'size').fixed(rfc6962Root, hashBytes, 'root');
    }
  },
  read(r) {
    if (r.u8('layout') !== layout) throw r.malformed('layout', `${layout}`);
    let before = '';
    const readLog = (): PinnedLog => {
      const origin = textOf(r.opaque(heartbeatLimits.originBytesMax, 'origin'));
      if (origin <= before) throw r.malformed('origin', 'ascending origins, none empty');
      before = origin;
      const size = r.u64('size', maxTreeSize);
      return { origin, size, rfc6962Root: r.fixed(hashBytes, 'root') };
    };
    return { logs: r.vector(maxUint8, 42, 'logs', readLog, heartbeatLimits.logsMax) };
  },
};

function textOf(bytes: Uint8Array): string {
  try {
    return fatalUtf8.decode(bytes);
  } catch (error) {
    throw new VerificationError('MALFORMED', 'Heartbeat.origin', 'valid UTF-8', error);
  }
}
