/** What the rules of a group look at: what a commit changes, and the group at its parent epoch. */
import type { GroupContextInfo } from './group-extensions.ts';
import type { Member } from './group.ts';
import type { Identity } from './identity.ts';

/** What a commit changes, besides its committer's keys. */
export interface CommitEffects {
  readonly added: readonly Identity[];
  readonly removed: readonly Member[];
  /** What the context's extensions become; undefined: they stay. */
  readonly context: GroupContextInfo | undefined;
}

/** What the rules look at: a group at the parent epoch. */
export interface ParentEpoch extends GroupContextInfo {
  members(): readonly Member[];
}
