/** What became of a commit may be read in the log before the hub's own answer is here: then that says nothing new. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { methods } from '@quicprochat/proto';
import { mandatorySuite } from '../../mls/index.ts';
import { company, groupOf, type Company } from '../../test-company.ts';
import { exchange } from '../../test-devices.ts';

/** alice reads the log while the hub's answers to her commits are on their way; what her committer complains of. */
function readingAhead({ directory, alice, id }: Company): readonly string[] {
  const { hub } = directory;
  const answer = hub.answer.bind(hub);
  Object.assign(hub, {
    answer: async (...asked: Parameters<typeof answer>) => {
      const [from, methodId] = asked;
      const given = Promise.resolve(answer(...asked));
      const isOwn = methodId === methods.submitCommit.id && Buffer.compare(from, alice.rid) === 0;
      if (isOwn) {
        await given.catch(() => undefined);
        await alice.groups.pull.pull(id);
      }
      return given;
    },
  });
  const complaints: string[] = [];
  const info = (event: string, fields: object): void => {
    complaints.push(`${event} ${JSON.stringify(fields)}`);
  };
  Object.assign(alice.runtime, { log: { ...alice.runtime.log, info } });
  return complaints;
}

test('a commit that was read in the log before its certificate came is done, and nobody is a liar', async () => {
  const all = await company([mandatorySuite]);
  const { alice, bob, carol, id } = all;
  const complaints = readingAhead(all);
  await alice.conversations.rotateKeys(id);
  await alice.settle();
  assert.deepEqual(complaints, []);
  await exchange(alice, bob, carol);
  assert.equal((await groupOf(alice, id)).epoch, (await groupOf(bob, id)).epoch);
});

test('a commit that another one beat is made anew at once, where that was read before the refusal', async () => {
  const all = await company([mandatorySuite]);
  const { directory, alice, bob, carol, id } = all;
  const complaints = readingAhead(all);
  let races = 0;
  directory.hub.beforeSubmit = async (from) => {
    if (Buffer.compare(from, alice.rid) !== 0 || races > 0) return;
    races += 1;
    await bob.conversations.rotateKeys(id);
  };
  const { epoch } = await groupOf(alice, id);
  await alice.conversations.rotateKeys(id);
  await alice.settle();
  assert.deepEqual([races, complaints], [1, []]);
  await exchange(alice, bob, carol);
  assert.equal((await groupOf(alice, id)).epoch, epoch + 2n);
  assert.equal((await groupOf(carol, id)).epoch, epoch + 2n);
});
