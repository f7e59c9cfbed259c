/**
 * Random operations on groups, all members compared after each: epoch authenticator, member
 * list, exporter, and that messages of everybody reach everybody. Whoever is removed must not
 * follow. A seed that failed is to become a named case; QPC_SEED runs one more of your own.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason, systemRandom } from '@quicprochat/proto';
import type { CryptoProvider } from 'ts-mls';
import { defaultCryptoProvider } from 'ts-mls';
import { acceptCommit, encodeGroup, mandatorySuite, restoreGroup, xwingSuite } from './index.ts';
import type { MlsGroup, MlsSuite } from './index.ts';
import { SeededRandom, TestWorld, keyPackageOf } from './test-members.ts';
import type { TestDevice } from './test-members.ts';

const operationsPerSeed = 60;
const membersMax = 20;
const none = new Uint8Array(0);

/** One conversation under a seed; every step compares all members. */
class Play {
  readonly #random: SeededRandom;
  readonly #suite: MlsSuite;
  readonly #world: TestWorld;
  readonly #providers: readonly (CryptoProvider | undefined)[];
  readonly #groups = new Map<TestDevice, MlsGroup>();
  readonly #used = new Set<string>();
  #names = 0;

  constructor(seed: string, suite: MlsSuite, providers: readonly (CryptoProvider | undefined)[]) {
    this.#random = new SeededRandom(seed);
    this.#suite = suite;
    this.#providers = providers;
    this.#world = new TestWorld({ random: this.#random, mayCommit: () => true });
  }

  async run(operations: number): Promise<void> {
    const creator = this.#newDevice();
    this.#groups.set(
      creator,
      await creator.mls.createGroup({ suite: this.#suite, ...creator, name: 'play' }),
    );
    await this.#commit(creator, await this.#newcomers(4), []);
    for (let i = 0; i < operations; i++) await this.#step();
  }

  async #step(): Promise<void> {
    const devices = [...this.#groups.keys()];
    const [actor] = this.#random.pick(devices, 1);
    assert.ok(actor);
    const others = devices.filter((device) => device !== actor);
    switch (devices.length < 3 ? 0 : this.#random.below(7)) {
      case 0:
      case 1: {
        const room = Math.max(0, membersMax - devices.length);
        await this.#commit(
          actor,
          await this.#newcomers(Math.min(room, 1 + this.#random.below(3))),
          [],
        );
        break;
      }
      case 2:
      case 3:
        await this.#commit(actor, [], this.#random.pick(others, 1 + this.#random.below(3)));
        break;
      case 4: {
        const gone = this.#random.pick(others, 1);
        await this.#commit(actor, await this.#newcomers(1 + this.#random.below(2)), gone);
        break;
      }
      case 5:
        await this.#commit(actor, [], []);
        break;
      default:
        await this.#talk(actor);
    }
  }

  #newDevice(): TestDevice {
    const provider = this.#providers[this.#names % this.#providers.length];
    return this.#world.device(`member${this.#names++}`, provider);
  }

  async #newcomers(count: number): Promise<Newcomer[]> {
    const newcomers: Newcomer[] = [];
    for (let i = 0; i < count; i++) {
      const device = this.#newDevice();
      newcomers.push({ device, row: await keyPackageOf(device, this.#suite) });
    }
    return newcomers;
  }

  async #commit(actor: TestDevice, add: Newcomer[], gone: TestDevice[]): Promise<void> {
    const group = this.#group(actor);
    const remove = gone.map((device) => this.#group(device).ownLeafIndex);
    const made = await actor.mls.commit(group, {
      add: add.map(({ row }) => row.publicBytes),
      remove,
    });
    // A message that crosses the commit: opened by those who have moved on already.
    const [author] = this.#random.pick(
      [...this.#groups.keys()].filter((d) => d !== actor),
      1,
    );
    const crossing = author === undefined ? undefined : await this.#send(author);

    for (const [device, old] of this.#groups) {
      if (device === actor) continue;
      const result = await device.mls.process(old, made.commit);
      assert.equal(result.kind, 'commit');
      assert.equal(result.isSelfRemoved, gone.includes(device));
      result.wipe();
      this.#groups.set(device, result.next);
    }
    const accepted = acceptCommit(this.#group(actor), made.pending);
    accepted.wipe();
    this.#groups.set(actor, accepted.next);

    const former = gone.map((device) => [device, this.#group(device)] as const);
    for (const [device] of former) this.#groups.delete(device);
    for (const { device, row } of add) {
      assert.ok(made.welcome);
      const joined = await device.mls.joinFromWelcome(made.welcome, [row], device.signatureKey);
      this.#groups.set(device, joined.group);
    }
    if (crossing !== undefined) {
      const newcomers = new Set(add.map(({ device }) => device));
      await this.#receive(crossing, (device) => !newcomers.has(device));
    }
    await this.#compare();
    await this.#shutOut(former);
  }

  async #shutOut(former: readonly (readonly [TestDevice, MlsGroup])[]): Promise<void> {
    const [author] = this.#random.pick([...this.#groups.keys()], 1);
    if (author === undefined || former.length === 0) return;
    const sent = await this.#send(author);
    for (const [device, group] of former) {
      assert.equal(group.isActive, false);
      await assert.rejects(device.mls.process(group, sent.ciphertext), (error) =>
        hasReason(error, 'EPOCH_AHEAD'),
      );
    }
    await this.#receive(sent);
  }

  async #talk(author: TestDevice): Promise<void> {
    const sent: Sent[] = [];
    for (let i = 0; i <= this.#random.below(3); i++) sent.push(await this.#send(author));
    for (const one of this.#random.pick(sent, sent.length)) await this.#receive(one);
    // A restart of one member: everything goes on from stored rows.
    const [device] = this.#random.pick([...this.#groups.keys()], 1);
    assert.ok(device);
    this.#groups.set(device, restoreGroup(encodeGroup(this.#group(device))));
    await this.#compare();
  }

  async #send(author: TestDevice): Promise<Sent> {
    const text = this.#random.bytes(this.#random.below(600));
    const group = this.#group(author);
    const sent = await author.mls.encrypt(group, text, none);
    sent.wipe();
    this.#groups.set(author, sent.next);
    const use = `${group.epoch}/${group.ownLeafIndex}/${sent.generation}`;
    assert.ok(!this.#used.has(use), `generation used twice: ${use}`);
    this.#used.add(use);
    return { author, text, ciphertext: sent.ciphertext };
  }

  async #receive(sent: Sent, who: (device: TestDevice) => boolean = () => true): Promise<void> {
    for (const [device, group] of this.#groups) {
      if (device === sent.author || !who(device)) continue;
      const result = await device.mls.process(group, sent.ciphertext);
      assert.equal(result.kind, 'application');
      assert.deepEqual(result.plaintext, sent.text);
      assert.deepEqual(result.sender.identityPub, sent.author.signatureKey.publicKey);
      result.wipe();
      this.#groups.set(device, result.next);
    }
  }

  async #compare(): Promise<void> {
    const views = await Promise.all(
      [...this.#groups].map(async ([device, group]) => ({
        epoch: group.epoch,
        authenticator: Buffer.from(group.epochAuthenticator).toString('hex'),
        members: group.members(),
        exported: await device.mls.exporter(group, 'qpc commit', group.groupId, 32),
      })),
    );
    const [first] = views;
    for (const view of views) assert.deepEqual(view, first);
    assert.equal(first?.members.length, this.#groups.size);
  }

  #group(device: TestDevice): MlsGroup {
    const group = this.#groups.get(device);
    assert.ok(group);
    return group;
  }
}

interface Newcomer {
  readonly device: TestDevice;
  readonly row: Awaited<ReturnType<typeof keyPackageOf>>;
}

interface Sent {
  readonly author: TestDevice;
  readonly text: Uint8Array;
  readonly ciphertext: Uint8Array;
}

const fresh = Buffer.from(systemRandom.bytes(6)).toString('hex');
const seeds = ['one', 'two', 'three', ...(process.env['QPC_SEED'] ?? fresh).split(',')];

for (const suite of [mandatorySuite, xwingSuite]) {
  for (const seed of seeds) {
    test(`random operations, suite 0x${suite.toString(16)}, QPC_SEED=${seed}`, async () => {
      await new Play(`${seed}/${suite}`, suite, [undefined]).run(operationsPerSeed);
    });
  }
  test(`random operations, suite 0x${suite.toString(16)}, our provider and ts-mls's mixed`, async () => {
    await new Play(`mixed/${suite}`, suite, [undefined, defaultCryptoProvider]).run(15);
  });
}
