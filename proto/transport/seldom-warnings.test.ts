/** What strangers can make an engine log: a line a minute, with how often it came. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { test, type TestContext } from 'node:test';
import { callEcho, contractRuntime, Rig, type MakeEngine } from './contract-rig.ts';
import { quicEngine, quicheEngine } from './quic-rig.ts';
import { withSeldomWarnings } from './seldom-warnings.ts';

test('a warning is told of once a minute, with its number; others beside it, errors always', () => {
  const { lines, ...rest } = contractRuntime();
  let nowMs = 0;
  const clock = { ...rest.clock, monotonic: () => nowMs };
  const { log } = withSeldomWarnings({ ...rest, clock });
  const flood = (): void => {
    for (let n = 0; n < 100; n += 1) log.warn('flood', { n });
  };
  flood();
  log.warn('other');
  assert.deepEqual(lines, ['flood {"n":0,"times":1}', 'other {"times":1}']);
  nowMs = 59_999;
  flood();
  log.error('ours');
  log.error('ours');
  assert.deepEqual(lines.slice(2), ['ours {}', 'ours {}']);
  nowMs = 60_000;
  flood();
  assert.deepEqual(lines.slice(4), ['flood {"n":0,"times":200}']);
});

/** The system's sockets as they are made: faults that it alone can cause are put in there. */
function systemSockets(t: TestContext): dgram.Socket[] {
  const sockets: dgram.Socket[] = [];
  const createSocket = dgram.createSocket.bind(dgram);
  t.mock.method(dgram, 'createSocket', (options: dgram.SocketOptions) => {
    const socket = createSocket(options);
    sockets.push(socket);
    return socket;
  });
  return sockets;
}

const linesOf = (rig: Rig, event: string): number =>
  rig.runtime.lines.filter((line) => line.startsWith(event)).length;

for (const [name, make] of Object.entries({ stock: quicEngine, quiche: quicheEngine })) {
  test(`${name}: faults of a socket do not fill the log`, async (t) => {
    const sockets = systemSockets(t);
    const rig = await Rig.listen(t, make satisfies MakeEngine);
    for (let n = 0; n < 100; n += 1) sockets[0]?.emit('error', new Error('planted'));
    await callEcho(await rig.dial());
    assert.equal(linesOf(rig, 'quic.socket.error'), 1);
  });
}
