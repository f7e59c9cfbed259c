/**
 * Proof that the gossip simulation finds what it is for: deliberate bugs in a copy of the repository, and
 * the first seed that has a violation there and none without the bug. The table in docs/gossip-simulation.md is
 * its output.
 *   node tests/gossip-sim/mutants.ts [--only NAME] [--seeds A..B] [--dry]
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { applyEdit, copyRepository, type Edit } from '../sim/mutant-copy.ts';

interface Mutant {
  readonly name: string;
  readonly what: string;
  readonly edits: readonly Edit[];
}

const mutants: readonly Mutant[] = [
  {
    name: 'other-keys',
    what: 'evidence counts against the log that it names, whoever’s keys it is about',
    edits: [
      {
        file: 'kt-log/follow.ts',
        from: "      verify(isAgainst(checked, this.#keys), 'CHAIN', 'evidence', 'the keys of the log it names');\n",
        to: '      isAgainst(checked, this.#keys);\n',
      },
    ],
  },
  {
    name: 'tell-first',
    what: 'evidence is told before it is on disk',
    edits: [
      {
        file: 'kt-log/follow.ts',
        from: "    await store.putEvidence(record, isFork ? 'forked' : 'invalid');\n    await onEvidence?.(record, checked);\n",
        to: "    await onEvidence?.(record, checked);\n    await store.putEvidence(record, isFork ? 'forked' : 'invalid');\n",
      },
    ],
  },
  {
    name: 'no-pull-on-connection',
    what: 'peers are not asked when they connect, nor from time to time: gossip alone has to do',
    edits: [
      {
        file: 'p2p/kt-gossip.ts',
        from: '    if (this.#swarm === undefined || this.#isClosed) return;\n    if (this.#pulling',
        to: '    if (this.#swarm === undefined || peerId.length > 0) return;\n    if (this.#pulling',
      },
      {
        file: 'nodes/peer-audits/heads-pull.ts',
        from: '    for (const origin of node.origins()) {\n',
        to: '    for (const origin of node.origins().slice(0, 0)) {\n',
      },
    ],
  },
  {
    name: 'heads-not-kept',
    what: 'heads that peers show are compared and forgotten; those of the log itself are not asked for',
    edits: [
      {
        file: 'kt-log/follow.ts',
        from: "    if (statement.type === 'head') await store.putHeads(this.#origin, [statement.head]);\n",
        to: '',
      },
      {
        file: 'kt-log/follow.ts',
        from: '    const heads = await this.#newHeads(given, size + 1);\n',
        to: '    const heads = await this.#newHeads(given.slice(0, 0), size + 1);\n',
      },
      {
        file: 'kt-log/follow.ts',
        from: '    await this.#compareReplay(source, held.state, entries, heads, signal);\n',
        to: '',
      },
    ],
  },
  {
    name: 'not-passed-on',
    what: 'evidence that others show is kept and not told to anybody',
    edits: [
      {
        file: 'kt-log/follow.ts',
        from: '      await this.#record({ bytes, checked });\n      return true;\n',
        to: "      const record = { origin: this.#origin, kind: checked.kind, hash, bytes, foundMs: 0 };\n      await store.putEvidence(record, 'forked');\n      return true;\n",
      },
      {
        file: 'p2p/kt-gossip.ts',
        from: 'await this.#node.evidence(ktGossipLimits.evidence)',
        to: '(await this.#node.evidence(ktGossipLimits.evidence)).slice(0, 0)',
      },
      {
        file: 'nodes/peer-audits/evidence-relay.ts',
        from: '    peer.unsent = held.filter(({ hash }) => !peer.known.has(hex(hash)));\n',
        to: '    peer.unsent = held.slice(0, 0);\n',
      },
    ],
  },
  {
    name: 'unsigned-heads',
    what: 'a head from a peer is compared without its signature',
    edits: [
      {
        file: 'kt-log/follow.ts',
        from: "    if (statement.type === 'head') {\n      const { root, signature } = statement.head;\n      verifyTreeHead(suite, log.config, { treeSize: size, signature }, root);\n    }\n",
        to: '    if (log.config.cipherSuite === 0) return { type: "unknown" };\n',
      },
    ],
  },
  {
    name: 'forgets-at-restart',
    what: 'evidence that came before a restart is told to nobody afterwards',
    edits: [
      {
        file: 'nodes/peer-audits/gossip-node.ts',
        from: '    const held = await this.#options.store.evidence();\n    return held.slice(-max)',
        to: '    const held = (await this.#options.store.evidence()).slice(0, 0);\n    return held.slice(-max)',
      },
      {
        file: 'nodes/peer-audits/evidence-relay.ts',
        from: '    const held = (await this.#options.store.evidence()).slice(-evidenceLimits.toldPerLink);\n',
        to: '    const held = (await this.#options.store.evidence()).slice(0, 0);\n',
      },
    ],
  },
  {
    name: 'cosigns-convicted',
    what: 'a convicted log is followed and cosigned like any other',
    edits: [
      {
        file: 'kt-log/audit-store.ts',
        from: "  return status === 'forked' || status === 'invalid';\n",
        to: '  return status === undefined && false;\n',
      },
    ],
  },
];

/** The first seed with a violation, and what it was. */
function hunt(copy: string, seeds: string): { seed: string; text: string } | undefined {
  const args = ['tests/gossip-sim/main.ts', '--first', '--seeds', seeds];
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: copy, encoding: 'utf8' });
  const found = /^seed (\d+): (.*)$/m.exec(stdout);
  if (found !== null) return { seed: found[1] ?? '', text: found[2] ?? '' };
  if (/ 0 with violations/.test(stdout)) return undefined;
  throw new Error(`the run broke: ${stderr.slice(-2_000)}`);
}

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    seeds: { type: 'string', default: '1..300' },
    dry: { type: 'boolean', default: false },
  },
});
let missed = 0;
const clean = copyRepository();
for (const { name, what, edits } of mutants) {
  if (values.only !== undefined && values.only !== name) continue;
  const copy = copyRepository();
  try {
    for (const edit of edits) applyEdit(copy, edit);
    if (values.dry) continue;
    const found = hunt(copy, values.seeds);
    const isReal = found !== undefined && hunt(clean, found.seed) === undefined;
    if (!isReal) missed += 1;
    console.log(
      `| \`${name}\` | ${what} | ${isReal ? `${found.seed} | ${found.text}` : 'NOT FOUND'} |`,
    );
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}
rmSync(clean, { recursive: true, force: true });
if (missed > 0) process.exitCode = 1;
