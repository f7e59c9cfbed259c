/** Builds our Go programs of the interop tests, where Go and the modules they name can be had. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type GoProgram =
  | { readonly isBuilt: true; readonly path: string }
  /** One line for the reader of the test's output. */
  | { readonly isBuilt: false; readonly why: string };

/** What Go says when a module cannot be fetched: no network, or a proxy that does not have it. */
const unreachable =
  /(403|404|410|50\d) |Forbidden|dial tcp|no such host|connection refused|i\/o timeout|module lookup disabled/u;

/**
 * `go build` of a folder. Throws when Go is there and the program is at fault: only what this
 * machine lacks is a reason to skip.
 */
export function buildGo(directory: string): GoProgram {
  const go = ['go', '/usr/local/go/bin/go'].find(
    (command) => spawnSync(command, ['version']).status === 0,
  );
  if (go === undefined) return { isBuilt: false, why: 'Go is not installed' };
  const path = join(mkdtempSync(join(tmpdir(), 'qpc-go-')), 'program');
  const built = spawnSync(go, ['build', '-o', path, '.'], {
    cwd: directory,
    encoding: 'utf8',
    timeout: 300_000,
    env: { ...process.env, GOFLAGS: process.env['GOFLAGS'] ?? '-mod=mod' },
  });
  if (built.status === 0) return { isBuilt: true, path };
  if (unreachable.test(built.stderr)) {
    const [line = ''] = built.stderr.split('\n').filter((text) => unreachable.test(text));
    return { isBuilt: false, why: `a Go module cannot be had here: ${shortened(line)}` };
  }
  throw new Error(`go build in ${directory}: ${built.stderr}`);
}

/** Without addresses: they are the machine's own matter. */
function shortened(line: string): string {
  return line
    .replace(/https?:\/\/\S+/gu, '(address)')
    .trim()
    .slice(0, 160);
}
