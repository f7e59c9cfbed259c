/**
 * `qpc` at real nodes: register, log in, send, listen, groups over two nodes, as processes; and
 * that no password, passphrase or text ever stands in a log or an error.
 */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';
import { QpcProcess, runQpc, type QpcResult } from './qpc-process.ts';

/** Planted: none of these may stand in any log, in any form. */
const marks = {
  password: 'planted-Password-4711',
  wrongPassword: 'planted-Guess-0815',
  passphrase: 'planted-Passphrase-1701',
  text: 'planted text of a message 2342',
};

type Json = Readonly<Record<string, unknown>>;

suite('qpc', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-cli-'));
  let red: NodeProcess;
  let blue: NodeProcess;
  /** Standard error of every command that ran. */
  const errors: string[] = [];

  before(async () => {
    const nodes = await initCluster(directory, ['red.example', 'blue.example']);
    [red, blue] = nodes as [NodeProcess, NodeProcess];
    for (const node of nodes) {
      const config = readFileSync(node.configFile, 'utf8');
      writeFileSync(node.configFile, config.replace('log_level = "info"', 'log_level = "debug"'));
      await node.start();
    }
  });
  after(async () => {
    await Promise.all([red.kill(), blue.kill()]);
    rmSync(directory, { recursive: true, force: true });
  });

  const homeOf = (name: string): string => join(directory, `home-${name}`);
  const secret = (name: string, text: string): string => {
    const path = join(directory, name);
    writeFileSync(path, `${text}\n`, { mode: 0o600 });
    return path;
  };
  const passwordFile = secret('password', marks.password);

  async function qpc(name: string, args: readonly string[], stdin?: string): Promise<QpcResult> {
    const all = [...args, '--home', homeOf(name)];
    const result = await runQpc(all, stdin === undefined ? {} : { stdin });
    errors.push(result.stderr);
    return result;
  }
  async function json(name: string, args: readonly string[], stdin?: string): Promise<Json[]> {
    const result = await qpc(name, [...args, '--json'], stdin);
    assert.equal(result.code, 0, result.stderr);
    return result.stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Json);
  }
  async function refused(name: string, args: readonly string[], line: RegExp): Promise<void> {
    const result = await qpc(name, args);
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, /^qpc: [^\n]+\n$/);
    assert.match(result.stderr, line);
  }
  const register = async (name: string, node: NodeProcess): Promise<Json> => {
    const [registered] = await json(name, [
      ...['register', `${name}@${node.domain}`, '--node', node.address],
      ...['--password-file', passwordFile, '--no-passphrase'],
    ]);
    assert(registered !== undefined);
    return registered;
  };

  test('register makes an account and a home; again it is the same account', async () => {
    const registered = await register('alice', red);
    assert.deepEqual(Object.keys(registered), ['type', 'userId', 'deviceId', 'sessionExpiresMs']);
    assert.equal((await register('alice', red))['deviceId'], registered['deviceId']);
    const [me] = await json('alice', ['whoami']);
    assert.equal(me?.['userId'], 'alice@red.example');
    assert.equal(me?.['node'], red.address);
    assert.equal(me?.['isRegistered'], true);
    assert.match(String(me?.['accountKey']), /^[0-9a-f]{64}$/);
  });

  test('secrets come from standard input by lines, and the passphrase guards the home', async () => {
    const input = `${marks.password}\n${marks.passphrase}\n`;
    const args = ['register', 'bob@blue.example', '--node', blue.address];
    const stdin = ['--password-file', '-', '--passphrase-file', '-'];
    const result = await qpc('bob', [...args, ...stdin], input);
    assert.equal(result.code, 0, result.stderr);
    assert.match(result.stdout, /^registered bob@blue\.example, device [a-z2-7]{16}\n$/);
    const wrong = await qpc('bob', ['whoami', '--passphrase-file', '-'], 'wrong\n');
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /wrong passphrase/);
    const right = await qpc('bob', ['whoami', '--passphrase-file', '-'], marks.passphrase);
    assert.equal(right.code, 0, right.stderr);
  });

  const passphraseFile = secret('passphrase', marks.passphrase);
  const asBob = ['--passphrase-file', passphraseFile];

  test('a message reaches another node, and the answer comes back in the same conversation', async () => {
    const [sent] = await json('alice', ['send', 'bob@blue.example', marks.text]);
    assert.deepEqual(Object.keys(sent ?? {}), ['type', 'conversation', 'message', 'state']);
    const lines = await json('bob', ['listen', '--count', '1', '--timeout', '30', ...asBob]);
    const message = lines.find(({ type }) => type === 'message');
    assert.deepEqual(Object.keys(message ?? {}), [
      ...['type', 'conversation', 'message', 'senderUserId', 'senderDeviceId', 'text'],
      ...['sentMs', 'receivedMs', 'verification', 'via'],
    ]);
    assert.equal(message?.['text'], marks.text);
    assert.equal(message?.['senderUserId'], 'alice@red.example');
    assert.equal(message?.['conversation'], sent?.['conversation']);
    assert.equal(message?.['message'], sent?.['message']);
    assert.match(String(message?.['verification']), /^(?:witnessed|logged)$/);
    const [answer] = await json(
      'bob',
      ['send', 'alice@red.example', '-', ...asBob],
      'line\nline\n',
    );
    assert.equal(answer?.['conversation'], sent?.['conversation']);
    const heard = await json('alice', ['listen', '--count', '1', '--timeout', '30']);
    assert.equal(heard.find(({ type }) => type === 'message')?.['text'], 'line\nline');
  });

  test('send waits for word that the other node has the message', async () => {
    const [relayed] = await json('alice', ['send', 'bob@blue.example', 'one', '--wait', 'relayed']);
    assert.equal(relayed?.['state'], 'relayed');
    const heard = await json('bob', ['listen', '--count', '1', '--timeout', '30', ...asBob]);
    assert.equal(heard.find(({ type }) => type === 'message')?.['text'], 'one');
  });

  test('a listener shows what comes, without control characters, until it is told to stop', async () => {
    await using listener = new QpcProcess(['listen', ...asBob, '--home', homeOf('bob')]);
    const evil = 'a\u001b[2Jb\u202ec\nd';
    await json('alice', ['send', 'bob@blue.example', '-'], evil);
    const line = await listener.line(/alice@red\.example: /);
    assert(line.endsWith(': a\\u{1b}[2Jb\\u{202e}c\\u{a}d'), line);
    assert.equal((await qpc('bob', ['whoami', ...asBob])).code, 2, 'the home is in use');
    assert.match(errors.at(-1) ?? '', /another qpc process uses this home/);
    assert.equal(await listener.stop('SIGTERM'), 0);
    errors.push(...listener.stderrLines);
  });

  test('a group over both nodes, named by name and by the beginning of its id', async () => {
    await register('carol', red);
    await register('dora', blue);
    const [created] = await json('alice', [
      'create',
      'team',
      'bob@blue.example',
      'carol@red.example',
    ]);
    assert.deepEqual(created?.['members'], [
      ...['alice@red.example', 'bob@blue.example', 'carol@red.example'],
    ]);
    const id = String(created?.['conversation']);
    await json('alice', ['add', id.slice(0, 8), 'dora@blue.example']);
    await json('alice', ['send', 'team', 'hello team']);
    for (const name of ['bob', 'carol', 'dora']) {
      const args = ['listen', '--count', '1', '--timeout', '30'];
      const lines = await json(name, name === 'bob' ? [...args, ...asBob] : args);
      const message = lines.find(({ type }) => type === 'message');
      assert.deepEqual([message?.['text'], message?.['conversation']], ['hello team', id]);
    }
    const listed = (await json('carol', ['conversations'])).find(({ name }) => name === 'team');
    assert(listed !== undefined);
    assert.equal((listed['members'] as string[]).length, 4);
    await refused('carol', ['rename', 'team', 'mine'], /a member may not rename the group/);
    const [renamed] = await json('alice', ['rename', 'team', 'crew']);
    assert.deepEqual([renamed?.['name'], renamed?.['by']], ['crew', 'alice@red.example']);
    const [raised] = await json('alice', ['role', 'crew', 'carol@red.example', 'admin']);
    assert.deepEqual([raised?.['userId'], raised?.['role']], ['carol@red.example', 'admin']);
    const [timed] = await json('carol', ['timer', id, '2h']);
    assert.equal(timed?.['expirySeconds'], 7_200);
    const [left] = await json('carol', ['remove', id, 'dora@blue.example']);
    assert(left !== undefined);
    assert.equal((left['members'] as string[]).length, 3);
    const users = await json('carol', ['members', id]);
    assert.deepEqual(
      users.map(({ userId, role }) => [userId, role]),
      [
        ['alice@red.example', 'owner'],
        ['bob@blue.example', 'member'],
        ['carol@red.example', 'admin'],
      ],
    );
    const unknown = await qpc('carol', ['send', 'nowhere', 'x']);
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /no conversation nowhere/);
  });

  test('devices come and go, and others see in the log what the account did', async () => {
    const [added] = await json('laptop', [
      ...['device', 'add', 'carol@red.example', '--node', red.address],
      ...['--password-file', passwordFile, '--no-passphrase'],
    ]);
    const deviceId = String(added?.['deviceId']);
    const devices = await json('carol', ['device', 'list']);
    assert.deepEqual(
      devices.map((device) => [device['deviceId'] === deviceId, device['isThisDevice']]),
      [
        [false, true],
        [true, false],
      ],
    );
    await json('carol', ['device', 'revoke', deviceId]);
    const [me] = await json('carol', ['whoami']);
    const compared = ['kt', 'compare', 'carol@red.example', String(me?.['accountKey'])];
    const [contact] = await json('alice', compared);
    assert.equal(contact?.['verification'], 'compared');
    // A node may answer from a head that is some seconds old, which auditors have cosigned.
    let versions: Json[] = [];
    while (versions.length < 3)
      versions = await json('alice', ['kt', 'history', 'carol@red.example']);
    assert.deepEqual(
      versions.map(({ version, change, added: came, revoked }) => [version, change, came, revoked]),
      [
        [0, 'first', [me?.['deviceId']], []],
        [1, 'devices', [deviceId], []],
        [2, 'devices', [], [deviceId]],
      ],
    );
    const status = await json('alice', ['kt', 'status']);
    assert.deepEqual(
      status.filter(({ type }) => type === 'log').map(({ domain, evidence }) => [domain, evidence]),
      [
        ['blue.example', []],
        ['red.example', []],
      ],
    );
  });

  test('cards are files: written for their reader alone, taken in, and refused in one line', async () => {
    const file = join(directory, 'alice.card');
    const [card] = await json('alice', ['card', 'export', file]);
    assert.deepEqual(card, { type: 'card', file, hasAddress: false });
    assert.equal(statSync(file).mode & 0o077, 0);
    const [imported] = await json('carol', ['card', 'import', file]);
    assert.deepEqual(Object.keys(imported ?? {}), [
      ...['type', 'userId', 'devices', 'verifiedMs', 'verification'],
    ]);
    assert.equal(imported?.['userId'], 'alice@red.example');
    for (const [path, line] of [
      [join(directory, 'nothing'), /nothing: does not exist/],
      [file, /card: it is the own one/],
    ] as const) {
      const result = await qpc('alice', ['card', 'import', path]);
      assert.equal(result.code, 2, result.stderr);
      assert.match(result.stderr, /^qpc: [^\n]+\n$/);
      assert.match(result.stderr, line);
    }
  });

  test('an account is deleted only when it is really meant, and then for everybody', async () => {
    await register('gone', red);
    assert.equal((await qpc('gone', ['account', 'delete'])).code, 2);
    await json('gone', ['account', 'delete', '--yes']);
    await refused('alice', ['send', 'gone@red.example', 'x'], /no such user/);
  });

  test('a listener whose messages do not come says how many did', async () => {
    const args = ['listen', '--count', '2', '--timeout', '0.5'];
    const late = await qpc('carol', args);
    assert.equal(late.code, 1);
    assert.match(late.stderr, /^qpc: 0 of 2 messages came$/m);
    assert.equal((await qpc('carol', ['listen', '--timeout', '0.5'])).code, 0);
  });

  test('a listener whose reader has gone ends', async () => {
    await using listener = new QpcProcess(['listen', '--json', '--home', homeOf('carol')]);
    await listener.line(/"online"/);
    listener.closeOutput();
    await json('alice', ['send', 'crew', 'anybody there?']);
    assert.equal(await listener.ended(), 0);
  });

  test('refusals of the node are one line each', async () => {
    const wrong = secret('wrong', marks.wrongPassword);
    await refused('alice', ['login', '--password-file', wrong], /user or password is wrong/);
    assert.equal((await qpc('alice', ['login', '--password-file', passwordFile])).code, 0);
    const taken = [
      ...['register', 'alice@red.example', '--node', red.address],
      ...['--password-file', passwordFile, '--no-passphrase'],
    ];
    await refused('thief', taken, /name is taken/);
    await refused('alice', ['send', 'nobody@blue.example', 'x'], /no such user/);
    await refused('alice', ['send', 'nobody@green.example', 'x'], /green/);
    const otherPin = `${red.address.slice(0, -43)}${'A'.repeat(43)}`;
    await refused(
      'pinned',
      [
        ...['register', 'erin@red.example', '--node', otherPin],
        ...['--password-file', passwordFile, '--no-passphrase'],
      ],
      /another key than the pin/,
    );
  });

  test('a home with the vault of another is refused', async () => {
    const vault = join(homeOf('carol'), 'store.key');
    const kept = readFileSync(vault);
    copyFileSync(join(homeOf('alice'), 'store.key'), vault);
    const result = await qpc('carol', ['whoami']);
    assert.equal(result.code, 2);
    assert.match(result.stderr, /^qpc: wrong store key[^\n]+\n$/);
    writeFileSync(vault, kept, { mode: 0o600 });
  });

  test('a node that is down is said, and all goes on when it is back', async () => {
    await red.kill();
    await refused('alice', ['send', 'crew', 'x', '--timeout', '1'], /does not answer.*stored here/);
    await red.start();
    await json('alice', ['send', 'crew', 'after the break']);
    const said = await json('alice', ['history', 'crew', '--count', '2']);
    assert.deepEqual(
      said.map(({ text }) => text),
      ['x', 'after the break'],
    );
    assert.ok(
      said.every(({ state }) => state !== 'sealed'),
      'both went out',
    );
  });

  test('no password, passphrase or text stands in a log or an error, in any form', () => {
    const logs = [...red.logLines, ...blue.logLines, ...errors].join('\n');
    assert(logs.includes('opaqueLogin') || logs.includes('OpaqueLogin'), 'the logs are debug logs');
    for (const [name, mark] of Object.entries(marks)) {
      const bytes = Buffer.from(mark);
      for (const form of [
        mark,
        bytes.toString('hex'),
        bytes.toString('base64').replace(/=+$/, '').slice(0, -1),
        bytes.toString('base64url').slice(0, -1),
      ]) {
        assert(!logs.includes(form), `${name} stands in a log`);
      }
    }
  });
});
