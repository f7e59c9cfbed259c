/**
 * The suite that every transport engine must pass, for node:test. A new engine is done when
 * `transportContract` is green for it; what only one engine can be asked stands in its own test.
 */
import { suite } from 'node:test';
import { callCases } from './contract-calls.ts';
import { hostileCases } from './contract-hostile.ts';
import { limitCases } from './contract-limits.ts';
import { pushCases } from './contract-pushes.ts';
import type { MakeEngine } from './contract-rig.ts';

export type { ContractEngine, CuttablePath, MakeEngine } from './contract-rig.ts';

/** Registers the suite. `make` is called once per case, with the runtime to use. */
export function transportContract(name: string, make: MakeEngine): void {
  suite(`transport contract: ${name}`, () => {
    callCases(make);
    hostileCases(make);
    pushCases(make);
    limitCases(make);
  });
}
