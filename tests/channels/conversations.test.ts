/**
 * Conversations in channel mode, with real nodes and clients (docs/protocol/channels.md): what is said is
 * stored once for each node, and heard once by each device, whatever becomes of the group and its nodes.
 */
import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { deviceIdOf, sameBytes } from '@quicprochat/proto';
import { openNodeStoreInThread } from '@quicprochat/nodes';
import { TestGroup } from '@quicprochat/nodes/store/channel-group';
import { testRuntime, type LocalNode } from '../cluster/local-node.ts';
import { inTime, Rig, type RigClient } from '../client/rig.ts';
import { JumpClock } from '../resend/jump-clock.ts';

/** While something is waited for, clients' time goes by ten times as fast. */
const [stepMs, pauseMs] = [500, 50];

/** Clients whose time runs fast while something is waited for. */
class Company implements AsyncDisposable {
  readonly clock = new JumpClock();
  readonly rig: Rig;
  id: Uint8Array = new Uint8Array(0);
  #asked = 0;

  private constructor(rig: Rig) {
    this.rig = rig;
  }

  static async make(): Promise<Company> {
    return new Company(await Rig.make());
  }

  client(userId: string): Promise<RigClient> {
    return this.rig.client(userId, this.clock);
  }

  /** A conversation, which needs a channel above two devices unless told otherwise. */
  async talk(creator: RigClient, others: readonly RigClient[], isLarge = true): Promise<void> {
    const members = others.map(({ userId }) => userId);
    const id = await creator.client.createConversation({ name: 'tea', members });
    this.id = id;
    for (const one of others) await this.joined(one);
    if (isLarge) await creator.client.updateMetadata(id, { directDevices: 2 });
  }

  async joined({ client, userId }: RigClient): Promise<void> {
    const isIn = () => client.conversations().some(({ id }) => sameBytes(id, this.id));
    await this.until(`${userId} to join`, isIn);
  }

  async until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
    const work = async (): Promise<void> => {
      while (!(await isSo())) {
        this.clock.jump(stepMs);
        await testRuntime.clock.sleep(pauseMs);
      }
    };
    await inTime(work(), what);
  }

  /** The channel that a message of this client goes to; undefined: it goes to devices. */
  async channelNow(client: RigClient): Promise<Uint8Array | undefined> {
    const text = `is there a channel? ${(this.#asked += 1)}`;
    const { id } = await client.client.send(this.id, text);
    const state = () => client.client.history(this.id).find((one) => one.text === text)?.sendState;
    await this.until('its node to have it', () => state() !== 'sealed');
    const members = await client.client.listMembers(this.id);
    const devices = members.flatMap(({ deviceIds }) => deviceIds);
    const targets = client.client.proofs(this.id, id).map(({ rid }) => rid);
    return targets.find((rid) => !devices.includes(deviceIdOf(rid)));
  }

  /** The group's channel, once this client posts to it. */
  async channel(client: RigClient): Promise<Uint8Array> {
    let cid: Uint8Array | undefined;
    await this.until('the channel', async () => {
      cid = await this.channelNow(client);
      return cid !== undefined;
    });
    return cid ?? new Uint8Array(0);
  }

  /** Each of them has heard these texts of others and of itself, once. */
  async heard(clients: readonly RigClient[], texts: readonly string[]): Promise<void> {
    for (const client of clients) {
      const known = () => client.client.history(this.id).map(({ text }) => text);
      const isAll = () => texts.every((text) => known().includes(text));
      await this.until(`${client.userId} to hear all`, isAll);
      const all = known();
      assert.equal(new Set(all).size, all.length, `${client.userId} heard something twice`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
  }
}

async function stop(node: LocalNode): Promise<void> {
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
  node.node = undefined;
}
async function restart(node: LocalNode, peers: readonly LocalNode[]): Promise<void> {
  const { databasePath: path, store: limits } = node.config;
  const { key, runtime } = node;
  // Without a thread of its own, whose start costs more than all that it does here.
  node.store = openNodeStoreInThread({ path, key, limits, runtime });
  await node.start(peers);
}

suite('a conversation with a channel', () => {
  let company: Company;
  let alice: RigClient;
  let bob: RigClient;
  let carol: RigClient;
  before(async () => {
    company = await Company.make();
    alice = await company.client('alice@red.example');
    bob = await company.client('bob@blue.example');
    carol = await company.client('carol@red.example');
  });
  after(() => company[Symbol.asyncDispose]());

  test('nothing is lost or heard twice over the switch to a channel, and back', async () => {
    const all = [alice, bob, carol];
    const said: string[] = [];
    const sayAll = async (what: string): Promise<void> => {
      for (const [index, one] of all.entries()) {
        said.push(`${what} ${index}`);
        await one.client.send(company.id, `${what} ${index}`);
      }
    };
    await company.talk(alice, [bob, carol]);
    for (let n = 0; n < 2; n += 1) {
      await sayAll(`before ${n}`);
      company.clock.jump(stepMs);
    }
    const cid = await company.channel(alice);
    for (const one of all) assert.deepEqual(await company.channel(one), cid);
    await sayAll('in the channel');
    await company.heard(all, said);

    await alice.client.updateMetadata(company.id, { directDevices: 32 });
    for (let n = 0; n < 2; n += 1) {
      await sayAll(`back ${n}`);
      company.clock.jump(stepMs);
    }
    await company.until('direct mode', async () => {
      for (const one of all) if ((await company.channelNow(one)) !== undefined) return false;
      return true;
    });
    await sayAll('after');
    await company.heard(all, said);
  });

  test('a killed node, who is taken out, and a reader too slow for the log', async () => {
    const { red, blue } = company.rig;
    await company.talk(alice, [bob, carol]);
    await company.channel(alice);
    const { id } = company;
    // Blue dies with posts on their way, and its logs are small from then on.
    await stop(blue);
    blue.config = { ...blue.config, store: { ...blue.config.store, channelRows: 4 } };
    const said = ['while blue is away', 'me too', 'from a dead node'];
    for (const [index, one] of [alice, carol, bob].entries()) {
      await one.client.send(id, said[index] ?? '');
    }
    await restart(blue, [red]);
    await company.heard([alice, bob, carol], said);

    // More than the log holds while bob sleeps.
    await bob.close();
    const many = Array.from({ length: 9 }, (_, n) => `many ${n}`);
    for (const text of many) await alice.client.send(id, text);
    await company.heard([carol], many);
    await company.until(
      'red to relay',
      async () => (await red.store?.peersWithRows())?.length === 0,
    );
    await bob.open();
    await bob.start();
    await company.heard([bob], many);
    await bob.events.first(({ type }) => type === 'gap', 'a gap');

    // Who is taken out reads what was said before, and joins again later as whoever joins.
    await carol.close();
    await bob.client.send(id, 'carol still hears this');
    await company.heard([alice], ['carol still hears this']);
    await alice.client.removeMembers(id, [carol.userId]);
    await bob.client.send(id, 'and not this');
    await company.heard([alice], ['and not this']);
    await carol.open();
    await carol.start();
    await company.heard([carol], ['carol still hears this']);
    await carol.events.first(({ type }) => type === 'removed', 'carol to know');
    await alice.client.addMembers(id, [carol.userId]);
    await alice.client.send(id, 'welcome back');
    await company.heard([alice, bob, carol], ['welcome back']);
    assert.ok(!carol.client.history(id).some(({ text }) => text === 'and not this'));

    // Out and in again while it sleeps: its store is no older copy, and its other groups have no harm.
    await carol.close();
    await alice.client.removeMembers(id, [carol.userId]);
    await bob.client.send(id, 'nor this');
    await company.heard([alice], ['nor this']);
    await alice.client.addMembers(id, [carol.userId]);
    await alice.client.send(id, 'and once more');
    await carol.open();
    await carol.start();
    await company.heard([alice, bob, carol], ['and once more']);
    assert.ok(carol.events.all().every(({ type }) => type !== 'storeRestored'));
    assert.ok(carol.client.conversations().every(({ isStale }) => !isStale));
  });

  test('a node that lost the channel gets a fresh one, and its members what was said', async () => {
    const { red, blue } = company.rig;
    await company.talk(alice, [bob, carol], false);
    const { id } = company;
    const copy = `${blue.directory}.backup`;
    await stop(blue);
    cpSync(blue.directory, copy, { recursive: true });
    await restart(blue, [red]);
    await alice.client.updateMetadata(id, { directDevices: 2 });
    const cid = await company.channel(alice);
    assert.deepEqual(await company.channel(bob), cid);
    await stop(blue);
    rmSync(blue.directory, { recursive: true });
    cpSync(copy, blue.directory, { recursive: true });
    rmSync(copy, { recursive: true });
    await restart(blue, [red]);
    const said = ['who knows this channel?', 'red does'];
    await bob.client.send(id, said[0] ?? '');
    await alice.client.send(id, said[1] ?? '');
    await company.heard([alice, bob, carol], said);
    const fresh = await company.channel(bob);
    assert.notDeepEqual(fresh, cid);
    assert.deepEqual(await company.channel(alice), fresh);
  });

  test('a device that comes back by an external commit finds a channel that works', async () => {
    await company.talk(alice, [bob, carol]);
    const { id } = company;
    const cid = await company.channel(alice);
    await carol.close();
    const copy = `${carol.storePath}.copy`;
    cpSync(carol.storePath, copy);
    await carol.open();
    await carol.start();
    await carol.client.send(id, 'soon forgotten');
    await company.heard([alice, bob], ['soon forgotten']);
    // Something that she acks beyond the copy: by that the node knows it for one.
    await alice.client.createConversation({ name: 'soon forgotten', members: [carol.userId] });
    await company.until('carol to be invited', () =>
      carol.client.conversations().some(({ name }) => name === 'soon forgotten'),
    );
    await company.until(
      'carol to have acked it',
      async () => (await carol.client.waiting()).rows === 0,
    );
    await carol.close();
    for (const ending of ['', '-wal', '-shm'])
      rmSync(`${carol.storePath}${ending}`, { force: true });
    cpSync(copy, carol.storePath);
    await carol.open();
    await carol.start();
    await carol.events.first(({ type }) => type === 'storeRestored', 'the node to tell carol');
    await company.until('carol to be back', () =>
      carol.client.conversations().every(({ isStale }) => !isStale),
    );
    await carol.client.send(id, 'here again');
    await alice.client.send(id, 'welcome');
    await company.heard([alice, bob, carol], ['here again', 'welcome']);
    await company.until('a fresh channel', async () => {
      const now = await company.channelNow(alice);
      return now !== undefined && !sameBytes(now, cid);
    });
  });

  test('a device whose node has no room for another channel hears what is said there, and the group keeps it', async () => {
    const dora = await company.client('dora@red.example');
    await company.talk(alice, [bob, dora], false);
    const { id } = company;
    await alice.client.send(id, 'to each device');
    await company.heard([bob, dora], ['to each device']);
    const { userId, deviceId } = dora.client.whoami();
    const rid = alice.client
      .contact(userId)
      ?.devices.find((device) => device.deviceId === deviceId)?.identityPub;
    assert.ok(rid !== undefined);
    const subscribe = async () =>
      company.rig.red.store?.createChannel(rid, new TestGroup().asNew());
    for (let made = 0; made < 4_096; made += 256) {
      await Promise.all(Array.from({ length: 256 }, subscribe));
    }
    await alice.client.updateMetadata(id, { directDevices: 2 });
    const cid = await company.channel(alice);
    const texts = ['who is here?', 'I am'];
    await alice.client.send(id, texts[0] ?? '');
    await bob.client.send(id, texts[1] ?? '');
    await company.heard([alice, bob, dora], texts);
    await dora.client.send(id, 'I hear you');
    await company.heard([alice, bob], ['I hear you']);
    await alice.client.send(id, 'once more');
    await company.heard([bob, dora], ['once more']);
    assert.deepEqual(await company.channel(alice), cid, 'nobody replaced it');
  });
});
