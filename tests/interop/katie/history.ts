/**
 * One random history: a log of either side grows entry by entry, both auditors follow it, and a user
 * with both clients asks everything of it. Planned by seeded dice; only keys' signatures and katie's
 * openings differ between two runs of one seed.
 */
import assert from 'node:assert/strict';
import {
  applyAuditorUpdate,
  auditorUpdate,
  configuration,
  contactMonitorRequest,
  decode,
  emptyAudit,
  encode,
  logVerifier,
  ownerInitRequest,
  ownerMonitorRequest,
  ownerMonitorRequestOf,
  searchRequest,
  updateRequest,
  VerificationError,
  type AuditedLog,
  type Configuration,
  type SearchRequest,
} from '@quicprochat/kt-log';
import type { Dice } from '../../cluster/dice.ts';
import {
  known as knownDifference,
  knownMutant,
  knownOfClient,
  mapDifferences,
  type Disputed,
} from './differences.ts';
import type { KatieServer, Outcome } from './katie-process.ts';
import { ofBase64, toBase64 } from './katie-process.ts';
import type { Added, Kind, LabelValues, LogPlan, OwnUpdate, Served, ServedLog } from './logs.ts';
import { katieConfig, KatieLog, OurLog } from './logs.ts';
import { configOf, pick, planOf, rootOf } from './plan.ts';
import { suite, type Pool } from './primitives.ts';
import type { Tally } from './tally.ts';
import { distinguishedEntries, frontierEntries, viewUpdatesAgree } from './tree-shape.ts';
import { greatestKnown, User, type Question } from './user.ts';

/** A version as it was written. */
interface Written {
  readonly value: Uint8Array;
  readonly position: number;
}

/** Runs one history on a log of `side`, from `startMs` on. Returns the time at its end. */
export async function runHistory(
  katie: KatieServer,
  side: 'katie' | 'ours',
  dice: Dice,
  pool: Pool,
  tally: Tally,
  startMs: number,
): Promise<number> {
  const plan = planOf(dice, pool);
  const config = configOf(plan);
  const log =
    side === 'katie'
      ? await KatieLog.open(katie, plan, startMs)
      : await OurLog.open(plan, config, startMs, dice.branch(1));
  if (log instanceof KatieLog) assert.deepEqual(log.config, encode(configuration, config));
  const user = await katie.ask('client', startMs, { config: katieConfig(plan, false) });
  const auditor = await katie.ask('auditor', startMs, { config: katieConfig(plan, true) });
  const history = new History(
    { katie, log, dice, tally, plan, config, pool },
    new User(logVerifier(config, suite), katie, user.id ?? 0),
    auditor.id ?? 0,
  );
  const endMs = await history.run();
  await katie.ask('forget', endMs);
  return endMs;
}

interface Scene {
  readonly katie: KatieServer;
  readonly log: ServedLog;
  readonly dice: Dice;
  readonly tally: Tally;
  readonly plan: LogPlan;
  readonly config: Configuration;
  readonly pool: Pool;
}

class History {
  readonly #scene: Scene;
  #user: User;
  readonly #auditorId: number;
  readonly #labels: readonly Uint8Array[];
  readonly #written = new Map<string, Written[]>();
  readonly #timesMs: number[] = [];
  #root = new Uint8Array();
  /** Both clients took at least one answer. */
  #isTaken = false;
  #audit: AuditedLog = emptyAudit;

  constructor(scene: Scene, user: User, auditorId: number) {
    this.#scene = scene;
    this.#user = user;
    this.#auditorId = auditorId;
    const { dice, pool } = scene;
    const labels = Array.from({ length: 1 + dice.int(20) }, () => pick(pool.labels, dice));
    this.#labels = [...new Set(labels)];
  }

  get #nowMs(): number {
    return this.#scene.log.nowMs;
  }
  get #size(): number {
    return this.#timesMs.length;
  }

  async run(): Promise<number> {
    const { dice, tally } = this.#scene;
    // From 1 to 60 entries, small logs more often.
    const entries = 1 + Math.floor(60 * (dice.int(1000) / 1000) ** 3);
    // Some logs have quick entries, some slow ones, some both, some all at one time.
    const paceMs = [0, 30, 500, 500, 5000][dice.int(5)] ?? 500;
    const questions = dice.chance(0.5) ? 0.25 : 0.8;
    for (let i = 0; i < entries; i++) {
      const stepMs = dice.chance(0.1) ? 10 * paceMs : dice.int(paceMs + 1);
      await this.#grow(this.#nowMs + stepMs);
      while (dice.chance(questions * 0.6)) await this.#ask();
    }
    // Somebody new looks up the label that was written last.
    const label = this.#labels.find((one) => this.#writtenOf(one).at(-1)?.position === entries - 1);
    await this.#search(undefined, label, true);
    tally.add('histories, auditors');
    if (this.#isTaken) tally.add('histories, clients');
    return this.#nowMs;
  }

  #writtenOf(label: Uint8Array): Written[] {
    const name = toBase64(label);
    const written = this.#written.get(name) ?? [];
    this.#written.set(name, written);
    return written;
  }

  #pickLabel(): Uint8Array {
    const { dice } = this.#scene;
    // The first labels are the busy ones, so that some get many versions.
    const index = Math.min(dice.int(this.#labels.length), dice.int(this.#labels.length));
    return this.#labels[index] ?? new Uint8Array();
  }

  async #grow(atMs: number): Promise<void> {
    const { dice, log, tally } = this.#scene;
    const added = new Map<string, { label: Uint8Array; values: Uint8Array[] }>();
    const labels = dice.chance(0.2) ? 1 + dice.int(8) : 1;
    for (let i = 0; i < labels; i++) {
      const label = this.#pickLabel();
      const count = dice.chance(0.15) ? 2 + dice.int(8) : 1;
      const values = Array.from({ length: count }, () => dice.bytes(dice.int(40)));
      added.set(toBase64(label), { label, values });
    }
    const position = this.#size;
    const planned = [...added.values()].map(({ label, values }): LabelValues => {
      const before = this.#writtenOf(label).length;
      return { label, values, greatestVersion: before === 0 ? undefined : before - 1 };
    });
    const own = this.#ownUpdate(planned);
    const others = planned.filter(({ label }) => label !== own?.label);
    const made = await log.mutate(atMs, others, own);
    for (const { label, values } of added.values()) {
      this.#writtenOf(label).push(...values.map((value) => ({ value, position })));
    }
    this.#timesMs.push(made.timestampMs);
    this.#root = Uint8Array.from(made.root);
    await this.#follow(made);
    if (own === undefined) return;
    assert.ok(made.response !== undefined, 'an owner without an answer');
    tally.add("answers to an owner's new versions");
    const request = encode(updateRequest, own);
    const question = { kind: 'update', request, isFresh: false, viewRestart: true } as const;
    await this.#judge(question, made.response, true);
  }

  /** One of the labels whose owner, our user, can ask for its new versions; katie answers none. */
  #ownUpdate(planned: readonly LabelValues[]): OwnUpdate | undefined {
    const last = this.#user.size;
    const { log } = this.#scene;
    if (log.name !== 'ours' || !viewUpdatesAgree(this.#size + 1, last)) return undefined;
    const own = planned.find(({ label, greatestVersion }) => {
      const owner = this.#user.owners.get(toBase64(label));
      return owner !== undefined && greatestKnown(owner) === greatestVersion;
    });
    return own === undefined ? undefined : { ...own, last };
  }

  /** Both auditors replay the entry; their roots are the log's, byte for byte. */
  async #follow({ update, entry, root }: Added): Promise<void> {
    const { katie, dice, tally } = this.#scene;
    const fields = { id: this.#auditorId, update };
    if (dice.chance(0.1)) await this.#auditMutant(update);
    this.#audit = applyAuditorUpdate(
      suite.sha256,
      this.#audit,
      decode(auditorUpdate, update),
      entry,
    );
    assert.deepEqual(rootOf(this.#audit), root, 'root of our auditor, and of the log');
    const replayed = await katie.ask('audit', this.#nowMs, fields);
    assert.equal(replayed.refused, undefined, "katie's auditor refuses an entry");
    assert.deepEqual(ofBase64(replayed.root), root, "root of katie's auditor, and of the log");
    tally.add('entries');
  }

  async #auditMutant(update: Uint8Array): Promise<void> {
    const { katie, dice } = this.#scene;
    const mutant = Uint8Array.from(update);
    const at = dice.int(mutant.length);
    mutant[at] = (mutant[at] ?? 0) ^ (1 + dice.int(255));
    let ours: string | undefined;
    let root: Uint8Array | undefined;
    try {
      root = rootOf(applyAuditorUpdate(suite.sha256, this.#audit, decode(auditorUpdate, mutant)));
    } catch (error) {
      if (!(error instanceof VerificationError)) throw error;
      ours = `${error.reason}: ${error.message}`;
    }
    const fields = { id: this.#auditorId, update: mutant, dry: true };
    const theirs = await katie.ask('audit', this.#nowMs, fields);
    // An update alone is not signed: another leaf or time gives another root, the same for both.
    if (root !== undefined && theirs.refused === undefined) {
      assert.deepEqual(ofBase64(theirs.root), root, 'roots after a changed update');
      assert.notDeepEqual(root, this.#root, 'a changed update, and the root of the log');
    }
    this.#compareMutant('audit', at, ours, theirs.refused);
  }

  /** Equal verdicts, or a difference that has a name. */
  #compareMutant(kind: Kind | 'audit', at: number, ours?: string, katie?: string): void {
    const { tally } = this.#scene;
    if ((ours === undefined) === (katie === undefined)) {
      tally.add(`mutants ${ours === undefined ? 'taken' : 'refused'} by both, ${kind}`);
      return;
    }
    const name = katie === undefined ? knownMutant(ours) : undefined;
    const verdicts = `ours ${ours ?? 'accepts'}, katie ${katie ?? 'accepts'}`;
    assert.ok(name !== undefined, `${kind}, byte ${at} changed: ${verdicts}`);
    tally.add(`mutants, difference: ${name}`);
  }

  async #ask(): Promise<void> {
    const { dice } = this.#scene;
    const roll = dice.int(100);
    if (roll < 30) await this.#search(undefined);
    else if (roll < 55) {
      const label = this.#pickLabel();
      await this.#search(dice.int(this.#writtenOf(label).length + 1), label);
    } else if (roll < 75) await this.#monitorContact();
    else if (this.#user.owners.size === 0 || roll < 82) await this.#initOwner();
    else await this.#monitorOwner();
  }

  async #search(
    version: number | undefined,
    label = this.#pickLabel(),
    isFresh = this.#scene.dice.chance(0.2),
  ): Promise<void> {
    const written = this.#writtenOf(label);
    const exists = version === undefined ? written.length > 0 : version < written.length;
    await this.#exchange('search', exists, isFresh, (last) =>
      encode(searchRequest, { last, label, version }),
    );
  }

  async #monitorContact(): Promise<void> {
    const { dice } = this.#scene;
    const monitored = [...this.#user.contacts.values()].filter(({ map }) => map.length > 0);
    const contact = monitored[dice.int(Math.max(1, monitored.length))];
    if (contact === undefined) return;
    const { label, map: entries } = contact;
    await this.#exchange('contactMonitor', true, false, (last) =>
      encode(contactMonitorRequest, { last, label, entries }),
    );
  }

  async #initOwner(): Promise<void> {
    const { dice, plan } = this.#scene;
    const label = this.#pickLabel();
    if (this.#user.owners.has(toBase64(label))) return;
    const distinguished = distinguishedEntries(this.#timesMs, plan.windowMs);
    const isAnywhere = dice.chance(0.1);
    const start = isAnywhere ? dice.int(this.#size) : distinguished[dice.int(distinguished.length)];
    if (start === undefined) return;
    const { lifetimeMs = Number.POSITIVE_INFINITY } = plan;
    const ageMs = (this.#timesMs.at(-1) ?? 0) - (this.#timesMs[start] ?? 0);
    const isValid = distinguished.includes(start) && ageMs < lifetimeMs;
    await this.#exchange('ownerInit', isValid, false, (last) =>
      encode(ownerInitRequest, { last, label, start }),
    );
  }

  async #monitorOwner(): Promise<void> {
    const { dice } = this.#scene;
    const owned = [...this.#user.owners.keys()];
    const name = owned[dice.int(owned.length)] ?? '';
    const isBehind = dice.chance(0.2);
    for (let i = 0; i < 70; i++) {
      const owner = this.#user.owners.get(name);
      if (owner === undefined) return;
      const greatest = greatestKnown(owner) ?? -1;
      if (isBehind || greatest >= this.#writtenOf(owner.label).length - 1) break;
      const before = this.#user.state;
      await this.#update(name);
      // Nothing new was taken: this size lets katie and us not compare, or the history has ended.
      if (this.#user.state === before && greatestKnown(owner) === greatest) return;
    }
    const owner = this.#user.owners.get(name);
    if (owner === undefined) return;
    await this.#exchange('ownerMonitor', true, false, (last) =>
      encode(ownerMonitorRequest, ownerMonitorRequestOf(owner, last)),
    );
  }

  async #update(name: string): Promise<void> {
    const owner = this.#user.owners.get(name);
    if (owner === undefined) return;
    const { label } = owner;
    await this.#exchange('update', true, false, (last) =>
      encode(updateRequest, { last, label, greatestVersion: greatestKnown(owner), values: [] }),
    );
  }

  /**
   * One request, its answer, both verdicts, and perhaps mutants of the answer. `exists`: an honest
   * log has something to show.
   */
  async #exchange(
    kind: Kind,
    exists: boolean,
    isFresh: boolean,
    requestOf: (last: number | undefined) => Uint8Array,
  ): Promise<void> {
    const { dice, log, tally } = this.#scene;
    const seen = this.#user.size;
    const agree = viewUpdatesAgree(this.#size, seen);
    let isNew = isFresh || seen === undefined;
    if (log.name === 'katie' && seen === this.#size && !isNew && dice.chance(0.8)) {
      // Most of these answers can be used by nobody (section 12.1).
      if (kind !== 'search') return;
      isNew = true;
    }
    if (!agree && log.name === 'ours' && !isFresh) {
      tally.add('difference: section 4.2: katie lacks the restart, not asked for that view');
      if (kind !== 'search') return;
      isNew = true;
    }
    const request = requestOf(isNew ? undefined : seen);
    const served = await this.#serve(kind, request);
    if ('refused' in served) {
      this.#refused(kind, exists, served.refused, request);
      return;
    }
    const { response } = served;
    tally.add(`answers, ${kind}`);
    const question: Question = {
      kind,
      request,
      isFresh: isNew && seen !== undefined,
      viewRestart: isNew || agree,
    };
    await this.#judge(question, response, exists);
  }

  /** Mutants of an answer, perhaps, then both verdicts on the answer itself. */
  async #judge(question: Question, response: Uint8Array, exists: boolean): Promise<void> {
    const { dice, log, tally } = this.#scene;
    const { kind, request } = question;
    const seen = this.#user.size;
    for (let i = dice.chance(0.15) ? 2 : 0; i > 0; i--) {
      const mutant = await this.#user.verifyMutant(question, response, this.#nowMs, dice);
      if (mutant !== undefined) this.#compareMutant(kind, mutant.at, mutant.ours, mutant.katie);
    }
    const judged = await this.#user.verify(question, response, this.#nowMs);
    this.#askedLibrary(kind, judged.library, question.isFresh ? undefined : seen);
    if (judged.root !== undefined) {
      assert.deepEqual(judged.root, Buffer.from(this.#root), 'root that the clients computed');
      assert.ok(exists, `${kind}: both accept what there is not`);
      if (kind === 'search') this.#checkFound(decode(searchRequest, request), judged.taken);
      tally.add(`taken by both, ${kind}`);
      this.#isTaken = true;
      if (judged.map !== undefined) tally.add(`difference: ${mapDifferences[judged.map]}`);
      return;
    }
    const { ours, katie } = judged;
    const disputed = {
      kind,
      log: log.name,
      exists,
      agree: question.viewRestart,
      isSame: !question.isFresh && seen === this.#size,
      isAssumed: kind === 'update' && this.#isAssumed(decode(updateRequest, request)),
      ours,
      katie,
    };
    const name = knownDifference(disputed);
    if (name === undefined) assert.fail(this.#report(disputed, seen, request, response));
    tally.add(`difference: ${name}`);
    if (katie === undefined || ours === undefined) await this.#startOver();
  }

  /** What both found is what was written. */
  #checkFound(asked: SearchRequest, found: Outcome | undefined): void {
    const written = this.#writtenOf(asked.label);
    const version = asked.version ?? written.length - 1;
    assert.equal(found?.version, version, 'version that was found');
    const value = written[version]?.value ?? assert.fail('a version that nobody wrote');
    assert.deepEqual(ofBase64(found?.value), value, 'value that was found');
  }

  #askedLibrary(kind: Kind, verdict: string | undefined, seen: number | undefined): void {
    if (verdict === undefined || verdict === 'not asked') return;
    const { tally } = this.#scene;
    tally.add(`katie's Client asked, ${kind}`);
    if (verdict === 'accepted') {
      tally.add(`katie's Client accepts, ${kind}`);
      return;
    }
    const name = knownOfClient(kind, verdict, seen, this.#size);
    assert.ok(
      name !== undefined,
      `${kind}: katie's Client refuses what its algorithms take: ${verdict}`,
    );
    tally.add(`difference: ${name}`);
  }

  /** Everything that a difference without a name can be looked into with. */
  #report(
    { kind, log, ours, katie }: Pick<Disputed, 'kind' | 'log' | 'ours' | 'katie'>,
    seen: number | undefined,
    request: Uint8Array,
    response: Uint8Array,
  ): string {
    const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
    const { windowMs, lifetimeMs } = this.#scene.plan;
    return [
      `${kind} by ${log}, size ${this.#size}, seen ${seen}`,
      `ours ${ours ?? 'accepts'}; katie ${katie ?? 'accepts'}`,
      `request ${hex(request)}`,
      `response ${hex(response)}`,
      `times ${this.#timesMs.join(' ')}, window ${windowMs}, lifetime ${lifetimeMs}`,
      ...[...this.#written].map(
        ([label, written]) => `${label}: ${written.map(({ position }) => position).join(' ')}`,
      ),
    ].join('\n');
  }

  /**
   * Section 9.1, step 2.1: whether the first entry that is passed over lacks the greatest version
   * before the update, which katie takes to be there.
   */
  #isAssumed({
    label,
    greatestVersion = -1,
  }: {
    label: Uint8Array;
    greatestVersion?: number | undefined;
  }) {
    const written = this.#writtenOf(label);
    const position = written[greatestVersion + 1]?.position ?? 0;
    const before = written[greatestVersion]?.position ?? -1;
    const distinguished = distinguishedEntries(this.#timesMs, this.#scene.plan.windowMs);
    const first = frontierEntries(position).find((entry) => !distinguished.includes(entry));
    return first !== undefined && first < before;
  }

  /** katie's Tree cannot answer updates: the Go program does, with katie's algorithm. */
  async #serve(kind: Kind, request: Uint8Array): Promise<Served> {
    const { log, tally } = this.#scene;
    if (!(log instanceof KatieLog) || kind !== 'update') return log.serve(kind, request);
    const served = await log.ask('update', request);
    assert.ok('refused' in served, "katie's Tree answers updates now: compare it");
    tally.add(`cannot answer: update, ${served.refused}`);
    return log.ask('updateByParts', request);
  }

  #refused(kind: Kind, exists: boolean, refused: string, request: Uint8Array): void {
    const { log, tally, plan } = this.#scene;
    const [reason = ''] = refused.split(': ', 1);
    // With a lifetime, versions expire; nothing else may be withheld.
    const isFair = !exists || plan.lifetimeMs !== undefined;
    if (!isFair) {
      const asked = { kind, log: log.name, ours: refused, katie: undefined };
      assert.fail(this.#report(asked, this.#user.size, request, new Uint8Array()));
    }
    tally.add(`refused by the log: ${kind}, ${reason}`);
  }

  /** The two clients parted: both begin anew. */
  async #startOver(): Promise<void> {
    const { katie, plan, config, tally } = this.#scene;
    tally.add('users that started over');
    const made = await katie.ask('client', this.#nowMs, { config: katieConfig(plan, false) });
    this.#user = new User(logVerifier(config, suite), katie, made.id ?? 0);
  }
}
