/** Whom `qpcd peers reload` signals: the process that has the database, and nobody whose number it once was. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { signalReload, writePidFile } from './peers-commands.ts';
import { SetupError } from './setup-error.ts';
import { FileLock, pidFileOf } from './store/file-lock.ts';

const directory = mkdtempSync(join(tmpdir(), 'qpcd-pid-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const database = join(directory, 'node.db');
const hangups: string[] = [];
const onHangup = (): void => void hangups.push('hangup');
process.on('SIGHUP', onHangup);
after(() => process.off('SIGHUP', onHangup));

const refusal = (message: RegExp) => (error: unknown) =>
  error instanceof SetupError && message.test(error.message);

test('a number that a killed node left is signalled by nobody, while another command or a start has the database', () => {
  // Of some process that is none of ours.
  writeFileSync(pidFileOf(database), `${process.pid}\n`);
  using _ = new FileLock(database);
  assert.equal(existsSync(pidFileOf(database)), false);
  assert.throws(() => signalReload(database), refusal(/starting.*try again/));
});

test('without a node there is nobody to signal', () => {
  writeFileSync(pidFileOf(database), `${process.pid}\n`);
  assert.throws(() => signalReload(database), refusal(/no node runs on it/));
});

test('the node that runs is signalled', async () => {
  using _ = new FileLock(database);
  writePidFile(database);
  const hungUp = new Promise((resolve) => process.once('SIGHUP', resolve));
  assert.equal(signalReload(database), process.pid);
  await hungUp;
  assert.equal(hangups.length, 1);
});
