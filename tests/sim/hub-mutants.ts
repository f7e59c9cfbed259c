/** Deliberate bugs of hubs of three that tests/model has too, in the code of production. */
import type { Mutant } from './mutants.ts';

const set = 'nodes/store/queries/groups-set.ts';
const takeover = 'nodes/hubs/takeover.ts';

export const hubMutants: readonly Mutant[] = [
  {
    name: 'chooses-by-length',
    what: 'a hub that takes over takes the longest log, of whatever term',
    mixes: ['hubs'],
    edits: [
      {
        file: takeover,
        from: '    one.adopted > other.adopted ||\n    (one.adopted === other.adopted && lengthOf(one) > lengthOf(other))\n',
        to: '    lengthOf(one) > lengthOf(other)\n',
      },
    ],
  },
  {
    name: 'prepared-dropped',
    what: 'a hub that takes over leaves out what others have PREPARED',
    mixes: ['hubs'],
    edits: [
      {
        file: takeover,
        from: '  const isOpen = best.position === position;',
        to: '  const isOpen = best.position === position && position < 0;',
      },
    ],
  },
  {
    name: 'late-logs-lack-entries',
    what: 'a hub signs an entry at a place at which it has accepted another one',
    mixes: ['hubs'],
    edits: [
      {
        file: set,
        from: "      if (!isKnown) throw contradicts('accepted entries are missing');\n",
        to: '      if (!isKnown) return undefined;\n',
      },
    ],
  },
  {
    name: 'lost-disk-votes',
    what: 'a hub that does not remember what it promised votes as if nothing was',
    mixes: ['forgetful', 'hubs'],
    edits: [
      {
        file: takeover,
        from: 'if (!promise.forgot || request.recovers) answers.push',
        to: 'answers.push',
      },
      {
        file: set,
        from: 'const isForgetful = forgot(row);',
        to: 'const isForgetful = false;',
      },
      {
        file: set,
        from: '      } else if (isAsked && !hasSay(row)) throw learning();\n',
        to: '      }\n',
      },
      {
        file: set,
        from: '      if (!hasSay(row) && !hearsBeginning(row, term)) throw learning();\n',
        to: '',
      },
      {
        file: set,
        from: ' || row.is_learner === 1) throw fenced(promised);',
        to: ') throw fenced(promised);',
      },
    ],
  },
  {
    name: 'begins-anew',
    what: 'a first hub that lost its disk begins the group once more, with one other hub',
    mixes: ['hubs'],
    edits: [
      {
        file: 'nodes/hubs/leader.ts',
        from: '    const needed = isBeginning ? all.length : 1;\n',
        to: '    const needed = 1;\n',
      },
      {
        file: set,
        from: 'const hasSay = (row: SetRow): boolean => row.is_learner === 0 && log.end(row.id).position > 0;',
        to: 'const hasSay = (row: SetRow): boolean => row.is_learner === 0;',
      },
      {
        file: set,
        from: '    if (term === 0 && position === 0) needSameBeginning(own, prepared);\n',
        to: '',
      },
    ],
  },
];
