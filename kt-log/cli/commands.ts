/** The command line of `qpc-audit`: which command with which arguments, and how failures read. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { DataLossError, QpcError } from '@quicprochat/proto/status';
import { VerificationError } from '../verification-error.ts';
import { visible } from './audit-report.ts';
import { checkCommand, proveForkCommand, verifyForkCommand } from './evidence-commands.ts';
import type { CommandParts } from './follow-command.ts';
import { follow } from './follow-command.ts';
import type { ExitCode } from './usage.ts';
import { exitCodes, help, UsageError } from './usage.ts';

const text = { type: 'string' } as const;
const flag = { type: 'boolean' } as const;
const options = {
  once: flag,
  json: flag,
  help: { ...flag, short: 'h' },
  from: text,
  interval: text,
  state: text,
  out: { ...text, short: 'o' },
  vkey: text,
  policy: text,
  record: text,
} satisfies ParseArgsConfig['options'];

/** Which options a command takes. */
const taken = {
  follow: ['once', 'json', 'from', 'interval', 'state', 'out', 'vkey', 'policy'],
  'prove-fork': ['out', 'vkey', 'record'],
  'verify-fork': ['json', 'vkey', 'record'],
  check: ['json', 'vkey', 'record', 'policy'],
} as const;
type Command = keyof typeof taken;

/** Runs one command. `defaultState` is where `follow` keeps its state. */
export async function run(
  argv: readonly string[],
  defaultState: string,
  parts: CommandParts & { warn(text: string): void },
): Promise<ExitCode> {
  try {
    return await dispatch(argv, defaultState, parts);
  } catch (error) {
    if (error instanceof UsageError || error instanceof DataLossError) {
      parts.warn(`qpc-audit: ${visible(error.message)}\n`);
      return exitCodes.usage;
    }
    if (error instanceof VerificationError || error instanceof QpcError) {
      parts.warn(`qpc-audit: not proven: ${visible(error.message)}\n`);
      return exitCodes.failed;
    }
    if (parts.stopped.aborted) return exitCodes.failed;
    if (error instanceof Error && 'syscall' in error) {
      parts.warn(`qpc-audit: ${visible(error.message)}\n`);
      return exitCodes.usage;
    }
    throw error;
  }
}

async function dispatch(
  argv: readonly string[],
  defaultState: string,
  parts: CommandParts,
): Promise<ExitCode> {
  const { values, positionals } = parsed(argv);
  const [name, ...operands] = positionals;
  if (values.help === true || name === undefined) {
    parts.print(help);
    return values.help === true ? exitCodes.ok : exitCodes.usage;
  }
  const command = (Object.keys(taken) as Command[]).find((one) => one === name);
  if (command === undefined) throw new UsageError(`${name}: no such command; see --help`);
  const allowed: readonly string[] = taken[command];
  const stray = Object.keys(values).find((option) => !allowed.includes(option));
  if (stray !== undefined) throw new UsageError(`${command}: takes no --${stray}`);
  const { vkey, record: recordFile, json: isJson = false } = values;
  const operand = (at: number, count: number): string => {
    const value = operands[at];
    if (value === undefined || operands.length !== count) {
      throw new UsageError(`${command}: takes ${count} operand${count === 1 ? '' : 's'}`);
    }
    return value;
  };
  switch (command) {
    case 'follow': {
      const args = {
        target: operand(0, 1),
        isOnce: values.once ?? false,
        isJson,
        stateDirectory: values.state ?? defaultState,
        outDirectory: values.out ?? '.',
        from: values.from === undefined ? undefined : numberOf('from', values.from),
        intervalMs: 1000 * intervalOf(values.interval ?? '60'),
        vkey,
        policyFile: values.policy,
      };
      return follow(args, parts);
    }
    case 'prove-fork': {
      const { out } = values;
      if (out === undefined) throw new UsageError('prove-fork: needs -o FILE');
      const args = { a: operand(0, 2), b: operand(1, 2), out, vkey, recordFile };
      return proveForkCommand(args, parts);
    }
    case 'verify-fork':
      return verifyForkCommand({ file: operand(0, 1), vkey, recordFile, isJson }, parts);
    case 'check':
      return checkCommand(
        { file: operand(0, 1), vkey, recordFile, isJson, policyFile: values.policy },
        parts,
      );
  }
}

function parsed(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : 'arguments');
  }
}

function intervalOf(value: string): number {
  const seconds = numberOf('interval', value);
  if (seconds < 1) throw new UsageError('--interval: at least 1');
  return seconds;
}

function numberOf(name: string, value: string): number {
  const number = Number(value);
  if (!/^\d{1,15}$/.test(value) || !Number.isSafeInteger(number)) {
    throw new UsageError(`--${name}: a whole number`);
  }
  return number;
}
