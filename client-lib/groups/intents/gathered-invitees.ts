/**
 * KeyPackages at hand for what this device wants changed in its groups: fetched once for each intent, so that a
 * lost race burns no others, and kept while some are missing, for a node answers only so many look-ups at once.
 */
import { fetchInvitees, type InvitationParts, type Invitee } from '../../contacts/invitation.ts';
import type { Caller } from '../../dial.ts';
import { isMlsSuite, type MlsGroup } from '../../mls/index.ts';
import { invitedBy, type GroupIntent } from './group-intents.ts';

export interface GatheredInviteesParts extends InvitationParts {
  readonly caller: Caller;
}

export class GatheredInvitees {
  readonly #parts: GatheredInviteesParts;
  /** By intent. */
  readonly #whole = new Map<number, readonly Invitee[]>();
  /** By intent and user, while some are missing. */
  readonly #partly = new Map<number, Map<string, readonly Invitee[]>>();

  constructor(parts: GatheredInviteesParts) {
    this.#parts = parts;
  }

  /** They were fetched before there was an intent. */
  put(intentId: number, invitees: readonly Invitee[]): void {
    this.#whole.set(intentId, invitees);
  }

  /** Whom an intent adds, with all that are missing fetched. Throws what fetchInvitees throws. */
  async of(
    intentId: number,
    wanted: GroupIntent,
    group: MlsGroup,
    signal: AbortSignal,
  ): Promise<readonly Invitee[]> {
    const whole = this.#whole.get(intentId);
    if (whole !== undefined) return whole;
    const { suite } = group;
    const members = new Set(group.members().map(({ userId }) => userId));
    const partly = this.#partly.get(intentId) ?? new Map<string, readonly Invitee[]>();
    this.#partly.set(intentId, partly);
    for (const userId of invitedBy(wanted)) {
      if (partly.has(userId)) continue;
      // Who is here with all devices costs nobody a KeyPackage; the plan finds out.
      const skip = members.has(userId) ? group.members().map((one) => one.identityPub) : [];
      const suites = isMlsSuite(suite) ? [suite] : [];
      const { caller } = this.#parts;
      const found = await fetchInvitees(this.#parts, caller, userId, suites, { skip, signal });
      partly.set(userId, found);
    }
    this.#partly.delete(intentId);
    const invitees = [...partly.values()].flat();
    this.#whole.set(intentId, invitees);
    return invitees;
  }

  forget(intentId: number): void {
    this.#whole.delete(intentId);
    this.#partly.delete(intentId);
  }

  /** Of intents that are over: others may have carried them out. */
  forgetEnded(isOpen: (intentId: number) => boolean): void {
    for (const id of [...this.#whole.keys(), ...this.#partly.keys()]) {
      if (!isOpen(id)) this.forget(id);
    }
  }
}
