/** Handlers of the key-transparency log. */
import { UnimplementedError, type Handlers } from '@quicprochat/proto';

const unbuilt = async (): Promise<never> => {
  throw new UnimplementedError('not served by this node yet');
};

export function ktHandlers(): Pick<
  Handlers,
  | 'auditKeyTransparency'
  | 'ktSearch'
  | 'ktUpdate'
  | 'ktMonitor'
  | 'ktDistinguished'
  | 'ktTreeHead'
  | 'ktCredential'
  | 'fedKt'
> {
  return {
    auditKeyTransparency: unbuilt,
    ktSearch: unbuilt,
    ktUpdate: unbuilt,
    ktMonitor: unbuilt,
    ktDistinguished: unbuilt,
    ktTreeHead: unbuilt,
    ktCredential: unbuilt,
    fedKt: unbuilt,
  };
}
