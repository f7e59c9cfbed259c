/** What one peer may ask of a node: as much as a round needs, and no flood, whatever others do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { methods, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  create,
  ErrorSchema,
  FedKtRequestSchema,
  fromBinary,
  toBinary,
} from '@quicprochat/proto/messages';
import { KtGossip, ktGossipLimits, type KtGossipNode } from './kt-gossip.ts';

test('a peer that asks without end is refused, and others are answered', async () => {
  let asked = 0;
  const node: KtGossipNode = {
    origins: () => [],
    heldSize: () => Promise.resolve(0),
    ownNote: () => Promise.resolve(undefined),
    heads: () => {
      asked += 1;
      return Promise.resolve({});
    },
    headsShown: () => Promise.resolve(),
    noteShown: () => Promise.resolve('ignore'),
    evidenceShown: () => Promise.resolve('ignore'),
    evidence: () => Promise.resolve([]),
  };
  // Time stands still: nothing comes back to the peer meanwhile.
  const clock = { ...systemClock, monotonic: () => 0 };
  using gossip = new KtGossip(node, { clock, random: systemRandom, log: silentLog });
  const op = { case: 'heads' as const, value: { origin: 'red.example/kt', fromSize: 1n, max: 16 } };
  const request = toBinary(FedKtRequestSchema, create(FedKtRequestSchema, { op }));
  const ask = (from: string) => gossip.events.onPull(from, methods.fedKt.id, request);
  const { burst } = ktGossipLimits.asked;
  for (let i = 0; i < burst; i += 1) assert.equal((await ask('anna')).status, 0);
  const { status, payload } = await ask('anna');
  assert.notEqual(status, 0);
  assert.equal(fromBinary(ErrorSchema, payload).reason, 'RATE_LIMITED');
  assert.equal(asked, burst);
  assert.equal((await ask('bert')).status, 0);
});
