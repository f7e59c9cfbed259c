/** Ids of the rows of a label's versions as kt_label keeps them: 8 bytes each, big-endian, by version. */

const idBytes = 8;

/** The ids behind those that are there. */
export function addVersionRows(known: Uint8Array, ids: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(known.length + ids.length * idBytes);
  bytes.set(known);
  for (const [i, id] of ids.entries()) {
    bytes.writeBigUInt64BE(BigInt(id), known.length + i * idBytes);
  }
  return bytes;
}

/** The row of a version; undefined for one that the label does not have. */
export function versionRowAt(rows: Uint8Array, version: number): number | undefined {
  const at = version * idBytes;
  if (!Number.isInteger(version) || at < 0 || at + idBytes > rows.length) return undefined;
  return Number(new DataView(rows.buffer, rows.byteOffset, rows.length).getBigUint64(at));
}

/** All of them, in the order of the versions. */
export function versionRows(rows: Uint8Array): number[] {
  return Array.from({ length: rows.length / idBytes }, (_, i) => versionRowAt(rows, i) ?? 0);
}
