/**
 * A hub of one whose store is an older copy of itself (docs: protocol/group-log): it knows its own word on entries that
 * members bring back, tells members to bring them, and the operator what goes on.
 */
import {
  ConflictError,
  hasReason,
  hex,
  UnavailableError,
  verifyCertified,
  type Log,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  type HubSignature,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import type { AcceptedCommit, OfferedCommit } from '../store/group-store.ts';
import type { NodeStore } from '../store/store.ts';
import { aMember } from './fork-alarm.ts';
import type { HubParts } from './hub-parts.ts';

/** Groups whose time is logged once; more are forgotten, and logged again. */
const loggedMax = 4_096;

export interface RestoredHubParts extends Pick<HubParts, 'domain' | 'keysOf' | 'forks'> {
  readonly store: Pick<NodeStore, 'submitCommit' | 'holdGroup' | 'restoredGroups'>;
  readonly log: Log;
}

export class RestoredHub {
  readonly #parts: RestoredHubParts;
  readonly #logged = new Set<string>();

  constructor(parts: RestoredHubParts) {
    this.#parts = parts;
  }

  /** Tells the operator how many groups this hub may have forgotten something of. */
  async report(): Promise<void> {
    const groups = await this.#parts.store.restoredGroups();
    if (groups === 0) return;
    this.#parts.log.warn('groups of which this hub alone may have lost commits', { groups });
  }

  /** Whether these are the hub's own word, in the term of a hub of one, that it accepted the entry. */
  certified(
    entry: SignedGroupEntry | undefined,
    signatures: readonly HubSignature[],
    hub = '',
  ): { readonly wasCertified?: true } {
    if (entry === undefined || signatures.length === 0) return {};
    const { domain: own, keysOf } = this.#parts;
    const domain = hub === '' ? own : hub;
    const certified = create(CertifiedEntrySchema, { entry, signatures: [...signatures] });
    try {
      verifyCertified(certified, [domain], keysOf);
      return { wasCertified: true };
    } catch (error) {
      if (hasReason(error, 'BAD_SIGNATURE')) return {};
      throw error;
    }
  }

  /** As the store's `submitCommit`; HUB_RESTORED says when to try again. */
  async submit(offered: OfferedCommit): Promise<AcceptedCommit> {
    const { store, log, domain, forks } = this.#parts;
    const { entry, epoch } = offered.parsed;
    try {
      const accepted = await store.submitCommit(offered);
      if (accepted.isNew && offered.wasCertified === true) {
        log.info('a member brought back a commit that this hub had lost', { epoch });
      }
      return accepted;
    } catch (error) {
      if (error instanceof ConflictError && offered.wasCertified === true) {
        // Its own word for two entries of one place: it convicts itself, as an older copy of itself that went on.
        const { group } = entry;
        await forks.look({ group, hubs: [domain], from: aMember, entries: [offered.certified] });
      }
      if (!hasReason(error, 'HUB_RESTORED')) throw error;
      const retryAfterMs = await store.holdGroup(entry.group);
      this.#logOnce(hex(entry.group), retryAfterMs);
      const { message } = error;
      throw new UnavailableError('HUB_RESTORED', message, { retryAfterMs, cause: error });
    }
  }

  #logOnce(group: string, holdMs: number): void {
    if (this.#logged.has(group)) return;
    if (this.#logged.size >= loggedMax) this.#logged.clear();
    this.#logged.add(group);
    const fields = { heldMs: holdMs, groups: this.#logged.size };
    this.#parts.log.warn(
      'a group takes no commits until members brought back what was lost',
      fields,
    );
  }
}
