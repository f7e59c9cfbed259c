/**
 * A batch that overtook another one is answered STREAM_GAP, with where the receiver stood before that other one came:
 * what was confirmed since is not lost. What was confirmed before the batch left, and is not there, is.
 */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { silentLog, type Runtime } from '@quicprochat/proto';
import {
  create,
  FedHelloResponseSchema,
  FedRelayRequestSchema,
  FedRelayResponseSchema,
  type FedRelayRequest,
} from '@quicprochat/proto/messages';
import { LaneSender, RelayInbox, type LinkSession } from '@quicprochat/federation';
import { SimulatedClock } from '../simulated-clock.ts';
import { MemoryStream } from './memory-stream.ts';
import { seededRandom } from './sim-node.ts';

/** The inbox waits three seconds for what a batch overtook. */
const lateMs = 3_500;

/** A sender and an inbox; `delayOf` says how long a batch is on its way (ms). */
function line(delayOf: (request: FedRelayRequest) => number) {
  const clock = new SimulatedClock();
  const random = seededRandom(1);
  const runtime: Runtime = { clock, random, log: silentLog };
  const [ours, theirs] = [new MemoryStream(random), new MemoryStream(random)];
  const losses: boolean[] = [];
  const restart = ours.restartOutbound.bind(ours);
  ours.restartOutbound = (_peer?: string, _lane?: string, isLoss?: boolean) => {
    losses.push(isLoss === true);
    return restart();
  };
  const sender = new LaneSender({ peer: 'blue.example', lane: 'bulk', store: ours, runtime });
  const inbox = new RelayInbox({ store: theirs, runtime });
  const ended = new AbortController();
  const call = async (_method: unknown, fields: unknown): Promise<unknown> => {
    const request = create(FedRelayRequestSchema, fields as object);
    await clock.sleep(delayOf(request));
    return create(FedRelayResponseSchema, await inbox.relay('red.example', request));
  };
  const session: LinkSession = {
    hello: create(FedHelloResponseSchema, inbox.credit('red.example', 'bulk')),
    spkiSha256: new Uint8Array(32),
    signal: ended.signal,
    end: (reason) => ended.abort(reason),
    call: call as LinkSession['call'],
  };
  const running = sender.run(session);
  const send = async (text: string): Promise<void> => {
    ours.add(text);
    sender.notify();
    await clock.advance(1);
  };
  const close = async (): Promise<void> => {
    ended.abort();
    await clock.advance(60_000);
    await running;
  };
  return { clock, ours, theirs, losses, send, close };
}

test('a gap that was answered before a confirmation starts no new stream, and tells nobody of a loss', async () => {
  let isFirst = true;
  const { clock, ours, theirs, losses, send, close } = line(({ firstSeq }) => {
    if (firstSeq !== 2n || !isFirst) return 0;
    isFirst = false;
    return lateMs;
  });
  await send('one');
  const { streamId } = await ours.outboundStream();
  await send('two, which is late');
  await send('three');
  await clock.advance(60_000);
  assert.deepEqual(losses, []);
  assert.deepEqual((await ours.outboundStream()).streamId, streamId);
  assert.deepEqual(theirs.received, ['one', 'two, which is late', 'three']);
  assert.deepEqual(ours.held, []);
  await close();
});

test('a receiver that goes on with an older copy right after a confirmation has lost it', async () => {
  const { clock, ours, theirs, losses, send, close } = line(() => 0);
  const copy = theirs.copy();
  await send('confirmed, and lost');
  theirs.restore(copy);
  await send('next');
  await clock.advance(60_000);
  assert.deepEqual(losses, [true]);
  assert.deepEqual(theirs.received, ['next']);
  assert.deepEqual(ours.held, []);
  await close();
});
