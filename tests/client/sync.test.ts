/**
 * Following an inbox (docs/protocol/delivery.md, "Push" and "The client's rule"): acks, gaps, holes,
 * streams that break, another connection that takes over. Rows are junk: here it counts that each
 * is taken in once and in order; every one is recorded as undecryptable.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openStore } from '@quicprochat/client-lib/store';
import { PushEvent, UnimplementedError, type CallContext, type Handlers } from '@quicprochat/proto';
import {
  create,
  GapEventSchema,
  MessageEventSchema,
  SupersededEventSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import type { PushWriter } from '@quicprochat/proto/transport';
import { makeScene, storeKey, type Scene } from './scene.ts';

const storeId = new Uint8Array(8).fill(1);
const minuteMs = 60_000;

/** The receiving side of a scripted node: what it was asked, and the streams it pushes on. */
class Inbox {
  /** Cursors of all Subscribe calls. */
  readonly subscribed: number[] = [];
  readonly acked: number[] = [];
  readonly polled: number[] = [];
  readonly streams: PushWriter[] = [];
  rows = 0;
  canPush = true;
  /** Runs after each new stream is open. */
  onStream: (after: number, stream: PushWriter) => Promise<void> = async () => undefined;

  readonly handlers: Partial<Handlers> = {
    subscribe: async ({ cursors }, { connection }: CallContext) => {
      if (!this.canPush) throw new UnimplementedError('no push here');
      const after = Number(cursors[0]?.after);
      this.subscribed.push(after);
      const stream = await connection.openPushStream();
      this.streams.push(stream);
      void this.onStream(after, stream);
      return { storeId };
    },
    fetch: async () => ({ storeId }),
    fetchWait: async ({ cursors }, { signal }) => {
      const after = Number(cursors[0]?.after);
      this.polled.push(after);
      if (after >= this.rows) {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      }
      const rows = Array.from({ length: this.rows - after }, (_, n) => rowOf(after + 1 + n));
      return { logs: [{ log: {}, fetched: { storeId, rows } }] };
    },
    ack: async ({ upTo }) => {
      this.acked.push(Number(upTo));
      return {};
    },
  };
}

function rowOf(seq: number): {
  seq: bigint;
  mid: Uint8Array;
  kind: number;
  payload: Uint8Array;
} {
  const mid = new Uint8Array(16);
  new DataView(mid.buffer).setUint32(0, seq);
  return { seq: BigInt(seq), mid, kind: 1, payload: Uint8Array.of(1, seq & 0xff) };
}

async function push(stream: PushWriter, from: number, to: number): Promise<void> {
  for (let seq = from; seq <= to; seq += 1) {
    const event = create(MessageEventSchema, { log: {}, storeId, row: rowOf(seq) });
    const payload = toBinary(MessageEventSchema, event);
    await stream.write({ eventType: PushEvent.Message, payload });
  }
}

async function sceneOf(inbox: Inbox): Promise<Scene> {
  return makeScene({ overrides: inbox.handlers });
}

/** Seqs of the rows that the closed client recorded, in order. */
function recorded(scene: Scene): number[] {
  using store = openStore(scene.path, storeKey);
  return store.inbox.undecryptable().map(({ seq }) => seq);
}

const upTo = (last: number): number[] => Array.from({ length: last }, (_, n) => n + 1);

describe('following an inbox', () => {
  test('acks what is durable in few calls, the last one within 100 ms', async () => {
    const inbox = new Inbox();
    inbox.onStream = (_after, stream) => push(stream, 1, 250);
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.length > 0, minuteMs));
      await scene.clock.advance(101);
      assert.equal(inbox.acked.at(-1), 250);
      assert(inbox.acked.length <= 8, `${inbox.acked.length} acks for 250 rows`);
      assert.deepEqual(
        [...inbox.acked].sort((a, b) => a - b),
        inbox.acked,
      );
    }
    assert.deepEqual(recorded(scene), upTo(250));
  });

  test('subscribes from its own cursor after a restart and repeats the last ack', async () => {
    const inbox = new Inbox();
    inbox.onStream = (after, stream) => push(stream, after + 1, after + 10);
    await using scene = await sceneOf(inbox);
    for (const last of [10, 20]) {
      await using client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(last), minuteMs));
    }
    assert.deepEqual(inbox.subscribed, [0, 10]);
    assert.deepEqual(recorded(scene), upTo(20));
  });

  test('subscribes again when a stream ends alone, and polls when that goes on', async () => {
    const inbox = new Inbox();
    inbox.rows = 9;
    inbox.onStream = async (after, stream) => {
      await push(stream, after + 1, after + 1);
      await stream.close();
    };
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(9), minuteMs));
    }
    assert.deepEqual(inbox.subscribed, [0, 1, 2, 3]);
    assert.deepEqual(inbox.polled, [4, 9]);
    assert.deepEqual(recorded(scene), upTo(9));
  });

  test('polls a node that has no push', async () => {
    const inbox = new Inbox();
    inbox.canPush = false;
    inbox.rows = 5;
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(5), minuteMs));
    }
    assert.deepEqual(recorded(scene), upTo(5));
  });

  test('tells of rows that are gone, and goes on behind them', async () => {
    const inbox = new Inbox();
    inbox.onStream = async (after, stream) => {
      if (after > 0) return;
      const event = create(GapEventSchema, { log: {}, storeId, gap: { from: 1n, to: 7n } });
      const payload = toBinary(GapEventSchema, event);
      await stream.write({ eventType: PushEvent.Gap, payload });
      await push(stream, 8, 9);
    };
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      const events = client.events();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(9), minuteMs));
      for await (const event of events) {
        if (event.type !== 'gap') continue;
        assert.deepEqual(event, { type: 'gap', from: 1, to: 7 });
        break;
      }
    }
    assert.deepEqual(recorded(scene), [8, 9]);
  });

  test('believes no gap up to a number that no seq has: the cursor stays usable', async () => {
    const inbox = new Inbox();
    inbox.onStream = async (after, stream) => {
      if (inbox.subscribed.length > 1) return push(stream, after + 1, 2);
      const event = create(GapEventSchema, { log: {}, storeId, gap: { from: 1n, to: 2n ** 60n } });
      const payload = toBinary(GapEventSchema, event);
      return stream.write({ eventType: PushEvent.Gap, payload });
    };
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(2), minuteMs));
    }
    assert.deepEqual(inbox.subscribed, [0, 0]);
    assert.deepEqual(recorded(scene), upTo(2));
  });

  test('never passes a row that did not come: it starts over from the cursor', async () => {
    const inbox = new Inbox();
    inbox.onStream = async (after, stream) => {
      if (inbox.subscribed.length > 1) return push(stream, after + 1, 6);
      await push(stream, 1, 2);
      return push(stream, 4, 6);
    };
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(6), minuteMs));
    }
    assert.deepEqual(inbox.subscribed, [0, 2]);
    assert.deepEqual(recorded(scene), upTo(6));
  });

  test('stops when another connection of the device took over, until it is started again', async () => {
    const inbox = new Inbox();
    inbox.onStream = async (after, stream) => {
      await push(stream, after + 1, after + 1);
      if (after > 0) return;
      const payload = toBinary(SupersededEventSchema, create(SupersededEventSchema));
      await stream.write({ eventType: PushEvent.Superseded, payload });
      await stream.close();
    };
    await using scene = await sceneOf(inbox);
    {
      await using client = await scene.open();
      const events = client.events();
      client.start();
      for await (const event of events) {
        if (event.type === 'link' && event.state === 'superseded') break;
      }
      await scene.clock.advance(minuteMs);
      assert.deepEqual(inbox.subscribed, [0]);
      client.start();
      assert(await scene.clock.runUntil(() => inbox.acked.includes(2), minuteMs));
    }
    assert.deepEqual(inbox.subscribed, [0, 1]);
    assert.deepEqual(recorded(scene), upTo(2));
  });
});
