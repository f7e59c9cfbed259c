/** Output for people and for programs, and text of others that must not rule a terminal. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { QpcError, Status, TransportError } from '@quicprochat/proto';
import { failureOf, usage } from './failure.ts';
import { Output, visible } from './output.ts';

test('control and direction characters are written out, everything else stays', () => {
  assert.equal(visible('Zoë 👋 日本'), 'Zoë 👋 日本');
  assert.equal(
    visible('a\u0007\u001b]0;x\u009b\r\n\u2028\u202e\u2066b'),
    'a\\u{7}\\u{1b}]0;x\\u{9b}\\u{d}\\u{a}\\u{2028}\\u{202e}\\u{2066}b',
  );
});

test('results go to standard output, notices of people and failures to standard error', async () => {
  const [out, error] = [new PassThrough(), new PassThrough()];
  const output = new Output(out, error);
  await output.result('a line', { type: 'a' });
  await output.notice('an aside', { type: 'b' });
  output.failure('REASON', 'what to do');
  assert.equal(String(out.read()), 'a line\n');
  assert.equal(String(error.read()), 'an aside\nqpc: what to do\n');
  output.useJson(true);
  await output.result('a line', { type: 'a', n: 1 });
  await output.notice('an aside', { type: 'b', list: ['x'] });
  output.failure('REASON', 'what to do');
  assert.equal(String(out.read()), '{"type":"a","n":1}\n{"type":"b","list":["x"]}\n');
  assert.equal(String(error.read()), '{"type":"error","reason":"REASON","message":"what to do"}\n');
});

test('a result waits for a reader that is slow', async () => {
  const out = new PassThrough({ highWaterMark: 4 });
  const output = new Output(out, new PassThrough());
  let isWritten = false;
  const writing = output.result('a long line', { type: 'a' }).then(() => {
    isWritten = true;
  });
  await Promise.resolve();
  assert.equal(isWritten, false);
  out.resume();
  await writing;
});

test('errors become one safe line with the right exit code', () => {
  const failed = failureOf(new QpcError(Status.Internal, 'SOMETHING', 'two\nlines \u001b[31m'));
  assert.deepEqual(failed, {
    exitCode: 1,
    reason: 'SOMETHING',
    message: 'two\\u{a}lines \\u{1b}[31m',
  });
  assert.equal(failureOf(usage('x'))?.exitCode, 2);
  assert.match(
    failureOf(new TransportError('refusedIdentity', 'x'))?.message ?? '',
    /another key than the pin/,
  );
  const bug = failureOf(new TypeError('oops'));
  assert.equal(bug?.reason, 'BUG');
  assert.match(bug.message, /output\.test\.ts/);
});
