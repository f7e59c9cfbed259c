/** The swarm of `qpc --p2p`; loads libp2p, so this file is loaded only then. */
export { deviceSwarm } from '@quicprochat/p2p/device';
