/** Reading a group log from a hub that lies about its length (races and losses: tests/channels). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  parseEntry,
  signCertificate,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { CertifiedEntrySchema, create, GroupControlSchema } from '@quicprochat/proto/messages';
import { catchUp, groupCommitLimits, type CommitParts } from './group-commit.ts';
import { firstEntry } from './group-log.ts';
import type { Caller } from './link.ts';
import { mandatorySuite } from './mls/index.ts';
import { groupOf, TestWorld } from './mls/test-members.ts';

test('a hub whose log has no end is not read for ever', async () => {
  const hub = 'red.example';
  const signing = signingKeyFromSeed(systemRandom.bytes(32));
  const device = new TestWorld({ mayCommit: () => true }).device('alice');
  const [group] = await groupOf(mandatorySuite, [device]);
  const entry = await firstEntry(device.mls, group, signing.publicKey);
  const head = parseEntry(entry);
  const signatures = [signCertificate(head.hash, 0, { domain: hub, signing })];
  const certified = create(CertifiedEntrySchema, { entry, term: 0n, signatures });
  let pages = 0;
  const endless = async (): Promise<unknown> => {
    pages += 1;
    const control = create(GroupControlSchema, { entry: certified });
    return { entries: Array.from({ length: 64 }, () => control), hasMore: true };
  };
  const parts: CommitParts = {
    ...{ mls: device.mls, hubs: [hub], keysOf: () => [signing.publicKey], hub },
    caller: { call: endless } as unknown as Caller,
    runtime: { clock: systemClock, random: systemRandom },
    onPending: async () => undefined,
    onWalk: async () => undefined,
  };
  await assert.rejects(catchUp(parts, { group, head }), { failure: 'protocol' });
  assert.equal(pages, groupCommitLimits.entries / 64 + 1);
});
