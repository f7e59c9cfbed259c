/**
 * What nodes and clients of a run hold, read from their files: queues, rows that wait, marks, and what
 * counters say of them. The bounds are those of docs/protocol, not the program's own constants.
 */
import type { Cluster } from './cluster.ts';
import { numberIn } from './memo.ts';
import type { SimNode } from './node.ts';

interface Measure {
  readonly what: string;
  /** Of one number. */
  readonly sql: string;
  readonly bound: number;
  /** When all has drained; absent: the same. */
  readonly atRest?: number;
}

const most = (rows: string): string => `SELECT coalesce(max(c), 0) FROM (${rows})`;
const count = (rows: string): string => `SELECT count(*) FROM ${rows}`;

function ofNode({ parts }: SimNode): Measure[] {
  const { inboxRows, strangerRows, channelRows, outboxRowsPerPeer } = parts.config.store;
  const noticesMax = 1_000;
  const perLog = (where: string): string =>
    most(
      `SELECT count(*) AS c FROM entry JOIN log ON log.id = entry.log WHERE ${where} GROUP BY log`,
    );
  const of = 'SELECT count(*) FROM entry WHERE entry.log = log.id';
  const queued = 'SELECT count(*) FROM outbox WHERE outbox.peer = peer.id';
  return [
    {
      what: 'rows in one inbox',
      sql: perLog('log.kind = 1'),
      bound: inboxRows + noticesMax,
      atRest: 0,
    },
    {
      what: 'rows of strangers in one inbox',
      sql: perLog('log.kind = 1 AND stranger = 1'),
      bound: strangerRows,
      atRest: 0,
    },
    {
      what: 'notices in one inbox',
      sql: perLog('log.kind = 1 AND entry.kind = 4'),
      bound: noticesMax,
      atRest: 0,
    },
    {
      what: 'rows in one channel',
      sql: perLog('log.kind = 2'),
      bound: channelRows,
      atRest: 0,
    },
    {
      what: 'rows for one peer',
      sql: most('SELECT count(*) AS c FROM outbox GROUP BY peer'),
      bound: outboxRowsPerPeer,
      atRest: 0,
    },
    {
      what: 'dead letters for one peer',
      sql: most('SELECT count(*) AS c FROM dead_letter GROUP BY peer'),
      bound: outboxRowsPerPeer,
    },
    {
      what: 'verdicts of one lane',
      sql: most('SELECT count(*) AS c FROM peer_reject GROUP BY peer, lane'),
      bound: 16_384,
    },
    {
      what: 'commits that are prepared in one group',
      sql: most('SELECT count(*) AS c FROM hub_prepared GROUP BY hub_group'),
      bound: 1,
    },
    {
      what: 'write keys of one channel',
      sql: most('SELECT count(*) AS c FROM channel_key GROUP BY log'),
      bound: 3,
    },
    {
      what: 'payloads that nothing points at',
      sql: count(`payload WHERE id NOT IN (SELECT payload FROM entry UNION SELECT payload FROM outbox
                                           UNION SELECT payload FROM dead_letter UNION SELECT control FROM hub_entry)`),
      bound: 0,
    },
    { what: 'logs whose count is wrong', sql: count(`log WHERE row_count <> (${of})`), bound: 0 },
    {
      what: 'peers whose count is wrong',
      sql: count(`peer WHERE row_count <> (${queued})`),
      bound: 0,
    },
  ];
}

/** Epochs whose keys a device has, of a group as small as these: the one that it is in, and those of an hour. */
const epochs = 65;

const ofClient: readonly Measure[] = [
  {
    what: 'copies that are not sent',
    sql: count(`outbox WHERE state = 'SEALED'`),
    bound: 100_000,
    atRest: 0,
  },
  { what: 'receipts that are due', sql: count('receipt_due'), bound: 100_000, atRest: 0 },
  {
    what: 'requests of one device that wait for an answer',
    sql: most('SELECT count(*) AS c FROM resend_duty GROUP BY asker'),
    bound: 8,
  },
  {
    what: 'intents that are open',
    sql: count(`group_intent WHERE state = 'OPEN'`),
    bound: 1_000,
    atRest: 0,
  },
  { what: 'own commits on their way', sql: count('group_pending'), bound: 1_000, atRest: 0 },
  {
    what: 'epochs before the one of a group',
    sql: most('SELECT count(*) AS c FROM mls_past GROUP BY group_id'),
    bound: epochs - 1,
  },
  {
    what: 'envelope keys of a group',
    sql: most('SELECT count(*) AS c FROM envelope_key GROUP BY group_id'),
    bound: epochs,
  },
  {
    what: 'keys that one sender skipped in an epoch',
    sql: most('SELECT count(*) AS c FROM mls_skipped GROUP BY group_id, epoch, leaf'),
    bound: 256,
  },
  { what: 'own delivery tokens', sql: count('own_token'), bound: 1 },
  { what: 'rows that nothing opens', sql: count('undecryptable'), bound: 10_000 },
  {
    what: 'bytes of messages that are kept',
    sql: 'SELECT coalesce(sum(length(bytes)), 0) FROM ciphertext',
    bound: 64 * 1024 ** 2,
  },
  {
    what: 'bytes in the outbox that nothing points at',
    sql: count(`outbox_payload WHERE id NOT IN
                  (SELECT payload_id FROM outbox WHERE payload_id IS NOT NULL)`),
    bound: 0,
  },
];

/** Looks again and again; the history gets what is more than before, and all of it at the end. */
export class Holdings {
  readonly #cluster: Cluster;
  readonly #greatest = new Map<string, number>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  look(isAtRest: boolean): void {
    const { nodes, clients } = this.#cluster;
    for (const node of nodes) {
      if (!node.isUp) continue;
      const read = (sql: string): number => numberIn(node.path, sql);
      for (const one of ofNode(node)) this.#tell(node.domain, one, read, isAtRest);
    }
    for (const client of clients) {
      if (!client.isUp) continue;
      const read = (sql: string): number => numberIn(client.path, sql);
      for (const one of ofClient) this.#tell(client.name, one, read, isAtRest);
    }
  }

  #tell(
    process: string,
    { what, sql, bound, atRest = bound }: Measure,
    read: (sql: string) => number,
    isAtRest: boolean,
  ): void {
    const held = read(sql);
    const name = `${process} ${what}`;
    if (!isAtRest && held <= (this.#greatest.get(name) ?? -1)) return;
    this.#greatest.set(name, held);
    const { trace } = this.#cluster;
    trace.tell({
      ...{ kind: 'held', atMs: trace.nowMs, process, what, count: held, isAtRest },
      bound: isAtRest ? atRest : bound,
    });
  }
}
