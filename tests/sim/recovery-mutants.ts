/** Deliberate bugs of hubs of three that recover after two and more forgot (docs/decisions/0031), in the code of production. */
import type { Mutant } from './mutants.ts';

const set = 'nodes/store/queries/groups-set.ts';
const takeover = 'nodes/hubs/takeover.ts';
const recovery = 'nodes/hubs/recovery.ts';
const mixes = ['forgetful'];

export const recoveryMutants: readonly Mutant[] = [
  {
    name: 'recovers-without-third',
    what: 'a hub that forgot recovers with the word of one other hub',
    mixes,
    edits: [
      {
        file: takeover,
        from: 'const needed = before.isLearner ? 2 : 1;',
        to: 'const needed = before.isLearner && before.forgot?.restMs !== 0 ? 2 : 1;',
      },
    ],
  },
  {
    name: 'recovery-asks-once',
    what: 'a hub that recovers takes what counts from the answers that told it who forgot',
    mixes,
    edits: [
      {
        file: takeover,
        from: 'if (words.some((hub) => !heard.includes(hub))) {',
        to: 'if (words.length > 3) {',
      },
    ],
  },
  {
    name: 'recovers-in-next-term',
    what: 'a hub that recovers asks in the next term of its own, which may have been asked for before',
    mixes,
    edits: [
      { file: takeover, from: 'floor = term + hubLimits.recoveryLeap;', to: 'floor = term;' },
    ],
  },
  {
    name: 'forgetful-votes',
    what: 'a hub that forgot promises terms to those that remember too',
    mixes,
    edits: [
      {
        file: set,
        from: 'if (!recovers || restMs !== 0) throw',
        to: 'if (recovers && restMs !== 0) throw',
      },
      {
        file: takeover,
        from: 'if (!promise.forgot || request.recovers) answers.push',
        to: 'answers.push',
      },
    ],
  },
  {
    name: 'waits-for-no-member',
    what: 'the time in which members bring back what they hold ends at once',
    mixes,
    edits: [
      { file: 'nodes/store/queries/groups-log.ts', from: 'heldMs: 2 * 60_000,', to: 'heldMs: 1,' },
    ],
  },
  {
    name: 'brought-unchecked',
    what: 'a hub that forgot takes what members bring without looking at its certificate',
    mixes,
    edits: [
      {
        file: recovery,
        from: 'const entries = verified(this.#parts, hubs, [\n      create(GroupControlSchema, { entry: certified, commit }),\n    ]);',
        to: 'const entries = [{ parsed, certified, commit }];',
      },
    ],
  },
  {
    name: 'takes-after-its-word',
    what: 'a hub that forgot takes what members bring after it gave its word to another one',
    mixes,
    edits: [
      { file: set, from: 'forgot(known) && known.gave_word === 0;', to: 'forgot(known);' },
      {
        file: recovery,
        from: '    if (state?.forgot?.gaveWord !== false) return undefined;\n',
        to: '    if (state?.forgot === undefined) return undefined;\n',
      },
    ],
  },
  {
    name: 'forgets-that-it-forgot',
    what: 'a hub that is started again has its say, though it had not recovered yet',
    mixes,
    edits: [
      {
        file: set,
        from: '  const held = restoredHubQueries({ db });\n',
        to: "  const held = restoredHubQueries({ db });\n  if (!db.readonly) db.prepare('UPDATE hub_group SET is_learner = 0 WHERE held_since_ms IS NOT NULL').run();\n",
      },
    ],
  },
  {
    name: 'own-log-left-out',
    what: 'a hub that recovers leaves its own log out, which may be the newest that is left',
    mixes,
    edits: [
      {
        file: takeover,
        from: 'const counts = !own.isLearner || answers.some(({ promise }) => promise.forgot);',
        to: 'const counts = !own.isLearner;',
      },
    ],
  },
  {
    name: 'recovers-without-prepared',
    what: 'a hub that recovers leaves out what is PREPARED at others',
    mixes,
    edits: [
      {
        file: takeover,
        from: 'const prepared = isOpen && best.prepared ?',
        to: 'const prepared = isOpen && best.prepared && !own.isLearner ?',
      },
    ],
  },
];
