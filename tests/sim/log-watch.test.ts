/** The watch over a node's logs tells what each transaction wrote, and finds what no log may become. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createNodeStore } from '@quicprochat/nodes';
import { RowKind, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { LogWatch, type Written } from './log-watch.ts';
import { cheapenDatabases } from './memo.ts';

interface Driver {
  new (path: string): {
    pragma(text: string): unknown;
    exec(sql: string): unknown;
    close(): unknown;
  };
}

const rid = 'ab'.repeat(32);
const cid = 'cd'.repeat(32);
const peerRid = 'ef'.repeat(32);

/** A row of a log, with its seq as mid and tag. */
const row = (log: number, seq: number): string => `
  INSERT INTO entry (log, seq, mid, tag, kind, payload, size, received_ms, expires_ms)
    VALUES (${log}, ${seq}, x'0${seq}', x'0${seq}', 1, 1, 1, 1, 9);`;
const relayed = (seq: number, kind: number, rids: string): string => `
  INSERT INTO outbox (peer, lane, seq, kind, mid, tag, rids, payload, size, chain, created_ms, expires_ms, dead_ms)
    VALUES (1, 1, ${seq}, ${kind}, x'0${seq}', x'0${seq}', x'${rids}', 1, 1, x'00', 1, 9, 9);
  UPDATE peer_stream SET next_seq = ${seq + 1};`;
const head = (log: number, seq: number): string =>
  `UPDATE log SET head = ${seq} WHERE id = ${log};`;

/** What a watch says after each of these transactions over a store with an inbox (1) and a channel (2). */
async function watched(
  transactions: readonly string[],
  options: { readonly mayExpire?: boolean; readonly isReopened?: boolean } = {},
): Promise<{ readonly written: readonly Written[]; readonly forgotten: readonly string[] }> {
  cheapenDatabases();
  const folder = mkdtempSync(join(tmpdir(), 'qpc-watch-'));
  try {
    const path = join(folder, 'node.db');
    const runtime = { clock: systemClock, log: silentLog, random: systemRandom };
    await createNodeStore({ path, key: systemRandom.bytes(32), runtime });
    const driver: unknown = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers');
    const db = new (driver as Driver)(path);
    try {
      db.pragma('foreign_keys = OFF');
      db.exec(`INSERT INTO log (id, kind, key) VALUES (1, 1, x'${rid}'), (2, 2, x'${cid}');
        INSERT INTO peer (id, domain) VALUES (1, 'blue.example');
        INSERT INTO peer_stream (peer, lane, stream_id, next_seq, acked, chain, tail_chain)
          VALUES (1, 1, x'${'00'.repeat(16)}', 1, 0, x'', x'');`);
      const watch = new LogWatch(options.mayExpire ?? false);
      const node = { domain: 'red.example', path };
      watch.opened(node, false);
      const written = transactions.map((sql) => {
        db.exec(`BEGIN; ${sql} COMMIT;`);
        return watch.written(node);
      });
      if (options.isReopened === true) db.exec(head(1, 1));
      return { written, forgotten: watch.opened(node, false) };
    } finally {
      db.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const both = row(1, 1) + row(1, 2) + head(1, 2) + row(2, 1) + head(2, 1);

test('it tells the rows and the copies for peers of a transaction, and nothing of one that wrote none', async () => {
  const updates = relayed(2, RowKind.ChannelUpdate, cid) + relayed(3, RowKind.ExpiredReport, rid);
  const bothRids = peerRid + rid;
  const first = both + relayed(1, RowKind.Envelope, bothRids) + updates;
  const { written, forgotten } = await watched([first, 'SELECT 1;', row(1, 3) + head(1, 3)]);
  const [one, none, next] = written;
  assert.deepEqual(
    one?.rows.map(({ log, seq }) => [log, seq]),
    [
      [rid, 1],
      [rid, 2],
      [cid, 1],
    ],
  );
  assert.deepEqual(
    one?.relayed.map(({ peer, place }) => [peer, Buffer.from(place).toString('hex')]),
    [
      ['blue.example', peerRid],
      ['blue.example', rid],
    ],
  );
  assert.deepEqual(none, { rows: [], relayed: [], faults: [] });
  assert.deepEqual([next?.rows.map(({ seq }) => seq), next?.relayed], [[3], []]);
  assert.deepEqual([...written.flatMap(({ faults }) => faults), ...forgotten], []);
});

const acked = 'DELETE FROM entry WHERE log = 1 AND seq = 1; UPDATE log SET acked = 1 WHERE id = 1;';
for (const [name, sql, expected] of [
  ['an ack', acked, undefined],
  ['a seq that no row has', head(1, 3), /abab: head went from 2 to 3 with rows $/],
  ['the same in a channel', head(2, 2), /cdcd: head went from 1 to 2 with rows $/],
  ['a seq that is left out', row(1, 4) + head(1, 4), /head went from 2 to 4 with rows 4/],
  [
    'a row that an ack does not cover and that goes with it',
    `${acked} DELETE FROM entry WHERE log = 1;`,
    /acked 1, head 2, 0 rows/,
  ],
  [
    'a row in the middle that goes',
    `${row(1, 3)} ${head(1, 3)} DELETE FROM entry WHERE log = 1 AND seq = 2;`,
    /acked 0, head 3, 2 rows 1 to 3/,
  ],
  ['a head that goes back', head(1, 1), /acked 0, head 2 became acked 0, head 1/],
] as const) {
  test(`what it says of ${name}`, async () => {
    const { written } = await watched([both, sql]);
    const [fault = ''] = written[1]?.faults ?? [];
    if (expected === undefined) assert.equal(fault, '');
    else assert.match(fault, expected);
  });
}

test('rows that expire are missed by nobody where messages live shortly', async () => {
  const expired = `${row(1, 3)} ${head(1, 3)} DELETE FROM entry WHERE log = 1 AND seq = 2;`;
  const { written } = await watched([both, expired], { mayExpire: true });
  assert.deepEqual(written[1]?.faults, []);
});

test('a life that begins behind the end of the one before is found', async () => {
  const { forgotten } = await watched([both], { isReopened: true });
  assert.match(forgotten[0] ?? '', /abab was at 0 to 2, and is at 0 to 1/);
});
