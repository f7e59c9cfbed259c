/** The quiche engine, alone and on threads, under the contract of all engines; what only it can be asked is in quiche-*.test.ts. */
import { transportContract } from './contract.ts';
import { quicheEngine, threadedEngine } from './quic-rig.ts';

transportContract('quiche', quicheEngine);
transportContract('quiche on two threads', threadedEngine);
