/** Door of what processes of one program say to each other. */
export { ownBytes, PortRpc } from './port-rpc.ts';
export { inTime } from './in-time.ts';
export { onGone, processPort } from './process-port.ts';
