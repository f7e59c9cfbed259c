/** The pages for operators are whole: every line of the log that asks for something, every key of the configuration, every command. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';

const repository = resolve(import.meta.dirname, '../..');
const pagesIn = (folder: string): string[] =>
  readdirSync(join(repository, folder)).map((name) => join(repository, folder, name));
const operator = pagesIn('docs/operator');
const text = (path: string): string => readFileSync(path, 'utf8');
const all = [...operator, join(repository, 'docs/protocol/federation.md')].map(text).join('\n');

test('every event that is logged at warn or error is on a page', () => {
  const sources = globSync('{nodes,federation,p2p,proto,kt-log}/**/*.ts', {
    cwd: repository,
    exclude: (name) => name.includes('node_modules'),
  }).filter((name) => !name.endsWith('.test.ts'));
  const events = sources.flatMap((name) =>
    [...text(join(repository, name)).matchAll(/log\.(?:warn|error)\(\s*'([^']+)'/g)].map(
      ([, event = '']) => event,
    ),
  );
  assert.ok(events.length > 70, `${events.length} events`);
  const faults = [...text(join(repository, 'nodes/main.ts')).matchAll(/log, '([^']+)', error/g)];
  for (const event of [...events, ...faults.map(([, event = '']) => event)]) {
    assert.ok(all.includes(`\`${event}\``), `${event} is on no page`);
  }
});

test('every key of the configuration is on its page', () => {
  const source = text(join(repository, 'nodes/config.ts'));
  const schema = source.slice(source.indexOf('const schema'), source.indexOf('export interface'));
  const keys = [...schema.matchAll(/^ +(\w+): (?:v\.|count\(|rate\(|path|socketAddress)/gm)];
  assert.ok(keys.length > 70, `${keys.length} keys`);
  const page = text(join(repository, 'docs/operator/configuration.md'));
  for (const [, key] of keys) assert.match(page, new RegExp(`[\`.[]${key}[\`\\].]`), key);
});

test('every command is on a page', () => {
  const source = text(join(repository, 'nodes/main.ts'));
  const groups = [...source.matchAll(/const (\w+) = program\n {2}\.command/g)].map(
    ([, name]) => name,
  );
  const commands = [...source.matchAll(/^(\w+)\n? *\.command\('([a-z]+)'/gm)];
  assert.ok(groups.length >= 4 && commands.length >= 15, `${commands.length} commands`);
  for (const [, group = '', name = ''] of commands) {
    const command = group === 'program' ? name : `${group} ${name}`;
    const isDefault = ['list', 'show'].includes(name);
    const isThere = all.includes(`qpcd ${command}`) || all.includes(`qpcd ${group}|${name}`);
    assert.ok(
      isThere || (isDefault && all.includes(`qpcd ${group}`)),
      `qpcd ${command} is on no page`,
    );
  }
});

test('pages link to pages that exist', () => {
  for (const folder of ['docs/operator', 'docs/auditor']) {
    for (const path of pagesIn(folder)) {
      for (const [, target = ''] of text(path).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
        assert.ok(existsSync(join(repository, folder, target)), `${path}: ${target}`);
      }
    }
  }
});
