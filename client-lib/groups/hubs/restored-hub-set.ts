/**
 * What a member does where hubs of three forgot (docs/protocol/group-log.md, "Where two forgot"): each of them says whether
 * it wants entries back, and gets those that are kept here before its time is over.
 */
import type { LogView } from '../log/group-log.ts';
import type { HubRepair } from './hub-repair.ts';

export interface RestoredHubSetsParts {
  /** Where this device stands in a group. */
  readonly view: (groupId: Uint8Array) => Promise<LogView | undefined>;
  readonly repair: Pick<HubRepair, 'want'>;
}

export class RestoredHubSets {
  readonly #parts: RestoredHubSetsParts;
  /** One after the other: thousands of groups are looked at when a node was restored. */
  #looking: Promise<void> = Promise.resolve();
  #open = 0;

  constructor(parts: RestoredHubSetsParts) {
    this.#parts = parts;
  }

  /** Asks the three hubs of a group, or that of one domain among them; does nothing for a group of one hub. */
  look(groupId: Uint8Array, only?: string): void {
    this.#open += 1;
    const look = async (): Promise<void> => {
      try {
        const { group, head } = (await this.#parts.view(groupId)) ?? {};
        if (group?.isActive !== true || head === undefined || group.hubs.length === 1) return;
        for (const hub of group.hubs) {
          if (only !== undefined && hub !== only) continue;
          this.#parts.repair.want({ groupId, hub, head, isOfThree: true });
        }
      } finally {
        this.#open -= 1;
      }
    };
    // A store that can be read no more has stopped all else.
    this.#looking = this.#looking.then(look).catch(() => undefined);
  }

  get isIdle(): boolean {
    return this.#open === 0;
  }
  idle(): Promise<void> {
    return this.#looking;
  }
}
