/** Door of proto: errors, runtime interfaces, frames, method table, addresses. */
export * from './status.ts';
export * from './runtime.ts';
export * from './frame.ts';
