/**
 * One addition of a crowd, in a process of its own: the real parts of a client (store, logs of keys, MLS, committer,
 * receiver) in memory, before a hub in memory, so that no network is in the numbers. Of those who are added two
 * are clients too: the first one, who then follows, and the last one; of the others there are keys.
 */
import { mandatorySuite, type MlsSuite } from '@quicprochat/client-lib/mls';
import { publishCrowd, TestDevice, TestDirectory } from '@quicprochat/client-lib/test-support';
import type { Method } from '@quicprochat/proto';
import {
  fromBinary,
  SubmitCommitRequestSchema,
  type MessageInitShape,
  type MessageShape,
} from '@quicprochat/proto/messages';
import { answerParent } from './peer-process.ts';

export interface AddsJob {
  /** Besides the one who adds and the first one. */
  readonly crowd: number;
}

/** A commit as its hub got it. */
export interface AddCommit {
  readonly adds: number;
  /** Of the committer, from the answer to the commit before (ms). */
  readonly ms: number;
  readonly requestBytes: number;
  readonly commitBytes: number;
  readonly groupInfoBytes: number;
  readonly sharedWelcomeBytes: number;
  /** Of each Welcome. */
  readonly welcomeBytes: readonly number[];
}

export interface Adds {
  /** Keys of all of them fetched and proven. */
  readonly gatherMs: number;
  readonly commits: readonly AddCommit[];
  /** Of who follows: reading and applying all commits behind the first. */
  readonly followMs: number;
  /** From the row to the open conversation, with the keys of all members looked up and proven. */
  readonly joinMs: number;
  readonly joinBytes: number;
  /** Of this process, for the same four: what other work on the machine does not change much (ms). */
  readonly cpuMs: {
    readonly gather: number;
    readonly commits: number;
    readonly follow: number;
    readonly join: number;
  };
}

const suite: MlsSuite = mandatorySuite;
const cpuNow = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Knows when it answered last: from then on a committer is busy with its commit. */
class TimedDirectory extends TestDirectory {
  answeredMs = 0;
  answeredCpu = 0;

  override async call<I extends Method['request'], O extends Method['response']>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const answer = await super.call(method, request);
    this.answeredMs = performance.now();
    this.answeredCpu = cpuNow();
    return answer;
  }
}

async function add({ crowd }: AddsJob): Promise<Adds> {
  const directory = new TimedDirectory();
  const [alice, bob, last] = ['alice', 'bob', 'zoe'].map(
    (name) => new TestDevice(`${name}@red.example`, directory, { suites: [suite] }),
  );
  if (alice === undefined || bob === undefined || last === undefined)
    throw new Error('bench: who?');
  const userIds = [...(await publishCrowd(directory, crowd - 1, suite)), last.userId];
  const id = await alice.conversations.create('crowd', [bob.userId]);
  for (const row of directory.hub.takeRows(alice.rid, bob.rid)) await bob.receive(row);

  const seen = new Map<string, AddCommit>();
  const beganMs = performance.now();
  let startMs = beganMs;
  let gatherMs = 0;
  const beganCpu = cpuNow();
  let gatheredCpu = beganCpu;
  directory.hub.beforeSubmit = async () => {
    const pending = alice.store.groupLog.pendings(id).find(({ isRefused }) => !isRefused);
    if (pending === undefined || seen.has(hex(pending.commitHash))) return;
    if (seen.size === 0) {
      startMs = directory.answeredMs;
      gatherMs = startMs - beganMs;
      gatheredCpu = directory.answeredCpu;
    }
    const { commit, welcomes, groupInfo, sharedWelcome } = fromBinary(
      SubmitCommitRequestSchema,
      pending.request,
    );
    seen.set(hex(pending.commitHash), {
      adds: welcomes.length,
      ms: performance.now() - startMs,
      requestBytes: pending.request.length,
      commitBytes: commit.length,
      groupInfoBytes: groupInfo.length,
      sharedWelcomeBytes: sharedWelcome.length,
      welcomeBytes: welcomes.map(({ welcome }) => welcome.length),
    });
    startMs = performance.now();
  };
  await alice.conversations.addMembers(id, userIds);
  directory.hub.beforeSubmit = undefined;

  const addedCpu = cpuNow();
  const followStartMs = performance.now();
  await bob.groups.pull.pull(id, AbortSignal.timeout(600_000));
  await bob.settle();
  const followMs = performance.now() - followStartMs;

  const followedCpu = cpuNow();
  const joinStartMs = performance.now();
  const rows = directory.hub.takeRows(alice.rid, last.rid);
  for (const row of rows) await last.receive(row);
  const joinMs = performance.now() - joinStartMs;
  const joinedCpu = cpuNow();
  const states = await Promise.all(
    [alice, bob, last].map((one) => one.conversations.groupState(id)),
  );
  const authenticators = new Set(
    states.map((state) => hex(state?.epochAuthenticator ?? new Uint8Array(0))),
  );
  if (authenticators.size !== 1) throw new Error('bench: they are not one group');
  return {
    gatherMs,
    commits: [...seen.values()].filter(({ adds }) => adds > 0),
    followMs,
    joinMs,
    joinBytes: rows.reduce((sum, { payload }) => sum + payload.length, 0),
    cpuMs: {
      gather: gatheredCpu - beganCpu,
      commits: addedCpu - gatheredCpu,
      follow: followedCpu - addedCpu,
      join: joinedCpu - followedCpu,
    },
  };
}

answerParent<AddsJob>(add);
