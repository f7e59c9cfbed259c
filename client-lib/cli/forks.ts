/**
 * `qpc forks`, `qpc verify-fork`: evidence against hubs that signed two histories of a conversation, out of a device, and
 * checked by anybody, without a device and without a network.
 */
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import {
  forkEvidenceLimits,
  nodeRecordLimits,
  openNodeRecord,
  verifyForkEvidence,
} from '@quicprochat/proto';
import { fromBinary, SignedNodeRecordSchema, type NodeRecord } from '@quicprochat/proto/messages';
import type { HeldFork } from '../index.ts';
import {
  withClient,
  withCommonOptions,
  withJsonOption,
  type Cli,
  type CommonOptions,
} from './cli.ts';
import { shortId } from './conversations.ts';
import { CommandError, exitFailed, usage } from './failure.ts';
import { makeDirectory, readFileOf, writeFileFor } from './files.ts';
import { hexOf } from './output.ts';

/** A record with its signatures, as a site shows it. */
const recordFileBytes = 2 * nodeRecordLimits.recordBytes;

interface ForksOptions extends CommonOptions {
  readonly out?: string;
}

export function addForkCommands(program: Command, cli: Cli): void {
  withCommonOptions(program.command('forks'), cli)
    .description('list where hubs signed two histories of a conversation')
    .option('--out <directory>', 'write the evidence of each into a file there')
    .action((options: ForksOptions) => list(cli, options));
  const record = new Option(
    '--record <file>',
    'the record of a hub that you trust (its /.well-known/qpc); may be given for each',
  ).argParser((file: string, before: readonly string[] | undefined) => [...(before ?? []), file]);
  withJsonOption(program.command('verify-fork <file>'), cli)
    .description('check evidence of a fork, with nothing but the file')
    .addOption(record)
    .action((file: string, options: { readonly record?: readonly string[] }) =>
      verify(cli, file, options.record ?? []),
    );
}

async function list(cli: Cli, { out, ...options }: ForksOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const forks = await client.forks();
    if (out !== undefined && forks.length > 0) await makeDirectory(out);
    for (const fork of forks) {
      const { conversationId, epoch, convicted, evidence, atMs } = fork;
      const file = out === undefined ? null : join(out, fileNameOf(fork));
      if (file !== null) await writeFileFor(file, evidence);
      const found = new Date(atMs).toISOString();
      await cli.output.result(
        `${found}  ${convicted.join(', ')} signed two histories of ${shortId(conversationId)} (epoch ${epoch})${file === null ? '' : `  ${file}`}`,
        {
          type: 'fork',
          conversation: hexOf(conversationId),
          epoch,
          hubs: convicted,
          atMs,
          file,
        },
      );
    }
  });
}

/** The same for the same two entries, whenever it is written. */
function fileNameOf({ conversationId, epoch, entries }: HeldFork): string {
  const [one, other] = entries.map((hash) => hexOf(hash).slice(0, 8));
  return `${shortId(conversationId)}-${epoch}-${one}-${other}.fork`;
}

async function verify(cli: Cli, file: string, recordFiles: readonly string[]): Promise<void> {
  const bytes = await readFileOf(file, forkEvidenceLimits.bytes);
  const trusted = await Promise.all(recordFiles.map(trustedRecord));
  const { group, epoch, hubs, entries, convicted } = verifyForkEvidence(bytes, trusted);
  const stranger = trusted.find(({ domain }) => !hubs.includes(domain));
  if (stranger !== undefined) {
    throw usage(`--record: ${stranger.domain} is no hub of this group (${hubs.join(', ')})`);
  }
  if (convicted.length === 0) {
    const keys = trusted.length === 0 ? '' : ', by the records that you named';
    throw new CommandError(exitFailed, 'NOT_PROVEN', `${file}: convicts nobody${keys}`);
  }
  for (const { domain, keys, isTrusted } of convicted) {
    const shown = keys.map(hexOf);
    const whose = isTrusted
      ? 'keys of the record that you named'
      : `keys by the word of the file alone: compare them with https://${domain}/.well-known/qpc (--record)`;
    await cli.output.result(
      `${domain} signed two changes in one place of group ${shortId(group)} (epoch ${epoch}) with ${shown.join(', ')}; ${whose}`,
      {
        type: 'convicted',
        domain,
        group: hexOf(group),
        epoch,
        entries: entries.map(hexOf),
        hubs,
        keys: shown,
        isTrusted,
      },
    );
  }
}

/** Throws CommandError for a file that is no record. */
async function trustedRecord(file: string): Promise<NodeRecord> {
  const bytes = await readFileOf(file, recordFileBytes);
  try {
    return openNodeRecord(fromBinary(SignedNodeRecordSchema, bytes));
  } catch {
    throw usage(`--record ${file}: is no node record`);
  }
}
