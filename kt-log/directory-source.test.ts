/** A mirrored directory that somebody else made: what stands in it cannot hold or fill its reader. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PayloadTooLargeError, UnavailableError } from '@quicprochat/proto/status';
import { directoryReader } from './directory-source.ts';

test('only plain files are read, up to their bound', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-mirror-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const at = (name: string): string => join(directory, name);
  writeFileSync(at('plain'), Buffer.alloc(100_000, 7));
  symlinkSync(at('plain'), at('link'));
  symlinkSync('/dev/zero', at('endless'));
  execFileSync('mkfifo', [at('pipe')]);
  const reader = directoryReader(directory);
  for (const name of ['plain', 'link']) {
    const bytes = await reader.read(name, 100_000);
    assert.deepEqual(bytes, new Uint8Array(100_000).fill(7));
    await assert.rejects(reader.read(name, 99_999), PayloadTooLargeError);
  }
  for (const name of ['endless', 'pipe', '.']) {
    await assert.rejects(reader.read(name, 1_000), UnavailableError);
  }
  assert.equal(await reader.read('missing', 1_000), undefined);
});
