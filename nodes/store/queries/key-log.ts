/**
 * Writes of the key transparency log: one entry with its head, tiles, versions and the account rows
 * that its updates mean, in one transaction. Everything is checked before the first write.
 */
import { ConflictError, InvalidArgumentError } from '@quicprochat/proto';
import type { LogBatch } from '@quicprochat/kt-log';
import type { Operations, QueryContext } from '../operations.ts';
import type { AccountEffect } from '../account-store.ts';
import { accountEffects } from './account-effects.ts';
import { decodeDeltas, encodeDeltas } from './deltas.ts';
import { treeNumbers } from './key-log-reads.ts';
import { addVersionRows, versionRows } from './version-rows.ts';

type KeyLogOperations = Pick<
  Operations,
  'commitEntry' | 'eraseLabel' | 'addEvaluations' | 'addCosignatures' | 'closedLabels'
>;

/** Closed labels that one call tells of. */
const closedLabelsMax = 1_000;

interface LabelRow {
  readonly id: number;
  readonly positions: Uint8Array;
  readonly version_rows: Uint8Array;
}

/** New versions of one label. */
interface Growth {
  readonly label: Uint8Array;
  readonly versions: LogBatch['versions'][number][];
}

export function keyLogQueries(context: QueryContext): KeyLogOperations {
  const { db, needLastRoom } = context;
  const effects = accountEffects(context);
  const newestSize = db.prepare<[], number | null>('SELECT max(size) FROM kt_head').pluck();
  const newestTile = db.prepare<[], number | null>('SELECT max(id) FROM kt_tile').pluck();
  const isHead = db.prepare<[number], number>('SELECT 1 FROM kt_head WHERE size = ?').pluck();
  const insertEntry = db.prepare<[number, number, Uint8Array, number, Uint8Array]>(
    `INSERT INTO kt_entry (position, timestamp_ms, prefix_root, root_tile, superseded)
     VALUES (?, ?, ?, ?, ?)`,
  );
  const insertHead = db.prepare<[number, Uint8Array, Uint8Array, Uint8Array, Uint8Array]>(
    `INSERT INTO kt_head (size, root, signature, rfc6962_root, note_signature)
     VALUES (?, ?, ?, ?, ?)`,
  );
  const insertTile = db.prepare<[number, Uint8Array]>(
    'INSERT INTO kt_tile (id, bytes) VALUES (?, ?)',
  );
  const insertTreeTile = db.prepare<[number, number, number, Uint8Array]>(
    'INSERT INTO kt_ltile (tree, level, n, bytes) VALUES (?, ?, ?, ?)',
  );
  const labelRow = db.prepare<[Uint8Array], LabelRow>(
    'SELECT id, positions, version_rows FROM kt_label WHERE label = ?',
  );
  const insertLabel = db.prepare<[Uint8Array, Uint8Array]>(
    'INSERT INTO kt_label (label, positions) VALUES (?, ?)',
  );
  const setVersions = db.prepare<[Uint8Array, Uint8Array, number]>(
    'UPDATE kt_label SET positions = ?, version_rows = ? WHERE id = ?',
  );
  const insertVersion = db.prepare<[number, number, Uint8Array, Uint8Array, Uint8Array]>(
    `INSERT INTO kt_version (label, version, commitment, opening, value) VALUES (?, ?, ?, ?, ?)`,
  );
  // A VRF has one value: the one that is there already is the same.
  const insertVrf = db.prepare<[number, number, Uint8Array, Uint8Array]>(
    `INSERT INTO kt_vrf (label, version, output, proof) VALUES (?, ?, ?, ?)
     ON CONFLICT (label, version) DO NOTHING`,
  );
  const insertCosig = db.prepare<[number, string, number, Uint8Array]>(
    `INSERT INTO kt_cosig (size, cosigner, key_id, signature) VALUES (?, ?, ?, ?)
     ON CONFLICT (size, cosigner, key_id) DO NOTHING`,
  );
  const forgetVersion = db.prepare<[number]>('DELETE FROM kt_version WHERE id = ?');
  const forgetLabel = [
    'DELETE FROM kt_vrf WHERE label = ?',
    'DELETE FROM kt_label WHERE id = ?',
  ].map((sql) => db.prepare<[number]>(sql));
  const forgetClosing = db.prepare<[Uint8Array]>('DELETE FROM kt_closing WHERE label = ?');
  const closings = db.prepare<[number], { readonly label: Uint8Array; readonly position: number }>(
    'SELECT label, position FROM kt_closing ORDER BY position LIMIT (? + 0)',
  );

  function needNext({ position, head, tiles }: LogBatch): void {
    const newest = newestTile.get() ?? 0;
    const isNext = position === (newestSize.get() ?? 0) && head.size === position + 1;
    if (!isNext || tiles.some(({ id }) => id <= newest)) {
      throw new ConflictError('SEQ_CONFLICT', `key log: entry ${position} is not the next one`);
    }
  }

  function needNextVersions({ label, versions }: Growth): void {
    const row = labelRow.get(label);
    const before = row === undefined ? 0 : decodeDeltas(row.positions).length;
    const isNext = versions.every(({ version }, i) => version === before + i);
    if (!isNext) throw new ConflictError('SEQ_CONFLICT', 'key log: a version is not the next one');
  }

  function ensureLabel(label: Uint8Array): LabelRow {
    const known = labelRow.get(label);
    if (known !== undefined) return known;
    const nothing = new Uint8Array();
    const id = Number(insertLabel.run(label, nothing).lastInsertRowid);
    return { id, positions: nothing, version_rows: nothing };
  }

  function grow(position: number, { label, versions }: Growth): void {
    const { id, positions, version_rows: known } = ensureLabel(label);
    const added = versions.map(() => position);
    const rows = versions.map(({ version, commitment, opening, value }) =>
      Number(insertVersion.run(id, version, commitment, opening, value).lastInsertRowid),
    );
    const all = encodeDeltas([...decodeDeltas(positions), ...added]);
    setVersions.run(all, addVersionRows(known, rows), id);
  }

  return {
    commitEntry(nowMs, batch) {
      const { position, entry, head } = batch;
      const growths = growthsOf(batch);
      needNext(batch);
      // Only nodes/ hands effects to the log, and only of this type.
      const rows = batch.effects as readonly AccountEffect[];
      effects.check(rows, batch.versions);
      for (const growth of growths) needNextVersions(growth);
      needLastRoom();
      const superseded = encodeDeltas(batch.superseded.toSorted((a, b) => a - b));
      insertEntry.run(position, entry.timestampMs, entry.prefixRoot, entry.rootTile, superseded);
      insertHead.run(head.size, head.root, head.signature, head.rfc6962Root, head.noteSignature);
      for (const { id, bytes } of batch.tiles) insertTile.run(id, bytes);
      for (const { tree, tile } of batch.logTiles) {
        insertTreeTile.run(treeNumbers[tree], tile.level, tile.index, tile.bytes);
      }
      for (const growth of growths) grow(position, growth);
      effects.apply(nowMs, position, rows);
    },

    eraseLabel(_nowMs, label) {
      const known = labelRow.get(label);
      if (known !== undefined) {
        for (const row of versionRows(known.version_rows)) forgetVersion.run(row);
        for (const statement of forgetLabel) statement.run(known.id);
      }
      forgetClosing.run(label);
    },

    addEvaluations(_nowMs, evaluations) {
      if (evaluations.length > 0) needLastRoom();
      for (const { label, version, evaluation } of evaluations) {
        const known = labelRow.get(label);
        if (known !== undefined) {
          insertVrf.run(known.id, version, evaluation.output, evaluation.proof);
        }
      }
    },

    addCosignatures(_nowMs, size, signatures) {
      if (isHead.get(size) === undefined) {
        throw new InvalidArgumentError('BAD_FIELD', `size: ${size} is not a size of this log`);
      }
      for (const { name, keyId, signature } of signatures) {
        insertCosig.run(size, name, keyId, signature);
      }
    },

    closedLabels: () => closings.all(closedLabelsMax),
  };
}

/** The new versions of each label, in their order. */
function growthsOf({ versions }: LogBatch): readonly Growth[] {
  const growths = new Map<string, Growth>();
  for (const version of versions) {
    const name = Buffer.from(version.label).toString('latin1');
    const growth = growths.get(name) ?? { label: version.label, versions: [] };
    growth.versions.push(version);
    growths.set(name, growth);
  }
  return [...growths.values()];
}
