/**
 * Loaded before every test file (`--import` in `npm test`): where QPC_ANSWERS names a folder, it writes down
 * there with which reasons the nodes of this process and of those that it starts answered which methods, each
 * pair once. `answers.ts` judges them.
 */
import { subscribe } from 'node:diagnostics_channel';
import { appendFileSync, mkdirSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import type { CallReport } from '@quicprochat/proto';

const { QPC_ANSWERS: folder = '', NODE_OPTIONS: options = '' } = process.env;
/** What a simulator finds by its dice proves nothing for the next run. */
const isOfSimulator = /^tests\/(sim|hub-sim|gossip-sim|model)\//u;

const program = relative(process.cwd(), process.argv[1] ?? '');
if (folder !== '' && !isOfSimulator.test(program)) {
  const load = `--import=${import.meta.url}`;
  if (!options.includes(load)) process.env.NODE_OPTIONS = `${options} ${load}`;
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${basename(program)}.${process.pid}`);
  const seen = new Set<string>();
  subscribe('quicprochat.call', (message) => {
    const { method, reason = 'OK' } = message as CallReport;
    const answer = `${method} ${reason}`;
    if (seen.has(answer)) return;
    seen.add(answer);
    appendFileSync(file, `${answer}\n`);
  });
}
