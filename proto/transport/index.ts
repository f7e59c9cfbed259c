/** Door of the transports: the interface, the engines and the certificate maker. */
export * from './transport.ts';
export { makeIdentity, loadIdentity, type NodeIdentity } from './certificate.ts';
export { limitKey } from './admission.ts';
export { memoryNetwork, type MemoryNetwork } from './memory.ts';
export { dialLocal, listenLocal, type LocalListener } from './local.ts';
export { engineNames, transportOf, type EngineName } from './engines.ts';
export { maxProcesses } from './quiche-processes.ts';
// Our own glue on native quiche (docs/decisions/0005).
export { quicheTransport as quicTransport } from './quiche.ts';
