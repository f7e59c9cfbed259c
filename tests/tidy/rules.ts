/**
 * The house rules that no linter knows, each with the violation that proves it works.
 * What the compiler, oxlint or knip check is not here.
 */
import { dirname, posix } from 'node:path';

import type { SourceFile, SourceTree } from './tree.ts';

/** One breach; `line` counts from 1. */
export interface Finding {
  readonly rule: string;
  readonly path: string;
  readonly line: number;
  readonly message: string;
}
/** A rule and a file that breaks it. */
export interface Rule {
  readonly name: string;
  readonly plant: { readonly path: string; readonly text: string };
  check(file: SourceFile, tree: SourceTree): readonly Breach[];
}
type Breach = Omit<Finding, 'rule' | 'path'>;

/** Every breach of every rule in the tree. */
export function checkTree(tree: SourceTree): Finding[] {
  return tree.files.flatMap((file) =>
    rules.flatMap((rule) =>
      rule.check(file, tree).map((breach) => ({ rule: rule.name, path: file.path, ...breach })),
    ),
  );
}

/** Lines of a file from which a reviewer should ask why; more than `maxLines` is refused. */
export const questionableLines = 500;
const maxLines = 700;
/** Files that may be longer, each with its reason. */
const longFiles: ReadonlyMap<string, string> = new Map();

const header = '/** Planted. */\n';

/** This file names what it forbids. */
const spellsItOut = (file: SourceFile): boolean => file.path === 'tests/tidy/rules.ts';
const isTypeScript = (file: SourceFile): boolean => file.path.endsWith('.ts');
/** Code that only tests load: it may look at the environment and act as a hostile peer. */
const isTestCode = (path: string): boolean =>
  /^tests\/|\.test\.ts$|\/contract\/|\/(?:spec-vectors|contract|test-[a-z-]+)\.ts$/.test(path);
const isCommand = (path: string): boolean => /^[a-z-]+\/main\.ts$|^client-lib\/cli\//.test(path);
/** A program of its own in a browser, where nobody could hand anything in. */
const isPageProgram = (path: string): boolean => path === 'nodes/http/look-up.ts';
const isRuntimeHome = (path: string): boolean => /^proto\/(?:runtime\.ts$|transport\/)/.test(path);

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split('\n').length;
}

/** A breach for each match of `pattern` in `text`. */
function matches(text: string, pattern: RegExp, message: (found: string) => string): Breach[] {
  return [...text.matchAll(pattern)].map((match) => ({
    line: lineAt(text, match.index),
    message: message(match[1] ?? match[0]),
  }));
}

/** A rule that forbids names in TypeScript code outside their home. */
function forbidden(
  name: string,
  home: (path: string) => boolean,
  patterns: { readonly code?: RegExp; readonly imports?: RegExp },
  advice: string,
  plant: Rule['plant'],
): Rule {
  return {
    name,
    plant,
    check(file) {
      if (!isTypeScript(file) || home(file.path)) return [];
      const message = (found: string): string => `${found.trim()}: ${advice}`;
      return [
        ...(patterns.code === undefined ? [] : matches(file.code, patterns.code, message)),
        ...(patterns.imports === undefined
          ? []
          : matches(file.uncommented, patterns.imports, message)),
      ];
    },
  };
}

const injected = 'comes in by injection (proto/runtime.ts)';

/** Joined, so that this file does not break its own rule. */
const machineWords = [
  ['/wo', 'rk/'],
  ['/ro', 'ot/'],
  ['/tmp/', 'team'],
  ['anthro', 'pic'],
  ['chat', 'gpt'],
  ['clau', 'de'],
  ['co', 'pilot'],
  ['language ', 'model'],
  ['npm', 'js.org'],
  ['arti', 'factory'],
]
  .map((parts) => parts.join(''))
  .concat([['https?://[^\\s/]*regis', 'try[^\\s/]*'].join('')]);
const machineWord = new RegExp(`(${machineWords.join('|')})`, 'gi');

export const rules: readonly Rule[] = [
  {
    name: 'header',
    plant: { path: 'proto/plant.ts', text: 'export const a = 1;\n' },
    check(file) {
      if (!isTypeScript(file)) return [];
      const comment = /^(?:#![^\n]*\n)?\s*\/\*([\s\S]*?)\*\//.exec(file.text)?.[1];
      if (comment === undefined) {
        return [{ line: 1, message: 'no block comment at the top: what the file is for' }];
      }
      // Structures and formulas may follow below an empty line; the words come first, and are few.
      const words = comment.replace(/^\s*\*?[ \t]*\n/, '').split(/\n[ \t]*\*?[ \t]*\n/, 1)[0] ?? '';
      const lines = words.split('\n').filter((line) => /[^\s*]/.test(line)).length;
      return lines >= 1 && lines <= 5
        ? []
        : [{ line: 1, message: `the comment at the top has ${lines} lines of text, need 1 to 5` }];
    },
  },
  {
    name: 'file length',
    plant: { path: 'proto/plant.ts', text: header + 'const a = 1;\n'.repeat(maxLines) },
    check(file) {
      const lines = file.text.split('\n').length - 1;
      if (!isTypeScript(file) || lines <= maxLines || longFiles.has(file.path)) return [];
      return [{ line: maxLines, message: `${lines} lines, at most ${maxLines}: split it` }];
    },
  },
  {
    name: 'file name',
    plant: { path: 'nodes/utils.ts', text: header },
    check(file) {
      const vague = /(?:^|\/)(?:utils?|helpers?|common|misc|types|manager)\.ts$/;
      return vague.test(file.path)
        ? [{ line: 1, message: 'name what it is, a noun of the field' }]
        : [];
    },
  },
  forbidden(
    'wall and monotonic time',
    (path) =>
      isRuntimeHome(path) || isCommand(path) || isPageProgram(path) || path.startsWith('tests/'),
    {
      code: /\bDate\s*\.\s*now\b|\bnew\s+Date\s*\(\s*\)|\bperformance\s*\.\s*now\b|\bprocess\s*\.\s*hrtime\b/g,
      imports: /from\s+['"](node:perf_hooks)['"]/g,
    },
    `time ${injected}`,
    { path: 'nodes/plant.ts', text: `${header}export const a = Date.now();\n` },
  ),
  forbidden(
    'timers',
    (path) => isRuntimeHome(path) || isCommand(path) || path.startsWith('tests/'),
    {
      code: /\b(?:setTimeout|setInterval|setImmediate)\b|\bAbortSignal\s*\.\s*timeout\b/g,
      imports: /from\s+['"](node:timers(?:\/promises)?)['"]/g,
    },
    `timers ${injected}; tests wait for events`,
    { path: 'nodes/plant.test.ts', text: `${header}setTimeout(() => {}, 5);\n` },
  ),
  forbidden(
    'unseeded randomness',
    (path) => isRuntimeHome(path) || isCommand(path) || path.startsWith('tests/'),
    { code: /\bMath\s*\.\s*random\b/g },
    `randomness ${injected}`,
    { path: 'client-lib/plant.test.ts', text: `${header}export const a = Math.random();\n` },
  ),
  forbidden(
    'randomness of the system',
    (path) => isRuntimeHome(path) || isCommand(path) || isPageProgram(path) || isTestCode(path),
    {
      code: /\bcrypto\s*\.\s*(?:random[A-Z]\w*|getRandomValues)\b|\brandom(?:Secret|Private)Key\s*\(\s*\)/g,
      imports:
        /import\s*\{[^}]*\b(random[A-Z]\w*|getRandomValues|generateKeyPair\w*)\b[^}]*\}\s*from\s*['"]node:crypto['"]/g,
    },
    `randomness ${injected}`,
    {
      path: 'client-lib/plant.ts',
      text: `${header}import { randomBytes } from 'node:crypto';\nexport const a = randomBytes(1);\n`,
    },
  ),
  forbidden(
    'network',
    // The HTTP door listens on a socket of its own kind; it reads only. A domain's own site is asked
    // over HTTPS, behind an interface that tests and the simulator fill otherwise.
    (path) =>
      isRuntimeHome(path) ||
      isTestCode(path) ||
      path === 'nodes/http.ts' ||
      path === 'nodes/services/fed-site.ts',
    {
      // isIP and its kin are pure functions that happen to live in node:net.
      imports:
        /(?<!\{\s*isIP(?:v[46])?\s*\}\s*)(?:from|import)\s*\(?\s*['"](node:(?:net|dgram|tls|https?|http2|dns(?:\/promises)?)|@matrixai\/quic)['"]/g,
    },
    'sockets live in proto/transport',
    { path: 'nodes/plant.ts', text: `${header}import { connect } from 'node:net';\nconnect(1);\n` },
  ),
  forbidden(
    'console',
    (path) => isCommand(path) || path.startsWith('tests/'),
    { code: /\bconsole\s*\.\s*\w+/g },
    'libraries write to the injected Log, commands to their own output',
    { path: 'federation/plant.ts', text: `${header}console.log(1);\n` },
  ),
  forbidden(
    'process.exit',
    // The last are entries of processes of their own, which end with the one that forked them.
    (path) =>
      isCommand(path) ||
      path.startsWith('tests/') ||
      /^(?:proto\/transport\/quiche|p2p\/swarm)-process\.ts$/.test(path),
    { code: /\bprocess\s*\.\s*(?:exit|abort|reallyExit)\b(?!Code)/g },
    'throw a typed error; the command decides',
    { path: 'nodes/plant.ts', text: `${header}process.exit(1);\n` },
  ),
  forbidden(
    'process.env',
    (path) => isCommand(path) || isTestCode(path),
    { code: /\bprocess\s*\.\s*env\b/g },
    'configuration comes in as an argument',
    { path: 'nodes/plant.ts', text: `${header}export const a = process.env['HOME'];\n` },
  ),
  forbidden(
    'dynamic import of a package',
    isTestCode,
    {
      imports:
        /\bimport\s*\(\s*['"](@quicprochat\/[^'"]*|(?:\.\.\/)+(?:proto|kt-log|federation|p2p|nodes|client-lib)\/[^'"]*)/g,
    },
    'the floors are checked on import declarations: write one',
    {
      path: 'client-lib/plant.ts',
      text: `${header}export const a = await import('@quicprochat/nodes');\n`,
    },
  ),
  {
    name: 'tests that are switched off',
    plant: {
      path: 'nodes/plant.test.ts',
      text: `${header}import { test } from 'node:test';\ntest.only('a', () => {});\n`,
    },
    check: (file) =>
      isTypeScript(file)
        ? matches(
            file.code,
            /\b(?:test|it|describe|suite)\s*\.\s*(?:only|todo|skip)\b|\bonly\s*:\s*true\b/g,
            (found) => `${found}: a test runs, or it goes`,
          )
        : [],
  },
  {
    name: 'open ends',
    plant: { path: 'nodes/plant.ts', text: `${header}// TODO later\n` },
    check: (file) =>
      isTypeScript(file) && !spellsItOut(file)
        ? matches(
            file.text,
            /\b(TODO|FIXME|HACK)\b(?!\(#\d+\))/g,
            (found) => `${found}: name an issue, as in ${found}(#12)`,
          )
        : [],
  },
  {
    name: 'lint exceptions say why',
    plant: { path: 'nodes/plant.ts', text: `${header}// oxlint-disable-next-line no-var\n` },
    check: (file) =>
      isTypeScript(file) && !spellsItOut(file)
        ? matches(
            file.text,
            /\b((?:ox|es)lint-disable[^\n]*)/g,
            (found) => `${found}: add "-- reason"`,
          ).filter(({ message }) => !/ -- \S/.test(message.replace(/: add "-- reason"$/, '')))
        : [],
  },
  {
    name: 'words of the workshop',
    plant: { path: 'README.md', text: `See ${machineWords[0]}somewhere.\n` },
    check: (file) =>
      matches(file.text, machineWord, (found) => `${found}: says nothing to a reader`),
  },
  {
    name: 'vectors name their source',
    plant: { path: 'kt-log/vectors/plant.json', text: '{ "cases": [] }\n' },
    check(file) {
      if (!/(?:^|\/)vectors\/.*\.json$/.test(file.path)) return [];
      const parsed: unknown = JSON.parse(file.text);
      const source =
        typeof parsed === 'object' && parsed !== null && 'source' in parsed ? parsed.source : '';
      return typeof source === 'string' && source !== ''
        ? []
        : [{ line: 1, message: 'no "source": where the vectors come from, under which licence' }];
    },
  },
  {
    name: 'doors of a package exist',
    plant: { path: 'p2p/package.json', text: '{ "exports": { ".": "./nowhere.ts" } }\n' },
    check(file, tree) {
      if (!/^[a-z0-9-]+\/package\.json$/.test(file.path)) return [];
      return matches(file.text, /"(?:\.\/)?([^"\s]+\.ts)"/g, (found) => found)
        .filter(({ message }) => !tree.has(`${dirname(file.path)}/${message}`))
        .map(({ line, message }) => ({ line, message: `${message}: no such file` }));
    },
  },
  {
    name: 'a package says where things are',
    plant: { path: 'p2p/package.json', text: '{ "exports": { "./hidden": "./package.json" } }\n' },
    check(file, tree) {
      const [folder = '', name] = file.path.split('/');
      if (name !== 'package.json') return [];
      const readme = tree.file(`${folder}/README.md`)?.text ?? '';
      const doors = matches(file.text, /"\.\/([^"\s]+)": "\.\//g, (door) => `/${door}\``);
      const folders = new Set(
        tree.files.flatMap(({ path }) => {
          const [top, below, inside] = path.split('/');
          return top === folder && inside !== undefined ? [`\`${below}/`] : [];
        }),
      );
      return [...doors, ...[...folders].map((message) => ({ line: 1, message }))]
        .filter(({ message }) => !readme.includes(message))
        .map(({ line, message }) => ({ line, message: `${message}: not in ${folder}/README.md` }));
    },
  },
  {
    name: 'links lead somewhere',
    plant: { path: 'docs/plant.md', text: '# A\n\nSee [b](nowhere.md) and [a](#a).\n' },
    check: (file, tree) => (file.path.endsWith('.md') ? deadLinks(file, tree) : []),
  },
];

/** Relative links of a Markdown file to files or headings that are not there. */
function deadLinks(file: SourceFile, tree: SourceTree): Breach[] {
  const prose = file.text
    .replace(/^(```|~~~)[\s\S]*?^\1/gm, (code) => code.replace(/[^\n]/g, ' '))
    .replace(/`[^`\n]*`/g, (code) => ' '.repeat(code.length));
  return [...prose.matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)/gm)].flatMap(
    (match) => {
      const link = match[1] ?? match[2] ?? '';
      if (/^[a-z][a-z0-9+.-]*:/i.test(link)) return [];
      const [target = '', anchor] = link.split('#', 2);
      const path =
        target === ''
          ? file.path
          : posix.normalize(`${posix.dirname(file.path)}/${decodeURI(target)}`);
      const line = lineAt(file.text, match.index);
      if (path.startsWith('..') || !tree.has(path))
        return [{ line, message: `${link}: no such file` }];
      const page = anchor === undefined ? undefined : tree.file(path);
      if (page === undefined || !page.path.endsWith('.md')) return [];
      return headings(page.text).has(anchor ?? '')
        ? []
        : [{ line, message: `${link}: no such heading` }];
    },
  );
}

/** Anchors of a page's headings, as forges make them. */
function headings(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, title = ''] of text.matchAll(/^#{1,6}\s+(.*?)\s*#*$/gm)) {
    const slug = title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-');
    let anchor = slug;
    for (let n = 1; anchors.has(anchor); n += 1) anchor = `${slug}-${n}`;
    anchors.add(anchor);
  }
  return anchors;
}
