/**
 * Question: how fast is each transport engine with the same calls and certificates? Every number
 * comes from two fresh processes; the engines take turns within each round, so that what else the
 * machine does hits all of them. Usage: `node tests/bench/engines.ts [rounds] [engine,...] [what,...]`
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { arch, cpus, platform } from 'node:os';
import { fileURLToPath } from 'node:url';

const [
  rounds = '3',
  engineList = 'quic,quic-stock,tls,http2',
  whatList = '1,16,64,256,bulk,handshakes,idle',
] = process.argv.slice(2);
const engines = engineList.split(',');
const peer = fileURLToPath(new URL('./engine-peer.ts', import.meta.url));

function start(...args: readonly string[]) {
  const child = spawn(process.execPath, [peer, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<Record<string, unknown>> => {
    const { value } = await lines.next();
    if (value === undefined) throw new Error(`bench: ${args.join(' ')} ended without a result`);
    return JSON.parse(value) as Record<string, unknown>;
  };
  return { child, next };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill();
  await once(child, 'exit');
}

async function measure(engine: string, what: string): Promise<Record<string, number>> {
  const server = start('serve', engine);
  try {
    const { port, spki } = await server.next();
    const client = start('load', engine, String(port), String(spki), what);
    try {
      return (await client.next()) as Record<string, number>;
    } finally {
      await end(client.child);
    }
  } finally {
    await end(server.child);
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Three significant digits. */
function short(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

const results = new Map<string, Map<string, number[]>>();
for (const what of whatList.split(',')) {
  for (let round = 0; round < Number(rounds); round += 1) {
    for (const engine of engines) {
      for (const [name, value] of Object.entries(await measure(engine, what))) {
        const row = results.get(name) ?? new Map<string, number[]>();
        results.set(name, row);
        row.set(engine, [...(row.get(engine) ?? []), value]);
      }
    }
  }
}

const model = cpus()[0]?.model ?? 'unknown processor';
console.log(`${model}, ${cpus().length} cores, ${platform()} ${arch()}, Node ${process.version}`);
console.log(`median (lowest-highest) of ${rounds} rounds\n`);
console.log(`| | ${engines.join(' | ')} | ${engines[0]} / ${engines[1] ?? ''} |`);
console.log(`|---|${'---|'.repeat(engines.length + 1)}`);
for (const [name, row] of results) {
  const cells = engines.map((engine) => {
    const values = row.get(engine) ?? [];
    return `${short(median(values))} (${short(Math.min(...values))}-${short(Math.max(...values))})`;
  });
  const [one = [], two = []] = engines.map((engine) => row.get(engine));
  console.log(`| ${name} | ${cells.join(' | ')} | ${short(median(one) / median(two))} |`);
}
