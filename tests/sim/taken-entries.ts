/** Which of the entries that somebody brought to a hub of three are in its log now: of what it does not want, or cannot place, it says nothing. */
import type { OperationArgs, OperationResult } from '@quicprochat/nodes/store/simulation';

type Installed = OperationArgs<'installEntries'>[0];

/** `end`: what the store answered. Those that were there before are among them. */
export function takenEntries(
  { entries, position, isBrought }: Installed,
  end: OperationResult<'installEntries'>,
): Installed['entries'] {
  const taken = entries.filter((_, index) => position + index <= end.position);
  const newest = taken.at(-1)?.parsed.hash;
  // What a member brings beside an entry that is here counts for nothing.
  const isEnd = newest === undefined || Buffer.compare(newest, end.head) === 0;
  return isBrought === true && !isEnd ? [] : taken;
}
