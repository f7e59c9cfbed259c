/** Adding many people at a node that answers only so many look-ups at once: it goes on where it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { methods, NotFoundError, ResourceExhaustedError, type Method } from '@quicprochat/proto';
import type { MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import { mandatorySuite } from '../../mls/index.ts';
import { HastyClock } from '../../test-company.ts';
import { publishCrowd } from '../../test-crowd.ts';
import { TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';

const served = 3;

/** Refuses every fourth question for a KeyPackage. */
class StingyDirectory extends TestDirectory {
  asked = 0;
  packages = 0;

  override async call<I extends Method['request'], O extends Method['response']>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    if (method.id !== methods.fetchKeyPackage.id) return super.call(method, request);
    this.asked += 1;
    if (this.asked % (served + 1) === 0) {
      throw new ResourceExhaustedError('RATE_LIMITED', 'too fast', { retryAfterMs: 1 });
    }
    this.packages += 1;
    // Who begins again each time would never end.
    if (this.packages > 100) throw new NotFoundError('UNKNOWN_USER', 'no packages are left');
    return super.call(method, request);
  }
}

test('who adds more people than it may look up at once burns no KeyPackage twice, and comes to an end', async () => {
  const directory = new StingyDirectory({ maxBehindMs: 5_000 * 3_600_000 });
  const clock = new HastyClock();
  const options = { clock, suites: [mandatorySuite] };
  const alice = new TestDevice('alice@red.example', directory, options);
  const crowd = await publishCrowd(directory, 2 * served + 2, mandatorySuite);
  const [first = '', ...rest] = crowd;
  const id = await alice.conversations.create('crowd', [first]);
  await alice.conversations.addMembers(id, rest);
  const members = await alice.conversations.listMembers(id);
  assert.equal(members.length, crowd.length + 1);
  assert.equal(directory.packages, crowd.length);
});
