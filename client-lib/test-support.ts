/** Door `@quicprochat/client-lib/test-support`: what benches need of the test support of this package. */
export { publishCrowd } from './test-crowd.ts';
export { TestDevice } from './test-devices.ts';
export { TestDirectory } from './test-directory.ts';
