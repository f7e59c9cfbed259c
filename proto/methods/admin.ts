/** What the operator asks a running node, over its admin door alone. */
import * as m from '../messages.ts';
import { itemsBetween, safeSeq, textAtMost } from '../field-rules.ts';
import { maxAdminPage } from '../limits.ts';
import { admin, method } from './row.ts';

const ids = itemsBetween(1, maxAdminPage, safeSeq);

export const adminMethods = {
  adminOutbox: method(1003, m.AdminOutboxRequestSchema, m.AdminOutboxResponseSchema, {
    callers: admin,
    rules: {
      ask: (value) => {
        const { case: kind, value: ask } = value as m.AdminOutboxRequest['ask'];
        switch (kind) {
          case undefined:
            return 'is missing';
          case 'peers':
            return textAtMost(255)(ask.after);
          case 'letters':
            return safeSeq(ask.after);
          case 'retry':
          case 'drop':
            return ids(ask.ids);
        }
      },
    },
  }),
} as const;
