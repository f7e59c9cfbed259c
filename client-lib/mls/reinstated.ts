/**
 * The group of a device that believed to be removed, and was not: the commit that took it out is none, by the
 * word of those who stayed (docs/protocol/group-log.md, "A removal that is none").
 */
import type { MlsParts } from './context.ts';
import { MlsGroup, stateOf } from './group.ts';
import { spendHandshakeKey } from './spent-handshake.ts';
import type { Wipe } from './wipe.ts';

/**
 * The same epoch, active. A commit that was made in it before the removal took a handshake key, so the next one takes another.
 */
export async function reinstated(
  parts: MlsParts,
  group: MlsGroup,
): Promise<{ readonly next: MlsGroup; readonly wipe: Wipe }> {
  const active = new MlsGroup({ ...stateOf(group), groupActiveState: { kind: 'active' } });
  return spendHandshakeKey(parts, active);
}
