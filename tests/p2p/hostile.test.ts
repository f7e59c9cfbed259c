/** Hostile devices at `/qpc/deliver/1`: each refusal by its name, and nothing held for them. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { endpointLimits, makeSwarmKey, signEndpointRecord, type SwarmKey } from '@quicprochat/p2p';
import { createHost, type Host } from '@quicprochat/p2p/swarm';
import { FrameCaller } from '@quicprochat/p2p/frames';
import { call, encodeRequest, methods, systemClock, systemRandom } from '@quicprochat/proto';
import {
  create,
  EnqueueRequestSchema,
  HelloRequestSchema,
  toBinary,
  type SignedEndpointRecord,
} from '@quicprochat/proto/messages';
import { freePort } from '../cluster/free-port.ts';
import {
  makeDeviceKey,
  message,
  recordOf,
  runtime,
  startDevice,
  until,
  type Device,
} from './devices.ts';

const protocol = '/qpc/deliver/1';
const key = makeSwarmKey(systemRandom);
const device = makeDeviceKey();
let host: Host;
let bert: Device;
let stored = Promise.resolve();

before(async () => {
  host = await createHost({ key, runtime, listen: [] });
  bert = await startDevice({
    onDelivery: async ({ request: { mid } }) => {
      seen.push(Buffer.from(mid).toString('hex'));
      await stored;
      return 'stored';
    },
    serverLimits: {
      helloMs: 60_000,
      perDevice: { perSecond: 0.001, burst: 80 },
      hellos: { perSecond: 1_000, burst: 1_000 },
    },
  });
});
after(async () => {
  await host.stop();
  await bert[Symbol.asyncDispose]();
});
const seen: string[] = [];

function record(
  facts: { swarm?: SwarmKey; issuedMs?: number; addresses?: string[] } = {},
): SignedEndpointRecord {
  const { swarm = key, issuedMs = Date.now(), addresses = [] } = facts;
  return signEndpointRecord(
    {
      swarmKey: swarm.publicKey,
      addresses,
      relays: [],
      mailboxes: [],
      seq: 1,
      issuedMs,
      expiresMs: issuedMs + endpointLimits.lifetimeMs,
    },
    device,
  );
}

async function open() {
  const address = bert.destination().record.addresses.find((text) => text.includes('quic')) ?? '';
  const signal = AbortSignal.timeout(5_000);
  const connection = await host.dial(`${address}/p2p/${bert.swarm.peerId}`, signal);
  const stream = await connection.openStream(protocol, signal);
  return { stream, connection };
}
async function openCaller(): Promise<FrameCaller> {
  return new FrameCaller((await open()).stream, systemClock);
}
const hello = (caller: FrameCaller, endpoint: SignedEndpointRecord | undefined) =>
  call(caller, methods.hello, {
    versionMin: 1,
    versionMax: 1,
    ...(endpoint === undefined ? {} : { endpoint }),
  });

test('a device proves itself by its own record alone', async () => {
  const caller = await openCaller();
  await assert.rejects(hello(caller, undefined), { reason: 'BAD_FIELD' });
  // Anna's record is no secret: her contacts have it. Her connection is what they lack.
  const anna = record({ swarm: makeSwarmKey(systemRandom) });
  await assert.rejects(hello(caller, anna), { reason: 'BAD_CREDENTIAL' });
  const forged = { ...record(), signature: systemRandom.bytes(64) };
  await assert.rejects(hello(caller, forged), { reason: 'BAD_CREDENTIAL' });
  const old = record({ issuedMs: Date.now() - endpointLimits.lifetimeMs - 1 });
  await assert.rejects(hello(caller, old), { reason: 'BAD_FIELD' });
  const inward = record({ addresses: ['/ip4/10.0.0.1/udp/5002/quic-v1'] });
  await assert.rejects(hello(caller, inward), { reason: 'BAD_FIELD' });
  await assert.rejects(call(caller, methods.enqueue, message(bert)), { reason: 'NOT_LOGGED_IN' });
  assert.equal((await hello(caller, record())).version, 1);
  caller.close();
});

test('versions, methods and inboxes that are not here', async () => {
  const caller = await openCaller();
  const later = { versionMin: 2, versionMax: 9, endpoint: record() };
  await assert.rejects(call(caller, methods.hello, later), { reason: 'BAD_FIELD' });
  await hello(caller, record());
  const other = { ...message(bert), rid: systemRandom.bytes(32) };
  await assert.rejects(call(caller, methods.enqueue, other), { reason: 'UNKNOWN_DEVICE' });
  const short = { ...message(bert), mid: systemRandom.bytes(15) };
  await assert.rejects(call(caller, methods.enqueue, short), { reason: 'BAD_FIELD' });
  await assert.rejects(call(caller, methods.health, {}), { reason: 'UNIMPLEMENTED' });
  caller.close();
});

test('a length that is declared and never sent, and bytes that are no frame, end the stream', async () => {
  for (const bytes of [
    Uint8Array.of(0, 200, 0, 0, 0, 1, 0x3f, 0xff, 0xff, 0xff),
    // An Enqueue that would fit, were its sender known: 64 KiB.
    Uint8Array.of(0, 200, 0, 0, 0, 1, 0, 1, 0, 0),
    Uint8Array.of(3, 34, 0, 0, 0, 1, 0, 0, 0, 1, 0),
    systemRandom.bytes(64).fill(0xff),
  ]) {
    const { stream } = await open();
    stream.write(bytes);
    // Long before the time of a Hello that does not come.
    const late = systemClock.sleep(8_000).then(() => assert.fail('still open'));
    await Promise.race([stream.closed, late]);
  }
});

test('more calls at once than fit are refused one by one, more messages than allowed too', async () => {
  const busy = Promise.withResolvers<void>();
  stored = busy.promise;
  const before = seen.length;
  // Past the caller's own bound, as a hostile one would.
  const { stream: flood } = await open();
  const answers = new Map<number, number>();
  let rest = new Uint8Array();
  flood.onData((chunk) => {
    rest = Uint8Array.from([...rest, ...chunk]);
    for (;;) {
      const size = rest.length < 9 ? Infinity : 9 + new DataView(rest.buffer).getUint32(5);
      if (rest.length < size) return;
      answers.set(rest[0] ?? 0, (answers.get(rest[0] ?? 0) ?? 0) + 1);
      rest = rest.slice(size);
    }
  });
  const request = (method: typeof methods.hello | typeof methods.enqueue, payload: Uint8Array) =>
    encodeRequest({ methodId: method.id, requestId: 1, payload });
  const encodedHello = toBinary(
    HelloRequestSchema,
    create(HelloRequestSchema, { versionMin: 1, versionMax: 1, endpoint: record() }),
  );
  flood.write(request(methods.hello, encodedHello));
  await until(() => answers.get(0) === 1);
  for (let i = 0; i < 200; i++) {
    const one = create(EnqueueRequestSchema, message(bert));
    flood.write(request(methods.enqueue, toBinary(EnqueueRequestSchema, one)));
  }
  // 64 wait for the receiver's disk; the others were answered at once.
  await until(() => answers.get(5) === 200 - 64);
  assert.equal(seen.length - before, 64);
  busy.resolve();
  await until(() => answers.get(0) === 1 + 64);
  // 80 in all were allowed to this device, and some went before.
  for (let i = 0; i < 80; i++) {
    const one = create(EnqueueRequestSchema, message(bert));
    flood.write(request(methods.enqueue, toBinary(EnqueueRequestSchema, one)));
  }
  await until(() => answers.get(5) === 200 - 64 + 80 - (seen.length - before - 64));
  assert.ok(seen.length - before <= 80);
  flood.abort('enough');
});

test('another peer at an address is no device', async () => {
  const [address = ''] = bert.destination().record.addresses;
  const other = makeSwarmKey(systemRandom).peerId;
  for (const text of bert.destination().record.addresses) {
    await assert.rejects(host.dial(`${text}/p2p/${other}`, AbortSignal.timeout(5_000)), {
      failure: 'refusedIdentity',
    });
  }
  await using anna = await startDevice();
  // A record that lies about where it is: the address is Bert's.
  const liar = { ...recordOf(bert.swarm), device: systemRandom.bytes(32), addresses: [address] };
  const to = { record: liar };
  const refused = anna.swarm.deliver(to, { ...message(bert), rid: liar.device });
  await assert.rejects(refused, { reason: 'BAD_CREDENTIAL' });
});

test('streams of strangers and of one connection are bounded', async () => {
  const { connection } = await open();
  const signal = AbortSignal.timeout(5_000);
  const open8 = [];
  for (let i = 0; i < 7; i++) open8.push(await connection.openStream(protocol, signal));
  // The ninth opens for its side, and is ended by the other.
  const ninth = await connection.openStream(protocol, signal).catch(() => undefined);
  await ninth?.closed;
  for (const stream of open8) stream.abort('done');
});

test('one address takes a share of the connections, and no more', async () => {
  const listen = `/ip4/127.0.0.1/tcp/${await freePort()}`;
  const limits = { connectionsPerHost: 3 };
  const swarm = makeSwarmKey(systemRandom);
  const taker = await createHost({ key: swarm, runtime, listen: [listen], limits });
  const flood = await createHost({ key: makeSwarmKey(systemRandom), runtime, listen: [] });
  const dial = () => flood.dial(`${listen}/p2p/${swarm.peerId}`, AbortSignal.timeout(10_000));
  try {
    const three = await Promise.all([dial(), dial(), dial()]);
    await until(() => taker.counts().connections === 3);
    await assert.rejects(dial());
    await three[0]?.close();
    await until(() => taker.counts().connections === 2);
    await dial();
  } finally {
    await Promise.all([taker.stop(), flood.stop()]);
  }
});
