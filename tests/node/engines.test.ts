/** A real node on each choice of `transport.engines`: who gets an answer, by which engine. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import {
  call,
  methods,
  parseNodeAddress,
  silentLog,
  systemClock,
  systemRandom,
  TransportError,
} from '@quicprochat/proto';
import {
  defaultLimits,
  makeIdentity,
  transportOf,
  type Connection,
  type EngineName,
} from '@quicprochat/proto/transport';
import { NodeProcess, runQpcd } from '../cluster/node-process.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const identity = await makeIdentity(systemRandom);

function dial(address: string, engine: EngineName, handshakeMs = 1_500): Promise<Connection> {
  const { host, port, pin } = parseNodeAddress(address);
  const limits = { ...defaultLimits, handshakeMs };
  return transportOf(runtime, [engine]).dial(
    { host, port },
    { identity, limits, maxRequestBytes: () => 0, pins: [pin] },
  );
}

/** The status that the node tells over an engine, or why there is none. */
async function healthOver(address: string, engine: EngineName): Promise<string> {
  try {
    const connection = await dial(address, engine);
    const { status } = await call(connection, methods.health, {});
    await connection.close(0, 'done');
    return status;
  } catch (error) {
    assert.ok(error instanceof TransportError);
    return error.failure;
  }
}

suite('transport.engines', () => {
  const cases: readonly (readonly [engines: string, quic: RegExp, tls: RegExp])[] = [
    ['["quic"]', /^ready$/u, /^unreachable$/u],
    ['["tls"]', /^(timeout|unreachable)$/u, /^ready$/u],
    ['["quic", "tls"]', /^ready$/u, /^ready$/u],
    ['["quic-stock", "tls"]', /^ready$/u, /^ready$/u],
    ['["quic"]\nprocesses = 2', /^ready$/u, /^unreachable$/u],
  ];
  for (const [engines, quic, tls] of cases) {
    test(engines, async (t) => {
      const directory = mkdtempSync(join(tmpdir(), 'qpc-engines-'));
      t.after(() => rmSync(directory, { recursive: true, force: true }));
      const config = `[transport]\nengines = ${engines}`;
      await using node = await NodeProcess.init('red.example', join(directory, 'red'), config);
      await node.start();
      assert.match(await healthOver(node.address, 'quic'), quic);
      assert.match(await healthOver(node.address, 'tls'), tls);
    });
  }

  test('who pushes to a node is stopped: nothing that is not read stays there', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'qpc-engines-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const config = '[transport]\nengines = ["quic", "tls"]';
    await using node = await NodeProcess.init('red.example', join(directory, 'red'), config);
    await node.start();
    for (const engine of ['quic', 'tls'] as const) {
      const connection = await dial(node.address, engine, 20_000);
      const writer = await connection.openPushStream();
      const endless = async (): Promise<void> => {
        for (;;) {
          await writer.write({ eventType: 1, payload: new Uint8Array(1) });
          await new Promise((resolve) => setImmediate(resolve));
        }
      };
      await assert.rejects(endless(), { failure: 'cancelled' });
      await call(connection, methods.health, {});
      await connection.close(0, 'done');
    }
  });

  test('an unknown or doubled engine, or two on one UDP port, do not start', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'qpc-engines-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    for (const [index, engines] of [
      '[]',
      '["tcp"]',
      '["tls", "tls"]',
      '["quic", "quic-stock"]',
    ].entries()) {
      const config = `[transport]\nengines = ${engines}`;
      const node = await NodeProcess.init('red.example', join(directory, `${index}`), config);
      const { code, stderr } = await runQpcd(['run', '--config', node.configFile]);
      assert.notEqual(code, 0);
      assert.match(stderr, /transport\.engines/u);
    }
  });
});
