/** Deliberate bugs that only what judges logs, posts, commits and applications can see. */
import type { Mutant } from './mutants.ts';

export const judgeMutants: readonly Mutant[] = [
  {
    name: 'batch-backwards',
    what: 'a node writes the rows of a batch from its last one on',
    mixes: ['bursts', 'replies'],
    edits: [
      {
        file: 'nodes/store/queries/enqueue-batch.ts',
        from: '      for (const [index, target] of targets.entries()) {',
        to: '      for (const [index, target] of [...targets.entries()].reverse()) {',
      },
    ],
  },
  {
    name: 'post-not-kept',
    what: 'a node answers posts to a channel and keeps the first one alone',
    mixes: ['channels'],
    edits: [
      {
        file: 'nodes/store/queries/channels-log.ts',
        from: '    if (channel.empty_since_ms !== null) return;',
        to: '    if (channel.empty_since_ms !== null || channel.head > 0) return;',
      },
    ],
  },
  {
    name: 'commit-row-left-out',
    what: 'a hub accepts a commit without the row for the last device of its own',
    mixes: ['groups', 'groups-fast'],
    edits: [
      {
        file: 'nodes/store/queries/groups-delivery.ts',
        from: '          const { outcome } = inbox.deliver(nowMs, rid, sent, token);',
        to: '          if (sent.mid === mid && target === devices.findLast((one) => one.peer === undefined)) continue;\n          const { outcome } = inbox.deliver(nowMs, rid, sent, token);',
      },
    ],
  },
  {
    name: 'shown-not-written',
    what: 'a client does not write down what it has shown when a loop over messages is left',
    mixes: ['replies'],
    edits: [
      {
        file: 'client-lib/receiving/received.ts',
        from: '    if (!news.isClosed) markHad();',
        to: '    if (!news.isClosed && had.length > 12) markHad();',
      },
    ],
  },
  {
    name: 'had-before-shown',
    what: 'a client counts as had what it has read from its store, before it shows it',
    mixes: ['replies', 'bursts'],
    edits: [
      {
        file: 'client-lib/receiving/received.ts',
        from: '      for (const row of rows) {\n        after = row.id;\n',
        to: '      had.push(...rows.map(({ id }) => id));\n      for (const row of rows) {\n        after = row.id;\n',
      },
    ],
  },
];
