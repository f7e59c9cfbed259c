/**
 * One hub of three (docs: protocol/group-log, reference/hub-model): what it promised, whose log it
 * took, the one entry that is PREPARED, and certified entries that others bring. Each operation is a
 * transaction that is on disk before anything is answered.
 */
import {
  ConflictError,
  FailedPreconditionError,
  groupLogLimits,
  hubsViolation,
  InvalidArgumentError,
  ResourceExhaustedError,
  UnavailableError,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  HubFenceSchema,
  SubmitCommitRequestSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { needBytes } from '../bounds.ts';
import type {
  CertifiedCommit,
  HubSetStore,
  HubState,
  InstalledEntries,
  LeaderLog,
  LogEnd,
  PreparedCommit,
  PreparedEntry,
} from '../group-store.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { GroupDelivery } from './groups-delivery.ts';
import { encodeControl, groupBounds, type GroupLogQueries } from './groups-log.ts';
import type { GroupQueries } from './groups.ts';
import { IncomingPayload } from './payloads.ts';
import { restoredHubQueries } from './restored-hub.ts';

/** Groups with a PREPARED entry that one answer names. */
const preparedGroupsMax = 4_096;
/** Groups that one answer names as those in which this hub has no say. */
const learnerGroupsMax = 256;
/** What one caller may raise a term by: it owns every third one. */
const termStepMax = 2 ** 20;

interface SetRow {
  readonly id: number;
  readonly hubs: string;
  readonly promised: number;
  readonly adopted: number;
  readonly is_learner: number;
  readonly gave_word: number;
  readonly made_by: string | null;
}
interface PreparedRow {
  readonly hash: Uint8Array;
  readonly submit: Uint8Array;
  readonly is_signed: number;
  readonly sender: Uint8Array | null;
}

export function groupSetQueries(
  { db, needRoom, needLastRoom }: QueryContext,
  log: GroupLogQueries,
  beginGroup: GroupQueries['begin'],
  delivery: GroupDelivery,
): Pick<Operations, keyof HubSetStore> {
  const byGroup = db.prepare<[Uint8Array], SetRow>(
    `SELECT id, hubs, promised, adopted, is_learner, gave_word, made_by FROM hub_group
      WHERE group_id = ?`,
  );
  const insertGroup = db.prepare<[Uint8Array, string, string, number]>(
    'INSERT INTO hub_group (group_id, hubs, made_by, is_learner) VALUES (?, ?, ?, ?)',
  );
  const groupsOf = db
    .prepare<[string], number>('SELECT count(*) FROM hub_group WHERE made_by = ?')
    .pluck();
  const setTerms = db.prepare<[number, number, number]>(
    'UPDATE hub_group SET promised = ?, adopted = ? WHERE id = ?',
  );
  const setLearner = db.prepare<[number, number]>(
    'UPDATE hub_group SET is_learner = ? WHERE id = ?',
  );
  const setWord = db.prepare<[number]>('UPDATE hub_group SET gave_word = 1 WHERE id = ?');
  const endLearning = db.prepare<[number]>(
    'UPDATE hub_group SET is_learner = 0, gave_word = 0, held_since_ms = NULL WHERE id = ?',
  );
  const held = restoredHubQueries({ db });
  const preparedOf = db.prepare<[number], PreparedRow>(
    'SELECT hash, submit, is_signed, sender FROM hub_prepared WHERE hub_group = ?',
  );
  const putPrepared = db.prepare<[Readonly<Record<string, number | Uint8Array | null>>]>(
    `INSERT OR REPLACE INTO hub_prepared (hub_group, hash, submit, is_signed, sender)
     VALUES (:group, :hash, :submit, :isSigned, :sender)`,
  );
  const setSigned = db.prepare<[number]>(
    'UPDATE hub_prepared SET is_signed = 1 WHERE hub_group = ?',
  );
  const dropPrepared = db.prepare<[number]>('DELETE FROM hub_prepared WHERE hub_group = ?');
  const withPrepared = db
    .prepare<[number], Uint8Array>(
      `SELECT group_id FROM hub_prepared JOIN hub_group ON hub_group.id = hub_prepared.hub_group
        ORDER BY (SELECT max(position) FROM hub_entry WHERE hub_group = hub_group.id) IS NULL, hub_group.id
        LIMIT (? + 0)`,
    )
    .pluck();

  const learners = db
    .prepare<[Uint8Array, number], Uint8Array>(
      `SELECT group_id FROM hub_group WHERE is_learner = 1 AND group_id > ?
        ORDER BY group_id LIMIT (? + 0)`,
    )
    .pluck();

  function need(group: Uint8Array): SetRow {
    log.need(group);
    const row = byGroup.get(group);
    if (row?.hubs.includes(' ') !== true) {
      throw new InvalidArgumentError('BAD_FIELD', 'group: has one hub');
    }
    return row;
  }

  /**
   * Its own beginning, which nobody else may have heard of, or which is the second one after a lost disk: until
   * entry 0 is accepted, or it promises another term, it cannot know.
   */
  function isBeginning({
    id,
    promised,
    adopted,
    is_learner: learner,
    made_by: by,
  }: SetRow): boolean {
    const isFresh = by === null && learner === 0 && promised === 0 && adopted === 0;
    return isFresh && log.end(id).position === 0;
  }

  /**
   * Nobody has one before entry 0 counts here: with a disk that was lost, a beginning of long ago looks like a new one, and
   * what both others have in common may be less than this hub had with one of them.
   */
  const hasSay = (row: SetRow): boolean => row.is_learner === 0 && log.end(row.id).position > 0;

  /** It heard of entry 0 from the first hub, in its term, and may say so as often as it is asked. */
  const hearsBeginning = (row: SetRow, term: number): boolean =>
    row.is_learner === 0 && row.made_by !== null && term === 0 && log.end(row.id).position === 0;

  /**
   * It heard of a beginning, and others show it what counts: they lead already, which takes a hub with a say. So this one
   * began the group before, and forgot.
   */
  const wentOnWithout = (row: SetRow, from: string): boolean =>
    row.made_by !== null && log.end(row.id).position === 0 && from !== row.hubs.split(' ')[0];

  /** It had a part of the log that counts, and knows that it may have forgotten more: only then its word is worth anything. */
  const forgot = (row: SetRow): boolean => row.is_learner === 1 && log.end(row.id).position > 0;

  function stateOf(nowMs: number, row: SetRow): HubState {
    const { hubs, promised, adopted } = row;
    const prepared = preparedOf.get(row.id);
    const restMs = held.rest(nowMs, row.id);
    const gaveWord = row.gave_word === 1;
    return {
      ...{ hubs: hubs.split(' '), promised, adopted },
      ...{ isLearner: !hasSay(row), isBeginning: isBeginning(row) },
      ...(forgot(row) && { forgot: { gaveWord, ...(restMs !== undefined && { restMs }) } }),
      ...log.end(row.id),
      ...(prepared && { prepared: entryOf(prepared) }),
    };
  }

  /** A leader's word counts in the term that this hub promised and adopted, and in no other. */
  function needTerm(row: SetRow, term: number): void {
    const { promised, adopted } = row;
    if (promised !== term || adopted !== term || row.is_learner === 1) throw fenced(promised);
  }

  /** An entry that another hub leads with: all that could keep it from being accepted here later. */
  function checkTaken(nowMs: number, row: SetRow, taken: PreparedCommit): void {
    const { parsed, commit } = taken;
    log.check(row.id, parsed, commit);
    if (parsed.epoch > 0) delivery.prepare(nowMs, taken, true);
    needLastRoom();
  }

  /** What this hub signed as a follower it takes back for nobody. */
  function prepare(
    group: number,
    { parsed, submit, sender }: Pick<PreparedCommit, 'parsed' | 'submit' | 'sender'>,
    isSigned: boolean,
  ): void {
    const { hash } = parsed;
    putPrepared.run({ group, hash, submit, isSigned: isSigned ? 1 : 0, sender: sender ?? null });
  }

  /** The group of a log that another hub brings; made when it begins here. */
  function begin(
    { hubs, from }: Pick<LeaderLog, 'hubs' | 'from'>,
    group: Uint8Array,
    isLearner: boolean,
  ): SetRow {
    const wrongHubs = hubsViolation(hubs) ?? (hubs.length === 3 ? undefined : 'need three');
    if (wrongHubs !== undefined) throw bad(`hubs: ${wrongHubs}`);
    if ((groupsOf.get(from) ?? 0) >= groupBounds.perPeer) {
      throw new ResourceExhaustedError('QUOTA', 'the peer brought too many groups');
    }
    needRoom();
    insertGroup.run(group, hubs.join(' '), from, isLearner ? 1 : 0);
    return need(group);
  }

  function needNear({ promised }: SetRow, term: number): void {
    if (term > promised + termStepMax) throw bad(`term: ${term} is far above ${promised}`);
  }

  function needHubs(row: SetRow, hubs: readonly string[]): void {
    if (row.hubs !== hubs.join(' ')) throw bad('hubs: the group has others');
  }

  /**
   * What a leader's log has behind the newest entry that is accepted here; undefined: nothing. Throws
   * what speaks against it, though its term is not too low.
   */
  function nextOf(row: SetRow, leader: LeaderLog, end: LogEnd): PreparedCommit | undefined {
    const { term, position, head, prepared } = leader;
    const own = preparedOf.get(row.id);
    if (term === 0 && position === 0) needSameBeginning(own, prepared);
    let next = prepared;
    if (end.position > position) {
      // A new leader may not know yet that its PREPARED entry was accepted; more it cannot lack.
      const isKnown =
        end.position === position + 1 && next !== undefined && same(next.parsed.hash, end.head);
      if (!isKnown) throw contradicts('accepted entries are missing');
      next = undefined;
    } else if (!same(end.head, head)) throw contradicts('another entry was accepted here');
    if (own === undefined || (next !== undefined && same(own.hash, next.parsed.hash))) return next;
    // A late message of the same term, or a leader that drops what may be certified by now.
    if (term === row.adopted) throw contradicts('it is older than what is here');
    if (own.is_signed === 1) throw contradicts('an entry that this hub signed is missing');
    return next;
  }

  return {
    hubState(nowMs, group) {
      needBytes(group, groupLogLimits.groupIdBytes, 'group');
      const row = byGroup.get(group);
      return row?.hubs.includes(' ') === true ? stateOf(nowMs, row) : undefined;
    },

    learnerGroups: (_nowMs, after) => learners.all(after, learnerGroupsMax),
    preparedGroups: () => withPrepared.all(preparedGroupsMax),

    prepareGroup(_nowMs, { parsed, hubs, creator, submit }) {
      if (hubs.length !== 3) throw bad('hubs: need three');
      const { id, isNew } = beginGroup({ parsed, hubs, creator });
      const row = log.byHash(id, parsed.hash);
      if (row !== undefined) return { outcome: 'accepted', control: log.known(row).control };
      if (isNew) prepare(id, { parsed, submit }, false);
      return { outcome: 'prepared' };
    },

    prepareCommit(nowMs, term, offered, mayWrite) {
      const { parsed, commit } = offered;
      const row = need(parsed.entry.group);
      if (parsed.epoch === 0) throw bad('entry: 0 is no commit');
      const before = log.byCommit(row.id, parsed.entry.commitHash);
      if (before !== undefined) {
        return { outcome: 'accepted', control: log.known(before).control };
      }
      const own = preparedOf.get(row.id);
      if (own !== undefined && same(own.hash, parsed.hash)) return { outcome: 'prepared' };
      needTerm(row, term);
      if (own !== undefined || !mayWrite) return { outcome: 'busy' };
      log.check(row.id, parsed, commit);
      delivery.prepare(nowMs, offered);
      needLastRoom();
      prepare(row.id, offered, false);
      return { outcome: 'prepared' };
    },

    judgeCommit(nowMs, offered) {
      const { parsed, commit } = offered;
      const row = need(parsed.entry.group);
      if (parsed.epoch === 0) throw bad('entry: 0 is no commit');
      if (log.byCommit(row.id, parsed.entry.commitHash) !== undefined) return;
      log.check(row.id, parsed, commit);
      delivery.prepare(nowMs, offered);
      needLastRoom();
    },

    acceptPrepared(nowMs, term, offered) {
      const { parsed, certified, commit, groupInfo } = offered;
      const row = need(parsed.entry.group);
      const before = log.byHash(row.id, parsed.hash);
      if (before !== undefined) return log.known(before);
      needTerm(row, term);
      const own = preparedOf.get(row.id);
      if (own === undefined || !same(own.hash, parsed.hash)) throw fenced(row.promised);
      const following = parsed.epoch === 0 ? undefined : delivery.prepare(nowMs, offered, true);
      const control = new IncomingPayload(encodeControl(certified, commit));
      log.insert(nowMs, row.id, parsed, control);
      dropPrepared.run(row.id);
      following?.deliver(control);
      log.putInfo(row.id, parsed.hash, groupInfo);
      return { isNew: true, control: control.bytes };
    },

    adoptLog(nowMs, leader) {
      const { group, hubs, from, term, position, prepared } = leader;
      needBytes(group, groupLogLimits.groupIdBytes, 'group');
      if (!byGroup.get(group)) {
        // Only a group that begins may be new here without anybody wondering what was forgotten.
        if (term > 0 || position > 0) return undefined;
        if (prepared?.parsed.epoch !== 0) throw bad('prepared: is not entry 0');
        if (hubs[0] !== from) throw bad('hubs: another one begins');
        log.checkBehind(undefined, [], prepared.parsed, prepared.commit);
        const row = begin(leader, group, false);
        prepare(row.id, prepared, true);
        return log.end(row.id);
      }
      const row = need(group);
      needHubs(row, hubs);
      if (term < row.promised) throw fenced(row.promised);
      needNear(row, term);
      const end = log.end(row.id);
      if (end.position < position) return undefined;
      if (!hasSay(row) && !hearsBeginning(row, term)) throw learning();
      const next = nextOf(row, leader, end);
      const own = preparedOf.get(row.id);
      const isSame = own !== undefined && next !== undefined && same(own.hash, next.parsed.hash);
      if (next !== undefined && !isSame) checkTaken(nowMs, row, next);
      setTerms.run(term, term, row.id);
      if (next === undefined) dropPrepared.run(row.id);
      else if (isSame) setSigned.run(row.id);
      else prepare(row.id, next, true);
      return end;
    },

    promiseTerm(nowMs, group, term, own, recovers = false) {
      const row = need(group);
      const isAsked = own === undefined;
      const isForgetful = forgot(row);
      if (isAsked && isForgetful) {
        const restMs = held.rest(nowMs, row.id);
        if (!recovers || restMs !== 0) throw forgotten(restMs ?? groupBounds.heldMs);
      } else if (isAsked && !hasSay(row)) throw learning();
      if (term <= row.promised) throw fenced(row.promised);
      // Whom it promised something meanwhile counts on what it said then.
      if (own?.since !== undefined && own.since !== row.promised) throw fenced(row.promised);
      needNear(row, term);
      // Its beginning is over, and what it may have said before that only others know.
      const learner = isBeginning(row) ? 1 : row.is_learner;
      if (learner !== row.is_learner) setLearner.run(learner, row.id);
      setTerms.run(term, row.adopted, row.id);
      const givesWord = isAsked && isForgetful;
      if (givesWord) setWord.run(row.id);
      const word = givesWord ? 1 : row.gave_word;
      return stateOf(nowMs, { ...row, promised: term, is_learner: learner, gave_word: word });
    },

    takeLog(nowMs, group, term, position, prepared) {
      const row = need(group);
      if (row.promised !== term) throw fenced(row.promised);
      if (log.end(row.id).position < position) throw contradicts('entries are still missing');
      const own = preparedOf.get(row.id);
      const isDone =
        prepared !== undefined &&
        prepared !== 'keeps' &&
        log.byHash(row.id, prepared.parsed.hash) !== undefined;
      const next = isDone ? undefined : prepared;
      const isSame =
        next === 'keeps' ||
        (own !== undefined && next !== undefined && same(own.hash, next.parsed.hash));
      if (!isSame) {
        if (own?.is_signed === 1) throw contradicts('an entry that this hub signed is missing');
        if (next !== undefined) checkTaken(nowMs, row, next);
      }
      setTerms.run(term, term, row.id);
      if (row.is_learner === 1) endLearning.run(row.id);
      if (isSame) return;
      if (next === undefined) dropPrepared.run(row.id);
      else prepare(row.id, next, false);
    },

    installEntries(nowMs, installed) {
      const { group, groupInfo, groupInfoEntry } = installed;
      const known = byGroup.get(group) && need(group);
      if (known !== undefined) needHubs(known, installed.hubs);
      const before = known === undefined ? nothing : log.end(known.id);
      const isTaken = known !== undefined && forgot(known) && known.gave_word === 0;
      if (installed.isBrought === true && !isTaken) return before;
      const isNext = known !== undefined && installed.position <= before.position + 1;
      const fresh = isNext || installed.isRepair ? newEntries(known, installed) : [];
      const [first] = fresh;
      if (first === undefined) return before;
      needLastRoom();
      const row = known ?? begin(installed, group, true);
      if (isBeginning(row) || wentOnWithout(row, installed.from)) setLearner.run(1, row.id);
      if (first.position > before.position + 1) {
        // It was away for longer than logs are kept: what it said of the entries between is lost.
        log.clear(row.id);
        setLearner.run(1, row.id);
      }
      const own = preparedOf.get(row.id);
      for (const { parsed, certified, commit, position } of fresh) {
        const control = new IncomingPayload(encodeControl(certified, commit));
        log.insert(nowMs, row.id, parsed, control, position);
      }
      if (own !== undefined && same(own.hash, first.parsed.hash)) {
        const { groupInfo: info } = fromBinary(SubmitCommitRequestSchema, own.submit);
        log.putInfo(row.id, own.hash, info);
      }
      dropPrepared.run(row.id);
      log.putInfo(row.id, groupInfoEntry, groupInfo);
      return log.end(row.id);
    },
  };

  /** Those of the entries that are not here. Throws what speaks against them; writes nothing. */
  function newEntries(
    row: SetRow | undefined,
    { entries, position: from, group }: InstalledEntries,
  ): (CertifiedCommit & { readonly position: number })[] {
    const end = row === undefined ? 0 : log.end(row.id).position;
    const own = row === undefined ? undefined : preparedOf.get(row.id);
    // Behind a hole there is nothing here to compare with: the certificates alone speak for them.
    const held = from > end + 1 ? undefined : row?.id;
    const fresh: (CertifiedCommit & { readonly position: number })[] = [];
    for (const [index, entry] of entries.entries()) {
      const position = from + index;
      const { parsed, commit } = entry;
      const isOfGroup = same(parsed.entry.group, group);
      if (!isOfGroup) throw bad('entries: of another group');
      const here = row === undefined ? undefined : log.byHash(row.id, parsed.hash);
      const isPlaced = (position === 1) === (parsed.epoch === 0);
      if (!isPlaced || (here !== undefined && here.position !== position)) {
        throw bad('entries: not at their places');
      }
      if (position <= end) {
        const other = row === undefined ? undefined : log.at(row.id, position);
        if (other === undefined || same(other.hash, parsed.hash)) continue;
        throw contradicts('another entry was accepted at its place');
      }
      const others = fresh.map((one) => one.parsed);
      log.checkBehind(held, others, parsed, commit);
      if (position === end + 1 && own?.is_signed === 1 && !same(own.hash, parsed.hash)) {
        throw contradicts('this hub signed another entry at its place');
      }
      fresh.push({ ...entry, position });
    }
    return fresh;
  }
}

const nothing: LogEnd = { position: 0, head: new Uint8Array(0) };

/**
 * A first hub begins a group once, under one mid, and goes on with that after a restart: with another one it has
 * forgotten what it did. Nor does it begin what counts here already, for it accepts entry 0 before it tells.
 */
function needSameBeginning(own: PreparedRow | undefined, begun: PreparedCommit | undefined): void {
  if (begun?.parsed.epoch !== 0) throw bad('prepared: is not entry 0');
  if (own !== undefined && same(own.hash, begun.parsed.hash)) {
    const { mid } = fromBinary(SubmitCommitRequestSchema, own.submit);
    if (same(mid, begun.mid)) return;
  }
  throw contradicts('it begins what began here before');
}

function entryOf({ hash, submit, sender }: PreparedRow): PreparedEntry {
  return { hash, submit, ...(sender !== null && { sender }) };
}

function fenced(promised: number): FailedPreconditionError {
  const details = toBinary(HubFenceSchema, create(HubFenceSchema, { promised: BigInt(promised) }));
  return new FailedPreconditionError('TERM_FENCED', `this hub promised term ${promised}`, {
    details,
  });
}

function contradicts(what: string): ConflictError {
  return new ConflictError('SEQ_CONFLICT', `the log of a hub: ${what}`);
}

function forgotten(retryAfterMs: number): UnavailableError {
  const what = 'this hub does not remember what it promised, and waits for what it lost';
  return new UnavailableError('HUB_RESTORED', what, { retryAfterMs });
}

function learning(): UnavailableError {
  return new UnavailableError('HUB_UNAVAILABLE', 'this hub does not remember what it promised');
}

function bad(what: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', what);
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
