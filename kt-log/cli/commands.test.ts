/**
 * The real command as a process, against mirrored directories and an HTTP server over them: an honest
 * log, a damaged one, kill -9 in the middle, a fork, and files that prove something or nothing.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encode } from '../presentation.ts';
import { auditBundle } from '../auditor.ts';
import { signedHead } from '../evidence.ts';
import { nativeSigner } from '../native-signer.ts';
import { nativeSuite } from '../native-suite.ts';
import { cosign, formatNote, formatVkey, noteKey, parseNote, SignatureType } from '../note.ts';
import { testKeys } from '../test-log.ts';
import { exportMirror, filesOf, LocalServer, TemporaryDirectory } from '../test-mirror.ts';
import { faceOf, growTo } from '../test-source.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));
const vkey = formatVkey(testKeys(40).identity.key);

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}
function start(args: readonly string[]) {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const ended = once(child, 'close').then(([code]): Ended => ({ code: code as number, out, err }));
  return { child, ended };
}
const command = (...args: readonly string[]): Promise<Ended> => start(args).ended;

/** A directory with places for mirrors, state and evidence. */
async function scene() {
  const directory = await TemporaryDirectory.make();
  const at = (name: string): string => join(directory.path, name);
  const follow = (target: string, ...more: readonly string[]): Promise<Ended> =>
    command('follow', target, '--once', '--state', at('state'), '--out', at('out'), ...more);
  return { directory, at, follow, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}
type Report = Readonly<Record<string, unknown>> & {
  readonly evidence: readonly { readonly file: string; readonly kind: string }[];
};
const reportOf = ({ out }: Ended): Report =>
  JSON.parse(out.trim().split('\n').at(-1) ?? '') as Report;

test('an honest log is followed from a directory and over HTTP, for people and programs', async () => {
  await using here = await scene();
  const face = await faceOf('a', 99, 7);
  await exportMirror(face, here.at('mirror'));
  const first = await here.follow(here.at('mirror'));
  assert.deepEqual([first.code, first.err], [0, ''], first.out);
  for (const part of [
    'ok: every entry',
    'entries 0 to 7 of 7',
    'evidence   none',
    vkey,
    'kt/tile/0/000.p/7',
  ]) {
    assert.ok(first.out.includes(part), `${part} in ${first.out}`);
  }
  await growTo(face, 'a', 99, 11);
  await exportMirror(face, here.at('mirror'));
  await using server = await LocalServer.start(filesOf(here.at('mirror')));
  const second = await here.follow(server.url, '--json', '--vkey', vkey);
  assert.equal(second.code, 0, second.out + second.err);
  const report = reportOf(second);
  const { status, replayedSize, newestSize, origin, pinnedBy } = report;
  assert.deepEqual(
    { status, replayedSize, newestSize, origin, pinnedBy },
    { status: 'ok', replayedSize: 11, newestSize: 11, origin: 'red.example', pinnedBy: 'vkey' },
  );
  assert.deepEqual(
    (report['entriesPerHour'] as number[]).reduce((a, b) => a + b, 0),
    4,
  );
  assert.equal(report['vkey'], vkey);
  const page = await readFile(new URL('../../docs/auditor/following-a-log.md', import.meta.url));
  for (const member of Object.keys(report)) {
    assert.ok(page.includes(`\`${member}\``), `${member} is on no page`);
  }
});

test('cosigners of a policy are named, and the quorum is counted', async () => {
  await using here = await scene();
  const face = await faceOf('a', 99, 3);
  await exportMirror(face, here.at('mirror'));
  const keys = ['blue', 'green'].map((name, i) => {
    const signer = nativeSigner(new Uint8Array(32).fill(100 + i));
    const { sha256 } = nativeSuite;
    const type = SignatureType.cosignatureV1;
    return { signer, key: noteKey(sha256, `${name}.example/auditor`, type, signer.publicKey) };
  });
  const [blue] = keys;
  assert.ok(blue);
  const path = join(here.at('mirror'), 'kt/checkpoint');
  const note = parseNote(new Uint8Array(await readFile(path)));
  const signatures = [...note.signatures, cosign(note.text, blue.key, blue.signer, 1_700_000_000)];
  await writeFile(path, formatNote({ ...note, signatures }));
  const policy = (count: number): string =>
    [
      ...keys.map(({ key }, i) => `witness w${i} ${formatVkey(key)}`),
      `group both ${count} w0 w1`,
      'quorum both\n',
    ].join('\n');
  await writeFile(here.at('policy'), policy(1));
  const one = await here.follow(here.at('mirror'), '--policy', here.at('policy'));
  assert.equal(one.code, 0, one.err);
  assert.match(one.out, /cosigners {2}quorum\n +signed +blue.example\/auditor.*\n +missing +green/);
  await writeFile(here.at('policy'), policy(2));
  const two = await here.follow(here.at('mirror'), '--json', '--policy', here.at('policy'));
  assert.deepEqual([two.code, reportOf(two)['hasQuorum']], [0, false]);
});

test('a damaged mirror, an unreachable one and another log are failures, not proofs', async () => {
  await using here = await scene();
  const face = await faceOf('a', 99, 5);
  await exportMirror(face, here.at('mirror'));
  await truncate(join(here.at('mirror'), 'kt/audit/0.p/5'), 300);
  const cut = await here.follow(here.at('mirror'), '--json');
  assert.deepEqual([cut.code, reportOf(cut)['status']], [1, 'suspect']);
  const gone = await here.follow('http://127.0.0.1:1');
  assert.equal(gone.code, 1);
  assert.match(gone.out, /behind: .*cannot be read/);
  const other = formatVkey(testKeys(90).identity.key);
  const refused = await here.follow(here.at('mirror'), '--vkey', other);
  assert.equal(refused.code, 1);
  assert.match(refused.out, /checkpoint key of the source: expected the one of --vkey/);
  // What was pinned the first time stays.
  await exportMirror({ ...face, ...testKeys(90) }, here.at('mirror'));
  const changed = await here.follow(here.at('mirror'));
  assert.equal(changed.code, 1);
  assert.match(changed.out, /keys that the source states/);
  assert.deepEqual(await readdir(here.directory.path), ['mirror', 'state']);
});

test('kill -9 in the middle: the next run goes on where the last one was stored', async () => {
  await using here = await scene();
  await exportMirror(await faceOf('a', 999, 260), here.at('mirror'));
  const asked: string[] = [];
  const hangs = Promise.withResolvers<void>();
  let isHanging = true;
  const files = filesOf(here.at('mirror'));
  await using server = await LocalServer.start((request, response) => {
    asked.push(request.url ?? '');
    if (isHanging && request.url === '/kt/audit/1.p/4') hangs.resolve();
    else files(request, response);
  });
  const state = ['--once', '--json', '--state', here.at('state')];
  const { child, ended } = start(['follow', server.url, ...state]);
  await hangs.promise;
  child.kill('SIGKILL');
  await ended;
  assert.deepEqual(asked.slice(2), ['/kt/audit/0', '/kt/audit/1.p/4']);
  isHanging = false;
  asked.length = 0;
  const next = await here.follow(server.url, '--json');
  assert.equal(next.code, 0, next.out + next.err);
  assert.equal(reportOf(next)['replayedSize'], 260);
  assert.deepEqual(asked, ['/.well-known/qpc', '/kt/checkpoint', '/kt/audit/1.p/4']);
  // A later size to start at, where nothing is held yet.
  const from = await command(
    'follow',
    server.url,
    '--once',
    '--json',
    '--from',
    '256',
    '--state',
    here.at('late'),
  );
  assert.deepEqual([from.code, reportOf(from)['startSize']], [0, 256], from.out + from.err);
  // What was taken from the log's word stays so, whatever a later run is told.
  for (const more of [[], ['--from', '0']]) {
    const later = ['--once', '--json', '--state', here.at('late'), ...more];
    const report = reportOf(await command('follow', server.url, ...later));
    assert.deepEqual([report['startSize'], report['replayedSize']], [256, 260]);
  }
});

test('a state that is damaged is said to be so, with what to do, and nothing is judged by it', async () => {
  await using here = await scene();
  await exportMirror(await faceOf('a', 99, 5), here.at('mirror'));
  assert.equal((await here.follow(here.at('mirror'))).code, 0);
  await writeFile(join(here.at('state'), 'red.example', 'state.json'), '{');
  const { code, out, err } = await here.follow(here.at('mirror'));
  assert.deepEqual([code, out], [3, '']);
  assert.match(err, /^qpc-audit: .*state\.json: .*remove .*\n$/);
});

test('a forked mirror: exit code 2, and the file proves it with nothing beside it', async () => {
  await using here = await scene();
  await exportMirror(await faceOf('a', 99, 6), here.at('mirror'));
  await exportMirror(await faceOf('evil', 3, 9), here.at('forked'));
  assert.equal((await here.follow(here.at('mirror'))).code, 0);
  const found = await here.follow(here.at('forked'), '--json');
  assert.equal(found.code, 2, found.out + found.err);
  const [evidence] = reportOf(found).evidence;
  assert.ok(evidence);
  // The honest face does not help any more, and people read what was found.
  const again = await here.follow(here.at('mirror'));
  assert.equal(again.code, 2);
  assert.ok(again.out.includes('FORKED') && again.out.includes(evidence.file), again.out);

  const verified = await command('verify-fork', evidence.file);
  assert.equal(verified.code, 0, verified.err);
  assert.ok(verified.out.startsWith(evidence.kind) && verified.out.includes(vkey), verified.out);
  const pinned = await command('check', evidence.file, '--vkey', vkey, '--json');
  assert.deepEqual([pinned.code, reportOf(pinned)['isPinned']], [0, true], pinned.err);
  const other = formatVkey(testKeys(90).identity.key);
  assert.equal((await command('verify-fork', evidence.file, '--vkey', other)).code, 1);
  const bytes = new Uint8Array(await readFile(evidence.file));
  await writeFile(here.at('mutant'), bytes.with(bytes.length - 40, (bytes.at(-40) ?? 0) ^ 1));
  const mutant = await command('verify-fork', here.at('mutant'));
  assert.equal(mutant.code, 1);
  assert.match(mutant.err, /not proven/);
  assert.equal((await command('verify-fork', here.at('none'))).code, 3);
});

test('prove-fork takes checkpoints, heads, bundles and mirrors in any mix', async () => {
  await using here = await scene();
  const [one, other] = [await faceOf('a', 99, 6), await faceOf('evil', 3, 9)];
  await exportMirror(one, here.at('mirror'));
  await exportMirror(other, here.at('forked'));
  await writeFile(here.at('note'), await one.log.checkpoint(6));
  await writeFile(here.at('note5'), await other.log.checkpoint(5));
  const head = await other.store.head(6);
  assert.ok(head);
  const { root, signature } = head;
  await writeFile(here.at('head'), encode(signedHead, { size: 6, root, signature }));
  await writeFile(here.at('bundle'), encode(auditBundle, await other.log.auditBundle(0, 9)));
  const record = join(here.at('mirror'), '.well-known/qpc');
  const prove = (a: string, b: string, ...more: readonly string[]): Promise<Ended> =>
    command('prove-fork', here.at(a), here.at(b), '-o', here.at('proof'), ...more);
  for (const [a, b, kind] of [
    ['note', 'head', 'note-vs-head'],
    ['note', 'bundle', 'inconsistent'],
    ['mirror', 'forked', 'inconsistent'],
  ] as const) {
    const made = await prove(a, b, '--record', record);
    assert.equal(made.code, 0, `${a} ${b}: ${made.err}`);
    assert.ok(made.out.startsWith(kind), made.out);
  }
  const verified = await command('verify-fork', here.at('proof'), '--record', record);
  assert.equal(verified.code, 0, verified.err);
  const nothing = await prove('note5', 'bundle', '--vkey', vkey);
  assert.equal(nothing.code, 1);
  assert.match(nothing.err, /expected a contradiction between them/);
  const apart = await prove('note', 'note5', '--vkey', vkey);
  assert.match(apart.err, /expected the same size/);
  assert.equal((await prove('note', 'note5')).code, 3);

  for (const [file, part] of [
    ['note', 'type: checkpoint\norigin: red.example\nsize: 6'],
    ['head', 'type: tree head\nsize: 6'],
    ['bundle', 'entries: 9\nleaves: 9\nisVerified: true\nbreach: null'],
  ] as const) {
    const checked = await command('check', here.at(file), '--record', record);
    assert.deepEqual(
      [checked.code, checked.out.includes(part)],
      [0, true],
      checked.out + checked.err,
    );
  }
  const wrong = await command(
    'check',
    here.at('note'),
    '--vkey',
    formatVkey(testKeys(90).identity.key),
  );
  assert.equal(wrong.code, 1);
});

test('wrong usage says what is wrong and does nothing', async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['fly'], /no such command/],
    [['follow'], /takes 1 operand/],
    [['follow', 'no/such/thing', '--once', '--state', '/dev/null/x'], /./],
    [['follow', 'x', '--nonsense'], /nonsense/],
    [['verify-fork', 'x', '--once'], /takes no --once/],
    [['prove-fork', 'a', 'b'], /needs -o/],
    [['follow', 'x', '--from', '-1'], /./],
    [['follow', 'x', '--interval', '1e3'], /whole number/],
    [['follow', 'x', '--interval', '0'], /--interval: at least 1/],
  ];
  for (const [args, pattern] of cases) {
    const { code, err } = await command(...args);
    assert.equal(code, 3, `${args.join(' ')}: ${err}`);
    assert.match(err, pattern);
    assert.equal(err.split('\n').length, 2, err);
  }
  const helped = await command('--help');
  assert.deepEqual([helped.code, helped.out.startsWith('qpc-audit')], [0, true]);
});
