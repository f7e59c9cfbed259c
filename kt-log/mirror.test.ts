/** A log as files: every path, a follower over a directory and over HTTP, and doors that misbehave. */
import assert from 'node:assert/strict';
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '@quicprochat/proto';
import { MemoryAuditStore } from './audit-store.ts';
import { directoryReader } from './directory-source.ts';
import { Follower } from './follow.ts';
import { httpReader, httpSourceLimits } from './http-source.ts';
import type { MirrorReader } from './mirror.ts';
import { Mirror, mirrorFile, mirrorPaths, parseMirrorPath } from './mirror.ts';
import { nativeSuite } from './native-suite.ts';
import { exportMirror, filesOf, LocalServer, TemporaryDirectory } from './test-mirror.ts';
import type { Face } from './test-source.ts';
import { faceOf, growTo } from './test-source.ts';

const { sha256 } = nativeSuite;
const follower = ({ config, identity, clock }: Face): Follower =>
  new Follower({
    suite: nativeSuite,
    log: { config, identity },
    store: new MemoryAuditStore(),
    clock,
  });

test('a mirrored directory gives a whole audit, over whole and partial bundles', async () => {
  await using directory = await TemporaryDirectory.make();
  const face = await faceOf('a', 999, 200);
  await exportMirror(face, directory.path);
  const mirror = new Mirror(directoryReader(directory.path), sha256);
  const keys = await mirror.keys();
  assert.deepEqual(
    [keys.origin, keys.config, keys.key],
    ['red.example', face.config, face.identity.key],
  );
  const follow = follower(face);
  const first = await follow.pull(mirror);
  assert.deepEqual([first.status, first.size, first.target], ['ok', 200, 200]);
  await growTo(face, 'a', 999, 260);
  await exportMirror(face, directory.path);
  // What was replayed is not fetched again but for the bundle that it ends in.
  const read: string[] = [];
  const inner = directoryReader(directory.path);
  const watched: MirrorReader = {
    read(path, bytesMax) {
      read.push(path);
      return inner.read(path, bytesMax);
    },
  };
  const second = await follow.pull(new Mirror(watched, sha256));
  assert.deepEqual([second.status, second.size], ['ok', 260]);
  assert.deepEqual(read, ['kt/checkpoint', 'kt/audit/0', 'kt/audit/1.p/4']);
  const whole = await follower(face).pull(mirror);
  assert.deepEqual([whole.status, whole.size], ['ok', 260]);

  // Every file is the one that its path names, and no other path is taken.
  const names = await readdir(join(directory.path, 'kt'), { recursive: true, withFileTypes: true });
  let files = 0;
  for (const one of names.filter((name) => name.isFile() && name.name !== 'checkpoint')) {
    const path = join(one.parentPath, one.name);
    const file = parseMirrorPath(path.slice(join(directory.path, 'kt').length + 1));
    assert.ok(file, path);
    assert.deepEqual(new Uint8Array(await readFile(path)), await mirrorFile(face.log, file));
    files++;
  }
  // Bundles, entries and level-0 tiles at 200 and 260, and one tile of level 1.
  assert.equal(files, 3 * 3 + 1);
  for (const path of [
    'audit/',
    'audit/01',
    'audit/-1',
    'audit/1.p/0',
    'audit/1.p/256',
    'audit/x',
    'tile/0/1',
    '../x',
  ]) {
    assert.equal(parseMirrorPath(path), undefined, path);
  }
  for (const path of ['audit/1', 'audit/1.p/5', 'tile/0/001', 'tile/entries/001', 'tile/2/000']) {
    const file = parseMirrorPath(path);
    assert.ok(file, path);
    assert.equal(await mirrorFile(face.log, file), undefined, path);
  }

  // The same over HTTP.
  await using server = await LocalServer.start(filesOf(directory.path));
  const door = new Mirror(httpReader(new URL(server.url), systemClock), sha256);
  const third = await follower(face).pull(door);
  assert.deepEqual([third.status, third.size], ['ok', 260]);

  // A mirror that lacks a file leaves the follower behind; one that was cut is suspect.
  await rm(join(directory.path, mirrorPaths.audit(1, 4)));
  const behind = await follower(face).pull(door);
  assert.deepEqual([behind.status, behind.size, behind.failure], ['behind', 256, undefined]);
  await truncate(join(directory.path, mirrorPaths.audit(0)), 1000);
  const cut = await follower(face).pull(mirror);
  assert.deepEqual([cut.status, cut.size, cut.failure?.name], ['suspect', 0, 'VerificationError']);
  await rm(join(directory.path, mirrorPaths.checkpoint));
  const empty = await follower(face).pull(mirror);
  assert.deepEqual([empty.status, empty.failure?.reason], ['suspect', 'NOT_FOUND']);
  await writeFile(join(directory.path, mirrorPaths.record), 'nonsense');
  await assert.rejects(mirror.keys(), { reason: 'MALFORMED' });
});

test('a directory that is none, and files beyond their bound', async () => {
  await using directory = await TemporaryDirectory.make();
  const reader = directoryReader(directory.path);
  assert.equal(await reader.read('kt/checkpoint', 10), undefined);
  await writeFile(join(directory.path, 'long'), new Uint8Array(11));
  assert.equal((await reader.read('long', 11))?.length, 11);
  await assert.rejects(reader.read('long', 10), { name: 'PayloadTooLargeError' });
  await assert.rejects(reader.read('', 100_000), { name: 'UnavailableError' });
  assert.equal(await directoryReader(join(directory.path, 'long')).read('x', 10), undefined);
});

test('a door that misbehaves is refused within bounds', async () => {
  let pauses = 2;
  await using server = await LocalServer.start((request, response) => {
    switch (request.url) {
      case '/base/ok':
        response.end('fine');
        break;
      case '/base/busy':
        if (pauses-- > 0) response.writeHead(429, { 'retry-after': '0' }).end('wait');
        else response.end('at last');
        break;
      case '/base/busier':
        response.writeHead(429, { 'retry-after': '3600' }).end();
        break;
      case '/base/moved':
        response.writeHead(302, { location: '/base/ok' }).end();
        break;
      case '/base/broken':
        response.writeHead(500).end();
        break;
      case '/base/long':
        response.end(new Uint8Array(100));
        break;
      case '/base/endless': {
        response.writeHead(200);
        const more = (): void =>
          void (response.destroyed || response.write('x'.repeat(10_000), more));
        more();
        break;
      }
      case '/base/cut':
        response.writeHead(200, { 'content-length': 40 });
        response.write('x', () => response.destroy());
        break;
      case '/base/silent':
        break;
      default:
        response.writeHead(404).end();
    }
  });
  const limits = { ...httpSourceLimits, timeoutMs: 300 };
  const reader = httpReader(new URL(`${server.url}/base`), systemClock, limits);
  const text = async (path: string) => new TextDecoder().decode(await reader.read(path, 50));
  assert.equal(await text('ok'), 'fine');
  assert.equal(await text('busy'), 'at last');
  assert.equal(await reader.read('none', 50), undefined);
  await assert.rejects(reader.read('busier', 50), { name: 'ResourceExhaustedError' });
  for (const path of ['moved', 'broken', 'cut']) {
    await assert.rejects(reader.read(path, 50), { name: 'UnavailableError' }, path);
  }
  for (const path of ['long', 'endless']) {
    await assert.rejects(reader.read(path, 50), { name: 'PayloadTooLargeError' }, path);
  }
  await assert.rejects(reader.read('silent', 50), { name: 'DeadlineExceededError' });
  const stop = new AbortController();
  stop.abort(new Error('stopped'));
  await assert.rejects(reader.read('ok', 50, stop.signal), { message: 'stopped' });
  const gone = httpReader(new URL('http://127.0.0.1:1'), systemClock);
  await assert.rejects(gone.read('ok', 50), { reason: 'PEER_UNREACHABLE' });
});
