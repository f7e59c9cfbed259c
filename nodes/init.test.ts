/** A node's directory that cannot be made is refused in one line, before anything is. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { initNode } from './init.ts';

const folder = mkdtempSync(join(tmpdir(), 'qpcd-init-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

test('a file in the place of the directory, or above it', async () => {
  const file = join(folder, 'file');
  writeFileSync(file, 'mine');
  const init = (directory: string): Promise<unknown> => {
    const listen = '127.0.0.1:5001';
    return initNode({ directory, domain: 'red.example', listen, advertise: listen }, runtime);
  };
  const refused = (message: RegExp) => ({ name: 'SetupError', message });
  await assert.rejects(init(file), refused(/^\S+file: is no directory[^\n]+$/));
  await assert.rejects(
    init(join(file, 'b')),
    refused(/^\S+b: cannot be made \(\w+ in [^\n]+--dir/),
  );
  assert.deepEqual(readdirSync(folder), ['file']);
});
