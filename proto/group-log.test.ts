/** The group log's pure functions: what binds entries to parents, and certificates to hubs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  CertifiedEntrySchema,
  GroupEntrySchema,
  type CertifiedEntry,
  type SignedGroupEntry,
} from './gen/qpc/v1/group_pb.ts';
import {
  checkEntry,
  checkEvidence,
  checkRoom,
  factsOf,
  groupLogLimits,
  parseEntry,
  signCertificate,
  signEntry,
  verifyCertified,
  type HubKeys,
  type ParsedEntry,
} from './group-log.ts';
import { systemRandom } from './runtime.ts';
import { signingKeyFromSeed, type SigningKey } from './signature.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const newKey = (): SigningKey => signingKeyFromSeed(bytes(32));
const badField = { reason: 'BAD_FIELD' };
const badSignature = { reason: 'BAD_SIGNATURE' };

/** A group's commit keys, epoch by epoch, in one hand. */
class Committer {
  readonly group = bytes(32);
  readonly #keys = new Map<number, { readonly commit: SigningKey; readonly join: SigningKey }>();

  keys(epoch: number): { readonly commit: SigningKey; readonly join: SigningKey } {
    const keys = this.#keys.get(epoch) ?? { commit: newKey(), join: newKey() };
    this.#keys.set(epoch, keys);
    return keys;
  }

  fields(parent?: ParsedEntry) {
    const epoch = parent === undefined ? 0 : parent.epoch + 1;
    const keys = this.keys(epoch);
    return {
      group: this.group,
      parent: parent?.hash ?? new Uint8Array(0),
      epoch: BigInt(epoch),
      commitHash: parent === undefined ? new Uint8Array(0) : bytes(32),
      nextCommitPub: keys.commit.publicKey,
      joinCommitPub: keys.join.publicKey,
    };
  }

  sign(parent?: ParsedEntry, changes: object = {}, key?: SigningKey): SignedGroupEntry {
    const entry = create(GroupEntrySchema, { ...this.fields(parent), ...changes });
    return signEntry(entry, key ?? this.keys(parent?.epoch ?? 0).commit);
  }
}

test('an entry is bound to its parent by hash, epoch and key', () => {
  const committer = new Committer();
  const first = parseEntry(committer.sign());
  assert.equal(checkEntry(first, undefined), 'member');
  const child = parseEntry(committer.sign(first));
  assert.equal(checkEntry(child, factsOf(first)), 'member');
  const external = parseEntry(committer.sign(first, {}, committer.keys(0).join));
  assert.equal(checkEntry(external, factsOf(first)), 'external');

  const grandchild = parseEntry(committer.sign(child));
  assert.throws(() => checkEntry(grandchild, factsOf(first)), badField);
  assert.throws(() => checkEntry(child, undefined), badField);
  assert.throws(() => checkEntry(first, factsOf(first)), badField);
  const leap = parseEntry(committer.sign(first, { epoch: 2n }));
  assert.throws(() => checkEntry(leap, factsOf(first)), badField);
  for (const key of [newKey(), committer.keys(1).commit, committer.keys(1).join]) {
    const forged = parseEntry(committer.sign(first, {}, key));
    assert.throws(() => checkEntry(forged, factsOf(first)), badSignature);
  }
  // Entry 0 proves that its maker has the key that it names; the join key is no such proof.
  const foreign = parseEntry(committer.sign(undefined, {}, committer.keys(0).join));
  assert.throws(() => checkEntry(foreign, undefined), badSignature);
});

test('entries beyond their bounds do not parse', () => {
  const committer = new Committer();
  const first = parseEntry(committer.sign());
  const bad: readonly (readonly [parent: ParsedEntry | undefined, changes: object])[] = [
    [undefined, { group: bytes(31) }],
    [undefined, { parent: bytes(32) }],
    [undefined, { commitHash: bytes(32) }],
    [undefined, { rejects: [bytes(32)] }],
    [first, { parent: new Uint8Array(0) }],
    [first, { parent: bytes(33) }],
    [first, { commitHash: bytes(16) }],
    [first, { nextCommitPub: bytes(31) }],
    [first, { joinCommitPub: new Uint8Array(0) }],
    [first, { epoch: 2n ** 60n }],
    [first, { rejects: Array.from({ length: groupLogLimits.rejects + 1 }, () => bytes(32)) }],
    [first, { rejects: [first.hash, first.hash] }],
    [first, { rejects: [bytes(31)] }],
  ];
  // The most that may be rejected fits.
  const full = Array.from({ length: groupLogLimits.rejects }, () => bytes(32));
  parseEntry(committer.sign(first, { rejects: full, epoch: 2n ** 53n - 1n, removal: true }));
  for (const [parent, changes] of bad) {
    assert.throws(() => parseEntry(committer.sign(parent, changes)), badField);
  }
  const good = committer.sign(first);
  assert.throws(() => parseEntry(undefined), badField);
  assert.throws(() => parseEntry({ ...good, signature: bytes(63) }), badField);
  assert.throws(() => parseEntry({ ...good, entry: bytes(1_025) }), badField);
  for (let length = 0; length < good.entry.length; length += 1) {
    // A cut entry does not parse, or is another one that nobody signed.
    assert.throws(() => {
      const cut = parseEntry({ ...good, entry: good.entry.subarray(0, length) });
      checkEntry(cut, factsOf(first));
    });
  }
});

test('no bit of an entry or of its signature can change', () => {
  const committer = new Committer();
  const first = parseEntry(committer.sign());
  const good = committer.sign(first, { rejects: [bytes(32)], removal: true });
  fc.assert(
    fc.property(fc.boolean(), fc.nat(10_000), fc.nat(7), (isInEntry, at, bit) => {
      const entry = Uint8Array.from(good.entry);
      const signature = Uint8Array.from(good.signature);
      const target = isInEntry ? entry : signature;
      const index = at % target.length;
      target[index] = (target[index] ?? 0) ^ (1 << bit);
      assert.throws(() => checkEntry(parseEntry({ ...good, entry, signature }), factsOf(first)));
    }),
    { numRuns: 300 },
  );
});

test('behind a parent there is room for one child, and for one that rejects them all', () => {
  const committer = new Committer();
  const first = parseEntry(committer.sign());
  const child = (rejects: readonly Uint8Array[] = []): ParsedEntry =>
    parseEntry(committer.sign(first, { rejects }));
  const conflict = { name: 'ConflictError', reason: 'EPOCH_CONFLICT' };
  const a = child();
  checkRoom(a, []);
  assert.throws(() => checkRoom(child(), [a.hash]), conflict);
  const b = child([a.hash]);
  checkRoom(b, [a.hash]);
  assert.throws(() => checkRoom(b, []), conflict);
  assert.throws(() => checkRoom(child([a.hash]), [a.hash, b.hash]), conflict);
  assert.throws(() => checkRoom(child([bytes(32)]), [a.hash]), conflict);
  checkRoom(child([b.hash, a.hash]), [a.hash, b.hash]);
});

const hubNames = ['gold.example', 'jade.example', 'ruby.example'];
const hubSigning = new Map(hubNames.map((domain) => [domain, newKey()]));
const keysOf: HubKeys = (domain) => {
  const key = hubSigning.get(domain);
  return key === undefined ? [] : [newKey().publicKey, key.publicKey];
};

function certify(entry: SignedGroupEntry, domains: readonly string[], term = 1): CertifiedEntry {
  const { hash } = parseEntry(entry);
  const signatures = domains.map((domain) =>
    signCertificate(hash, term, { domain, signing: hubSigning.get(domain) ?? newKey() }),
  );
  return create(CertifiedEntrySchema, { entry, term: BigInt(term), signatures });
}

test('a certificate is the word of a majority of the hubs', () => {
  const committer = new Committer();
  const entry = committer.sign();
  const hubs = hubNames;
  const [gold, jade] = hubs;
  assert.ok(gold !== undefined && jade !== undefined);
  assert.deepEqual(
    verifyCertified(certify(entry, [gold]), [gold], keysOf).signedBytes,
    entry.entry,
  );
  verifyCertified(certify(entry, [gold, jade]), hubs, keysOf);
  const good = certify(entry, [gold, jade]);
  const [one] = good.signatures;
  assert.ok(one !== undefined);
  const bad: readonly CertifiedEntry[] = [
    certify(entry, []),
    certify(entry, [gold]),
    certify(entry, [gold, gold, gold]),
    certify(entry, [gold, 'evil.example']),
    { ...good, term: 2n },
    { ...good, term: 2n ** 60n },
    { ...good, signatures: [one, { ...one, domain: jade }] },
    { ...good, entry: committer.sign(undefined, { removal: true }) },
  ];
  for (const certified of bad) {
    assert.throws(() => verifyCertified(certified, hubs, keysOf), badSignature);
  }
  const other = () => [];
  assert.throws(() => verifyCertified(certify(entry, [gold]), [gold], other), badSignature);
});

test('two certificates for one parent convict the hubs that signed both, and nobody else', () => {
  const committer = new Committer();
  const first = parseEntry(committer.sign());
  const [gold, jade, ruby] = hubNames;
  assert.ok(gold !== undefined && jade !== undefined && ruby !== undefined);
  const evidence = (one: CertifiedEntry, other: CertifiedEntry): string[] =>
    checkEvidence(one, other, hubNames, keysOf);
  const a = committer.sign(first);
  const b = committer.sign(first);
  assert.deepEqual(evidence(certify(a, [gold, jade]), certify(b, [jade, ruby])), [jade]);
  const majority = [gold, jade];
  const later = certify(b, [gold, ruby], 4);
  assert.deepEqual(evidence(certify(a, majority), later), [gold], 'in any term');
  assert.deepEqual(evidence(certify(a, majority), certify(b, [ruby])), []);
  // What one hub of three wrote down and never accepted may give way to another commit.
  assert.deepEqual(evidence(certify(a, [gold]), later), []);
  assert.deepEqual(evidence(later, certify(a, [gold])), []);
  // The same entry twice, one that rejects the other, and parent and child are in order.
  assert.deepEqual(evidence(certify(a, majority), certify(a, majority, 2)), []);
  const c = committer.sign(first, { rejects: [parseEntry(a).hash] });
  assert.deepEqual(evidence(certify(a, majority), certify(c, majority)), []);
  assert.deepEqual(evidence(certify(c, majority), certify(a, majority)), []);
  assert.deepEqual(evidence(certify(b, majority), certify(c, majority)), majority);
  const child = committer.sign(parseEntry(a));
  assert.deepEqual(evidence(certify(a, majority), certify(child, majority)), []);
  const elsewhere = new Committer();
  assert.deepEqual(evidence(certify(a, majority), certify(elsewhere.sign(), majority)), []);
  // Nobody is convicted by a signature that is not its own.
  const forged = { ...certify(b, majority), signatures: certify(a, majority).signatures };
  assert.deepEqual(evidence(certify(a, majority), forged), []);
  assert.ok(
    toBinary(CertifiedEntrySchema, certify(a, [gold])).length < 1_024,
    'small enough to send',
  );
});
