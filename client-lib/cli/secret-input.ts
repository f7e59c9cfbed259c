/**
 * Where a command gets its secrets: a prompt without echo, a file that only its owner may read, or
 * lines of standard input. Never an argument and never the environment: both are shown by `ps`.
 */
import type { Readable, Writable } from 'node:stream';
import { canonicalPassword } from '../crypto/password.ts';
import { readPrivateFile } from '../crypto/private-file.ts';
import { CommandError, exitFailed, usage } from './failure.ts';

const secretBytesMax = 4096;
const newline = 0x0a;

/** The part of a terminal's input that the prompt needs. */
export interface KeyboardInput extends Readable {
  readonly isTTY?: boolean;
  setRawMode?(isRaw: boolean): unknown;
}

/** What is asked for, as a person reads it: `password`, `passphrase of this device`. */
export interface SecretRequest {
  readonly name: string;
  /** Option that names a file; said when there is nobody to ask. */
  readonly option: string;
  /** File of that option; `-` is one line of standard input; undefined asks at the terminal. */
  readonly file: string | undefined;
  /** A new secret is typed twice. */
  readonly isNew: boolean;
}

/** Standard input and the terminal, read byte by byte so that nothing is taken too early. */
export class SecretInput {
  readonly #input: KeyboardInput;
  readonly #prompt: Writable;
  readonly #interrupted: AbortSignal;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(input: KeyboardInput, prompt: Writable, interrupted: AbortSignal) {
    this.#input = input;
    this.#prompt = prompt;
    this.#interrupted = interrupted;
  }

  /**
   * UTF-8 bytes in canonical form, to be wiped by the caller. Throws CommandError,
   * PrivateFileError, InvalidArgumentError when it is empty, too long or no text.
   */
  async ask(request: SecretRequest): Promise<Uint8Array> {
    const raw = await this.#read(request);
    try {
      return canonicalPassword(raw);
    } finally {
      raw.fill(0);
    }
  }

  async #read(request: SecretRequest): Promise<Uint8Array> {
    const { name, option, file } = request;
    if (file === '-') return this.#line(name);
    if (file !== undefined) return onlyLine(readPrivateFile(file, secretBytesMax), name);
    if (this.#input.isTTY !== true) {
      throw usage(
        `no terminal to ask for the ${name}; use ${option} FILE, or - for standard input`,
      );
    }
    const typed = await this.#typed(`${name}: `);
    if (!request.isNew) return typed;
    const again = await this.#typed(`${name}, again: `);
    const isSame = Buffer.compare(typed, again) === 0;
    again.fill(0);
    if (isSame) return typed;
    typed.fill(0);
    throw usage(`the ${name} was typed in two ways; nothing was done`);
  }

  /** What is left of standard input, as text. Throws CommandError above `maxBytes`. */
  async remaining(maxBytes: number): Promise<string> {
    let isOpen = true;
    while (isOpen && this.#rest.length <= maxBytes) isOpen = await this.#more();
    if (this.#rest.length > maxBytes) throw usage(`standard input: more than ${maxBytes} bytes`);
    return new TextDecoder('utf-8').decode(this.#rest);
  }

  async #line(name: string): Promise<Uint8Array> {
    for (;;) {
      const end = this.#rest.indexOf(newline);
      if (end >= 0) return this.#take(end, 1);
      if (this.#rest.length > secretBytesMax) {
        throw usage(`standard input: the ${name} has more than ${secretBytesMax} bytes`);
      }
      if (await this.#more()) continue;
      if (this.#rest.length === 0) throw usage(`standard input ended before the ${name}`);
      return this.#take(this.#rest.length, 0);
    }
  }

  #take(length: number, skipped: number): Uint8Array {
    const line = withoutReturn(Uint8Array.from(this.#rest.subarray(0, length)));
    const rest = Uint8Array.from(this.#rest.subarray(length + skipped));
    this.#rest.fill(0);
    this.#rest = rest;
    return line;
  }

  /** Reads on; false at the end. */
  async #more(): Promise<boolean> {
    const chunk = await nextChunk(this.#input, this.#interrupted);
    if (chunk === undefined) return false;
    const joined = new Uint8Array(this.#rest.length + chunk.length);
    joined.set(this.#rest);
    joined.set(chunk, this.#rest.length);
    this.#rest.fill(0);
    chunk.fill(0);
    this.#rest = joined;
    return true;
  }

  /** One line from the keyboard with the echo off. */
  async #typed(prompt: string): Promise<Uint8Array> {
    this.#prompt.write(prompt);
    this.#input.setRawMode?.(true);
    const line = new TypedLine();
    try {
      for (;;) {
        const chunk = await nextChunk(this.#input, this.#interrupted);
        if (chunk === undefined) throw cancelled();
        const isDone = line.add(chunk);
        chunk.fill(0);
        if (isDone) return line.take();
      }
    } finally {
      line.wipe();
      this.#input.setRawMode?.(false);
      this.#prompt.write('\n');
    }
  }
}

/** What was typed so far, with the few keys that a raw terminal no longer handles. */
class TypedLine {
  readonly #bytes = new Uint8Array(secretBytesMax);
  #length = 0;

  /** True when the line is complete. Throws CommandError at Ctrl-C and Ctrl-D. */
  add(chunk: Uint8Array): boolean {
    for (const byte of chunk) {
      if (byte === 0x0d || byte === newline) return true;
      if (byte === 0x03 || byte === 0x04) throw cancelled();
      if (byte === 0x7f || byte === 0x08) this.#erase();
      else if (byte === 0x15) this.wipe();
      else if (byte >= 0x20 && this.#length < secretBytesMax) {
        this.#bytes[this.#length] = byte;
        this.#length += 1;
      }
    }
    return false;
  }

  take(): Uint8Array {
    return Uint8Array.from(this.#bytes.subarray(0, this.#length));
  }

  wipe(): void {
    this.#bytes.fill(0);
    this.#length = 0;
  }

  /** One character of UTF-8: continuation bytes go with the byte that leads them. */
  #erase(): void {
    let last = 0x80;
    while (this.#length > 0 && (last & 0xc0) === 0x80) {
      this.#length -= 1;
      last = this.#bytes[this.#length] ?? 0;
      this.#bytes[this.#length] = 0;
    }
  }
}

/**
 * The next bytes of a paused stream, as a copy that may be wiped; undefined at its end. Throws the
 * signal's reason.
 */
async function nextChunk(input: Readable, signal: AbortSignal): Promise<Uint8Array | undefined> {
  signal.throwIfAborted();
  if (input.readableEnded) return undefined;
  const settled = Promise.withResolvers<Uint8Array | undefined>();
  const onData = (chunk: Uint8Array): void => settled.resolve(Uint8Array.from(chunk));
  const onEnd = (): void => settled.resolve(undefined);
  const onAbort = (): void => settled.reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort);
  input.on('data', onData).on('end', onEnd).on('error', settled.reject).resume();
  // Paused at the first chunk: what comes later stays in the stream for whoever asks next.
  input.once('data', () => input.pause());
  try {
    return await settled.promise;
  } finally {
    input.pause();
    input.off('data', onData).off('end', onEnd).off('error', settled.reject);
    signal.removeEventListener('abort', onAbort);
  }
}

/** A secret file holds one line; its end is not part of the secret. */
function onlyLine(bytes: Uint8Array, name: string): Uint8Array {
  const end = bytes.indexOf(newline);
  if (end >= 0 && end !== bytes.length - 1) {
    bytes.fill(0);
    throw usage(`the file with the ${name} has more than one line`);
  }
  const line = withoutReturn(Uint8Array.from(end < 0 ? bytes : bytes.subarray(0, end)));
  bytes.fill(0);
  return line;
}

function withoutReturn(line: Uint8Array): Uint8Array {
  return line.at(-1) === 0x0d ? line.subarray(0, -1) : line;
}

function cancelled(): CommandError {
  return new CommandError(exitFailed, 'CANCELLED', 'cancelled');
}
