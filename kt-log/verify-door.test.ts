/** The `./verify` door runs in a browser: nothing behind it touches a Node built-in. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

/** Every file that `entry` imports, over relative imports and proto's status door. */
function reachable(entry: string, seen = new Set<string>()): Set<string> {
  if (seen.has(entry)) return seen;
  seen.add(entry);
  const source = readFileSync(entry, 'utf8');
  for (const [, clause, from = ''] of source.matchAll(
    /^(import|export)\s[^;]*?from\s+'([^']+)';/gms,
  )) {
    assert.ok(clause);
    if (from.startsWith('./')) reachable(join(dirname(entry), from), seen);
    else if (from === '@quicprochat/proto/status') {
      reachable(join(import.meta.dirname, '../proto/status.ts'), seen);
    } else seen.add(from);
  }
  return seen;
}

test('nothing behind the verify door is a Node built-in, a store or a server', () => {
  const files = [...reachable(join(import.meta.dirname, 'verify.ts'))];
  assert.ok(files.length > 20, `${files.length} modules`);
  const packages = files.filter((name) => !name.startsWith('/'));
  for (const name of packages) assert.match(name, /^@noble\/(curves|hashes)\//);
  for (const file of files.filter((name) => name.startsWith('/'))) {
    assert.doesNotMatch(file, /(store|sequencer|answers|snapshot|native-\w+|\/log)\.ts$/);
    // Comments may speak of Buffer; code may not use it, nor the process.
    const code = readFileSync(file, 'utf8').replaceAll(/\/\*.*?\*\/|\/\/[^\n]*/gs, '');
    assert.doesNotMatch(code, /\b(Buffer|process|require)\b/, file);
  }
});
