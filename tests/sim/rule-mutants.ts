/**
 * Deliberate bugs in what members hold against each other: rejections, verdicts, roles, coming back. No mix has a member
 * that lies, so the tests that have one hunt them.
 */
import type { Mutant } from './mutants.ts';

const groupLog = 'client-lib/groups/log/group-log.ts';
const policy = 'client-lib/mls/policy.ts';

export const ruleMutants: readonly Mutant[] = [
  {
    name: 'rejects-unseen',
    what: 'a rejection counts though what it rejects was never seen and judged here',
    mixes: ['client-lib/groups/log/group-log.test.ts'],
    edits: [
      {
        file: groupLog,
        from: '    if (!rejects.every(isJudged)) {',
        to: '    if (rejects.length > 24) {',
      },
    ],
  },
  {
    name: 'first-child-unjudged',
    what: 'a member takes the first child that it can open, whichever keys its entry names',
    mixes: ['client-lib/groups/log/group-log.test.ts'],
    edits: [
      {
        file: groupLog,
        from: "    return (await leadsTo(mls, entry, next)) ? { kind: 'step', step } : unsigned;",
        to: "    return { kind: 'step', step };",
      },
    ],
  },
  {
    name: 'verdict-ignored',
    what: 'a member passes over nothing that more than half of the others will not apply',
    mixes: ['client-lib/groups/log/group-log.test.ts'],
    edits: [
      {
        file: groupLog,
        from: "  if (standing?.decision === 'rejected') {",
        to: "  if (standing?.decision === 'rejected' && entry.epoch < 0) {",
      },
    ],
  },
  {
    name: 'member-as-admin',
    what: 'a member may do what only an admin may',
    mixes: ['client-lib/groups/log/group-log.test.ts', 'client-lib/mls/policy.test.ts'],
    edits: [
      {
        file: policy,
        from: "  const isPlain = role === 'member';\n  if (parent.info.policyVersion",
        to: '  const isPlain = false;\n  if (parent.info.policyVersion',
      },
      {
        file: policy,
        from: "  const isPlain = role === 'member';\n  if (!sameBytes(info.conversationId",
        to: '  const isPlain = false;\n  if (!sameBytes(info.conversationId',
      },
    ],
  },
  {
    name: 'back-as-another',
    what: 'whoever comes back may take the place of any member',
    mixes: ['client-lib/mls/external.test.ts'],
    edits: [
      {
        file: 'client-lib/mls/external.ts',
        from: '  if (member === undefined || !isSuccessor(before, leaf)) {',
        to: '  if (member === undefined) {',
      },
    ],
  },
];
