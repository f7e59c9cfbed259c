/**
 * Proves that the linter refuses what the house forbids: plants one violation per rule and per
 * pair of floors in a temporary tree, runs oxlint there with this repository's configuration, and
 * expects exactly the planted findings. A clean file stands beside them.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What each package may import by name: the architecture in one table. */
const floors: Readonly<Record<string, readonly string[]>> = {
  proto: [],
  'kt-log': ['proto'],
  federation: ['proto', 'kt-log'],
  p2p: ['proto', 'kt-log'],
  nodes: ['proto', 'kt-log', 'federation', 'p2p'],
  'client-lib': ['proto', 'kt-log', 'p2p'],
};
const packages = Object.keys(floors);

/**
 * Runs oxlint over a planted tree; answers `path rule` for each finding, sorted. All files but
 * `ignored` of them must have been looked at.
 */
function lint(files: Readonly<Record<string, string>>, ignored = 0): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-lint-'));
  try {
    for (const name of ['.oxlintrc.json', 'tsconfig.json']) {
      copyFileSync(join(root, name), join(directory, name));
    }
    symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'), 'junction');
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), text);
    }
    // Folders by name: without them oxlint would follow the link to node_modules.
    const folders = [...new Set(Object.keys(files).map((path) => path.split('/')[0] ?? ''))];
    const oxlint = join(root, 'node_modules/oxlint/bin/oxlint');
    const run = spawnSync(
      process.execPath,
      [oxlint, '--deny-warnings', '--format=json', ...folders],
      { cwd: directory, encoding: 'utf8', timeout: 60_000 },
    );
    assert.ok(run.status === 0 || run.status === 1, `oxlint failed: ${run.stderr}${run.stdout}`);
    const report = JSON.parse(run.stdout) as {
      readonly number_of_files: number;
      readonly diagnostics: readonly { readonly filename: string; readonly code: string }[];
    };
    assert.equal(report.number_of_files, Object.keys(files).length - ignored);
    assert.equal(run.status, report.diagnostics.length === 0 ? 0 : 1);
    return report.diagnostics.map(({ filename, code }) => `${filename} ${code}`).sort();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A file name that tells which pair of floors it tries. */
const tries = (from: string, to: string, how: string): string => `${from}/deep/${to}-${how}.ts`;

test('the floors: each package imports the packages below it, by door name, and nothing else', () => {
  const files: Record<string, string> = {};
  const expected: string[] = [];
  const plant = (path: string, specifier: string, allowed: boolean): void => {
    files[path] = `import { a } from '${specifier}';\nexport const b: unknown = a;\n`;
    if (!allowed) expected.push(`${path} eslint(no-restricted-imports)`);
  };
  for (const [from, allowed] of Object.entries(floors)) {
    for (const to of packages) {
      plant(tries(from, to, 'door'), `@quicprochat/${to}`, allowed.includes(to));
      plant(tries(from, to, 'inner-door'), `@quicprochat/${to}/some/door`, allowed.includes(to));
      if (to !== from) plant(tries(from, to, 'relative'), `../../${to}/deep/x.ts`, false);
    }
    plant(tries(from, 'tests', 'relative'), '../../tests/x.ts', false);
  }
  for (const to of packages) {
    plant(tries('tests', to, 'door'), `@quicprochat/${to}`, true);
    plant(tries('tests', to, 'relative'), `../../${to}/deep/x.ts`, false);
  }
  assert.deepEqual(lint(files), expected.sort());
});

/** One violation for each rule that the house relies on, by the rule's name. */
const violations: Readonly<Record<string, string>> = {
  'typescript(no-floating-promises)': `
    async function work(): Promise<void> { await Promise.resolve(); }
    export function start(): void { work(); }`,
  'typescript(no-misused-promises)': `
    export function each(list: readonly number[]): void {
      list.forEach(async (n) => { await Promise.resolve(n); });
    }`,
  'typescript(return-await)': `
    export async function read(from: () => Promise<number>): Promise<number> {
      try { return from(); } catch (error) { throw new Error('x', { cause: error }); }
    }`,
  'typescript(only-throw-error)': `export function fail(): never { throw 'text'; }`,
  'typescript(no-explicit-any)': `export type Anything = any;`,
  'typescript(no-non-null-assertion)': `
    export const first = (list: readonly number[]): number => list[0]!;`,
  'typescript(no-unsafe-assignment)': `export const parsed = { ...JSON.parse('{}') };
    export const config: { a: number } = JSON.parse('{}');`,
  'typescript(switch-exhaustiveness-check)': `
    export function name(kind: 'a' | 'b'): string {
      switch (kind) { case 'a': return 'A'; }
      return '';
    }`,
  'typescript(consistent-type-imports)': `
    import { Stats } from 'node:fs';
    export const size = (stats: Stats): number => stats.size;`,
  'typescript(ban-ts-comment)': `
    // @ts-ignore
    export const a: number = 1;`,
  'import(no-default-export)': `export default 1;`,
  'eslint(no-unused-vars)': `const unused = 1; export const used = 2;`,
  'eslint(eqeqeq)': `export const same = (a: unknown, b: unknown): boolean => a == b;`,
  'eslint(no-empty)': `export function f(g: () => void): void { try { g(); } catch {} }`,
  'eslint(prefer-const)': `let a = 1; export const b = a;`,
  'unicorn(prefer-node-protocol)': `import { readFileSync } from 'fs'; export const a = readFileSync;`,
};

test('each rule refuses its planted violation, and a clean file passes', () => {
  const files: Record<string, string> = {
    'nodes/clean.ts': `
      import { readFile } from 'node:fs/promises';
      export const read = async (path: string): Promise<Uint8Array> => readFile(path);`,
    'nodes/clean.test.ts': `
      import { test } from 'node:test';
      test('no await is needed here', async () => { await Promise.resolve(); });`,
    'nodes/one.ts': `import { two } from './two.ts'; export const one = (): number => two() + 1;`,
    'nodes/two.ts': `import { one } from './one.ts'; export const two = (): number => one() + 1;`,
    'nodes/Not_Kebab.ts': `export const a = 1;`,
  };
  const expected = [
    'nodes/Not_Kebab.ts unicorn(filename-case)',
    'nodes/one.ts import(no-cycle)',
    'nodes/two.ts import(no-cycle)',
  ];
  for (const [rule, text] of Object.entries(violations)) {
    const path = `nodes/${rule.replace(/[^a-z]+/g, '-').replace(/-$/, '')}.ts`;
    files[path] = text;
    expected.push(`${path} ${rule}`);
  }
  assert.deepEqual([...new Set(lint(files))], expected.sort());
});

test('generated code is left alone', () => {
  const text = 'export type A = any;\n';
  const findings = lint({ 'proto/gen/plant_pb.ts': text, 'proto/plant.ts': text }, 1);
  assert.deepEqual(findings, ['proto/plant.ts typescript(no-explicit-any)']);
});
