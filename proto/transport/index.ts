/** Door of the transports: the interface, the engines and the certificate maker. */
export * from './transport.ts';
export { makeIdentity, loadIdentity, type NodeIdentity } from './certificate.ts';
export { memoryNetwork, type MemoryNetwork } from './memory.ts';
export { quicTransport } from './quic.ts';
export { quicheTransport } from './quiche.ts';
