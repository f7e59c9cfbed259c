/** Handlers of an account's devices, keys and recovery. */
import { UnimplementedError, type Handlers } from '@quicprochat/proto';

const unbuilt = async (): Promise<never> => {
  throw new UnimplementedError('not served by this node yet');
};

export function deviceHandlers(): Pick<
  Handlers,
  | 'resolveIdentity'
  | 'revokeKey'
  | 'checkRevocation'
  | 'registerDevice'
  | 'listDevices'
  | 'revokeDevice'
  | 'storeRecoveryBundle'
  | 'fetchRecoveryBundle'
  | 'deleteRecoveryBundle'
  | 'deleteAccount'
> {
  return {
    resolveIdentity: unbuilt,
    revokeKey: unbuilt,
    checkRevocation: unbuilt,
    registerDevice: unbuilt,
    listDevices: unbuilt,
    revokeDevice: unbuilt,
    storeRecoveryBundle: unbuilt,
    fetchRecoveryBundle: unbuilt,
    deleteRecoveryBundle: unbuilt,
    deleteAccount: unbuilt,
  };
}
