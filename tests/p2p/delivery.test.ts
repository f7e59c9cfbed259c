/** Devices deliver to each other over real swarms on loopback: transports, proofs, refusals, bounds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PermissionDeniedError } from '@quicprochat/proto';
import { message, over, startDevice, until } from './devices.ts';

for (const transport of ['quic-v1', 'tcp'] as const) {
  test(`a message arrives over ${transport}, once, and the answer comes after the receiver has it`, async () => {
    await using anna = await startDevice();
    const stored = Promise.withResolvers<void>();
    let asked = 0;
    await using bert = await startDevice({
      onDelivery: async () => {
        asked += 1;
        if (asked > 1) return 'duplicate';
        await stored.promise;
        return 'stored';
      },
    });
    const sent = message(bert);
    let isAnswered = false;
    const first = anna.swarm.deliver(over(bert, transport), sent).then((delivered) => {
      isAnswered = true;
      return delivered;
    });
    await Promise.race([first, until(() => asked > 0)]);
    assert.equal(isAnswered, false);
    stored.resolve();
    const { via, isDuplicate, record } = await first;
    assert.deepEqual({ via, isDuplicate }, { via: 'direct', isDuplicate: false });
    assert.deepEqual(record.device, bert.key.publicKey);
    assert.equal((await anna.swarm.deliver(over(bert, transport), sent)).isDuplicate, true);
    assert.equal(anna.swarm.links.length, 1);
  });
}

test('a device that is not admitted is refused by name, and learns nothing', async () => {
  await using anna = await startDevice();
  await using bert = await startDevice({
    admit: () => Promise.reject(new PermissionDeniedError('BLOCKED', 'no')),
  });
  await assert.rejects(anna.swarm.deliver(bert.destination(), message(bert)), {
    reason: 'BLOCKED',
  });
  assert.equal(bert.received.length, 0);
});
