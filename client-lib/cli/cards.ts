/** `qpc card export`, `qpc card import`: contact cards as files. */
import type { Command } from 'commander';
import { EndpointRecordSchema, fromBinary } from '@quicprochat/proto/messages';
import { hasReason } from '@quicprochat/proto';
import { cardLimits, openCard } from '../cards/card.ts';
import { replacePrivateFile } from '../crypto/private-file.ts';
import type { QpcClient } from '../index.ts';
import {
  withClient,
  withOnlineClient,
  withTimedOptions,
  type Cli,
  type TimedOptions,
} from './cli.ts';
import { withFallbackOptions } from './fallback.ts';
import { readFileOf } from './files.ts';

/** How long an address is waited for (ms): relays of other nodes are asked for up to ten seconds. */
const addressMs = 12_000;
const lookMs = 250;

interface ImportOptions extends TimedOptions {
  readonly ask?: boolean;
}

export function addCardCommands(program: Command, cli: Cli): void {
  const card = program
    .command('card')
    .description('contact cards: to know and reach a person while no node answers');
  withFallbackOptions(withTimedOptions(card.command('export <file>'), cli))
    .description('write your own card; it is good for ten days at most')
    .action((file: string, options: TimedOptions) => exportCard(cli, file, options));
  withTimedOptions(card.command('import <file>'), cli)
    .description('take in the card of somebody; asks no node, unless told')
    .option('--ask', 'connect, and ask the log where the card alone is not enough')
    .action((file: string, options: ImportOptions) => importCard(cli, file, options));
}

async function exportCard(cli: Cli, file: string, options: TimedOptions): Promise<void> {
  await withOnlineClient(cli, options, async (client, signal) => {
    await client.online(signal);
    const { bytes, hasAddress } = await madeCard(cli, client, options.p2p === true, signal);
    // With a token and perhaps an address in it.
    replacePrivateFile(file, bytes, cli.runtime.random);
    const note = hasAddress ? '' : ', without an address: see --p2p';
    await cli.output.result(`${file}  ${bytes.length} bytes${note}`, {
      type: 'card',
      file,
      hasAddress,
    });
  });
}

/** The card, once there is what it is made of; with an address, if there is to be one and it comes soon. */
async function madeCard(
  { runtime: { clock } }: Cli,
  client: QpcClient,
  wantsAddress: boolean,
  signal: AbortSignal,
): Promise<{ readonly bytes: Uint8Array; readonly hasAddress: boolean }> {
  let untilMs: number | undefined;
  for (;;) {
    try {
      const bytes = client.exportCard();
      const hasAddress = saysWhere(bytes, clock.now());
      untilMs ??= clock.monotonic() + addressMs;
      if (hasAddress || !wantsAddress || clock.monotonic() >= untilMs) return { bytes, hasAddress };
    } catch (error) {
      // A device that was just made: its log makes the credential in a moment.
      if (!hasReason(error, 'BAD_CURSOR')) throw error;
    }
    await clock.sleep(lookMs, signal);
  }
}

/** Whether its reader finds the device by it, without a node. */
function saysWhere(card: Uint8Array, nowMs: number): boolean {
  return openCard(card, nowMs).devices.some(({ endpoint }) => {
    if (endpoint === undefined) return false;
    const { addresses, relays } = fromBinary(EndpointRecordSchema, endpoint.record);
    return addresses.length + relays.length > 0;
  });
}

async function importCard(cli: Cli, file: string, options: ImportOptions): Promise<void> {
  const bytes = await readFileOf(file, cardLimits.bytes);
  const work = async (client: QpcClient): Promise<void> => {
    const { userId, verifiedMs, devices, verification } = await client.importCard(bytes);
    const day = new Date(verifiedMs).toISOString();
    await cli.output.result(
      `${userId}  ${devices.length} devices, verified on ${day} (${verification})`,
      { type: 'cardImported', userId, devices: devices.length, verifiedMs, verification },
    );
  };
  await (options.ask === true
    ? withOnlineClient(cli, options, work)
    : withClient(cli, options, work));
}
