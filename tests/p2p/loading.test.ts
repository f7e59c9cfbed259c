/** A client that does not deliver past nodes loads nothing of libp2p, and one that does finds it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

/** Whether a program that imports this door has loaded libp2p then. */
async function loadsLibp2p(door: string): Promise<boolean> {
  const program = `
    import { registerHooks } from 'node:module';
    let found = false;
    registerHooks({
      load(url, context, next) {
        found ||= /node_modules\\/(libp2p|@libp2p|@chainsafe)\\//.test(url);
        return next(url, context);
      },
    });
    await import('${door}');
    console.log(found);
    process.exit();
  `;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program], {
    cwd: import.meta.dirname,
  });
  return stdout.trim() === 'true';
}

test('client-lib comes without libp2p, the device door of p2p brings it', async () => {
  const doors = ['client-lib', 'p2p/device'];
  const loaded = await Promise.all(doors.map((door) => loadsLibp2p(`@quicprochat/${door}`)));
  assert.deepEqual(loaded, [false, true]);
});
