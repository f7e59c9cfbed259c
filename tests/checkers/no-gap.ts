/**
 * P4: a cursor never jumps over rows, and a hole in the numbers of a sender is filled at the end, or
 * somebody was told of it.
 */
import { owed, type Owing } from './membership.ts';
import { linesOf, type History, type Violation } from './history.ts';

export function noGap(history: History, options: Owing = {}): readonly Violation[] {
  return [...cursors(history), ...holes(history, options)];
}

/** Within one store of a node, each transaction goes on in a log where the one before ended. */
function cursors(history: History): Violation[] {
  const last = new Map<string, { storeId: string; seq: number }>();
  const violations: Violation[] = [];
  for (const { device, log = 'its inbox', storeId, from, seq, isFirst } of linesOf(
    history,
    'cursor',
  )) {
    const place = `${device} ${log}`;
    const before = isFirst === true ? undefined : last.get(place);
    if (before?.storeId === storeId && from > before.seq + 1) {
      violations.push({
        checker: 'no-gap',
        text: `${device}: the cursor of ${log} went from ${before.seq} to ${from} of ${storeId}`,
      });
    }
    last.set(place, { storeId, seq });
  }
  return violations;
}

/** A later message of a sender is here and an earlier one that was for this device is not. */
function holes(history: History, options: Owing): Violation[] {
  const greatest = new Map<string, number>();
  const has = new Set<string>();
  for (const { device, senderDevice, conversation, n } of linesOf(history, 'stored')) {
    const log = [device, senderDevice, conversation].join(' ');
    greatest.set(log, Math.max(n, greatest.get(log) ?? 0));
    has.add(`${log} ${n}`);
  }
  const gaveUp = new Set(
    linesOf(history, 'gaveUp').map(({ device, innerId, recipient }) =>
      [recipient, device, innerId].join(' '),
    ),
  );
  const gone = new Set(
    linesOf(history, 'missing').map(({ device, senderDevice, conversation, n }) =>
      [device, senderDevice, conversation, n].join(' '),
    ),
  );
  const isOwed = owed(history, options);
  return linesOf(history, 'sent').flatMap((message) => {
    const { device, conversation, n, innerId, recipients } = message;
    return recipients
      .filter((recipient) => {
        const log = [recipient, device, conversation].join(' ');
        return (
          n < (greatest.get(log) ?? 0) &&
          !has.has(`${log} ${n}`) &&
          !gone.has(`${log} ${n}`) &&
          !gaveUp.has([recipient, device, innerId].join(' ')) &&
          isOwed(recipient, message)
        );
      })
      .map((recipient) => ({
        checker: 'no-gap',
        text: `${recipient} has a hole at ${n} of ${device} in ${conversation}`,
      }));
  });
}
