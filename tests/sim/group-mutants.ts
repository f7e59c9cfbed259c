/** Deliberate bugs of groups, at hubs and at members: each is one that its rules exist against. */
import type { Mutant } from './mutants.ts';

export const groupMutants: readonly Mutant[] = [
  {
    name: 'parent-not-checked',
    what: 'a hub accepts a commit though its parent has a child',
    mixes: ['groups-fast', 'groups'],
    edits: [
      {
        file: 'nodes/store/queries/groups-log.ts',
        from: '      checkRoom(parsed, childrenOf.all(group, entry.parent));',
        to: '      checkRoom(parsed, childrenOf.all(group, entry.parent).slice(0, 0));',
      },
    ],
  },
  {
    name: 'loser-certified',
    what: 'a hub certifies a commit that lost, and sends its Welcomes',
    mixes: ['hub'],
    edits: [
      {
        file: 'nodes/store/queries/groups.ts',
        from: '      log.check(group, parsed, commit);\n      if (!wasCertified) restored',
        to: '      let hasWon = true;\n      try {\n        log.check(group, parsed, commit);\n      } catch {\n        hasWon = false;\n      }\n      if (!wasCertified) restored',
      },
      {
        file: 'nodes/store/queries/groups.ts',
        from: '      log.insert(nowMs, group, parsed, control);\n      prepared.deliver(control);',
        to: '      if (hasWon) log.insert(nowMs, group, parsed, control);\n      prepared.deliver(control);\n      if (!hasWon) return { isNew: false, control: control.bytes };',
      },
    ],
  },
  {
    name: 'leader-alone',
    what: 'a leader of three hubs accepts what nobody else has on disk, and members believe its word',
    mixes: ['hubs'],
    edits: [
      {
        file: 'nodes/hubs/leader.ts',
        from: '    const word = await asked.enough;\n',
        to: '    asked.enough.catch(() => undefined);\n    const word = undefined;\n',
      },
      {
        file: 'nodes/hubs/leader.ts',
        from: 'offers.decided(prepared, term, [word]);',
        to: 'offers.decided(prepared, term, word === undefined ? [] : [word]);',
      },
      {
        file: 'proto/group-log.ts',
        from: 'if (2 * count <= hubs.length) {',
        to: 'if (count < 1) {',
      },
    ],
  },
  {
    name: 'signed-not-written',
    what: 'a hub signs what the leader brings, and does not write it down',
    mixes: ['hubs'],
    edits: [
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: '      else prepare(row.id, next, true);\n      return end;',
        to: '      return end;',
      },
    ],
  },
  {
    name: 'takeover-without-fencing',
    what: 'a hub forgets the term that it promised, and takes back what it signed',
    mixes: ['hubs'],
    edits: [
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: '      setTerms.run(term, row.adopted, row.id);\n      const givesWord',
        to: '      const givesWord',
      },
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: '      if (row.promised !== term) throw fenced(row.promised);\n      if (log.end',
        to: '      if (log.end',
      },
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: 'if (promised !== term || adopted !== term ||',
        to: 'if (',
      },
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: '      if (term < row.promised) throw fenced(row.promised);\n      needNear',
        to: '      needNear',
      },
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: "    if (own.is_signed === 1) throw contradicts('an entry that this hub signed is missing');\n    return next;",
        to: '    return next;',
      },
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: "        if (own?.is_signed === 1) throw contradicts('an entry that this hub signed is missing');\n        if (next !== undefined) checkTaken",
        to: '        if (next !== undefined) checkTaken',
      },
    ],
  },
  {
    name: 'takeover-keeps-its-own',
    what: 'a hub that takes over goes on with its own log, whatever the others told it',
    mixes: ['hubs'],
    edits: [
      {
        file: 'nodes/hubs/takeover.ts',
        from: '  if (counts && !isBetter(best, own)) {',
        to: '  if (counts) {',
      },
    ],
  },
  {
    name: 'accepted-without-welcomes',
    what: 'a hub of three accepts a commit without the rows that follow from it',
    mixes: ['hubs'],
    edits: [
      {
        file: 'nodes/store/queries/groups-set.ts',
        from: '      following?.deliver(control);',
        to: '      if (parsed.epoch < 0) following?.deliver(control);',
      },
    ],
  },
  {
    name: 'told-before-accepted',
    what: 'a leader of three hubs tells the committer what a majority has before its own store has accepted it',
    mixes: ['committers-fast', 'committers'],
    edits: [
      {
        file: 'nodes/hubs/leader.ts',
        from: "import { push } from './repair.ts';\n",
        to: "import { push } from './repair.ts';\nimport { encodeControl } from '../store/queries/groups-log.ts';\n",
      },
      {
        file: 'nodes/hubs/leader.ts',
        from: '      accepted = await store.acceptPrepared(term, commit);',
        to: '      const { clock } = this.#parts.runtime;\n      const late = clock.sleep(300).then(() => store.acceptPrepared(term, commit));\n      late.catch(() => undefined);\n      accepted = { isNew: true, control: encodeControl(commit.certified, commit.commit) };',
      },
    ],
  },
  {
    name: 'restored-not-held',
    what: 'a hub of one whose disk became an older one takes changes at once',
    mixes: ['hub'],
    edits: [
      {
        file: 'nodes/store/queries/restored-hub.ts',
        from: '      if (retryAfterMs === 0) return;',
        to: '      if (retryAfterMs >= 0) return;',
      },
    ],
  },
  {
    name: 'winner-not-processed',
    what: 'a member that lost an epoch takes its own commit for the winner',
    mixes: ['groups-fast', 'groups'],
    edits: [
      {
        file: 'client-lib/groups/log/group-walker.ts',
        from: 'pendings.find(({ commitHash }) => Buffer.compare(commitHash, hash) === 0);',
        to: 'pendings.find(({ commitHash }) => commitHash.length === hash.length);',
      },
      {
        file: 'client-lib/groups/log/group-log.ts',
        from: 'if (!(await leadsTo(mls, entry, pending))) return unsigned;',
        to: 'if (entry.epoch < 0) return unsigned;',
      },
    ],
  },
  {
    name: 'intent-dropped',
    what: 'a member does not try again what lost its epoch',
    mixes: ['groups-fast', 'groups'],
    edits: [
      {
        file: 'client-lib/groups/log/group-walker.ts',
        from: 'groupLog.addLost(intentId, nowMs + jitter(random, boundMs));',
        to: 'groupLog.addLost(intentId, nowMs + 48 * 3_600_000 + jitter(random, boundMs));',
      },
    ],
  },
  {
    name: 'lost-is-done',
    what: 'a member takes a change for done when its epoch is over, whoever won it',
    mixes: ['groups-fast', 'groups'],
    edits: [
      {
        file: 'client-lib/groups/log/group-walker.ts',
        from: "          ended.push(...this.end(intentId, 'REFUSED', 'EPOCH_CONFLICT', nowMs));\n        }",
        to: "          ended.push(...this.end(intentId, 'REFUSED', 'EPOCH_CONFLICT', nowMs));\n        }\n        ended.push(...this.end(intentId, 'DONE', undefined, nowMs));",
      },
    ],
  },
  {
    name: 'pending-forgotten',
    what: 'a member forgets at its start which commits of its own are on their way',
    mixes: ['groups-crash-points', 'groups-kills'],
    edits: [
      {
        file: 'client-lib/store/sqlite-store.ts',
        from: '  const db = openDatabase(path, key);\n',
        to: "  const db = openDatabase(path, key);\n  db.run('DELETE FROM group_pending');\n",
      },
    ],
  },
  {
    name: 'head-before-state',
    what: 'a member writes down which entry it stands at before it has the keys of it',
    mixes: ['groups-crash-points', 'groups-kills'],
    edits: [
      {
        file: 'client-lib/groups/log/group-walker.ts',
        from: '    const told: ClientEvent[] = steps.flatMap',
        to: '    store.transaction(() => {\n      for (const { entry, control } of steps) {\n        store.groupLog.putHead(groupId, headOf(entry, control));\n      }\n    });\n    const told: ClientEvent[] = steps.flatMap',
      },
    ],
  },
  {
    name: 'old-keys-dropped',
    what: 'a member drops the keys of an epoch when it enters the next one',
    mixes: ['groups', 'groups-fast'],
    edits: [
      { file: 'client-lib/mls/suite.ts', from: '  epochsHeldMax: 256,', to: '  epochsHeldMax: 0,' },
    ],
  },
];
