/**
 * What commands print: lines for people, or with --json one object per line for programs. Text
 * of others never reaches a terminal raw: control characters could rewrite what was shown.
 */
import { once } from 'node:events';
import type { Writable } from 'node:stream';

/** One printed result; `type` tells programs what it is. */
export type JsonRecord = { readonly type: string } & Readonly<
  Record<string, string | number | boolean | readonly string[] | null>
>;

export class Output {
  readonly #stdout: Writable;
  readonly #stderr: Writable;
  #isJson = false;

  constructor(stdout: Writable, stderr: Writable) {
    this.#stdout = stdout;
    this.#stderr = stderr;
  }

  /** Set once the options are known. */
  useJson(isJson: boolean): void {
    this.#isJson = isJson;
  }

  /** A result. Resolves when the stream took it, so that a slow reader slows the command. */
  async result(line: string, record: JsonRecord): Promise<void> {
    const text = this.#isJson ? JSON.stringify(record) : line;
    if (!this.#stdout.write(`${text}\n`)) await once(this.#stdout, 'drain');
  }

  /** Something worth knowing that is no result: a result for programs, an aside for people. */
  async notice(line: string, record: JsonRecord): Promise<void> {
    if (this.#isJson) await this.result(line, record);
    else this.#stderr.write(`${line}\n`);
  }

  /** Resolves when everything written has left this process. */
  async flush(): Promise<void> {
    for (const stream of [this.#stdout, this.#stderr]) {
      await new Promise<void>((resolve) => {
        stream.write('', () => resolve());
      });
    }
  }

  /** The one line of a command that failed. */
  failure(reason: string, message: string): void {
    const text = this.#isJson
      ? JSON.stringify({ type: 'error', reason, message })
      : `qpc: ${message}`;
    this.#stderr.write(`${text}\n`);
  }
}

/** C0, C1, line separators, and the marks that turn text around (Unicode bidirectional controls). */
const unprintable = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** Text on one line with every control character written out, like \u{1b}. */
export function visible(text: string): string {
  return text.replaceAll(
    unprintable,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
