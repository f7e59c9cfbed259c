/**
 * Test support: evidence of every kind against a log that lies, whose mutants may convict of nothing
 * else, and the same made of what an honest log signed, of which no mutant may convict anybody.
 */
import type { Random } from '@quicprochat/proto';
import assert from 'node:assert/strict';
import { auditBundle, signAuditBundle } from './auditor.ts';
import { emptyAudit } from './auditor-update.ts';
import type { CheckedEvidence, EvidenceKeys, ValueRule } from './evidence-check.ts';
import { checkEvidence } from './evidence-check.ts';
import type { EvidenceBody, ShownNode, Statement } from './evidence.ts';
import { encodeEvidence } from './evidence.ts';
import type { Hash } from './hash.ts';
import { keytransHasher, logEntry, rfc6962Hasher } from './hash.ts';
import { Frontier, fullSubtrees, leavesOf, nodeId } from './log-tree.ts';
import type { Field } from './mutants.ts';
import type { Face, Scene } from './mutation-scenes.ts';
import { faceOf, put, sceneWith } from './mutation-scenes.ts';
import type { MutationSuite } from './mutation-suite.ts';
import { GrownTree } from './node-path.ts';
import { formatCheckpoint, formatNote, keytransExtension, signNote } from './note.ts';
import { searchResponse } from './operations.ts';
import { encode } from './presentation.ts';
import { replayedStateOf } from './replayed-state.ts';
import { labelOf } from './test-log.ts';
import { signTreeHead } from './tree-head.ts';

const utf8 = new TextEncoder();
const alice = labelOf('alice@red.example');
const size = 9;

/** The rule that no value may be the one which the last version of alice has. */
const rule: ValueRule = (_label, _version, value, previous) => {
  if (new TextDecoder().decode(value) === 'alice 1') return 'it is the second one';
  return previous?.toString() === value.toString() ? 'it says what the one before said' : undefined;
};

/** One face of a log of `size` entries; with other randomness another face. */
async function shortFace(suite: MutationSuite, random: Random): Promise<Face> {
  const face = await faceOf(suite, random);
  for (let i = 0; i < size; i++) await put(face, i === 3 || i === 6 ? 'alice' : `user-${i}`);
  return face;
}

async function noteOf(face: Face, at: number): Promise<Uint8Array> {
  return utf8.encode(await face.log.checkpoint(at));
}
async function statementsOf(face: Face, at: number) {
  const head = (await face.store.head(at)) ?? assert.fail('no head');
  const { root, signature } = head;
  return {
    note: { type: 'note', note: await noteOf(face, at) },
    head: { type: 'head', head: { size: at, root, signature } },
  } as const;
}
async function bundleOf(face: Face, from: number, to: number): Promise<Uint8Array> {
  return encode(auditBundle, await face.log.auditBundle(from, to));
}
const entriesOf = async (face: Face): Promise<readonly Uint8Array[]> =>
  (await face.log.auditBundle(0, size)).entries;

function hasherOf({ suite }: Face, { type }: Statement) {
  return type === 'note' ? rfc6962Hasher(suite.sha256) : keytransHasher(suite.sha256);
}

/** A tree of entries under a statement of it. */
async function grown(face: Face, statement: Statement): Promise<GrownTree> {
  return new GrownTree(hasherOf(face, statement), { size: 0, heads: [] }, await entriesOf(face));
}

/** A checkpoint and a TreeHead over any entries, signed by the log. */
function signedOver(face: Face, entries: readonly Uint8Array[]) {
  const { suite, config, keys, identity } = face;
  const rootBy = (hasher: ReturnType<typeof rfc6962Hasher>): Hash => {
    const tree = new Frontier(hasher);
    for (const entry of entries) tree.append(hasher.leaf(entry));
    return tree.root() ?? assert.fail('no entries');
  };
  const root = rootBy(keytransHasher(suite.sha256));
  const extensions = [keytransExtension(root)];
  const rfc6962 = rootBy(rfc6962Hasher(suite.sha256));
  const text = formatCheckpoint({ origin: identity.origin, size, root: rfc6962, extensions });
  const signatures = [signNote(text, identity.key, keys.note)];
  const { signature } = signTreeHead(config, size, root, keys.treeHead);
  return [
    { type: 'note', note: utf8.encode(formatNote({ text, signatures })) },
    { type: 'head', head: { size, root, signature } },
  ] as const;
}

/** What two faces show: two of one log that lies, or twice the same honest one. */
async function bodiesOf(one: Face, other: Face): Promise<[string, EvidenceBody][]> {
  const { suite, log, keys, clock } = one;
  const bodies: [string, EvidenceBody][] = [];
  const isLie = one !== other;
  const [mine, theirs] = [await statementsOf(one, 8), await statementsOf(other, 8)];
  const early = await statementsOf(one, 6);
  bodies.push(['same-size notes', { kind: 'same-size', statements: [mine.note, theirs.note] }]);
  bodies.push(['same-size heads', { kind: 'same-size', statements: [mine.head, theirs.head] }]);
  const { note } = mine.note;
  bodies.push(['note-vs-head', { kind: 'note-vs-head', note, head: theirs.head.head }]);
  const last = await statementsOf(other, size);
  for (const type of ['note', 'head'] as const) {
    // The left half of the older tree, which a face of its own does not share.
    const node = fullSubtrees(6)[0] ?? assert.fail('no node');
    const shown = async (face: Face, statement: Statement, at: number): Promise<ShownNode> => {
      const tree = await grown(face, statement);
      const { start, length } = leavesOf(node);
      const value = tree.valueOver(start, length) ?? assert.fail('no value');
      return { statement, value, path: tree.pathOf(at, node) ?? assert.fail('no path') };
    };
    const older = await shown(one, early[type], 6);
    const newer = await shown(other, last[type], size);
    bodies.push([`${type}s`, { kind: 'inconsistent', shows: 'nodes', node, older, newer }]);
  }
  const whole = await bundleOf(other, 0, size);
  bodies.push(['entries', { kind: 'inconsistent', shows: 'entries', note, bundle: whole }]);
  const bundles = [whole, await bundleOf(one, 2, 7)] as const;
  bodies.push(['bundles', { kind: 'inconsistent', shows: 'bundles', bundles }]);

  const entries = await entriesOf(one);
  const told = isLie ? entries.with(6, logEntry(1, new Uint8Array(32))) : entries;
  for (const statement of signedOver(one, told)) {
    const tree = new GrownTree(hasherOf(one, statement), { size: 0, heads: [] }, told);
    const entryAt = (position: number) => ({
      position,
      entry: told[position] ?? assert.fail('no entry'),
      path: tree.pathOf(size, nodeId(position, 1)) ?? assert.fail('no path'),
    });
    const shown = [entryAt(2), entryAt(6)] as const;
    bodies.push([`time ${statement.type}`, { kind: 'time', statement, entries: shown }]);
  }

  const good = await log.auditBundle(5, size);
  const wrong = { ...good, entries: good.entries.with(2, logEntry(1, new Uint8Array(32))) };
  const signed = signAuditBundle(suite.sha256, isLie ? wrong : good, keys.note);
  const alone = encode(auditBundle, signed);
  bodies.push(['bad update', { kind: 'bad-update', before: undefined, bundle: alone }]);
  const start = await noteOf(one, 5);
  const before = replayedStateOf(suite.sha256, emptyAudit, entries.slice(0, 5), start);
  const branch = await bundleOf(other, 5, size);
  bodies.push(['bad update of a state', { kind: 'bad-update', before, bundle: branch }]);

  const seenMs = clock.now();
  const answer = async (version?: number) => {
    const response = await log.search({ label: alice, version });
    return { version, response: encode(searchResponse(1, version !== undefined), response) };
  };
  const latest = [await answer(isLie ? undefined : 0)];
  bodies.push(['bad value', { kind: 'bad-value', label: alice, seenMs, versions: latest }]);
  const pair = isLie ? [await answer(0), await answer(1)] : [await answer(0), await answer(0)];
  bodies.push(['bad values', { kind: 'bad-value', label: alice, seenMs, versions: pair }]);
  return bodies;
}

/** The byte strings in a body, where the message holds them, each with the octet before it. */
function fieldsOfBody(bytes: Uint8Array, body: unknown): Field[] {
  const found: Field[] = [];
  const walk = (value: unknown): void => {
    if (value instanceof Uint8Array) {
      const start = Buffer.from(bytes).indexOf(value);
      if (start > 0) found.push({ start: start - 1, length: 1, isNumber: true });
      if (start >= 0) found.push({ start, length: value.length, isNumber: false });
    } else if (typeof value === 'object' && value !== null) {
      for (const inner of Object.values(value)) walk(inner);
    }
  };
  walk(body);
  return found;
}

/** The same log is convicted of the same, by the same heads, in whatever order and words. */
function compare(said: unknown, honest: unknown): void {
  const what = ({ kind, key, config, heads }: CheckedEvidence) => ({
    kind,
    key,
    config,
    heads: new Set(heads.map(({ size: of, root }) => `${of} ${root.toString()}`)),
  });
  assert.deepEqual(what(said as CheckedEvidence), what(honest as CheckedEvidence));
}

/** Evidence of every kind, and what is none. */
export async function evidenceScenes(suite: MutationSuite, random: Random): Promise<Scene[]> {
  // Other openings make another face of the same log.
  const [one, other] = [await shortFace(suite, random), await shortFace(suite, random)];
  const { identity, config } = one;
  const log: EvidenceKeys = { origin: identity.origin, config, key: identity.key };
  const check = (bytes: Uint8Array) => checkEvidence(suite, bytes, rule);
  const scenes: Scene[] = [];
  for (const face of [other, one]) {
    for (const [name, body] of await bodiesOf(one, face)) {
      const bytes = encodeEvidence({ ...log, config, key: identity.key, body });
      const fields = fieldsOfBody(bytes, body);
      if (face === other) {
        scenes.push(sceneWith(`evidence, ${name}`, bytes, fields, check, compare));
      } else {
        assert.throws(() => check(bytes), { name: 'VerificationError' }, name);
        const honest = { name: `no evidence, ${name}`, says: undefined, donors: [], isExact: true };
        scenes.push({ ...honest, bytes, fields, check, compare });
      }
    }
  }
  return scenes;
}
