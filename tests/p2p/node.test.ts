/** Real nodes with a swarm: they find each other by their records, and relay for their own devices alone. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { register } from '@quicprochat/client-lib/account';
import { call, methods, parseNodeAddress, systemClock, systemRandom } from '@quicprochat/proto';
import { maxRequestBytes } from '@quicprochat/proto';
import { defaultLimits, makeIdentity, quicTransport } from '@quicprochat/proto/transport';
import { NodeProcess } from '../cluster/node-process.ts';
import { freePort } from '../cluster/free-port.ts';
import { makeDeviceKey, message, runtime, startDevice, until } from './devices.ts';

/** Retries at once. */
const hasty = { ...runtime, random: { bytes: (length: number) => new Uint8Array(length) } };

async function login(node: NodeProcess, device: ReturnType<typeof makeDeviceKey>) {
  const identity = await makeIdentity(systemRandom);
  const { host, port, pin } = parseNodeAddress(node.address);
  const connection = await quicTransport(runtime).dial(
    { host, port },
    { identity, limits: defaultLimits, maxRequestBytes, pins: [pin] },
  );
  await register(
    connection,
    {
      userId: `bert@${node.domain}`,
      password: new TextEncoder().encode('correct horse battery staple'),
      keys: { identityKey: device, accountKey: makeDeviceKey(), transport: identity },
      pinnedServerKey: undefined,
    },
    systemClock,
  );
  return connection;
}

const isListening = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () =>
      resolve(false),
    );
    socket.on('connect', () => socket.destroy());
  });

test('two nodes connect their swarms, one relays for its device, and takes its process along', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-p2p-'));
  const ports = [await freePort(), await freePort()];
  const nodes = await Promise.all(
    ['red.example', 'blue.example'].map((domain, index) =>
      NodeProcess.init(
        domain,
        join(directory, domain),
        `[p2p]\nlisten = "127.0.0.1:${ports[index]}"`,
      ),
    ),
  );
  const [red, blue] = nodes;
  assert(red !== undefined && blue !== undefined);
  try {
    red.federateWith([blue]);
    blue.federateWith([red]);
    for (const node of nodes) node.readyMs = 90_000;
    await Promise.all(nodes.map((node) => node.start()));
    const isUp = (node: NodeProcess) =>
      node.logLines.some((line) => line.includes('"p2p peer"') && line.includes('"isUp":true'));
    await until(() => nodes.every(isUp), 90_000);

    const device = makeDeviceKey();
    await using anna = await startDevice({ relayOnly: true });
    await using bert = await startDevice({ device, relayOnly: true, runtime: hasty });
    const connection = await login(red, device);
    const publish = () =>
      call(connection, methods.publishEndpoint, { endpoint: bert.swarm.record() });
    // Somebody else's record is none of the caller's.
    await assert.rejects(
      call(connection, methods.publishEndpoint, { endpoint: anna.swarm.record() }),
      { reason: 'BAD_CREDENTIAL' },
    );
    const place = `/ip4/127.0.0.1/tcp/${ports[0]}`;
    const { relays } = await publish();
    const relay = relays.find((address) => address.startsWith(place));
    assert(relay !== undefined);
    bert.swarm.setRelays([relay]);
    await until(() => bert.swarm.relays.every(({ isReserved }) => isReserved), 60_000);
    assert.equal((await anna.swarm.deliver(bert.destination(), message(bert))).via, 'relay');
    // Anna is no device of red, and gets no place there.
    anna.swarm.setRelays([relay]);
    await systemClock.sleep(300);
    assert.equal(anna.swarm.relays[0]?.isReserved, false);
    await connection.close(0, 'done');

    await red.kill();
    const deadlineMs = performance.now() + 10_000;
    while (await isListening(ports[0] ?? 0)) {
      assert.ok(performance.now() < deadlineMs, 'the swarm outlives its node');
      await systemClock.sleep(50);
    }
    await blue.stop();
    assert.equal(await isListening(ports[1] ?? 0), false);
  } finally {
    await Promise.all(nodes.map((node) => node.kill()));
    rmSync(directory, { recursive: true, force: true });
  }
});
