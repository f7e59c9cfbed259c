/**
 * Contract of a NodeStore as one hub of three: what it promised and signed it keeps, what others bring it
 * takes only with reason, and a refusal leaves nothing behind.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  commitHash,
  parseEntry,
  signCertificate,
  signingKeyFromSeed,
  systemRandom,
  type ParsedEntry,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  fromBinary,
  GroupControlSchema,
  HubFenceSchema,
  SubmitCommitRequestSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import type {
  CertifiedCommit,
  HubState,
  LeaderLog,
  OfferedCommit,
  PreparedCommit,
} from '../group-store.ts';
import type { NodeStore } from '../store.ts';
import { addDevice, bigLimits, hex, storeFixture, type OpenStore } from './fixture.ts';
import { TestCommitter, type EntryChanges } from './group-committer.ts';

const [red, blue, green] = ['red.example', 'blue.example', 'green.example'];
const hubs = [red, blue, green];
const none = new Uint8Array(0);
const badField = { name: 'InvalidArgumentError', reason: 'BAD_FIELD' };
const badSignature = { name: 'InvalidArgumentError', reason: 'BAD_SIGNATURE' };
const contradicts = { name: 'ConflictError', reason: 'SEQ_CONFLICT' };
const forgot = { name: 'UnavailableError', reason: 'HUB_RESTORED' };
const unavailable = { name: 'UnavailableError', reason: 'HUB_UNAVAILABLE' };

/** The members and the other two hubs in one hand. */
class Rig {
  readonly store: NodeStore;
  readonly group = new TestCommitter();
  readonly keys = hubs.map(() => signingKeyFromSeed(systemRandom.bytes(32)));

  constructor(store: NodeStore) {
    this.store = store;
  }

  get id(): Uint8Array {
    return this.group.groupId;
  }

  /** An entry behind `parent`, or entry 0, as a hub writes it down. */
  prepared(parent?: ParsedEntry, changes: EntryChanges = {}): PreparedCommit {
    const commit = parent === undefined ? none : systemRandom.bytes(100);
    const hash = parent === undefined ? {} : { commitHash: commitHash(commit) };
    const entry = this.group.sign(parent, { ...hash, ...changes });
    const { certified: _, ...offered } = this.group.offer(parseEntry(this.group.sign(undefined)));
    const mid = parent === undefined ? none : offered.mid;
    const groupInfo = systemRandom.bytes(20);
    const request = create(SubmitCommitRequestSchema, { entry, commit, mid, groupInfo });
    const submit = toBinary(SubmitCommitRequestSchema, request);
    return { ...offered, parsed: parseEntry(entry), commit, mid, groupInfo, submit, domain: blue };
  }

  /** Entry 0, or `of` once more, under this mid. */
  beginning(mid: Uint8Array, of: PreparedCommit = this.prepared()): PreparedCommit {
    const { entry } = fromBinary(SubmitCommitRequestSchema, of.submit);
    const request = create(SubmitCommitRequestSchema, { mid, ...(entry && { entry }) });
    return { ...of, mid, submit: toBinary(SubmitCommitRequestSchema, request) };
  }

  certify(prepared: PreparedCommit, term = 0): CertifiedCommit {
    const { parsed, commit, submit } = prepared;
    const signatures = hubs.slice(0, 2).map((domain, index) => {
      const signing = this.keys[index] ?? this.group.hubSigning;
      return signCertificate(parsed.hash, term, { domain, signing });
    });
    const { entry } = fromBinary(SubmitCommitRequestSchema, submit);
    const fields = { term: BigInt(term), signatures, ...(entry && { entry }) };
    return { parsed, commit, certified: create(CertifiedEntrySchema, fields) };
  }

  decided(prepared: PreparedCommit, term = 0): OfferedCommit {
    return { ...prepared, ...this.certify(prepared, term) };
  }

  async state(): Promise<HubState> {
    const state = await this.store.hubState(this.id);
    assert.ok(state !== undefined);
    return state;
  }

  /** What of the state the rules speak of. */
  async facts() {
    const { promised, adopted, position, prepared } = await this.state();
    return [promised, adopted, position, prepared === undefined ? '' : hex(prepared.hash)];
  }

  /** The log of the owner of a term, as far as this hub has accepted it. */
  async leaderLog(term: number, changes: Partial<LeaderLog> = {}): Promise<LeaderLog> {
    const { position = 0, head = none } = (await this.store.hubState(this.id)) ?? {};
    return { group: this.id, hubs, from: hubs[term % 3] ?? '', term, position, head, ...changes };
  }

  install(entries: readonly CertifiedCommit[], position: number, isRepair = true, from = red) {
    const info = { groupInfo: none, groupInfoEntry: none };
    const { id: group } = this;
    return this.store.installEntries({ group, hubs, from, position, entries, isRepair, ...info });
  }

  /** Nothing may have changed by what was refused. */
  async refuses(work: () => Promise<unknown>, refusal: object): Promise<void> {
    const before = await this.store.hubState(this.id);
    await assert.rejects(work(), refusal);
    assert.deepEqual(await this.store.hubState(this.id), before);
  }
}

export function groupSetContract(open: OpenStore): void {
  test('a leader writes one entry down, and accepts it in the term that it holds', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const rig = new Rig(store);
    const creator = await addDevice(store, 'alice');
    const first = rig.prepared();
    const { parsed, submit } = first;
    const begin = { parsed, submit, hubs, creator };
    await assert.rejects(store.prepareGroup({ ...begin, hubs: [red] }), badField);
    assert.deepEqual(await store.prepareGroup(begin), { outcome: 'prepared' });
    assert.deepEqual(await store.prepareGroup(begin), { outcome: 'prepared' });
    const others = { ...begin, hubs: [red, green, blue] };
    await assert.rejects(store.prepareGroup(others), { reason: 'NAME_TAKEN' });
    assert.deepEqual(await rig.facts(), [0, 0, 0, hex(parsed.hash)]);
    assert.deepEqual(await store.preparedGroups(), [rig.id]);
    assert.deepEqual((await store.groupLog(rig.id, none, 9)).prepared, parsed.hash);
    const commit = rig.prepared(parsed);
    assert.deepEqual(await store.prepareCommit(0, commit, true), { outcome: 'busy' });
    const made = await store.acceptPrepared(0, rig.decided(first));
    assert.equal(made.isNew, true);
    assert.equal((await store.prepareGroup(begin)).outcome, 'accepted');
    assert.deepEqual(await rig.facts(), [0, 0, 1, '']);

    // A hub of three decides nothing alone, and only in its own term.
    const alone = rig.decided(commit);
    await rig.refuses(() => store.submitCommit(alone), { reason: 'TERM_FENCED' });
    await rig.refuses(() => store.prepareCommit(3, commit, true), { reason: 'TERM_FENCED' });
    assert.deepEqual(await store.prepareCommit(0, commit, false), { outcome: 'busy' });
    await rig.refuses(() => store.acceptPrepared(0, rig.decided(commit)), {
      reason: 'TERM_FENCED',
    });
    assert.deepEqual(await store.prepareCommit(0, commit, true), { outcome: 'prepared' });
    assert.deepEqual(await store.prepareCommit(0, commit, true), { outcome: 'prepared' });
    const rival = rig.prepared(parsed);
    assert.deepEqual(await store.prepareCommit(0, rival, true), { outcome: 'busy' });
    // It would be taken, if there were room: that is told, and nothing written.
    const facts = await rig.facts();
    await store.judgeCommit(rival);
    await rig.refuses(() => store.judgeCommit({ ...rival, commit: commit.commit }), {
      reason: 'BAD_FIELD',
    });
    assert.deepEqual(await rig.facts(), facts);
    await rig.refuses(() => store.acceptPrepared(0, rig.decided(rival)), { reason: 'TERM_FENCED' });
    const { control } = await store.acceptPrepared(0, rig.decided(commit));
    assert.deepEqual(fromBinary(GroupControlSchema, control).commit, commit.commit);
    assert.deepEqual(await store.acceptPrepared(0, rig.decided(commit)), { isNew: false, control });
    assert.equal((await store.prepareCommit(0, commit, false)).outcome, 'accepted');
    assert.deepEqual((await store.groupInfo(rig.id))?.bytes, commit.groupInfo);
    await rig.refuses(() => store.prepareCommit(0, rival, true), { reason: 'EPOCH_CONFLICT' });
    await rig.refuses(() => store.judgeCommit(rival), { reason: 'EPOCH_CONFLICT' });
    await store.judgeCommit(commit);
    await rig.refuses(() => store.prepareCommit(0, rig.prepared(rival.parsed), true), {
      reason: 'EPOCH_CONFLICT',
    });
  });

  test('a hub that begins a group has no say before both others answered for it', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const creator = await addDevice(store, 'alice');
    const begun = async () => {
      const rig = new Rig(store);
      const first = rig.beginning(systemRandom.bytes(16));
      const begin = { parsed: first.parsed, hubs, creator };
      await store.prepareGroup({ ...begin, submit: first.submit });
      const { submit } = rig.beginning(systemRandom.bytes(16), first);
      assert.equal((await store.prepareGroup({ ...begin, submit })).outcome, 'prepared');
      const { isLearner, isBeginning, prepared } = await rig.state();
      assert.deepEqual([isLearner, isBeginning], [true, true]);
      assert.deepEqual(prepared?.submit, first.submit, 'the first beginning stays');
      return { rig, first };
    };
    const asked = await begun();
    const accepted = await begun();
    const led = await accepted.rig.leaderLog(1, { prepared: accepted.first });
    await accepted.rig.refuses(() => store.adoptLog(led), unavailable);
    await accepted.rig.refuses(() => store.promiseTerm(accepted.rig.id, 1), unavailable);
    await store.acceptPrepared(0, accepted.rig.decided(accepted.first));
    const { isLearner, isBeginning } = await accepted.rig.state();
    assert.deepEqual([isLearner, isBeginning], [false, false]);
    assert.equal((await store.promiseTerm(accepted.rig.id, 1)).promised, 1);

    // Whoever leads in another term, or shows what counts, knows more of the group than this disk.
    const promised = await store.promiseTerm(asked.rig.id, 3, { since: 0 });
    const shown = await begun();
    await shown.rig.install([shown.rig.certify(shown.first, 1)], 1);
    for (const state of [promised, await asked.rig.state(), await shown.rig.state()]) {
      assert.deepEqual([state.isLearner, state.isBeginning], [true, false]);
    }
    assert.equal((await store.learnerGroups(none)).length, 2);
    const next = accepted.rig.prepared(accepted.first.parsed);
    const log = await accepted.rig.leaderLog(1, { prepared: next });
    await store.adoptLog(log);
    assert.deepEqual(await store.preparedGroups(), [accepted.rig.id, asked.rig.id]);
    await asked.rig.refuses(() => store.acceptPrepared(0, asked.rig.decided(asked.first)), {
      reason: 'TERM_FENCED',
    });
    await store.takeLog(asked.rig.id, 3, 0, asked.first);
    assert.equal((await asked.rig.state()).isLearner, true, 'entry 0 does not count yet');
    await asked.rig.install([asked.rig.certify(asked.first)], 1);
    assert.equal((await asked.rig.state()).isLearner, false);
  });

  test('a follower hears of one beginning of a group and refuses another', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    // Without a mid: of an older version, which goes on as it began.
    for (const mid of [systemRandom.bytes(16), none]) {
      const rig = new Rig(store);
      const first = rig.beginning(mid);
      const log = await rig.leaderLog(0);
      const begins = { ...log, prepared: first };
      await store.adoptLog(begins);
      assert.deepEqual(await store.adoptLog(begins), { position: 0, head: none });
      const others = [systemRandom.bytes(16), ...(mid === none ? [] : [none])];
      for (const other of others) {
        const anew = { ...log, prepared: rig.beginning(other, first) };
        await rig.refuses(() => store.adoptLog(anew), contradicts);
      }
      await rig.refuses(() => store.adoptLog(log), badField);
      // It may be the second beginning, of a group that this hub was in before: it promises and takes nothing.
      assert.equal((await rig.state()).isLearner, true);
      const led = await rig.leaderLog(1, { prepared: first });
      await rig.refuses(() => store.adoptLog(led), unavailable);
      await rig.refuses(() => store.promiseTerm(rig.id, 1), unavailable);
      await rig.install([rig.certify(first)], 1, false);
      assert.equal((await rig.state()).isLearner, false);
      assert.equal((await store.promiseTerm(rig.id, 1)).promised, 1);
    }
    // Others lead already, which takes a hub with a say: it was one of them.
    const late = new Rig(store);
    const again = late.beginning(systemRandom.bytes(16));
    await store.adoptLog(await late.leaderLog(0, { prepared: again }));
    await late.install([late.certify(again)], 1, true, green);
    assert.equal((await late.state()).isLearner, true);
    const rig = new Rig(store);
    const begins = await rig.leaderLog(0, { prepared: rig.beginning(systemRandom.bytes(16)) });
    await store.adoptLog(begins);
    await rig.install([rig.certify(begins.prepared ?? rig.prepared())], 1, false);
    await rig.refuses(() => store.adoptLog(begins), contradicts);
  });

  test('a follower takes a log of a term that is high enough, and keeps what it signed', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const rig = new Rig(store);
    const first = rig.prepared();
    const begins = await rig.leaderLog(0, { prepared: first });
    const unknown = [
      { prepared: rig.prepared(first.parsed) },
      { from: blue },
      { hubs: [red], prepared: first },
      { prepared: { ...first, commit: systemRandom.bytes(9) } },
    ];
    for (const change of unknown) {
      await assert.rejects(store.adoptLog({ ...begins, ...change }), badField);
    }
    const { prepared: _none, ...empty } = begins;
    await assert.rejects(store.adoptLog(empty), badField);
    // Of what it cannot know the beginning of, it says that it lacks it.
    assert.equal(await store.adoptLog({ ...begins, term: 3 }), undefined);
    assert.equal(await store.hubState(rig.id), undefined);
    assert.deepEqual(await store.adoptLog(begins), { position: 0, head: none });
    assert.deepEqual(await store.adoptLog(begins), { position: 0, head: none });
    assert.deepEqual(await rig.install([rig.certify(first)], 1, false), {
      position: 1,
      head: first.parsed.hash,
    });

    const commit = rig.prepared(first.parsed);
    const bad: readonly (readonly [Partial<LeaderLog>, object])[] = [
      [{ hubs: [red, green, blue] }, badField],
      [{ term: 3 * 2 ** 20 }, badField],
      [{ head: systemRandom.bytes(32) }, contradicts],
      [{ position: 0, head: none }, contradicts],
      [{ prepared: rig.prepared(first.parsed, { key: rig.group.hubSigning }) }, badSignature],
      [{ prepared: rig.prepared(first.parsed, { epoch: 3n }) }, badField],
      [{ prepared: { ...commit, mid: none } }, badField],
      [{ prepared: { ...commit, commit: none } }, badField],
      [{ prepared: rig.prepared(commit.parsed) }, { reason: 'EPOCH_CONFLICT' }],
    ];
    for (const [change, refusal] of bad) {
      const log = await rig.leaderLog(3, { prepared: commit, ...change });
      await rig.refuses(() => store.adoptLog(log), refusal);
    }
    assert.equal(await store.adoptLog(await rig.leaderLog(3, { position: 7 })), undefined);
    assert.ok(await store.adoptLog(await rig.leaderLog(3, { prepared: commit })));
    assert.deepEqual(await rig.facts(), [3, 3, 1, hex(commit.parsed.hash)]);

    // Lower terms are fenced, and told by which; a shorter log of the same term is an old message.
    const fence = await store.adoptLog(await rig.leaderLog(2)).then(
      () => assert.fail('taken'),
      (error: unknown) => error as { reason: string; details: Uint8Array },
    );
    assert.equal(fence.reason, 'TERM_FENCED');
    assert.equal(fromBinary(HubFenceSchema, fence.details).promised, 3n);
    await rig.refuses(async () => store.adoptLog(await rig.leaderLog(3)), contradicts);
    const rival = rig.prepared(first.parsed);
    for (const term of [3, 4]) {
      const log = await rig.leaderLog(term, { prepared: rival });
      await rig.refuses(() => store.adoptLog(log), contradicts);
    }
    await rig.refuses(async () => store.adoptLog(await rig.leaderLog(4)), contradicts);
    await rig.refuses(() => rig.install([rig.certify(rival)], 2), contradicts);
    assert.ok(await store.adoptLog(await rig.leaderLog(4, { prepared: commit })));
    assert.deepEqual(await rig.install([rig.certify(commit, 4)], 2), {
      position: 2,
      head: commit.parsed.hash,
    });
    assert.deepEqual((await store.groupInfo(rig.id))?.bytes, commit.groupInfo);
    // A leader that does not know yet that its entry was accepted has it PREPARED still.
    const { head } = { head: first.parsed.hash };
    const late = await rig.leaderLog(6, { position: 1, head, prepared: commit });
    assert.equal((await store.adoptLog(late))?.position, 2);
    assert.deepEqual(await rig.facts(), [6, 6, 2, '']);
  });

  test('a promise holds, and its owner takes what a majority has', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const rig = new Rig(store);
    await assert.rejects(store.promiseTerm(rig.id, 1, {}), { reason: 'UNKNOWN_GROUP' });
    const creator = await addDevice(store, 'alice');
    const first = rig.prepared();
    const { parsed, submit } = first;
    await store.prepareGroup({ parsed, submit, hubs, creator });
    await store.acceptPrepared(0, rig.decided(first));
    const own = rig.prepared(parsed);
    await store.prepareCommit(0, own, true);
    assert.equal((await store.promiseTerm(rig.id, 4)).adopted, 0);
    for (const term of [0, 3, 4]) {
      await rig.refuses(() => store.promiseTerm(rig.id, term), { reason: 'TERM_FENCED' });
    }
    await rig.refuses(() => store.promiseTerm(rig.id, 2 ** 40), badField);
    // What it wrote down in the term before is neither accepted nor lost.
    await rig.refuses(() => store.acceptPrepared(0, rig.decided(own)), { reason: 'TERM_FENCED' });
    assert.deepEqual(await store.prepareCommit(0, own, true), { outcome: 'prepared' });
    const another = rig.prepared(parsed);
    await rig.refuses(() => store.prepareCommit(0, another, true), { reason: 'TERM_FENCED' });

    await rig.refuses(() => store.promiseTerm(rig.id, 6, { since: 0 }), { reason: 'TERM_FENCED' });
    await store.promiseTerm(rig.id, 6, { since: 4 });
    await rig.refuses(() => store.takeLog(rig.id, 3, 1, 'keeps'), { reason: 'TERM_FENCED' });
    await rig.refuses(() => store.takeLog(rig.id, 6, 2, 'keeps'), contradicts);
    await rig.refuses(() => store.takeLog(rig.id, 6, 1, rig.prepared(another.parsed)), {
      reason: 'EPOCH_CONFLICT',
    });
    await store.takeLog(rig.id, 6, 1, another);
    assert.deepEqual(await rig.facts(), [6, 6, 1, hex(another.parsed.hash)]);
    await store.promiseTerm(rig.id, 9, {});
    await store.takeLog(rig.id, 9, 1, 'keeps');
    assert.deepEqual(await rig.facts(), [9, 9, 1, hex(another.parsed.hash)]);
    await store.acceptPrepared(9, rig.decided(another, 9));
    await store.promiseTerm(rig.id, 12, {});
    await store.takeLog(rig.id, 12, 2, another);
    assert.deepEqual(await rig.facts(), [12, 12, 2, '']);
  });

  test('certified entries come in order, and a hub that forgot has no say', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const rig = new Rig(store);
    const log = [rig.prepared()];
    for (let index = 0; index < 6; index += 1) log.push(rig.prepared(log.at(-1)?.parsed));
    const entries = log.map((one) => rig.certify(one));
    const [first, second, third, fourth] = entries;
    assert.ok(first && second && third && fourth);
    // Nobody asked: a group that is not known here stays unknown.
    assert.equal((await rig.install([first], 1, false)).position, 0);
    assert.equal(await store.hubState(rig.id), undefined);
    await assert.rejects(rig.install([second, first], 1), badField);
    await assert.rejects(rig.install([first, third], 1), badField);
    await assert.rejects(
      rig.install(
        [
          { ...first, commit: none },
          { ...second, commit: none },
        ],
        1,
      ),
    );
    assert.equal((await rig.install([first, second], 1)).position, 2);
    assert.equal((await rig.state()).isLearner, true);
    assert.deepEqual(await store.learnerGroups(none), [rig.id]);
    assert.deepEqual(await store.learnerGroups(rig.id), []);
    await rig.refuses(async () => store.adoptLog(await rig.leaderLog(3)), unavailable);
    await rig.refuses(() => store.promiseTerm(rig.id, 4), forgot);
    await rig.refuses(() => store.prepareCommit(0, log[2] ?? rig.prepared(), true), {
      reason: 'TERM_FENCED',
    });
    await rig.refuses(() => rig.install([second], 1), badField);
    await rig.refuses(() => rig.install([fourth], 3), badField);
    const rival = rig.certify(rig.prepared(first.parsed));
    await rig.refuses(() => rig.install([rival], 2), contradicts);
    assert.equal((await rig.install([second, third], 2)).position, 3);
    assert.equal(
      (await rig.install(entries.slice(4), 5, false)).position,
      3,
      'not next, not asked',
    );
    // It takes over once, with the logs of both others.
    assert.equal((await store.promiseTerm(rig.id, 4, {})).isLearner, true);
    await store.takeLog(rig.id, 4, 3, undefined);
    assert.equal((await rig.state()).isLearner, false);
    assert.ok(await store.adoptLog(await rig.leaderLog(5)));
    // What lies between is kept nowhere any more: it knows as much as a new one.
    assert.equal((await rig.install(entries.slice(5), 6)).position, 7);
    assert.equal((await rig.state()).isLearner, true);
    const { controls, position } = await store.groupLog(rig.id, none, 9);
    assert.deepEqual([controls.length, position], [2, 6]);
  });

  test('a hub that forgot takes entries back from members, until its time is over and it gave its word', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const rig = new Rig(store);
    const log = [rig.prepared()];
    for (let index = 0; index < 4; index += 1) log.push(rig.prepared(log.at(-1)?.parsed));
    const [first, second, third, fourth] = log.map((one) => rig.certify(one));
    assert.ok(first && second && third && fourth);
    const bring = (entry: CertifiedCommit, position: number) =>
      store.installEntries({
        ...{ group: rig.id, hubs, from: red, position, entries: [entry] },
        ...{ groupInfo: none, groupInfoEntry: none, isRepair: false, isBrought: true },
      });
    assert.equal((await bring(first, 1)).position, 0, 'a group that it does not know');
    await rig.install([first], 1);
    const wants = async () => (await store.groupLog(rig.id, none, 1)).wantsEntries;
    assert.equal(await wants(), true);
    assert.deepEqual((await rig.state()).forgot, { gaveWord: false });
    assert.equal((await bring(third, 3)).position, 1, 'not the next one');
    assert.equal((await bring(second, 2)).position, 2);
    assert.equal((await bring(second, 2)).position, 2, 'twice');
    const rival = rig.certify(rig.prepared(first.parsed));
    await rig.refuses(() => bring(rival, 2), contradicts);

    // Nobody wants a change, the time is not over, or who asks remembers: it gives no word.
    const late = { ...forgot, retryAfterMs: 120_000 };
    await rig.refuses(() => store.promiseTerm(rig.id, 4, undefined, true), late);
    assert.equal(await store.holdGroup(rig.id), 120_000);
    fixture.nowMs += 119_999;
    assert.equal(await store.holdGroup(rig.id), 1);
    await rig.refuses(() => store.promiseTerm(rig.id, 4, undefined, true), {
      ...forgot,
      retryAfterMs: 1,
    });
    fixture.nowMs += 1;
    await rig.refuses(() => store.promiseTerm(rig.id, 4), { ...forgot, retryAfterMs: 0 });
    assert.equal(await wants(), true);
    const word = await store.promiseTerm(rig.id, 1_000_000, undefined, true);
    assert.deepEqual(word.forgot, { gaveWord: true, restMs: 0 });
    assert.deepEqual([word.promised, word.position], [1_000_000, 2]);
    assert.equal(await wants(), undefined);
    assert.equal((await bring(third, 3)).position, 2, 'others count on what it said');
    await rig.refuses(async () => store.adoptLog(await rig.leaderLog(1_000_000)), unavailable);
    assert.equal((await rig.install([third], 3)).position, 3, 'hubs bring more');

    // It takes over once, and is as any other.
    await store.promiseTerm(rig.id, 1_800_000, {});
    await store.takeLog(rig.id, 1_800_000, 3, undefined);
    const { forgot: left, isLearner } = await rig.state();
    assert.deepEqual([left, isLearner], [undefined, false]);
    assert.equal((await bring(fourth, 4)).position, 3);
    assert.equal(await store.holdGroup(rig.id), 0);
    assert.equal((await store.promiseTerm(rig.id, 1_900_000)).forgot, undefined);
  });
}
