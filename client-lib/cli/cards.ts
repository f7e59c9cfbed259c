/** `qpc card export`, `qpc card import`: contact cards as files. */
import { readFile, writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { cardLimits } from '../cards/card.ts';
import {
  withClient,
  withCommonOptions,
  withOnlineClient,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { usage } from './failure.ts';

export function addCardCommands(program: Command, cli: Cli): void {
  const card = program
    .command('card')
    .description('contact cards: to know and reach a person while no node answers');
  withTimedOptions(card.command('export <file>'), cli)
    .description('write your own card; it is good for ten days at most')
    .action((file: string, options: TimedOptions) => exportCard(cli, file, options));
  withCommonOptions(card.command('import <file>'), cli)
    .description('take in the card of somebody; asks no node')
    .action((file: string, options: CommonOptions) => importCard(cli, file, options));
}

async function exportCard(cli: Cli, file: string, options: TimedOptions): Promise<void> {
  await withOnlineClient(cli, options, async (client) => {
    const bytes = client.exportCard();
    await writeFile(file, bytes, { mode: 0o600 });
    await cli.output.result(`${file}  ${bytes.length} bytes`, { type: 'card', file });
  });
}

async function importCard(cli: Cli, file: string, options: CommonOptions): Promise<void> {
  const bytes = await readFile(file);
  if (bytes.length > cardLimits.bytes) throw usage(`${file}: no card, ${bytes.length} bytes`);
  await withClient(cli, options, async (client) => {
    const { userId, verifiedMs, devices, verification } = await client.importCard(bytes);
    const day = new Date(verifiedMs).toISOString();
    await cli.output.result(
      `${userId}  ${devices.length} devices, verified on ${day} (${verification})`,
      { type: 'cardImported', userId, devices: devices.length, verifiedMs, verification },
    );
  });
}
