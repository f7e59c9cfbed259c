/** Files that commands read and write for people: what keeps them from it is one line that names the file. */
import { constants } from 'node:fs';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { CommandError, exitSetup } from './failure.ts';

/** A file of at most `maxBytes`. Throws CommandError FILE_MISSING, FILE_UNUSABLE. */
export async function readFileOf(path: string, maxBytes: number): Promise<Uint8Array> {
  return tell(path, async () => {
    // Without blocking: a pipe that nobody writes to would be waited for.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const info = await file.stat();
    if (!info.isFile()) throw unusable(`${path}: is no regular file`);
    if (info.size > maxBytes) throw unusable(`${path}: ${info.size} bytes, at most ${maxBytes}`);
    const bytes = new Uint8Array(info.size);
    const { bytesRead } = await file.read(bytes, 0, info.size, 0);
    return bytes.subarray(0, bytesRead);
  });
}

/** Makes or replaces a file that is for everybody. Throws CommandError FILE_MISSING, FILE_UNUSABLE. */
export async function writeFileFor(path: string, bytes: Uint8Array): Promise<void> {
  await tell(path, () => writeFile(path, bytes));
}

/** Makes a directory where there is none. Throws CommandError FILE_UNUSABLE. */
export async function makeDirectory(path: string): Promise<void> {
  await tell(path, () => mkdir(path, { recursive: true }));
}

async function tell<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof CommandError || !(cause instanceof Error && 'code' in cause)) throw cause;
    if (cause.code === 'ENOENT') {
      throw new CommandError(exitSetup, 'FILE_MISSING', `${path}: does not exist`, { cause });
    }
    throw unusable(`${path}: cannot be used (${String(cause.code)})`, cause);
  }
}

function unusable(message: string, cause?: unknown): CommandError {
  return new CommandError(exitSetup, 'FILE_UNUSABLE', message, { cause });
}
