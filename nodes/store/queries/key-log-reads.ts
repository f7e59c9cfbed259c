/**
 * Reads of the key transparency log. Each looks at committed rows that never change (those of an
 * erased label go), so they run on any connection, outside of a transaction.
 */
import { DataLossError } from '@quicprochat/proto';
import type { LogTreeName, StoredEntry, StoredHead, TreeStore } from '@quicprochat/kt-log';
import type { SqlDatabase } from '../sqlite.ts';
import { decodeDeltas } from './deltas.ts';
import { plainBytes } from './plain-bytes.ts';
import { versionRowAt } from './version-rows.ts';

type ReadName = Exclude<keyof TreeStore, 'commit' | 'erase' | 'addEvaluations' | 'addCosignatures'>;

/** The reading half of a TreeStore, without promises. */
export type KeyLogReads = {
  readonly [N in ReadName]: (
    ...args: Parameters<TreeStore[N]>
  ) => Awaited<ReturnType<TreeStore[N]>>;
};

/** As in kt_ltile. */
export const treeNumbers = { keytrans: 1, rfc6962: 2 } as const satisfies Record<
  LogTreeName,
  number
>;

interface HeadRow {
  readonly size: number;
  readonly root: Uint8Array;
  readonly signature: Uint8Array;
  readonly rfc6962_root: Uint8Array;
  readonly note_signature: Uint8Array;
}

interface EntryRow {
  readonly timestamp_ms: number;
  readonly prefix_root: Uint8Array;
  readonly root_tile: number;
}

interface VersionRow {
  readonly commitment: Uint8Array;
  readonly opening: Uint8Array;
  readonly value: Uint8Array;
}

export function keyLogReads(db: SqlDatabase): KeyLogReads {
  const headColumns = 'size, root, signature, rfc6962_root, note_signature';
  const newest = db.prepare<[], HeadRow>(
    `SELECT ${headColumns} FROM kt_head ORDER BY size DESC LIMIT 1`,
  );
  const headOfSize = db.prepare<[number], HeadRow>(
    `SELECT ${headColumns} FROM kt_head WHERE size = ?`,
  );
  const entriesBetween = db.prepare<[number, number], EntryRow>(
    `SELECT timestamp_ms, prefix_root, root_tile FROM kt_entry
      WHERE position >= ? AND position < ? ORDER BY position`,
  );
  const tile = db.prepare<[number], Buffer>('SELECT bytes FROM kt_tile WHERE id = ?').pluck();
  const treeTile = db
    .prepare<[number, number, number], Buffer>(
      'SELECT bytes FROM kt_ltile WHERE tree = ? AND level = ? AND n = ?',
    )
    .pluck();
  const positionsOf = db
    .prepare<[Uint8Array], Buffer>('SELECT positions FROM kt_label WHERE label = ?')
    .pluck();
  const labelRow = db.prepare<
    [Uint8Array],
    { readonly id: number; readonly positions: Buffer; readonly version_rows: Buffer }
  >('SELECT id, positions, version_rows FROM kt_label WHERE label = ?');
  const labelId = db
    .prepare<[Uint8Array], number>('SELECT id FROM kt_label WHERE label = ?')
    .pluck();
  // Of this label: the row of an erased one may have become another's between the two statements.
  const versionRow = db.prepare<[number, number], VersionRow>(
    'SELECT commitment, opening, value FROM kt_version WHERE id = ? AND label = ?',
  );
  const vrfRow = db.prepare<
    [number, number],
    { readonly output: Uint8Array; readonly proof: Uint8Array }
  >('SELECT output, proof FROM kt_vrf WHERE label = ? AND version = ?');
  const cosigs = db.prepare<
    [number],
    { readonly cosigner: string; readonly key_id: number; readonly signature: Uint8Array }
  >('SELECT cosigner, key_id, signature FROM kt_cosig WHERE size = ? ORDER BY id');

  return {
    newestHead: () => headOf(newest.get()),
    head: (size) => headOf(headOfSize.get(size)),

    entries(from, to) {
      const rows = entriesBetween.all(from, to);
      if (rows.length !== to - from) throw missing(`entries ${from} to ${to}`);
      return rows.map((row): StoredEntry => ({
        timestampMs: row.timestamp_ms,
        prefixRoot: plainBytes(row.prefix_root),
        rootTile: row.root_tile,
      }));
    },

    tiles: (ids) =>
      ids.map((id) => {
        const bytes = tile.get(id);
        if (bytes === undefined) throw missing(`prefix tile ${id}`);
        return plainBytes(bytes);
      }),

    logTile(tree, level, index) {
      const bytes = treeTile.get(treeNumbers[tree], level, index);
      if (bytes === undefined) throw missing(`${tree} tile ${level}/${index}`);
      return plainBytes(bytes);
    },

    positions(label) {
      const positions = positionsOf.get(label);
      return positions === undefined ? [] : decodeDeltas(positions);
    },

    versions(label, versions) {
      const known = labelRow.get(label);
      const positions = known === undefined ? [] : decodeDeltas(known.positions);
      return versions.map((version) => {
        const position = positions[version];
        const at = known && versionRowAt(known.version_rows, version);
        if (known === undefined || position === undefined || at === undefined) return undefined;
        const row = versionRow.get(at, known.id);
        // Erased between the two statements.
        if (row === undefined) return undefined;
        return {
          position,
          commitment: plainBytes(row.commitment),
          opening: plainBytes(row.opening),
          value: plainBytes(row.value),
        };
      });
    },

    evaluations(label, versions) {
      const id = labelId.get(label);
      return versions.map((version) => {
        const row = id === undefined ? undefined : vrfRow.get(id, version);
        return row && { output: plainBytes(row.output), proof: plainBytes(row.proof) };
      });
    },

    cosignatures: (size) =>
      cosigs.all(size).map((row) => ({
        name: row.cosigner,
        keyId: row.key_id,
        signature: plainBytes(row.signature),
      })),
  };
}

function headOf(row: HeadRow | undefined): StoredHead | undefined {
  return (
    row && {
      size: row.size,
      root: plainBytes(row.root),
      signature: plainBytes(row.signature),
      rfc6962Root: plainBytes(row.rfc6962_root),
      noteSignature: plainBytes(row.note_signature),
    }
  );
}

function missing(what: string): DataLossError {
  return new DataLossError('STORE_CHANGED', `key log: ${what} missing`);
}
