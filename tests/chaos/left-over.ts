/**
 * What rows wait for that still wait at the end, in words. A key id alone says nothing to its device; the stores of
 * all the others together know of which epoch it is.
 */
import type { ClientStore, ParkedRow } from '@quicprochat/client-lib/store';

/** For instance `3 UNKNOWN_KEY of kind 1 of epochs 7, 9 (2); own epochs from 12`. */
export function parkedText(store: ClientStore, all: readonly ClientStore[]): string {
  const groups = new Map<string, ParkedRow[]>();
  for (const row of store.inbox.parked()) {
    const name = `${row.reason} of kind ${row.kind}`;
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const from = store.groups
    .conversations()
    .flatMap(({ groupId }) => [
      store.groups.pastEpochs(groupId)[0]?.epoch ?? store.groups.epoch(groupId),
    ]);
  return [...groups]
    .map(([name, rows]) => {
      const epochs = rows.flatMap(({ reason, waitsFor }) =>
        reason === 'UNKNOWN_KEY' ? [epochOf(Buffer.from(waitsFor, 'hex'), all)] : [],
      );
      const of = epochs.length === 0 ? '' : ` of epochs ${counted(epochs)}`;
      return `${rows.length} ${name}${of}`;
    })
    .concat(`own epochs from ${from.join(', ')}`)
    .join('; ');
}

/**
 * Rows of epochs that this device was never in, as far as the other stores prove it: they are under keys of the group's
 * past that it neither has nor had. What the log says of such keys ends these rows; where no hub keeps the log, it
 * says nothing. For runs in which stores and disks are lost.
 */
export function overtakenCount(store: ClientStore, all: readonly ClientStore[]): number {
  const isOfThePast = (keyId: Uint8Array): boolean =>
    all.some(
      ({ groups }) =>
        groups.isPassedKey(keyId) ||
        groups
          .envelopeKeys(keyId)
          .some(({ groupId, epoch }) => epoch < (store.groups.epoch(groupId) ?? 0n)),
    );
  return store.inbox.parked().filter(({ reason, waitsFor }) => {
    const keyId = Buffer.from(waitsFor, 'hex');
    if (reason !== 'UNKNOWN_KEY' || store.groups.isPassedKey(keyId)) return false;
    return store.groups.envelopeKeys(keyId).length === 0 && isOfThePast(keyId);
  }).length;
}

/** `?`: nobody keeps its key any more, or nobody ever had it. */
function epochOf(keyId: Uint8Array, all: readonly ClientStore[]): string {
  const found = all.flatMap((store) => store.groups.envelopeKeys(keyId));
  return found[0] === undefined ? '?' : String(found[0].epoch);
}

function counted(names: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts]
    .toSorted(([a], [b]) => Number(a) - Number(b))
    .map(([name, times]) => (times === 1 ? name : `${name} (${times})`))
    .join(', ');
}
