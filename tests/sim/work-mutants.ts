/** Deliberate bugs of blocks, delivery tokens, times to live and channels. */
import type { Mutant } from './mutants.ts';

export const workMutants: readonly Mutant[] = [
  {
    name: 'blocked-shown',
    what: 'a client shows what blocked people write',
    mixes: ['blocked', 'blocked-full'],
    edits: [
      {
        file: 'client-lib/store/message-rows.ts',
        from: 'm.sender_user IN (SELECT user_id FROM blocked_user))`;',
        to: 'm.sender_user IN (SELECT user_id FROM blocked_user WHERE at_ms < 0))`;',
      },
      {
        file: 'client-lib/receiving/received.ts',
        from: 'if (store.tokens.isBlocked(row.senderUser)) continue;',
        to: 'if (row.id < 0) continue;',
      },
    ],
  },
  {
    name: 'token-not-checked',
    what: 'a node takes any token for a valid one',
    mixes: ['blocked', 'blocked-full'],
    edits: [
      {
        file: 'nodes/store/queries/delivery-tokens.ts',
        from: '      return hashes !== undefined && !has(hashes, token);',
        to: '      return hashes !== undefined && !has(hashes, token) && (token ?? []).length === 0;',
      },
    ],
  },
  {
    name: 'renewal-for-nobody',
    what: 'a device leaves its new token at its node for nobody, and a node knows no token of before',
    mixes: ['sealed-blocked'],
    edits: [
      {
        file: 'client-lib/sending/delivery-tokens.ts',
        from: '      .filter(({ userId }) => !store.tokens.isBlocked(userId))',
        to: "      .filter(({ userId }) => userId === '')",
      },
      {
        file: 'nodes/store/queries/enqueue-batch.ts',
        from: ' || tokens.isPast(inbox.id, token)',
        to: '',
      },
    ],
  },
  {
    name: 'strangers-unbounded',
    what: 'a node takes from strangers as many messages as from others',
    mixes: ['blocked-full'],
    edits: [
      {
        file: 'nodes/store/queries/inbox.ts',
        from: '(isStranger && tokens.strangerRows(log.id, limits.strangerRows) >= limits.strangerRows);',
        to: '(isStranger && tokens.strangerRows(log.id, limits.strangerRows) > limits.strangerRows);',
      },
    ],
  },
  {
    name: 'expired-not-told',
    what: 'a node drops a message whose time is over and tells nobody',
    mixes: ['short-lived'],
    edits: [
      {
        file: 'nodes/store/queries/notices.ts',
        from: '    expired(nowMs, lost) {\n',
        to: '    expired(nowMs, lost) {\n      if (nowMs > 0) return;\n',
      },
    ],
  },
  {
    name: 'channel-cursor-first',
    what: 'a client moves its cursor of a channel before it has taken the posts in',
    mixes: ['channels-crash-points', 'channels-kills', 'channels'],
    edits: [
      {
        file: 'client-lib/channels/channel-sync.ts',
        from: '    const taken = rows.map(',
        to: '    const last = rows.at(-1);\n    if (last !== undefined) store.transaction(() => store.inbox.putCursor(cid, { storeId, seq: seqOf(last.seq) }));\n    const taken = rows.map(',
      },
    ],
  },
];
