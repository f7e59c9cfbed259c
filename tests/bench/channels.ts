/**
 * Question: how many messages/s does a node take for a group of 32, 200 and 1 000 of its devices, and
 * all acks of them, by a channel (one row) over direct mode (a row for each device, one payload)?
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { ChannelJob } from './channels-peer.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import type { Scratch } from './scratch.ts';

const rounds = 3;
/** Fewer where direct mode has more to do: each side of a round stays below some seconds. */
const sizes = [
  { members: 32, messages: 1_000 },
  { members: 200, messages: 200 },
  { members: 1_000, messages: 50 },
] as const;
const peer = new URL('./channels-peer.ts', import.meta.url);

export async function channels(scratch: Scratch): Promise<BenchReport> {
  const rows: Comparison[] = [];
  const unit = 'messages/s';
  for (const { members, messages } of sizes) {
    const measure = async (how: ChannelJob['how']): Promise<Round> => {
      const directory = mkdtempSync(join(scratch.directory, 'channel-'));
      // The peer is of this folder and answers with a Round.
      return (await askPeer(peer, { how, members, messages, directory })) as Round;
    };
    const name = `${members} members`;
    const [direct = [], channel = []] = await takeTurns(name, unit, rounds, [
      { name: 'direct', measure: () => measure('direct') },
      { name: 'channel', measure: () => measure('channel') },
    ]);
    rows.push({ name: `channel, ${name}`, unit, baseline: direct, candidate: channel });
  }
  return { question: 'channel: messages/s and all their acks, over a row for each device', rows };
}
