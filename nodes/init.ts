/**
 * `qpcd init`: makes a node's directory (config, database key, encrypted database with the node's
 * secrets) beside its final place and moves it there whole, so that a failure leaves nothing.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { formatNodeAddress, type Runtime } from '@quicprochat/proto';
import { parseConfig, type NodeConfig } from './config.ts';
import { createKeyFile } from './key-file.ts';
import { createSecrets } from './secrets.ts';
import { SetupError } from './setup-error.ts';
import { createNodeStore, openNodeStore } from './store/open.ts';

export interface InitOptions {
  readonly directory: string;
  readonly domain: string;
  readonly listen: string;
  readonly advertise: string | undefined;
}

export interface InitResult {
  readonly configPath: string;
  /** `qpc://host:port#pin` that clients and peers are given. */
  readonly address: string;
}

export const configFileName = 'qpcd.toml';

/** Throws SetupError when the directory is not empty or an option is wrong. Durable on return. */
export async function initNode(options: InitOptions, runtime: Runtime): Promise<InitResult> {
  const directory = resolve(options.directory);
  if (!isFree(directory)) {
    throw new SetupError(`${directory}: is not empty; name a directory that does not exist yet`);
  }
  const suffix = Buffer.from(runtime.random.bytes(4)).toString('hex');
  const building = join(dirname(directory), `.${suffix}.qpcd-init`);
  const text = configText(options);
  // First under the name that a person would look for in an error, then where it is built.
  parseConfig(text, join(directory, configFileName));
  const config = parseConfig(text, join(building, configFileName));
  try {
    mkdirSync(building, { recursive: true, mode: 0o700 });
    const address = await fill(building, text, config, runtime);
    renameSync(building, directory);
    syncFolder(dirname(directory));
    return { configPath: join(directory, configFileName), address };
  } catch (error) {
    rmSync(building, { recursive: true, force: true });
    // Of the system: who may not write there, or a full disk. Bugs keep their stack.
    if (!(error instanceof Error && 'syscall' in error && 'code' in error)) throw error;
    const where = `${directory}: cannot be made (${String(error.code)} in ${dirname(directory)})`;
    throw new SetupError(`${where}; name a --dir in a directory that you may write to`, error);
  }
}

/** Whether the directory is to be made, or is there and has nothing in it. Throws SetupError for a file. */
function isFree(directory: string): boolean {
  if (!existsSync(directory)) return true;
  try {
    return readdirSync(directory).length === 0;
  } catch (cause) {
    throw new SetupError(
      `${directory}: is no directory that you may read; name another --dir`,
      cause,
    );
  }
}

async function fill(
  building: string,
  text: string,
  config: NodeConfig,
  runtime: Runtime,
): Promise<string> {
  const key = createKeyFile(config.databaseKeyPath, runtime.random);
  const path = config.databasePath;
  await createNodeStore({ path, key, runtime });
  await using store = await openNodeStore({ path, key, limits: config.store, runtime });
  const { identity } = await createSecrets(store, runtime);
  const address = formatNodeAddress({ ...config.advertise, pin: identity.spkiSha256 });
  for (const [name, content, mode] of [
    [configFileName, text, 0o600],
    ['peers', peersText, 0o600],
    ['address', `${address}\n`, 0o644],
  ] as const) {
    writeFileSync(join(building, name), content, { mode, flush: true });
  }
  syncFolder(building);
  return address;
}

/** The names in a folder are on disk when this returns. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function configText(options: InitOptions): string {
  const advertise = options.advertise ?? options.listen;
  return `# Configuration of one quicprochat node; docs/operator/configuration.md lists every key.
domain = ${JSON.stringify(options.domain)}
listen = ${JSON.stringify(options.listen)}
# Where others reach this node.
advertise = ${JSON.stringify(advertise)}
database = "node.db"
# Keep a copy of this file apart from the database: without it the database cannot be opened.
database_key_file = "database.key"
peers_file = "peers"
log_level = "info"
`;
}

const peersText = `# Nodes that this one federates with, one line each:
#   peer blue.example qpc://blue.example:5001#<pin>
# The address is what "qpcd init" printed there, and stands in its file "address".
`;

/** How an address is shown when the port was chosen by the system. */
export function boundAddress(config: NodeConfig, port: number, pin: Uint8Array): string {
  const host = config.advertise.host;
  return formatNodeAddress({
    host,
    port: config.advertise.port === 0 ? port : config.advertise.port,
    pin,
  });
}
