/**
 * What this device told others about commits since it started, so that nobody hears the same again and again. Only
 * what it sent itself: what a device claims to know, anybody may have written.
 */
import { hex } from '@quicprochat/proto';
import { nameOf, standingLimits } from './standing-rules.ts';
import type { VoteRow } from '../../store/standing-rows.ts';

export class ToldVotes {
  /** By entry and device: votes that were sent to the device. */
  readonly #told = new Map<string, Set<string>>();
  /** When a device was last told of an entry that is none here. */
  readonly #denied = new Map<string, number>();

  remember(hash: Uint8Array, device: Uint8Array, votes: readonly VoteRow[]): void {
    if (this.#told.size > standingLimits.told) this.#told.clear();
    const key = `${hex(hash)} ${hex(device)}`;
    const known = this.#told.get(key) ?? new Set<string>();
    for (const vote of votes) known.add(nameOf(vote));
    this.#told.set(key, known);
  }

  hasNews(hash: Uint8Array, device: Uint8Array, votes: readonly VoteRow[]): boolean {
    const known = this.#told.get(`${hex(hash)} ${hex(device)}`);
    return votes.some((vote) => known?.has(nameOf(vote)) !== true);
  }

  /** Whether the device may hear of one that is none here; from then on not soon again. */
  mayDeny(device: Uint8Array, nowMs: number): boolean {
    const name = hex(device);
    if (nowMs - (this.#denied.get(name) ?? -Infinity) < standingLimits.denyMs) return false;
    if (this.#denied.size > standingLimits.told) this.#denied.clear();
    this.#denied.set(name, nowMs);
    return true;
  }
}
