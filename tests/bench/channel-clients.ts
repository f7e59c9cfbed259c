/**
 * Question: what does a text cost in a group of 40 devices on two nodes, from its writing until all 39 others
 * have it on their disks, through the group's channel over direct mode? Nodes and clients are real and share
 * one process, over a memory network: what is compared is their work, and the bytes that the writer sends.
 */
import { Rig, type RigClient } from '../client/rig.ts';
import { CallMeter } from './call-meter.ts';
import type { BenchReport, Round } from './measure.ts';
import { takeTurns } from './report.ts';

const devices = 40;
const texts = 20;
const rounds = 1;
const textBytes = 1_024;
/** Longer than any switch to a channel takes on a machine that is busy with other things (ms). */
const patienceMs = 600_000;

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`bench: waited for ${what}`);
    await new Promise<void>((resolve) => void setTimeout(resolve, 20));
  }
}

/** A conversation of all clients, in the mode that it is for. */
async function talk(clients: readonly RigClient[], mode: 'direct' | 'channel') {
  const [writer, ...others] = clients;
  if (writer === undefined) throw new Error('bench: no clients');
  const first = others.slice(0, 1).map(({ userId }) => userId);
  const id = await writer.client.createConversation({ name: mode, members: first });
  if (mode === 'direct') await writer.client.updateMetadata(id, { directDevices: 256 });
  const rest = others.slice(1).map(({ userId }) => userId);
  await writer.client.addMembers(id, rest);
  const epochOf = async (one: RigClient): Promise<number> => {
    const isIn = one.client.conversations().some((known) => Buffer.compare(known.id, id) === 0);
    return isIn ? ((await one.client.groupState(id))?.epoch ?? 0) : 0;
  };
  // Adding made epochs 1 and 2, or 1 to 3; a switch is one more.
  const wanted = 3;
  for (const one of clients)
    await until(`${mode} mode`, async () => (await epochOf(one)) >= wanted);
  console.log(`  ${mode}: ${clients.length} devices in epoch ${await epochOf(writer)}`);
  return id;
}

export async function channelClients(): Promise<BenchReport> {
  await using rig = await Rig.make();
  const meter = new CallMeter();
  const clients: RigClient[] = [];
  for (let index = 0; index < devices; index += 1) {
    const domain = index % 2 === 0 ? rig.red.domain : rig.blue.domain;
    const options =
      index > 0 ? {} : { transport: meter.over(rig.network.transport('metered-writer')) };
    clients.push(await rig.client(`user${index}@${domain}`, undefined, options));
  }
  const [writer, ...others] = clients;
  if (writer === undefined) throw new Error('bench: no clients');
  const ids = { direct: await talk(clients, 'direct'), channel: await talk(clients, 'channel') };
  let said = 0;
  const measure = async (mode: 'direct' | 'channel'): Promise<Round> => {
    const id = ids[mode];
    const before = { bytes: meter.bytes, calls: meter.calls };
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    const names: string[] = [];
    for (let count = 0; count < texts; count += 1) {
      names.push(`${(said += 1)} `.padEnd(textBytes, 'x'));
      await writer.client.send(id, names.at(-1) ?? '');
    }
    const last = names.at(-1);
    for (const one of others) {
      const heard = () => one.client.history(id, texts).map(({ text }) => text);
      await until(
        'everybody to hear',
        () => heard().includes(last ?? '') && heard().length >= texts,
      );
    }
    const seconds = (performance.now() - startMs) / 1_000;
    const { user, system } = process.cpuUsage(cpu);
    return {
      value: texts / seconds,
      notes: {
        'bytes sent per text': (meter.bytes - before.bytes) / texts,
        'calls per text': (meter.calls - before.calls) / texts,
        'CPU ms per text, all 40 devices and both nodes': (user + system) / 1_000 / texts,
      },
    };
  };
  const [direct = [], channel = []] = await takeTurns('a text to 39 devices', 'texts/s', rounds, [
    { name: 'direct', measure: () => measure('direct') },
    { name: 'channel', measure: () => measure('channel') },
  ]);
  return {
    question: 'channel-clients: texts/s until 39 devices have them, over a row for each',
    rows: [
      {
        name: `channel, ${devices} devices`,
        unit: 'texts/s',
        baseline: direct,
        candidate: channel,
      },
    ],
  };
}
