/** The QUIC engine under the contract of all engines; what only QUIC can be asked is in quic-*.test.ts. */
import { transportContract } from './contract.ts';
import { quicEngine } from './quic-rig.ts';

transportContract('quic', quicEngine);
