/** The quiche engine under the contract of all engines; what only it can be asked is in quiche-*.test.ts. */
import { transportContract } from './contract.ts';
import { quicheEngine } from './quic-rig.ts';

transportContract('quiche', quicheEngine);
