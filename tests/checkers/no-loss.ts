/**
 * P1: every message that was acknowledged is at the end in the history of every device that it was
 * for, or its sender was told that it will not arrive (a bounce, an expiry, a refusal). Who was taken
 * out of the conversation later is owed nothing.
 */
import { owed, type Owing } from './membership.ts';
import { linesOf, type History, type Violation } from './history.ts';

interface NoLossOptions extends Owing {
  /**
   * `accepted`: messages whose every copy a node acknowledged (what a system without living senders
   * owes). `sent`: everything durable at its sender, whose device is running at the end.
   */
  readonly promised?: 'accepted' | 'sent';
}

export function noLoss(history: History, options: NoLossOptions = {}): readonly Violation[] {
  const { promised = 'accepted' } = options;
  const accepted = new Set(
    linesOf(history, 'accepted').map(({ device, innerId }) => `${device} ${innerId}`),
  );
  const has = new Set(
    linesOf(history, 'stored').map(({ device, senderDevice, innerId }) =>
      [device, senderDevice, innerId].join(' '),
    ),
  );
  const told = new Set(
    linesOf(history, 'gaveUp').map(({ device, innerId, recipient }) =>
      [recipient, device, innerId].join(' '),
    ),
  );
  const isOwed = owed(history, options);
  return linesOf(history, 'sent')
    .filter(({ device, innerId }) => promised === 'sent' || accepted.has(`${device} ${innerId}`))
    .flatMap((message) => {
      const { device, innerId, conversation, n, recipients } = message;
      return recipients
        .filter((recipient) => {
          const key = [recipient, device, innerId].join(' ');
          return !has.has(key) && !told.has(key) && isOwed(recipient, message);
        })
        .map((recipient) => ({
          checker: 'no-loss',
          text: `${recipient} lacks ${device}'s message ${n} of ${conversation} (${innerId})`,
        }));
    });
}
