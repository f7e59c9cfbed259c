/** Channels through the wire: what their methods grant, refuse and bound, at one node and between two. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  deviceChannelSeed,
  domainsHash,
  messageTag,
  methods,
  PushEvent,
  systemRandom,
  verifyDeliveryProof,
} from '@quicprochat/proto';
import {
  fromBinary,
  GapEventSchema,
  MessageEventSchema,
  NoticeSchema,
  Outcome,
} from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { TestGroup } from '@quicprochat/nodes/store/channel-group';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const none = new Uint8Array(0);
const redName = 'red.example';
const blueName = 'blue.example';

suite('channels', () => {
  const network = memoryNetwork(testRuntime);
  const quick = ['auth', 'send', 'read', 'keys'].map(
    (rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`,
  );
  let red: LocalNode;
  let blue: LocalNode;
  let alice: TestDevice;
  let ann: TestDevice;
  let mallory: TestDevice;
  let bobs: TestDevice[];
  const devices: TestDevice[] = [];

  before(async () => {
    const limits = '[limits]\nchannel_rows = 10\n';
    red = await LocalNode.create(network, redName, `${limits}${quick.join('')}`);
    blue = await LocalNode.create(network, blueName, quick.join(''));
    await red.start([blue]);
    await blue.start([red]);
    const join = async (node: LocalNode, name: string): Promise<TestDevice> => {
      const device = await TestDevice.register(node, `${name}@${node.domain}`);
      devices.push(device);
      return device;
    };
    alice = await join(red, 'alice');
    ann = await join(red, 'ann');
    mallory = await join(red, 'mallory');
    bobs = [await join(blue, 'bob'), await join(blue, 'bill'), await join(blue, 'bess')];
  });
  after(async () => {
    await Promise.all(devices.map((device) => device[Symbol.asyncDispose]()));
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  async function createChannel(creator = alice): Promise<TestGroup> {
    const nonce = bytes(32);
    const group = new TestGroup([redName], 0, deviceChannelSeed(creator.rid, nonce));
    const { cid, hubs, writePub } = group.asNew();
    const request = { cid, hubs: [...hubs], epoch: 0n, writePub, nonce };
    const { wasNew } = await call(creator.connection, methods.createChannel, request);
    assert.equal(wasNew, true);
    return group;
  }

  /** Adds devices as the hub, which is red, would. */
  async function add(group: TestGroup, node: LocalNode, added: readonly TestDevice[]) {
    const members = added.map(({ rid }) => ({ rid, token: none }));
    await node.store?.applyChannelUpdate(redName, group.advance({ add: members }));
  }

  /** A post as Enqueue carries it. */
  function postOf(group: TestGroup, domains: readonly string[] = [redName], isNamed = true) {
    const { cid, epoch, mid, payload, signature } = group.post();
    const named = isNamed ? [...domains] : [];
    const hash = domainsHash(domains);
    const channel = { cid, epoch: BigInt(epoch), signature, domainsHash: hash, domains: named };
    return { mid, payload, channel };
  }

  const enqueue = (from: TestDevice, request: object) =>
    call(from.connection, methods.enqueue, request);
  const fetchFrom = (device: TestDevice, { cid }: TestGroup, after = 0n) =>
    call(device.connection, methods.fetch, { log: { cid }, after });

  test('a post is stored once, proven, and read by each subscriber', async () => {
    const group = await createChannel();
    await add(group, red, [ann]);
    const post = postOf(group);
    const stored = await enqueue(alice, post);
    assert.equal(stored.outcome, Outcome.STORED);
    const { mid, payload } = post;
    const tag = messageTag(mid, payload);
    assert.deepEqual(stored.tag, tag);
    const statement = { mid, tag, target: { cid: group.cid } };
    const receivedMs = Number(stored.receivedMs);
    const signKeys = [red.secrets?.signing.publicKey ?? none];
    assert.ok(verifyDeliveryProof({ ...statement, receivedMs }, stored.proof, signKeys));
    assert.equal((await enqueue(alice, post)).outcome, Outcome.DUPLICATE);
    for (const device of [alice, ann]) {
      const { rows, head, floor } = await fetchFrom(device, group);
      assert.deepEqual([rows.length, head, floor], [1, 1n, 1n]);
      assert.deepEqual(rows[0]?.payload, payload);
    }
    const members = await call(ann.connection, methods.listGroupMembers, { cid: group.cid });
    assert.deepEqual(
      members.rids,
      [alice.rid, ann.rid].toSorted((a, b) => Buffer.compare(a, b)),
    );
  });

  test('CreateChannel is one per cid, and only where this node is a hub', async () => {
    const nonce = bytes(32);
    const made = new TestGroup([redName], 0, deviceChannelSeed(alice.rid, nonce));
    const { cid, writePub } = made.asNew();
    const good = { cid, hubs: [redName], epoch: 0n, writePub, nonce };
    const create = (device: TestDevice, change: object) =>
      call(device.connection, methods.createChannel, { ...good, ...change });
    // Nobody else makes it, before or after.
    await refused(create(ann, {}), 'BAD_FIELD');
    assert.equal((await create(alice, {})).wasNew, true);
    assert.equal((await create(alice, {})).wasNew, false);
    await refused(create(ann, {}), 'BAD_FIELD');
    await refused(create(ann, { hubs: [blueName] }), 'PEER_DENIED');
    for (const change of [
      { cid: bytes(31) },
      { cid: bytes(32) },
      { nonce: bytes(31) },
      { nonce: bytes(32) },
      { hubs: [] },
      { hubs: [redName, blueName] },
      { hubs: ['Red.Example'] },
      { epoch: 2n ** 60n },
      { writePub: bytes(33) },
    ]) {
      await refused(create(alice, { ...change }), 'BAD_FIELD');
    }
    // Who was taken out of it does not begin it anew.
    await red.store?.applyChannelUpdate(redName, made.advance({ remove: [alice.rid] }));
    await refused(create(alice, {}), 'NAME_TAKEN');
  });

  test('a post that may not be stored is refused, and nothing is written', async () => {
    const group = await createChannel();
    const good = postOf(group);
    const { channel } = good;
    const other = postOf(await createChannel(ann));
    const bad: [object, string][] = [
      [{ rid: alice.rid, domain: redName }, 'BAD_FIELD'],
      [{ domain: redName }, 'BAD_FIELD'],
      [{ token: bytes(16) }, 'BAD_FIELD'],
      [{ channel: undefined }, 'BAD_FIELD'],
      [{ payload: none }, 'BAD_FIELD'],
      [{ mid: bytes(15) }, 'BAD_FIELD'],
      [{ mid: bytes(16) }, 'BAD_SIGNATURE'],
      [{ payload: bytes(10) }, 'BAD_SIGNATURE'],
      [{ channel: { ...channel, cid: bytes(31) } }, 'BAD_FIELD'],
      [{ channel: { ...channel, cid: bytes(32) } }, 'UNKNOWN_CHANNEL'],
      [{ channel: { ...channel, epoch: 1n } }, 'UNKNOWN_CHANNEL'],
      [{ channel: { ...channel, epoch: 2n ** 60n } }, 'BAD_FIELD'],
      [{ channel: { ...channel, signature: bytes(64) } }, 'BAD_SIGNATURE'],
      [{ channel: { ...channel, signature: bytes(63) } }, 'BAD_FIELD'],
      [{ channel: { ...channel, domainsHash: bytes(16) } }, 'BAD_FIELD'],
      [{ channel: { ...channel, domains: [redName, redName] } }, 'BAD_FIELD'],
      [{ channel: { ...channel, domains: ['RED'] } }, 'BAD_FIELD'],
      [{ channel: { ...channel, domains: [] } }, 'DOMAINS_STALE'],
      // A signature that was made for another channel.
      [{ channel: { ...other.channel, cid: channel.cid } }, 'BAD_SIGNATURE'],
    ];
    for (const [change, reason] of bad) {
      await refused(enqueue(alice, { ...good, ...change }), reason);
    }
    assert.equal((await fetchFrom(alice, group)).head, 0n);
    // A list of domains is remembered once a member signed for it.
    await enqueue(alice, good);
    await enqueue(alice, postOf(group, [redName], false));
    const many = Array.from({ length: 257 }, (_, index) => `d${index}.example`);
    await refused(enqueue(alice, postOf(group, many)), 'BAD_FIELD');
  });

  test('who does not subscribe reads, acks and waits for nothing', async () => {
    const group = await createChannel();
    await enqueue(alice, postOf(group));
    const { cid } = group;
    const log = { cid };
    const { storeId } = await fetchFrom(alice, group);
    const { connection } = mallory;
    const inbox = { log: {}, after: 0n };
    await refused(fetchFrom(mallory, group), 'UNKNOWN_CHANNEL');
    await refused(call(connection, methods.peek, { log }), 'UNKNOWN_CHANNEL');
    await refused(call(connection, methods.ack, { log, storeId, upTo: 1n }), 'UNKNOWN_CHANNEL');
    for (const cursors of [[{ log }], [inbox, { log }]]) {
      const waiting = call(connection, methods.fetchWait, { cursors, waitMs: 1_000 });
      assert.deepEqual((await refused(waiting, 'UNKNOWN_CHANNEL')).details, cid);
      await refused(call(connection, methods.subscribe, { cursors }), 'UNKNOWN_CHANNEL');
    }
    await refused(call(connection, methods.listGroupMembers, { cid }), 'UNKNOWN_CHANNEL');
    const foreign = { log: { cid: bytes(32) } };
    await refused(call(connection, methods.fetch, foreign), 'UNKNOWN_CHANNEL');
    const twice = [{ log }, { log }];
    await refused(
      call(alice.connection, methods.fetchWait, { cursors: twice, waitMs: 0 }),
      'BAD_FIELD',
    );
    const stale = [{ log, storeId: bytes(8) }];
    await refused(
      call(alice.connection, methods.fetchWait, { cursors: stale, waitMs: 0 }),
      'STORE_CHANGED',
    );
    await refused(call(alice.connection, methods.ack, { log, storeId, upTo: 2n }), 'BAD_CURSOR');
  });

  test('a device that an update left out, having too many, is told so by every method, whatever it asks for', async () => {
    await using full = await TestDevice.register(red, 'full@red.example');
    const fill = async () => red.store?.createChannel(full.rid, new TestGroup([redName]).asNew());
    for (let made = 0; made < 4_096; made += 256)
      await Promise.all(Array.from({ length: 256 }, fill));
    const group = await createChannel();
    await add(group, red, [full, ann]);
    await enqueue(alice, postOf(group));
    const { storeId } = await fetchFrom(ann, group);
    const { connection } = full;
    for (const cid of [group.cid, bytes(32)]) {
      const log = { cid };
      const cursors = [{ log: {} }, { log }];
      const refusals = [
        () => call(connection, methods.fetch, { log }),
        () => call(connection, methods.fetchWait, { cursors, waitMs: 1_000 }),
        () => call(connection, methods.peek, { log }),
        () => call(connection, methods.ack, { log, storeId, upTo: 1n }),
        () => call(connection, methods.subscribe, { cursors }),
        () => call(connection, methods.listGroupMembers, log),
      ];
      for (const refusal of refusals) {
        assert.deepEqual((await refused(refusal(), 'QUOTA')).details, cid);
      }
    }
    assert.equal((await call(connection, methods.fetch, { log: {} })).rows.length, 0);
  });

  test('FetchWait waits for many logs at once', async () => {
    const groups: TestGroup[] = [];
    for (let index = 0; index < 12; index += 1) groups.push(await createChannel());
    const cursors = [
      { log: {}, after: (await call(alice.connection, methods.fetch, { log: {} })).head },
      ...groups.map(({ cid }) => ({ log: { cid }, after: 0n })),
    ];
    const waiting = call(alice.connection, methods.fetchWait, { cursors, waitMs: 20_000 });
    const [group] = groups.slice(7);
    assert.ok(group !== undefined);
    // On the same connection, so that it comes behind the wait.
    await enqueue(alice, postOf(group));
    const { logs } = await waiting;
    assert.deepEqual(
      logs.map(({ log, fetched }) => [log?.cid, fetched?.rows.length]),
      [[group.cid, 1]],
    );
    const empty = await call(ann.connection, methods.fetchWait, {
      cursors: [{ log: {} }],
      waitMs: 0,
    });
    assert.equal(empty.logs[0]?.fetched?.rows.length, 0);
    const tooMany = Array.from({ length: 257 }, () => ({ log: { cid: bytes(32) } }));
    await refused(
      call(alice.connection, methods.fetchWait, { cursors: tooMany, waitMs: 0 }),
      'BAD_FIELD',
    );
    const beyond = { cursors: [{ log: { cid: group.cid }, after: 99n }], waitMs: 0 };
    await refused(call(alice.connection, methods.fetchWait, beyond), 'BAD_CURSOR');
  });

  test('a subscription pushes inbox and channels, gaps too, under one window', async () => {
    await using eve = await TestDevice.register(red, 'eve@red.example');
    const group = await createChannel();
    await add(group, red, [eve]);
    const { cid } = group;
    for (let index = 0; index < 12; index += 1) await enqueue(alice, postOf(group));
    const events: (readonly [type: number, cid: string, seq: bigint | undefined])[] = [];
    const hex = (value: Uint8Array | undefined) => Buffer.from(value ?? none).toString('hex');
    let wanted = Promise.withResolvers<void>();
    let count = 12;
    eve.connection.onPushStream(async (frames) => {
      for await (const { eventType, payload } of frames) {
        if (eventType === PushEvent.Gap) {
          const { log, gap } = fromBinary(GapEventSchema, payload);
          events.push([eventType, hex(log?.cid), gap?.to]);
        } else if (eventType === PushEvent.Message) {
          const { log, row } = fromBinary(MessageEventSchema, payload);
          events.push([eventType, hex(log?.cid), row?.seq]);
        }
        if (events.length >= count) wanted.resolve();
      }
    });
    const cursors = [{ log: {} }, { log: { cid } }];
    await call(eve.connection, methods.subscribe, { cursors });
    const letter = { rid: eve.rid, domain: redName, mid: bytes(16), payload: bytes(9) };
    await enqueue(alice, letter);
    await wanted.promise;
    // 10 rows are what the log holds: the first 2 are a gap.
    const ofChannel = events.filter(([, log]) => log === hex(cid));
    assert.deepEqual(ofChannel[0], [PushEvent.Gap, hex(cid), 2n]);
    assert.deepEqual(
      ofChannel.slice(1).map(([, , seq]) => seq),
      Array.from({ length: 10 }, (_, index) => BigInt(index + 3)),
    );
    assert.equal(events.filter(([, log]) => log === '').length, 1);
    // Removed: what is posted from now on is not pushed; the inbox goes on.
    count = 13;
    wanted = Promise.withResolvers();
    await red.store?.applyChannelUpdate(redName, group.advance({ remove: [eve.rid] }));
    await enqueue(alice, postOf(group));
    await enqueue(alice, { ...letter, mid: bytes(16) });
    await wanted.promise;
    assert.equal(events.at(-1)?.[1], '');
  });

  test('a post from red to blue is one row at each node for all subscribers', async () => {
    const group = await createChannel();
    await add(group, blue, bobs);
    // Each domain gets an update of its own for the same epoch.
    await red.store?.applyChannelUpdate(redName, group.signed());
    const domains = [redName, blueName];
    const { cid } = group;
    const waiting = bobs.map(({ connection }) =>
      call(connection, methods.fetchWait, { cursors: [{ log: { cid } }], waitMs: 20_000 }),
    );
    const post = postOf(group, domains);
    await enqueue(alice, post);
    for (const { logs } of await Promise.all(waiting)) {
      assert.deepEqual(
        logs[0]?.fetched?.rows.map(({ mid }) => mid),
        [post.mid],
      );
    }
    await enqueue(alice, postOf(group, domains, false));
    for (const [index, device] of bobs.entries()) {
      let head = 0n;
      while (head < 2n) {
        const cursors = [{ log: { cid }, after: 1n }];
        await call(device.connection, methods.fetchWait, { cursors, waitMs: 20_000 });
        ({ head } = await fetchFrom(device, group));
      }
      const { floor, storeId } = await fetchFrom(device, group);
      assert.equal(floor, 1n, `rows stay for subscriber ${index}`);
      await call(device.connection, methods.ack, { log: { cid }, storeId, upTo: 2n });
    }
    const { floor } = await fetchFrom(bobs[0] ?? alice, group, 2n);
    assert.equal(floor, 3n, 'everybody has passed');
  });

  test('a post needs no login: the write key speaks for its sender', async () => {
    const group = await createChannel();
    await using nobody = await TestDevice.dial(red, 'nobody@red.example');
    const post = postOf(group);
    assert.equal((await enqueue(nobody, post)).outcome, Outcome.STORED);
    await refused(enqueue(nobody, { ...postOf(group), payload: bytes(9) }), 'BAD_SIGNATURE');
    await refused(enqueue(nobody, postOf(group, [redName, 'green.example'])), 'PEER_DENIED');
    assert.equal((await fetchFrom(alice, group)).head, 1n);
    await refused(
      call(nobody.connection, methods.fetch, { log: { cid: group.cid } }),
      'NOT_LOGGED_IN',
    );
  });

  test('domains that get nothing are told to the poster', async () => {
    await using dan = await TestDevice.register(red, 'dan@red.example');
    const group = await createChannel(dan);
    const post = postOf(group, [redName, 'green.example']);
    assert.equal((await enqueue(dan, post)).outcome, Outcome.STORED);
    await enqueue(dan, post);
    const { rows } = await call(dan.connection, methods.fetch, { log: {} });
    const notices = rows.map(({ payload }) => fromBinary(NoticeSchema, payload));
    assert.deepEqual(
      notices.map(({ domain, reason, rid, mids }) => [domain, reason, rid, mids]),
      [['green.example', 'PEER_DENIED', group.cid, [post.mid]]],
    );
  });
});
