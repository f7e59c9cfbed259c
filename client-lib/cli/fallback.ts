/** Options of `qpc send` and `qpc listen` that let messages go past nodes that do not answer. */
import { InvalidArgumentError as InvalidOption, Option, type Command } from 'commander';
import type { FallbackOptions } from '../index.ts';
import { usage } from './failure.ts';

export interface FallbackFlags {
  readonly p2p?: boolean;
  readonly p2pPort?: number;
  readonly p2pRelays?: boolean;
  readonly p2pLan?: boolean;
  /** False with `--no-p2p-mailboxes`. */
  readonly p2pMailboxes?: boolean;
}

export function withFallbackOptions(command: Command): Command {
  return command
    .option(
      '--p2p',
      'while nodes do not answer, deliver past them and be delivered to; contacts learn the address',
    )
    .addOption(
      new Option(
        '--p2p-port <port>',
        'with --p2p: UDP and TCP port; unless told, one that stays the same',
      ).argParser(portOf),
    )
    .addOption(
      new Option('--p2p-relays', 'with --p2p: over relays only, so that contacts learn no address'),
    )
    .addOption(
      new Option('--no-p2p-mailboxes', 'with --p2p: no mailboxes of this device at other nodes'),
    )
    .addOption(
      new Option('--p2p-lan', 'with --p2p: find devices of the local network, and be found there'),
    )
    .hook('preAction', (_parent, action) => needP2p(action.opts<FallbackFlags>()));
}

/** Without `--p2p` the others would do nothing, and nobody would notice. */
function needP2p({ p2p, p2pPort, p2pRelays, p2pLan, p2pMailboxes }: FallbackFlags): void {
  if (p2p === true) return;
  const given = {
    '--p2p-port': p2pPort !== undefined,
    '--p2p-relays': p2pRelays === true,
    '--p2p-lan': p2pLan === true,
    '--no-p2p-mailboxes': p2pMailboxes === false,
  };
  for (const [name, isGiven] of Object.entries(given)) {
    if (isGiven) throw usage(`${name} goes with --p2p only`);
  }
}

/** What the client is opened with; loads the swarm only where it is wanted. */
export async function fallbackOf(flags: FallbackFlags): Promise<FallbackOptions | undefined> {
  if (flags.p2p !== true) return undefined;
  const { deviceSwarm } = await import('./peer-swarm.ts');
  return {
    mailboxes: flags.p2pMailboxes !== false,
    peers: deviceSwarm({
      ...(flags.p2pPort === undefined ? {} : { port: flags.p2pPort }),
      relayOnly: flags.p2pRelays === true,
      lan: flags.p2pLan === true,
    }),
  };
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535) {
    throw new InvalidOption('need a port, 1 to 65535');
  }
  return port;
}
