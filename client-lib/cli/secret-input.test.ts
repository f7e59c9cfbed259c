/** Secrets from a keyboard in raw mode, from lines of a pipe, and what ends a prompt. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { CommandError } from './failure.ts';
import { SecretInput, type SecretRequest } from './secret-input.ts';

/** A keyboard whose keys arrive in the given chunks, and the screen that a person sees. */
class Keyboard extends PassThrough {
  readonly isTTY = true;
  readonly screen = new PassThrough();
  isRaw = false;
  /** Keys pressed each time the echo goes off. */
  readonly #turns: (readonly (string | Uint8Array)[])[];

  constructor(...turns: readonly (string | Uint8Array)[][]) {
    super();
    this.#turns = [...turns];
  }
  setRawMode(isRaw: boolean): void {
    this.isRaw = isRaw;
    if (!isRaw) return;
    for (const keys of this.#turns.shift() ?? []) this.write(keys);
  }
  shown(): string {
    return String(this.screen.read() ?? '');
  }
}

const never = new AbortController().signal;
const request: SecretRequest = {
  name: 'password',
  option: '--password-file',
  file: undefined,
  isNew: false,
};
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

async function typed(...turns: (string | Uint8Array)[][]): Promise<string> {
  const keyboard = new Keyboard(...turns);
  const input = new SecretInput(keyboard, keyboard.screen, never);
  return text(await input.ask(request));
}

test('what is typed comes back and is never shown; the echo is on again', async () => {
  const keyboard = new Keyboard(['hor', 'se\r']);
  const input = new SecretInput(keyboard, keyboard.screen, never);
  assert.equal(text(await input.ask(request)), 'horse');
  assert.equal(keyboard.shown(), 'password: \n');
  assert.equal(keyboard.isRaw, false);
});

test('backspace takes a whole character, Ctrl-U the line', async () => {
  assert.equal(await typed(['pasz\u007fs\r']), 'pass');
  assert.equal(await typed(['Zoé\u007f\u007fe\n']), 'Ze');
  assert.equal(await typed(['\u007f\u007fx\r']), 'x');
  assert.equal(await typed(['wrong\u0015right\r']), 'right');
  // A character whose bytes come apart, and a paste with a second line that is not ours.
  const [first, second] = [Uint8Array.of(0xc3), Uint8Array.of(0xa9, 0x0d)];
  assert.equal(await typed([first, second]), 'é');
});

test('a new secret is typed twice, the same way', async () => {
  const isNew = { ...request, isNew: true };
  const same = new Keyboard(['one\r'], ['one\r']);
  const input = new SecretInput(same, same.screen, never);
  assert.equal(text(await input.ask(isNew)), 'one');
  assert.equal(same.shown(), 'password: \npassword, again: \n');
  const other = new Keyboard(['one\r'], ['two\r']);
  await assert.rejects(new SecretInput(other, other.screen, never).ask(isNew), {
    reason: 'USAGE',
  });
});

test('Ctrl-C, Ctrl-D, a closed terminal and a signal end the prompt with the echo on', async () => {
  for (const key of ['\u0003', '\u0004']) {
    const keyboard = new Keyboard([`se${key}`]);
    await assert.rejects(new SecretInput(keyboard, keyboard.screen, never).ask(request), {
      reason: 'CANCELLED',
    });
    assert.equal(keyboard.isRaw, false);
  }
  const closed = new Keyboard([]);
  closed.end();
  await assert.rejects(new SecretInput(closed, closed.screen, never).ask(request), CommandError);
  const interrupted = new AbortController();
  const silent = new Keyboard([]);
  const asking = new SecretInput(silent, silent.screen, interrupted.signal).ask(request);
  interrupted.abort(new CommandError(1, 'INTERRUPTED', 'interrupted'));
  await assert.rejects(asking, { reason: 'INTERRUPTED' });
  assert.equal(silent.isRaw, false);
});

test('standard input gives one line to each secret and the rest to whoever asks', async () => {
  const pipe = new PassThrough();
  const input = new SecretInput(pipe, new PassThrough(), never);
  for (const chunk of ['pass', 'word\r\nphr', 'ase\nthe te', 'xt\nof it\n']) pipe.write(chunk);
  pipe.end();
  const fromStdin = { ...request, file: '-' };
  assert.equal(text(await input.ask(fromStdin)), 'password');
  assert.equal(text(await input.ask(fromStdin)), 'phrase');
  assert.equal(await input.remaining(100), 'the text\nof it\n');
  await assert.rejects(new SecretInput(pipe, new PassThrough(), never).ask(fromStdin), {
    reason: 'USAGE',
  });
});

test('standard input without an end to its line is bounded', async () => {
  const pipe = new PassThrough();
  pipe.write('x'.repeat(10_000));
  const input = new SecretInput(pipe, new PassThrough(), never);
  await assert.rejects(input.ask({ ...request, file: '-' }), /more than 4096 bytes/);
  await assert.rejects(input.remaining(9_999), /more than 9999 bytes/);
});

test('without a terminal nobody is asked', async () => {
  const input = new SecretInput(new PassThrough(), new PassThrough(), never);
  await assert.rejects(input.ask(request), /use --password-file FILE/);
});
