/** Door of proto: errors, runtime interfaces, frames, method table, client and server, addresses. */
export * from './status.ts';
export * from './runtime.ts';
export * from './frame.ts';
export * from './methods.ts';
export * from './client.ts';
export * from './server.ts';
export * from './middleware/index.ts';
export * from './address.ts';
export * from './signature.ts';
export * from './tag.ts';
export * from './channel.ts';
export * from './manifest.ts';
export * from './manifest-chain.ts';
export * from './node-record.ts';
export * from './device-proof.ts';
export * from './opaque-parameters.ts';
