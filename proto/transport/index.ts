/** Door of the transports: the interface, the engines and the certificate maker. */
export * from './transport.ts';
export { makeIdentity, loadIdentity, type NodeIdentity } from './certificate.ts';
export { memoryNetwork, type MemoryNetwork } from './memory.ts';
export { engineNames, transportOf, type EngineName } from './engines.ts';
// The engine `quic` is our own glue on native quiche; the stock glue of the same package is kept as
// the reference that tests and benches compare it with (docs/decisions/0005).
export { quicheTransport as quicTransport } from './quiche.ts';
export { quicTransport as stockQuicTransport } from './quic.ts';
