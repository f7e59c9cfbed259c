/** Entries from other hubs: what a hub refuses of them for good, and what it cannot judge yet. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEntry, signCertificate, signEntry, signingKeyFromSeed } from '@quicprochat/proto';
import {
  create,
  GroupControlSchema,
  GroupEntrySchema,
  type GroupControl,
} from '@quicprochat/proto/messages';
import { verified } from './repair.ts';

const key = (byte: number) => signingKeyFromSeed(new Uint8Array(32).fill(byte));
const hubs = ['red.example', 'blue.example', 'green.example'] as const;
const [red, blue] = hubs;

/** Entry 0, certified in term 0 by hubs with these keys. */
function controlOf(signers: Readonly<Record<string, number>>, signedTerm = 0): GroupControl {
  const commit = key(1);
  const fields = {
    group: new Uint8Array(32).fill(9),
    nextCommitPub: commit.publicKey,
    joinCommitPub: key(2).publicKey,
  };
  const entry = signEntry(create(GroupEntrySchema, fields), commit);
  const { hash } = parseEntry(entry);
  const signatures = Object.entries(signers).map(([domain, byte]) =>
    signCertificate(hash, signedTerm, { domain, signing: key(byte) }),
  );
  return create(GroupControlSchema, { entry: { entry, term: 0n, signatures } });
}

test('a key of a hub that is not known here may be its new one; a wrong signature of a known one is refused', () => {
  const known = new Map<string, readonly Uint8Array[]>([
    [red, [key(10).publicKey]],
    [blue, [key(20).publicKey]],
  ]);
  const check = (control: GroupControl) =>
    verified({ keysOf: (domain) => known.get(domain) ?? [] }, hubs, [control]);
  const refused = { reason: 'BAD_SIGNATURE' };
  const unknown = { reason: 'HUB_UNAVAILABLE' };

  assert.equal(check(controlOf({ [red]: 10, [blue]: 20 })).length, 1);
  assert.throws(() => check(controlOf({ [red]: 10, [blue]: 21 })), unknown);
  assert.throws(() => check(controlOf({ [red]: 10, 'green.example': 30 })), unknown);
  assert.throws(() => check(controlOf({ [red]: 10 })), refused);
  assert.throws(() => check(controlOf({ [red]: 10, 'evil.example': 66 })), refused);
  assert.throws(() => check(controlOf({ [red]: 10, [blue]: 20 }, 1)), refused);
});
