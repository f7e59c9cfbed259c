/**
 * Runs the house rules of tests/tidy over the repository, and each rule over a planted violation:
 * a check that cannot fail is no check. The rules of the linter are tested in lint.test.ts.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { blank } from './tidy/blank.ts';
import { checkTree, questionableLines, rules, type Finding, type Rule } from './tidy/rules.ts';
import { readTree } from './tidy/tree.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Writes files into a temporary tree, checks it, and removes it. */
function plantedFindings(files: readonly Rule['plant'][]): Finding[] {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-tidy-'));
  try {
    for (const { path, text } of files) {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), text);
    }
    const tree = readTree(directory);
    assert.equal(tree.files.length, files.length);
    return checkTree(tree);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

test('the repository keeps the house rules', (context) => {
  const tree = readTree(root);
  const sources = tree.files.filter(({ path }) => path.endsWith('.ts'));
  for (const folder of ['proto', 'nodes', 'federation', 'client-lib', 'tests']) {
    assert.ok(
      sources.some(({ path }) => path.startsWith(`${folder}/`)),
      `no source file found in ${folder}: nothing was checked`,
    );
  }
  assert.ok(
    tree.files.some(({ path }) => path.endsWith('.md')),
    'no page found',
  );
  for (const { path, text } of sources) {
    const lines = text.split('\n').length - 1;
    if (lines > questionableLines) context.diagnostic(`${path}: ${lines} lines, consider a split`);
  }
  context.diagnostic(`${tree.files.length} files checked, ${sources.length} of TypeScript`);
  const findings = checkTree(tree);
  assert.equal(
    findings.length,
    0,
    findings.map((f) => `\n${f.path}:${f.line}: [${f.rule}] ${f.message}`).join(''),
  );
});

for (const rule of rules) {
  test(`a planted violation is refused: ${rule.name}`, () => {
    const findings = plantedFindings([rule.plant]);
    assert.deepEqual(
      findings.map(({ rule: name, path }) => ({ name, path })),
      [{ name: rule.name, path: rule.plant.path }],
    );
  });
}

test('clean files pass, wherever a forbidden name is prose, text or in its home', () => {
  const findings = plantedFindings([
    { path: 'proto/runtime.ts', text: '/** A. */\nexport const now = () => Date.now();\n' },
    { path: 'nodes/main.ts', text: '#!/usr/bin/env node\n/** A. */\nprocess.exit(1);\n' },
    { path: 'tests/a.test.ts', text: '/** A. */\nsetTimeout(() => {}, 1);\n' },
    {
      path: 'nodes/a.ts',
      text: [
        '/**',
        ' * One.',
        ' * Two.',
        ' *',
        ' * 3',
        ' * 4',
        ' * 5',
        ' * 6',
        ' */',
        "import { isIP } from 'node:net';",
        '// Date.now, console.log',
        "export const a = 'Math.random process.exit';",
        'export const b = `setTimeout ${a} process.env`;',
        'export const c = /console.log/.test(a) ? 1 / 2 / 3 : 0;',
        'process.exitCode = 1;',
        '',
      ].join('\n'),
    },
    {
      path: 'docs/a.md',
      text: '# A b!\n\n[x](b.md#c-d) [y](#a-b) `[z](no.md)` [w](https://a.b/c)\n',
    },
    { path: 'docs/b.md', text: '## C d\n' },
    { path: 'kt-log/vectors/a.json', text: '{ "source": "RFC 9381" }\n' },
  ]);
  assert.deepEqual(findings, []);
});

test('blanking keeps lines, columns and code, and nothing else', () => {
  const text = 'a(`x${f({ b: "}" })}y`); // c\nd = e / f; g(/[/"]/, \'h\\\'i\'); /* j\nk */ l';
  const { code, uncommented } = blank(text);
  assert.equal(code, 'a(` ${f({ b: " " })} `);     \nd = e / f; g(/    /, \'    \');     \n     l');
  assert.equal(uncommented.length, text.length);
  assert.ok(uncommented.includes('`x${f({ b: "}" })}y`'));
  assert.ok(!uncommented.includes('// c') && !uncommented.includes('k */'));
});
