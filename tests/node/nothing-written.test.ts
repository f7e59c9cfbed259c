/**
 * What a refused call leaves behind: nothing. Each row of the method table is called with requests that its schema
 * allows, by each class of caller that may, and after each refusal every table holds what it held before.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { openForReading } from '@quicprochat/nodes';
import { call, methods, QpcError, type Method } from '@quicprochat/proto';
import { memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { Dice } from '../cluster/dice.ts';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';
import { RandomMessages } from '../fuzz/random-message.ts';
import { CallersScene } from './callers-scene.ts';

/** These end the account or the session of who asks. */
const leftOut = new Set(['DeleteAccount', 'RevokeDevice', 'Logout']);
const rows: readonly Method[] = Object.values(methods).filter(({ name }) => !leftOut.has(name));
const callsPerRow = 6;

/**
 * The node writes these by itself, whatever it was asked meanwhile: how many commits there were, when a peer is tried
 * again, evaluations of the log's VRF that need not be made a second time.
 */
const byItself = new Set(['meta', 'peer', 'kt_vrf']);

/** The reason of a refusal; '' where there was none. */
async function reasonOf(connection: Connection, row: Method, random: RandomMessages) {
  try {
    await call(connection, row, random.requestOf(row), { deadlineMs: 20_000 });
    return '';
  } catch (error) {
    // What does not encode never left.
    return error instanceof QpcError ? error.reason : '';
  }
}

/** A hash of each table's rows. */
class Tables implements Disposable {
  readonly #db: ReturnType<typeof openForReading>;
  readonly #names: readonly string[];

  constructor({ config, key }: LocalNode) {
    this.#db = openForReading(config.databasePath, key.slice());
    this.#names = this.#db
      .prepare<[], string>(`SELECT name FROM sqlite_schema WHERE type = 'table'`)
      .pluck()
      .all();
  }

  look(): ReadonlyMap<string, string> {
    return new Map(
      this.#names.map((name) => {
        const hash = createHash('sha256');
        for (const row of this.#db.prepare<[], unknown[]>(`SELECT * FROM "${name}"`).raw().all())
          hash.update(JSON.stringify(row));
        return [name, hash.digest('hex')];
      }),
    );
  }

  changedSince(before: ReadonlyMap<string, string>): readonly string[] {
    const changed = [...this.look()].filter(([name, hash]) => before.get(name) !== hash);
    return changed.map(([name]) => name).filter((name) => !byItself.has(name));
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}

test('a refused call of any row leaves every table as it was', async (t) => {
  const dice = new Dice();
  t.diagnostic(`QPC_SEED=${dice.seed}`);
  const rates = [...new Set(rows.map(({ rate }) => rate)), 'sendAnonymous']
    .map((name) => name.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`))
    .map((name) => `[rates.${name}]\nper_second = 100000\nburst = 100000\n`);
  const network = memoryNetwork(testRuntime);
  const node = await LocalNode.create(network, 'blue.example', rates.join(''));
  await using scene = new CallersScene(node);
  await scene.start();
  using tables = new Tables(node);
  const random = new RandomMessages(dice, {
    bytes: [
      scene.person.content.devices[0]?.identityPub ?? dice.bytes(32),
      dice.bytes(32),
      dice.bytes(16),
    ],
    texts: ['alice@blue.example', 'bob@blue.example', 'red.example', 'blue.example'],
  });
  const refused = new Set<string>();
  for (const row of rows) {
    for (const [caller, connection] of scene.callers) {
      if (!row.callers.includes(caller)) continue;
      for (let n = 0; n < callsPerRow; n += 1) {
        const before = tables.look();
        const reason = await reasonOf(connection, row, random);
        if (reason === '') continue;
        refused.add(row.name);
        const changed = tables.changedSince(before);
        assert.deepEqual(changed, [], `${row.name} by ${caller}: ${reason}`);
      }
    }
  }
  // Some rows ask for nothing that could be wrong.
  assert.ok(refused.size > (rows.length * 3) / 4, `${refused.size} rows refused something`);
  const device = scene.callers.get('device');
  assert.ok(device !== undefined);
  const before = tables.look();
  await call(device, methods.setDeliveryTokens, { hashes: [dice.bytes(32)] });
  assert.deepEqual(tables.changedSince(before), ['token_set'], 'what is granted is seen');
});
