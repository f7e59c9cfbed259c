/** The quiche engine, alone and on processes, under the contract of all engines; what only it can be asked is in quiche-*.test.ts. */
import { suite } from 'node:test';
import { fairnessCases } from './contract-fairness.ts';
import { slowCases } from './contract-slow.ts';
import { transportContract } from './contract.ts';
import { quicheEngine, forkedEngine } from './quic-rig.ts';

transportContract('quiche', quicheEngine);
transportContract('quiche on two processes', forkedEngine);
suite('quiche: streams beside each other', () => fairnessCases(quicheEngine));
suite('quiche: slow peers', () => slowCases(quicheEngine));
suite('quiche on two processes: slow peers', () => slowCases(forkedEngine));
