/**
 * Every row of the method table, called with what its schema allows, by a stranger, a device of the node and a
 * federation peer at once, against a real `qpcd`, while others write, read and look people up as ever. Each answer
 * has to be OK or a typed refusal (INTERNAL is none), the process lives, the others meet no
 * error, and memory stands still from the second round on. Usage: `npm run fuzz:calls -- [seconds a round] [rounds]`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { call, methods, systemRandom } from '@quicprochat/proto';
import { CloseCode, makeIdentity, type Connection } from '@quicprochat/proto/transport';
import { dialDevice, enqueueTo, registerDevice, type DeviceKeys } from '../bench/devices.ts';
import { percentile } from '../bench/measure.ts';
import { askPeer } from '../bench/peer-process.ts';
import { Dice } from '../cluster/dice.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { rssMiB } from '../cluster/process-memory.ts';
import type { Answers, AttackJob } from './random-callers.ts';

const attackers = new URL('./random-callers.ts', import.meta.url);
const mallory = 'mallory.example';
/** Before memory is looked at (ms). */
const calmMs = 3_000;
/** What the process may have more after the last round than after the first (MiB). */
const allowedMiB = 96;

/** Does something again and again, with a rest (ms); how long it took each time (ms). Throws at the first error. */
async function live(
  keys: DeviceKeys,
  signal: AbortSignal,
  restMs: number,
  work: (connection: Connection) => Promise<void>,
): Promise<readonly number[]> {
  const connection = await dialDevice(keys);
  const times: number[] = [];
  while (!signal.aborted) {
    const beganMs = performance.now();
    await work(connection);
    times.push(performance.now() - beganMs);
    await sleep(restMs);
  }
  await connection.close(CloseCode.Normal, 'done');
  return times;
}

/** Writes to itself and reads that. */
async function chat(connection: Connection, keys: DeviceKeys): Promise<void> {
  await enqueueTo(connection, keys, systemRandom.bytes(16), 300);
  const { rows, storeId } = await call(connection, methods.fetch, { log: {}, maxRows: 256 });
  const upTo = rows.at(-1)?.seq;
  if (upTo === undefined) throw new Error('the message is not there');
  await call(connection, methods.ack, { log: {}, storeId, upTo });
}

/** Looks somebody up, as often as a device may. */
async function lookUp(connection: Connection): Promise<void> {
  const { manifest } = await call(connection, methods.resolveUser, { userId: 'alice@red.example' });
  if (manifest === undefined) throw new Error('alice is not there');
}

const timesOf = (what: string, times: readonly number[]): string =>
  `${what} ${times.length} times, p50 ${percentile(times, 0.5).toFixed(0)}, ` +
  `p99 ${percentile(times, 0.99).toFixed(0)}, at most ${percentile(times, 1).toFixed(0)} ms`;

async function main(seconds: number, rounds: number): Promise<void> {
  const dice = new Dice();
  console.log(`seed ${dice.seed}, ${rounds} rounds of ${seconds} s`);
  const directory = mkdtempSync(join(tmpdir(), 'qpc-fuzz-calls-'));
  await using node = await NodeProcess.init('red.example', join(directory, 'red'));
  const identity = await makeIdentity(systemRandom);
  const pin = Buffer.from(identity.spkiSha256).toString('base64url');
  // Nobody listens there: the node's own calls to it fail, as to any peer that is away.
  const listed = `peer ${mallory} qpc://127.0.0.1:9#${pin}\n`;
  writeFileSync(join(node.directory, 'peers'), listed, { mode: 0o600 });
  await node.start();
  const honest = await registerDevice(node, 'alice');
  const looker = await registerDevice(node, 'carol');
  const device = await registerDevice(node, 'bob');
  const { certificatePem, privateKeyPem } = identity;
  const job: Omit<AttackJob, 'seed'> = {
    ...{ seconds, device, peer: { domain: mallory, certificatePem, privateKeyPem } },
    corpus: {
      bytes: [honest.rid, device.rid, systemRandom.bytes(32), systemRandom.bytes(16)],
      texts: ['alice@red.example', 'bob@red.example', `eve@${mallory}`, 'red.example', mallory],
    },
  };
  const answers = new Map<string, number>();
  const grown: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const over = new AbortController();
    const chatting = live(honest, over.signal, 20, (connection) => chat(connection, honest));
    const looking = live(looker, over.signal, 250, lookUp);
    const attack = { ...job, seed: dice.int(2 ** 31) };
    // The peer is of this folder.
    const attacked = askPeer(attackers, attack, (seconds + 60) * 1_000) as Promise<Answers>;
    void attacked.finally(() => over.abort()).catch(() => undefined);
    const [chats, looks, counts] = await Promise.all([chatting, looking, attacked]);
    for (const [answer, count] of counts) answers.set(answer, (answers.get(answer) ?? 0) + count);
    await sleep(calmMs);
    const rss = rssMiB(node.pid ?? 0);
    grown.push(rss);
    const calls = counts.reduce((sum, [, count]) => sum + count, 0);
    console.log(
      `round ${round + 1}: ${calls} calls, RSS afterwards ${rss.toFixed(0)} MiB; ` +
        `${timesOf('a message there and back', chats)}; ${timesOf('a look-up', looks)}`,
    );
  }
  for (const answer of [...answers.keys()].toSorted())
    console.log(`  ${answer}: ${answers.get(answer)}`);
  const internal = [...answers.keys()].filter((answer) => answer.endsWith(' INTERNAL'));
  const more = (grown.at(-1) ?? 0) - (grown[0] ?? 0);
  const isBounded = more < allowedMiB;
  if (internal.length > 0) console.log(`FAILED: INTERNAL is no answer (${internal.join(', ')})`);
  if (!isBounded) console.log(`FAILED: ${more.toFixed(0)} MiB more than after the first round`);
  await node.stop();
  rmSync(directory, { recursive: true });
  process.exitCode = internal.length > 0 || !isBounded ? 1 : 0;
}

await main(Number(process.argv[2] ?? 20), Number(process.argv[3] ?? 3));
