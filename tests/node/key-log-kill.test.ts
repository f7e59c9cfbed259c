/**
 * Crash test of account changes: a real qpcd is killed with SIGKILL while people register and change
 * their devices. Afterwards account and log say the same, and whoever got an OK finds its version.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasReason, manifestValue, methods, TransportError } from '@quicprochat/proto';
import type { SignedManifest } from '@quicprochat/proto/messages';
import { dialNode } from '../cluster/crashing-node.ts';
import { Dice } from '../cluster/dice.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { Person, type PersonDevice } from './account-rig.ts';
import { LogView } from './log-view.ts';

const kills = 5;
const workers = 6;
/** The node lives on for so long after its first OK (ms, random below). */
const lifeMs = 600;
const config = [
  '[kt]\nbatch_ms = 20\nvrf_threads = 0',
  '[kt.registrations]\nper_second = 1000\nburst = 1000',
  '[rates.auth]\nper_second = 1000\nburst = 1000',
  '[rates.auth_per_user]\nper_second = 1000\nburst = 1000',
  '[rates.keys]\nper_second = 1000\nburst = 1000',
  '[rates.lookup]\nper_second = 1000\nburst = 1000',
].join('\n');

/** What one person's last call promised, or may have done. */
interface Expected {
  readonly person: Person;
  /** Answered OK. */
  sure: SignedManifest | undefined;
  /** Asked for and not answered. */
  perhaps: SignedManifest | undefined;
}

test(
  'account and log agree after kill -9, and what was answered is in both',
  { timeout: 180_000 },
  async (t: TestContext) => {
    const dice = new Dice();
    t.diagnostic(`seed ${dice.seed} (QPC_SEED=${dice.seed} plans the same kills)`);
    const directory = mkdtempSync(join(tmpdir(), 'qpc-log-kill-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    await using node = await NodeProcess.init('red.example', join(directory, 'red'), config);
    const expected: Expected[] = [];
    for (let life = 0; life < kills; life += 1) {
      await node.start();
      const town = new Town(node, `l${life}`, expected);
      const working = Promise.all(Array.from({ length: workers }, () => town.work()));
      await Promise.race([town.answered, working]);
      await Promise.race([sleep(dice.int(lifeMs)), working]);
      const gone = node.kill();
      await town.close();
      await gone;
      await working;
    }
    await node.start();
    await using reader = new Person('reader@red.example', (key) => dialNode(node.address, key));
    const device = await reader.newDevice();
    await device.register();
    const view = await LogView.of(device.connection);
    let sure = 0;
    let lost = 0;
    for (const one of expected) {
      const outcome = await check(view, device, one);
      if (one.sure !== undefined) sure += 1;
      if (outcome === 'perhaps') lost += 1;
    }
    t.diagnostic(`${sure} answered, ${lost} done without an answer, ${expected.length} people`);
    assert.ok(sure >= kills, 'somebody was registered in each life');
  },
);

/** The people of one life of the node. */
class Town {
  readonly #node: NodeProcess;
  readonly #name: string;
  readonly #expected: Expected[];
  readonly #people = new Set<Person>();
  readonly #answered = Promise.withResolvers<void>();
  #isClosed = false;
  #count = 0;

  constructor(node: NodeProcess, name: string, expected: Expected[]) {
    this.#node = node;
    this.#name = name;
    this.#expected = expected;
  }

  /** Resolves when somebody was registered. */
  get answered(): Promise<void> {
    return this.#answered.promise;
  }

  /** Registers people, gives each a second device and takes it again, until the node is gone. */
  async work(): Promise<void> {
    while (!this.#isClosed) {
      this.#count += 1;
      const { address } = this.#node;
      const userId = `${this.#name}-${this.#count}@red.example`;
      const person = new Person(userId, (key) => dialNode(address, key));
      this.#people.add(person);
      try {
        await this.#live(person);
      } catch (error) {
        // The node died under the call; every other error is a failure.
        if (!(error instanceof TransportError)) throw error;
      } finally {
        this.#people.delete(person);
        await person[Symbol.asyncDispose]().catch(() => undefined);
      }
    }
  }

  async #live(person: Person): Promise<void> {
    const one: Expected = { person, sure: undefined, perhaps: undefined };
    const first = await person.newDevice();
    one.perhaps = first.firstManifest();
    this.#expected.push(one);
    await first.register(one.perhaps);
    one.sure = one.perhaps;
    this.#answered.resolve();
    const second = await person.newDevice();
    await second.login();
    one.perhaps = person.withDevice(second);
    await second.call(methods.registerDevice, { manifest: one.perhaps });
    person.manifest = one.sure = one.perhaps;
    one.perhaps = person.withoutDevice(second);
    await first.call(methods.revokeDevice, { manifest: one.perhaps });
    person.manifest = one.sure = one.perhaps;
  }

  /** Breaks off every call: nobody waits for a node that is dead. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(Array.from(this.#people, (person) => person[Symbol.asyncDispose]()));
  }
}

/** Which of the two versions log and account hold; they have to hold the same. */
async function check(
  view: LogView,
  device: PersonDevice,
  { person, sure, perhaps }: Expected,
): Promise<'sure' | 'perhaps' | 'none'> {
  const { userId, label } = person;
  const account = await device.call(methods.resolveUser, { userId }).catch(unknown);
  const logged = await view.manifestOf(device.connection, label).catch(unknown);
  if (account?.manifest === undefined || logged === undefined) {
    assert.equal(account, logged, `${userId}: in one of account and log only`);
    assert.equal(sure, undefined, `${userId}: was answered and is gone`);
    return 'none';
  }
  const value = manifestValue(account.manifest);
  assert.deepEqual(manifestValue(logged.signed), value, userId);
  const isSure = sure !== undefined && Buffer.compare(manifestValue(sure), value) === 0;
  const isPerhaps = perhaps !== undefined && Buffer.compare(manifestValue(perhaps), value) === 0;
  assert.ok(isSure || isPerhaps, `${userId}: holds what nobody asked for last`);
  return isSure ? 'sure' : 'perhaps';
}

function unknown(error: unknown): undefined {
  assert.ok(hasReason(error, 'UNKNOWN_USER'), String(error));
}
