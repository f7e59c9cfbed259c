/**
 * Proof that the simulator finds what it is for: deliberate bugs, each a small change of the product in a
 * copy of the repository, and the first seed whose run has a violation there and none without the bug.
 *   node tests/sim/mutants.ts [--only NAME] [--seeds A..B] [--operations N] [--runs N] [--dry]
 * Bugs of hubs alone are hunted among three production hubs without clients (tests/hub-sim), in so many runs; those that
 * take a member that lies by the tests that have one. Takes some minutes. The lists in docs/simulator.md are its output.
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { groupMutants } from './group-mutants.ts';
import { hubMutants } from './hub-mutants.ts';
import { judgeMutants } from './judge-mutants.ts';
import { applyEdit, copyRepository, type Edit } from './mutant-copy.ts';
import { recoveryMutants } from './recovery-mutants.ts';
import { ruleMutants } from './rule-mutants.ts';
import { workMutants } from './work-mutants.ts';

export interface Mutant {
  readonly name: string;
  readonly what: string;
  /**
   * Mixes in which it is looked for, the likeliest first; those of `hubsAlone` are runs of tests/hub-sim, and what ends
   * in `.test.ts` is a file of tests.
   */
  readonly mixes: readonly string[];
  readonly edits: readonly Edit[];
}

export const mutants: readonly Mutant[] = [
  {
    name: 'reply-before-sync',
    what: 'a node answers while its transaction is still open; the next one commits it',
    mixes: ['node-crash-points', 'node-kills'],
    edits: [
      {
        file: 'nodes/store/core.ts',
        from: '    this.#begin.run();\n',
        to: '    if (this.#db.inTransaction) this.#commit.run();\n    this.#begin.run();\n',
      },
      {
        file: 'nodes/store/core.ts',
        from: '      this.#commit.run();\n      if (hasWritten) {',
        to: '      if (hasWritten) {',
      },
      {
        file: 'nodes/store/core.ts',
        from: '  checkpointIfDue(): void {\n',
        to: '  checkpointIfDue(): void {\n    if (this.#db.inTransaction) return;\n',
      },
      {
        file: 'nodes/store/core.ts',
        from: '    if (this.#failure !== undefined || !this.#db.open) return;\n',
        to: '    if (this.#failure !== undefined || !this.#db.open) return;\n    if (this.#db.inTransaction) this.#commit.run();\n',
      },
    ],
  },
  {
    name: 'cursor-outside',
    what: 'a client moves its cursor in a transaction of its own, before that of the message',
    mixes: ['client-crash-points', 'client-kills'],
    edits: [
      {
        file: 'client-lib/writer.ts',
        from: '    this.write(() => this.#store.inbox.putCursor(log, cursor));',
        to: '    this.#store.transaction(() => this.#store.inbox.putCursor(log, cursor));',
      },
    ],
  },
  {
    name: 'no-chain-check',
    what: 'a sending node believes a cursor without comparing the chain, and deletes by it',
    mixes: ['lost-disks-apart', 'lost-disks-and-kills'],
    edits: [
      {
        file: 'federation/outbox.ts',
        from: '    const ours = await store.outboxChainAt(peer, lane, seq);\n    return ours !== undefined && sameBytes(ours, chain);',
        to: '    const ours = await store.outboxChainAt(peer, lane, seq);\n    return ours !== undefined && chain.length > 0;',
      },
      {
        file: 'federation/outbox.ts',
        from: '        ? sameBytes(row.chain, told.chain)',
        to: '        ? told.chain.length > 0',
      },
    ],
  },
  {
    name: 'ack-before-commit',
    what: 'a client acks a row before the transaction that takes it in',
    mixes: ['client-kills', 'client-crash-points'],
    edits: [
      {
        file: 'client-lib/receiving/sync.ts',
        from: '    this.#track(this.#parts.receiver.receive(row, storeId).then(() => this.#durable(row.seq)));',
        to: '    this.#durable(row.seq);\n    const { clock } = this.#parts.runtime;\n    const late = clock.sleep(300).then(() => this.#parts.receiver.receive(row, storeId));\n    this.#track(late);',
      },
    ],
  },
  {
    name: 'forget-seen',
    what: 'a client forgets at its start what it has seen',
    mixes: ['lost-disks-apart', 'lost-disks-and-kills', 'lost-disks'],
    edits: [
      {
        file: 'client-lib/store/sqlite-store.ts',
        from: '  const db = openDatabase(path, key);\n',
        to: "  const db = openDatabase(path, key);\n  db.run('DELETE FROM seen');\n",
      },
    ],
  },
  {
    name: 'no-tag-dedup',
    what: 'a node does not notice that it has a message already',
    mixes: ['requests', 'replies'],
    edits: [
      {
        file: 'nodes/store/queries/log-append.ts',
        from: '    receivedMs: (log, tag) => receivedOfEntry.get(log, tag) ?? receivedOfTomb.get(log, tag),',
        to: '    receivedMs: (log, tag) => (log < 0 ? receivedOfEntry.get(log, tag) ?? receivedOfTomb.get(log, tag) : undefined),',
      },
      {
        file: 'nodes/store/migrations/0001-initial.sql',
        from: 'CREATE UNIQUE INDEX entry_tag',
        to: 'CREATE INDEX entry_tag',
      },
      {
        file: 'nodes/store/migrations/0001-initial.sql',
        from: 'CREATE UNIQUE INDEX tomb_tag',
        to: 'CREATE INDEX tomb_tag',
      },
    ],
  },
  {
    name: 'relay-skips-one',
    what: 'a node does not take the first new row of a batch that it had a part of, and counts on',
    mixes: ['bursts', 'flapping', 'storm'],
    edits: [
      {
        file: 'nodes/store/queries/relay-inbox.ts',
        from: '        deliver(nowMs, { id: peer, domain }, item, tag,',
        to: '        if (item !== fresh[0] || firstSeq > start) deliver(nowMs, { id: peer, domain }, item, tag,',
      },
    ],
  },
  {
    name: 'ack-takes-more',
    what: 'a node deletes one row more than was acked',
    mixes: ['replies', 'bursts'],
    edits: [
      {
        file: 'nodes/store/queries/inbox.ts',
        from: 'if (upTo > log.acked) trims.trim(nowMs, log.id, upTo);',
        to: 'if (upTo > log.acked) trims.trim(nowMs, log.id, Math.min(log.head, upTo + 1));',
      },
    ],
  },
  {
    name: 'ratchet-late',
    what: 'a client writes its ratchets in a second transaction, after messages and cursor',
    mixes: ['client-crash-points', 'client-kills'],
    edits: [
      {
        file: 'client-lib/writer.ts',
        from: '    this.#store.transaction(() => {\n      for (const touched of this.#groups.values()) this.#writeGroup(touched);\n      for (const write of this.#writes) write();\n    });',
        to: '    this.#store.transaction(() => {\n      for (const write of this.#writes) write();\n    });\n    this.#store.transaction(() => {\n      for (const touched of this.#groups.values()) this.#writeGroup(touched);\n    });',
      },
    ],
  },
  {
    name: 'outbox-before-reply',
    what: 'a sending node deletes rows when it has sent them, before the answer',
    mixes: ['partition', 'requests'],
    edits: [
      {
        file: 'federation/outbox.ts',
        from: '    this.#sent = batch.lastSeq;\n    const method',
        to: '    this.#sent = batch.lastSeq;\n    const { store, peer, lane } = this.#options;\n    void store.settleOutbox(peer, lane, this.#stream.streamId, batch.lastSeq, []);\n    const method',
      },
    ],
  },
  {
    name: 'seq-reused',
    what: 'a node does not notice that its database is an older copy, and numbers rows again',
    mixes: ['lost-disks-apart', 'lost-disks'],
    edits: [
      {
        file: 'nodes/store/rewind-guard.ts',
        from: '  isRewound(storeId: Uint8Array, commits: number): boolean {',
        to: '  isRewound(storeId: Uint8Array, commits: number): boolean {\n    if (commits >= 0) return false;',
      },
    ],
  },
  {
    name: 'ok-not-kept',
    what: 'a client forgets a message as soon as its own node has been sent it',
    mixes: ['replies', 'requests'],
    edits: [
      {
        file: 'client-lib/store/outbox-rows.ts',
        from: "o.resend_ms IS NULL\n         ORDER BY o.id LIMIT 1`,\n        Buffer.from(ridHex, 'hex'),\n        after,\n      );",
        to: "o.resend_ms IS NULL\n         ORDER BY o.id LIMIT 1`,\n        Buffer.from(ridHex, 'hex'),\n        after,\n      );\n      if (row !== undefined) db.run(`UPDATE outbox SET state = 'ACCEPTED' WHERE id = ?`, row.number('id'));",
      },
    ],
  },
];

export const allMutants: readonly Mutant[] = [
  ...mutants,
  ...groupMutants,
  ...hubMutants,
  ...judgeMutants,
  ...recoveryMutants,
  ...ruleMutants,
  ...workMutants,
];

/** What runs in what is no mix of tests/sim: three hubs, or one, or three of which two and more lose their disks. */
const hubsAlone: Readonly<Record<string, readonly string[]>> = {
  hub: ['--hubs', '1'],
  hubs: ['--hubs', '3'],
  forgetful: ['--forget'],
};

interface Hunting {
  readonly seeds: string;
  readonly operations: string;
  readonly runs: string;
}

interface Found {
  /** Empty: tests found it. */
  readonly seed: string;
  readonly text: string;
}

/** The first seed with a violation, and what it was. `only`: this seed alone. */
function hunt(copy: string, mix: string, options: Hunting, only?: string): Found | undefined {
  if (mix.endsWith('.test.ts')) return huntInTests(copy, mix);
  const hubs = hubsAlone[mix];
  if (hubs !== undefined)
    return huntHubs(copy, hubs, only ?? '1', only === undefined ? options.runs : '1');
  const seeds = only === undefined ? options.seeds : `${only}..${only}`;
  // A re-send in the night would mend what these bugs break.
  const what = ['--seeds', seeds, '--mix', mix, '--operations', options.operations];
  const args = ['tests/sim/main.ts', ...what, '--nights', '0', '--first'];
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: copy, encoding: 'utf8' });
  const lines = stdout.split('\n');
  const found = lines.findIndex((line) => line.startsWith('  again: '));
  if (found < 0) {
    if (/violations: 0 /.test(stdout)) return undefined;
    // A bug that keeps the program from working at all is no proof of anything.
    throw new Error(`the run broke: ${stderr.slice(-2_000)}`);
  }
  const seed = /--seed (\d+)/.exec(lines[found] ?? '')?.[1] ?? '';
  const from = lines.slice(0, found).findLastIndex((line) => line.startsWith('seed '));
  return { seed, text: (lines[from + 1] ?? '').trim() };
}

function huntHubs(
  copy: string,
  which: readonly string[],
  from: string,
  runs: string,
): Found | undefined {
  const args = ['tests/hub-sim/main.ts', ...which, '--seed', from, '--runs', runs, '--first'];
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: copy, encoding: 'utf8' });
  const [, seed, text = ''] = /^seed (\d+): (.*)$/m.exec(stdout) ?? [];
  if (seed !== undefined) return { seed, text };
  if (/; 0 broken$/m.test(stdout)) return undefined;
  throw new Error(`the run broke: ${stderr.slice(-2_000)}`);
}

/** The first test of a file that fails. */
function huntInTests(copy: string, file: string): Found | undefined {
  const args = ['--test', '--test-reporter=tap', '--test-timeout=600000', file];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: copy,
    encoding: 'utf8',
  });
  if (status === 0) return undefined;
  const text = /^ *not ok \d+ - (.*)$/m.exec(stdout)?.[1];
  // Where nothing passes the bug is in the way of everything, as above.
  if (text !== undefined && /^ *ok \d+ - /m.test(stdout)) return { seed: '', text };
  throw new Error(`the tests broke: ${stderr.slice(-2_000)}`);
}

function main(): void {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      seeds: { type: 'string', default: '1..12' },
      operations: { type: 'string', default: '160' },
      runs: { type: 'string', default: '300' },
      dry: { type: 'boolean', default: false },
    },
  });
  let missed = 0;
  const clean = copyRepository();
  try {
    for (const mutant of allMutants) {
      if (values.only !== undefined && values.only !== mutant.name) continue;
      const copy = copyRepository();
      try {
        for (const edit of mutant.edits) applyEdit(copy, edit);
        if (values.dry) continue;
        let line: string | undefined;
        try {
          line = findIn(mutant, copy, clean, values);
        } catch (error) {
          console.error(`${mutant.name}: ${String(error)}`);
        }
        if (line === undefined) missed += 1;
        console.log(`| \`${mutant.name}\` | ${mutant.what} | ${line ?? 'NOT FOUND'} |`);
      } finally {
        rmSync(copy, { recursive: true, force: true });
      }
    }
  } finally {
    rmSync(clean, { recursive: true, force: true });
  }
  if (missed > 0) process.exitCode = 1;
}

function findIn(mutant: Mutant, copy: string, clean: string, options: Hunting): string | undefined {
  for (const mix of mutant.mixes) {
    const found = hunt(copy, mix, options);
    if (found === undefined) continue;
    const { seed, text } = found;
    if (hunt(clean, mix, options, seed) === undefined) {
      return `${`\`${mix}\` ${seed}`.trimEnd()} | ${text}`;
    }
    console.error(`${mutant.name}: seed ${seed} of ${mix} fails without it too`);
  }
  return undefined;
}

if (process.argv[1] === import.meta.filename) main();
