/** `qpc verify-fork` as whoever is handed a file runs it: a verdict and an exit code, without a home, an account or a network. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import {
  makeForkEvidence,
  parseEntry,
  signCertificate,
  signEntry,
  signingKeyFromSeed,
  signNodeRecord,
  systemRandom,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  GroupEntrySchema,
  SignedNodeRecordSchema,
  toBinary,
  type CertifiedEntry,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import { runQpc } from './qpc-process.ts';

const domain = 'red.example';
const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const signing = signingKeyFromSeed(bytes(32));
const place = { group: bytes(32), parent: bytes(32), epoch: 7n };

function recordOf(name: string, key = signing): SignedNodeRecord {
  return signNodeRecord({
    ...{ domain: name, endpoints: [], seq: 1, versionMin: 1, versionMax: 1, capabilities: [] },
    keys: [{ spkiSha256: bytes(32), signing: key, fromMs: 0, toMs: 0 }],
  });
}

function certified(): CertifiedEntry {
  const keys = { nextCommitPub: bytes(32), joinCommitPub: bytes(32) };
  const fields = { ...place, ...keys, commitHash: bytes(32) };
  const entry = signEntry(create(GroupEntrySchema, fields), signing);
  const signatures = [signCertificate(parseEntry(entry).hash, 0, { domain, signing })];
  return create(CertifiedEntrySchema, { entry, term: 0n, signatures });
}

suite('qpc verify-fork', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-fork-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  const file = (name: string, content: Uint8Array): string => {
    const path = join(directory, name);
    writeFileSync(path, content);
    return path;
  };
  const recordFile = (name: string, record: SignedNodeRecord): string =>
    file(name, toBinary(SignedNodeRecordSchema, record));
  const [one, other] = [certified(), certified()];
  const evidence = makeForkEvidence([domain], [one, other], [recordOf(domain)]);
  const proof = file('proof.fork', evidence);

  test('says who is convicted, with which keys, and whose word for them that is', async () => {
    const key = Buffer.from(signing.publicKey).toString('hex');
    const said = await runQpc(['verify-fork', proof]);
    assert.equal(said.code, 0, said.stderr);
    assert.match(said.stdout, /^red\.example signed two changes in one place [^\n]*\(epoch 7\)/u);
    assert.ok(said.stdout.includes(key) && said.stdout.includes('word of the file alone'));

    const records = [signing, signingKeyFromSeed(bytes(32))].flatMap((key, at) => [
      ...['--record', recordFile(`red-${at}`, recordOf(domain, key))],
    ]);
    // Of two records of one hub the first counts.
    const json = await runQpc(['verify-fork', proof, '--json', ...records]);
    assert.equal(json.code, 0, json.stderr);
    assert.deepEqual(JSON.parse(json.stdout), {
      ...{ type: 'convicted', domain, epoch: 7, hubs: [domain], keys: [key], isTrusted: true },
      group: Buffer.from(place.group).toString('hex'),
      entries: [one, other].map(({ entry }) => Buffer.from(parseEntry(entry).hash).toString('hex')),
    });
  });

  test('1: it proves nothing', async () => {
    const nothing = file('nothing', makeForkEvidence([domain], [one, one], [recordOf(domain)]));
    const others = recordFile('others', recordOf(domain, signingKeyFromSeed(bytes(32))));
    for (const [args, line] of [
      [[nothing], /convicts nobody\n$/],
      [[proof, '--record', others], /convicts nobody, by the records that you named\n$/],
    ] as const) {
      const { code, stdout, stderr } = await runQpc(['verify-fork', ...args]);
      assert.deepEqual([code, stdout], [1, ''], stderr);
      assert.match(stderr, line);
    }
  });

  test('2: it is no evidence, or not asked as it must be', async () => {
    for (const [args, line] of [
      [[file('cut', evidence.subarray(0, -5))], /fork evidence: does not parse/],
      [[join(directory, 'none')], /does not exist/],
      [[file('large', new Uint8Array(70_000))], /70000 bytes, at most 65536/],
      [[proof, '--record', proof], /is no node record/],
      [[proof, '--record', recordFile('blue', recordOf('blue.example'))], /no hub of this group/],
    ] as const) {
      const { code, stdout, stderr } = await runQpc(['verify-fork', ...args]);
      assert.deepEqual([code, stdout], [2, ''], stderr);
      assert.match(stderr, line);
    }
  });
});
