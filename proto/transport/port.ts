/** Door of what processes of one program say to each other. */
export { ownBytes, PortRpc } from './port-rpc.ts';
export { processPort } from './process-port.ts';
