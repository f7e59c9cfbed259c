/** Evidence is answered by pages, however large a log's own bundles made it, and no page breaks a frame. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  createServer,
  call,
  maxEvidenceBytes,
  maxRequestBytes,
  methods,
  silentLog,
  systemClock,
  systemRandom,
  UnimplementedError,
  type Handlers,
} from '@quicprochat/proto';
import { defaultLimits, makeIdentity, memoryNetwork } from '@quicprochat/proto/transport';
import { ktHeardHandlers } from './kt-heard.ts';

test('evidence that is larger than a frame comes whole, by pages', async () => {
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const evidence = systemRandom.bytes(2 * maxEvidenceBytes + 77);
  const hash = systemRandom.bytes(32);
  const unbuilt = Object.fromEntries(
    Object.keys(methods).map((name) => [name, () => Promise.reject(new UnimplementedError(name))]),
  );
  const heard = ktHeardHandlers({
    heard: async () => [],
    evidence: async (of) => (Buffer.compare(of, hash) === 0 ? evidence : undefined),
  });
  const server = createServer({
    handlers: { ...unbuilt, ...heard } as Handlers,
    middleware: [],
    identify: async () => ({ class: 'anyone' }),
    runtime,
  });
  const network = memoryNetwork(runtime);
  const endpoint = { host: 'red.example', port: 5001 };
  const limits = defaultLimits;
  const identity = await makeIdentity(systemRandom);
  const listener = await network.transport(endpoint.host).listen({
    ...{ endpoint, identity, limits, maxRequestBytes },
    onConnection: (connection) => server.serve(connection),
  });
  const connection = await network.transport('somewhere').dial(endpoint, {
    ...{ identity: await makeIdentity(systemRandom), limits, maxRequestBytes },
    pins: [identity.spkiSha256],
  });
  const page = (offset: number) =>
    call(connection, methods.ktEvidence, { hash, offset: BigInt(offset) });
  const pages: Uint8Array[] = [];
  for (let have = 0; have < evidence.length; have += pages.at(-1)?.length ?? 0) {
    const { evidence: bytes, total } = await page(have);
    assert.equal(total, BigInt(evidence.length));
    assert(bytes.length > 0 && bytes.length <= maxEvidenceBytes);
    pages.push(bytes);
  }
  assert.deepEqual(Buffer.concat(pages), Buffer.from(evidence));
  assert.equal((await page(evidence.length)).evidence.length, 0, 'there is no more');
  await assert.rejects(page(evidence.length + 1), { reason: 'BAD_CURSOR' });
  const other = { hash: systemRandom.bytes(32), offset: 0n };
  await assert.rejects(call(connection, methods.ktEvidence, other), { reason: 'UNKNOWN_EVIDENCE' });
  await connection.close(0, 'done');
  await listener.close(0, 'done');
});
