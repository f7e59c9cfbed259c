/** A mirrored directory of a log, read file by file (mirror.ts). */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { PayloadTooLargeError, UnavailableError } from '@quicprochat/proto/status';
import type { MirrorReader } from './mirror.ts';

/** Reads below `directory`. Paths come from `mirrorPaths`, never from a file's content. */
export function directoryReader(directory: string): MirrorReader {
  return {
    async read(path, bytesMax) {
      try {
        await using file = await open(join(directory, path), 'r');
        const { size } = await file.stat();
        if (size > bytesMax) throw new PayloadTooLargeError(`${path}: more than ${bytesMax} bytes`);
        return new Uint8Array(await file.readFile());
      } catch (error) {
        if (error instanceof PayloadTooLargeError) throw error;
        if (isMissing(error)) return undefined;
        throw new UnavailableError('DISCONNECTED', `${path}: cannot be read`, { cause: error });
      }
    },
  };
}

function isMissing(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
