/**
 * RemoveMember, UpdateGroupMetadata and RotateKeys: SubmitCommit by callers that say what their commit is
 * for. Nobody here can read the commit; what its entry and its Welcomes tell must not contradict that.
 */
import { InvalidArgumentError, parseOffered, type Handlers } from '@quicprochat/proto';

type Purposes = Pick<Handlers, 'removeMember' | 'updateGroupMetadata' | 'rotateKeys'>;

/** Adds them to the handlers of the group log: one handler behind four methods. */
export function withPurposes<T extends Pick<Handlers, 'submitCommit'>>(handlers: T): T & Purposes {
  const submit: Handlers['submitCommit'] = handlers.submitCommit;
  const submitFor =
    ({ isRemoval }: { readonly isRemoval: boolean }) =>
    async (...call: Parameters<typeof submit>) => {
      const [{ entry, welcomes }] = call;
      if (parseOffered(entry).entry.removal !== isRemoval) {
        throw new InvalidArgumentError('BAD_FIELD', 'entry: the method is for another purpose');
      }
      if (welcomes.length > 0) {
        throw new InvalidArgumentError('BAD_FIELD', 'welcomes: nobody is added by this method');
      }
      return submit(...call);
    };
  return {
    ...handlers,
    removeMember: submitFor({ isRemoval: true }),
    updateGroupMetadata: submitFor({ isRemoval: false }),
    rotateKeys: submitFor({ isRemoval: false }),
  };
}
