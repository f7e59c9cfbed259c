/** The secret search itself: a mark that is planted in any form, anywhere, is found. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { filesBelow, findMarks, markParts, searchForms, textMark } from './secret-search.ts';

const secret = { name: 'secret', bytes: new Uint8Array(randomBytes(32)) };

/** Forms in which the secret is found in the bytes. */
function formsFound(bytes: Uint8Array | string): string[] {
  const haystack = { place: 'here', bytes: Buffer.from(bytes) };
  return findMarks([haystack], [secret]).map(({ form }) => form);
}

test('raw bytes are found inside other bytes', () => {
  const text = Buffer.concat([randomBytes(1000), secret.bytes, randomBytes(1000)]);
  assert.deepEqual(formsFound(text), ['raw']);
});

test('both cases of hex are found', () => {
  const hex = Buffer.from(secret.bytes).toString('hex');
  assert.deepEqual(formsFound(`{"key":"${hex}"}`), ['hex']);
  assert.deepEqual(formsFound(`{"key":"${hex.toUpperCase()}"}`), ['HEX']);
});

test('base64 and base64url are found behind and before any number of other bytes', () => {
  for (const encoding of ['base64', 'base64url'] as const) {
    for (let before = 0; before < 7; before += 1) {
      for (let after = 0; after < 4; after += 1) {
        const all = Buffer.concat([randomBytes(before), secret.bytes, randomBytes(after)]);
        const found = formsFound(`x ${all.toString(encoding)} y`);
        assert.ok(found.includes(`${encoding} at ${before % 3}`), `${encoding} ${before} ${after}`);
      }
    }
  }
});

test('what JSON and inspect make of bytes is found', () => {
  const { bytes } = secret;
  assert.deepEqual(formsFound(JSON.stringify([...bytes])), ['list']);
  assert.deepEqual(formsFound(JSON.stringify({ bytes })), ['object']);
  assert.deepEqual(formsFound(JSON.stringify(Buffer.from(bytes))), ['list']);
  assert.deepEqual(formsFound(inspect(Buffer.from(bytes))), ['hex with spaces']);
  assert.deepEqual(formsFound(inspect([...bytes].join(', '))), ['list with spaces']);
});

test('text is found as it stands and encoded', () => {
  const mark = textMark('password', 'correct horse battery staple');
  for (const { form, needle } of searchForms(mark.bytes)) {
    const bytes = Buffer.concat([randomBytes(50), needle, randomBytes(50)]);
    const hits = findMarks([{ place: 'log', bytes }], [mark]);
    assert.ok(hits.some((hit) => hit.form === form && hit.place === 'log'));
  }
});

test('each part of a long secret is found alone', () => {
  const long = new Uint8Array(randomBytes(128));
  const parts = markParts('setup', long);
  assert.equal(parts.length, 4);
  const haystack = { place: 'here', bytes: Buffer.from(long.subarray(60, 100)) };
  assert.deepEqual(
    findMarks([haystack], parts).map(({ mark }) => mark),
    ['setup [64]'],
  );
});

test('files are found below a directory, and random bytes hold no mark', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-search-'));
  try {
    mkdirSync(join(directory, 'a', 'b'), { recursive: true });
    writeFileSync(join(directory, 'a', 'b', '.hidden'), secret.bytes);
    writeFileSync(join(directory, 'other'), randomBytes(1_000_000));
    const hits = findMarks(filesBelow(directory), [secret]);
    assert.deepEqual(hits, [
      { mark: 'secret', form: 'raw', place: join(directory, 'a', 'b', '.hidden') },
    ]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test('a mark that chance could find is refused', () => {
  assert.throws(() => searchForms(randomBytes(8)), /too few/);
});
