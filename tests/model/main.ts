/**
 * Explores the model of a hub of three (docs/reference/hub-model.md) and says how far it went:
 *   node tests/model/main.ts [--terms 4] [--commits 2] [--losses 0] [--begins | --recovers [--backups]] [--limit STATES] [--mutants] [--history]
 *   node tests/model/main.ts --walk SCHEDULES [--seed 1] [--length 120] [--terms 8] [--commits 6] [--mutants]
 * Exits with 1 when the sound protocol has a breach or a mutant has none.
 */
import { parseArgs } from 'node:util';

import { explore, walk } from './explore.ts';
import { mutants, sound } from './rules.ts';

const { values } = parseArgs({
  options: {
    terms: { type: 'string' },
    commits: { type: 'string' },
    losses: { type: 'string', default: '0' },
    begins: { type: 'boolean', default: false },
    recovers: { type: 'boolean', default: false },
    backups: { type: 'boolean', default: false },
    limit: { type: 'string' },
    walk: { type: 'string' },
    seed: { type: 'string', default: '1' },
    length: { type: 'string', default: '120' },
    mutants: { type: 'boolean', default: false },
    history: { type: 'boolean', default: false },
  },
});
const isWalk = values.walk !== undefined;
const bounds = {
  terms: Number(values.terms ?? (isWalk ? 8 : 4)),
  commits: Number(values.commits ?? (isWalk ? 6 : 2)),
  losses: Number(values.losses),
  begins: values.begins,
  recovers: values.recovers,
  backups: values.backups,
};
const limit = values.limit === undefined ? Infinity : Number(values.limit);
const run = {
  seed: Number(values.seed),
  schedules: Number(values.walk ?? 0),
  length: Number(values.length),
};

console.log(`${bounds.terms} terms, ${bounds.commits} commits, ${bounds.losses} lost disks`);
const subjects = values.mutants ? mutants : [{ name: 'the protocol', rules: sound }];
for (const subject of subjects) {
  const before = process.cpuUsage();
  const losses = Math.max(bounds.losses, 'losses' in subject ? (subject.losses ?? 0) : 0);
  const begins = bounds.begins || ('begins' in subject && subject.begins);
  const recovers = bounds.recovers || ('recovers' in subject && subject.recovers);
  const within = { ...bounds, losses, begins, recovers };
  const result = isWalk ? walk(subject, within, run) : explore(subject, within, limit);
  const { user, system } = process.cpuUsage(before);
  const size =
    'states' in result
      ? `${result.states} states, ${result.steps} steps, depth ${result.depth}${result.isComplete || result.breach !== '' ? '' : ', not complete'}`
      : `${result.schedules} schedules, last seed ${result.seed}`;
  console.log(`${subject.name}: ${size}, certified up to ${result.certified} entries`);
  console.log(`  ${((user + system) / 1e6).toFixed(1)} s: ${result.breach || 'no breach'}`);
  if (values.history) for (const line of result.history) console.log(`    ${line}`);
  if ((result.breach !== '') !== values.mutants) process.exitCode = 1;
}
