/**
 * A QUIC stack that shares no code with ours (quic-go) against a real node: handshake with Retry and
 * a client certificate, Hello, Health, and calls side by side; versions are negotiated, and a client
 * without a certificate is told why it is refused. Needs Go, else one line says so.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  encodeRequest,
  FrameParser,
  methods,
  parseNodeAddress,
  responseFormat,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  HealthResponseSchema,
  HelloRequestSchema,
  HelloResponseSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { NodeProcess } from '../../cluster/node-process.ts';
import { buildGo } from '../go.ts';

const program = buildGo(fileURLToPath(new URL('.', import.meta.url)));
const skip = program.isBuilt ? false : `quic-go: skipped, ${program.why}`;

for (const engine of ['quic', 'quic-stock']) {
  test(`quic-go against the engine ${engine}`, { skip }, async (t) => {
    assert.ok(program.isBuilt);
    const directory = mkdtempSync(join(tmpdir(), 'qpc-quic-go-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const config = `[transport]\nengines = ["${engine}"]`;
    await using node = await NodeProcess.init('red.example', join(directory, 'red'), config);
    await node.start();
    const { host, port, pin } = parseNodeAddress(node.address);
    const hello = toBinary(
      HelloRequestSchema,
      create(HelloRequestSchema, { versionMin: 1, versionMax: 1, agent: 'quic-go' }),
    );
    const requests = [
      { methodId: methods.hello.id, requestId: 1, payload: hello },
      ...Array.from({ length: 60 }, (_, index) => ({
        methodId: methods.health.id,
        requestId: 2 + index,
        payload: new Uint8Array(),
      })),
    ];
    const input = requests.map((frame) => Buffer.from(encodeRequest(frame)).toString('hex'));
    const run = (pinHex: string, ...mode: string[]) =>
      spawnSync(program.path, [`${host}:${port}`, pinHex, ...mode], {
        input: input.join('\n'),
        encoding: 'utf8',
        timeout: 30_000,
      });
    const { stdout, stderr, status } = run(Buffer.from(pin).toString('hex'));
    assert.equal(status, 0, stderr);
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => {
        const [frame] = new FrameParser(responseFormat(1024 * 1024)).push(Buffer.from(line, 'hex'));
        assert.ok(frame);
        return frame;
      });
    assert.deepEqual(
      answers.map(({ requestId, status: code }) => [requestId, code]),
      requests.map(({ requestId }) => [requestId, 0]),
    );
    const [first, second] = answers;
    assert.equal(fromBinary(HelloResponseSchema, first?.payload ?? hello).domain, 'red.example');
    assert.equal(fromBinary(HealthResponseSchema, second?.payload ?? hello).status, 'ready');
    const pinned = Buffer.from(pin).toString('hex');
    const negotiated = run(pinned, 'negotiate');
    assert.equal(negotiated.status, 0, negotiated.stderr);
    assert.equal(negotiated.stdout.trim().split('\n').length, requests.length);
    const anonymous = run(pinned, 'anonymous');
    assert.notEqual(anonymous.status, 0);
    // The TLS alert certificate_required, as QUIC carries it (RFC 9001 section 4.8).
    assert.match(anonymous.stderr, /CRYPTO_ERROR 0x174 \(remote\)/u);
    const wrong = run('00'.repeat(32));
    assert.notEqual(wrong.status, 0);
    assert.match(wrong.stderr, /not the pinned listener/u);
  });
}
