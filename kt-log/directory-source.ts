/** A mirrored directory of a log, read file by file (mirror.ts). */
import { constants, open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { PayloadTooLargeError, QpcError, UnavailableError } from '@quicprochat/proto/status';
import type { MirrorReader } from './mirror.ts';

const chunkBytes = 64 * 1024;

/**
 * Reads below `directory`. Paths come from `mirrorPaths`, never from a file's content; what stands there
 * is somebody else's: a link to a device or a pipe would never end, so only plain files are read, and
 * of these no more than the bound, whatever size they say they have.
 */
export function directoryReader(directory: string): MirrorReader {
  return {
    async read(path, bytesMax) {
      try {
        // Without blocking: opening a pipe that nobody writes to would wait for good.
        await using file = await open(
          join(directory, path),
          constants.O_RDONLY | constants.O_NONBLOCK,
        );
        const stat = await file.stat();
        if (!stat.isFile()) throw new UnavailableError('DISCONNECTED', `${path}: no plain file`);
        return await readAll(file, path, bytesMax);
      } catch (error) {
        if (error instanceof QpcError) throw error;
        if (isMissing(error)) return undefined;
        throw new UnavailableError('DISCONNECTED', `${path}: cannot be read`, { cause: error });
      }
    },
  };
}

async function readAll(file: FileHandle, path: string, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const { bytesRead, buffer } = await file.read(new Uint8Array(chunkBytes));
    if (bytesRead === 0) return new Uint8Array(Buffer.concat(chunks));
    length += bytesRead;
    if (length > bytesMax) throw new PayloadTooLargeError(`${path}: more than ${bytesMax} bytes`);
    chunks.push(buffer.subarray(0, bytesRead));
  }
}

function isMissing(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
