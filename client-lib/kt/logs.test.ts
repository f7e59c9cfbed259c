/**
 * Whose log it is (docs/developer/verification.md): the record of a domain's node is proved by a pin or
 * an older record, shown by the log itself, and never replaced by a stranger's.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatVkey, nativeSigner, nativeSuite, noteKey, SignatureType } from '@quicprochat/kt-log';
import { hasReason, signingKeyFromSeed, signNodeRecord } from '@quicprochat/proto';
import {
  create,
  SignedNodeRecordSchema,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import type { Caller } from '../dial.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { testRuntime } from '../test-runtime.ts';
import { TestLog, type TestLogOptions } from '../test-logs.ts';
import { checkRecord, knownRecordOf, policyFor, rememberedPolicy } from './log-record.ts';
import { Logs } from './logs.ts';

const { random } = testRuntime;
const refused = (reason: string) => (error: unknown) => hasReason(error, reason);
const make = (domain: string, options: Partial<TestLogOptions> = {}): Promise<TestLog> =>
  TestLog.make(domain, { runtime: testRuntime, ...options });

/** Calls reach these logs; the first one is of the own node. */
function callerOf(own: TestLog, ...others: TestLog[]): Caller {
  return {
    call: async (method, request) => {
      const { domain = '' } = request as { domain?: string };
      const log = domain === '' ? own : others.find((one) => one.domain === domain);
      assert(log !== undefined, `no log of ${domain}`);
      const answer = await log.answer(method.id, request);
      return create(method.response, answer as MessageInitShape<typeof method.response>);
    },
  };
}

function logsWith(pin: Uint8Array) {
  const alarms: string[] = [];
  const store = openMemoryStore();
  const logs = new Logs({
    store,
    runtime: testRuntime,
    own: { domain: 'red.example', pin },
    onRefused: (domain, { reason }) => void alarms.push(`${domain} ${reason}`),
  });
  return { logs, store, alarms };
}

describe('the own node’s log', () => {
  test('is believed by the pin of the node, and found again without asking', async () => {
    const red = await make('red.example');
    const { logs, store } = logsWith(red.pin);
    const log = await logs.of('red.example', callerOf(red));
    assert.equal(log.client.origin, 'red.example/kt');
    assert.deepEqual(
      store.logs.allPinned().map(({ domain, isInLog }) => [domain, isInLog]),
      [['red.example', true]],
    );
    assert.equal(logs.known('red.example'), log);
  });

  test('is refused under another pin, and nothing is kept', async () => {
    const red = await make('red.example');
    const { logs, store, alarms } = logsWith(random.bytes(32));
    await assert.rejects(logs.of('red.example', callerOf(red)), refused('RECORD_REFUSED'));
    assert.deepEqual(alarms, ['red.example RECORD_REFUSED']);
    assert.deepEqual(store.logs.allPinned(), []);
  });
});

describe('the keys of the own node', () => {
  test('are the address’s one, then those of its record, through a rotation', async () => {
    const red = await make('red.example');
    const { logs } = logsWith(red.pin);
    assert.deepEqual(logs.nodePins(), [red.pin]);
    const caller = callerOf(red);
    await logs.of('red.example', caller);
    assert.deepEqual(logs.nodePins(), [red.pin]);
    const show = async (record: typeof red.record): Promise<void> => {
      red.record = record;
      await red.append('@red.example', toBinary(SignedNodeRecordSchema, record));
      await logs.renew('red.example', caller);
    };
    const signing = signingKeyFromSeed(random.bytes(32));
    const fresh = { spkiSha256: random.bytes(32), signing, fromMs: 0, toMs: 0 };
    const [old] = red.facts.keys;
    assert(old !== undefined);
    await show(signNodeRecord({ ...red.facts, seq: 2, keys: [old, fresh] }));
    assert.deepEqual(logs.nodePins(), [red.pin, fresh.spkiSha256]);
    await show(signNodeRecord({ ...red.facts, seq: 3, keys: [fresh] }));
    assert.deepEqual(logs.nodePins(), [fresh.spkiSha256]);
  });
});

describe('another domain’s log', () => {
  test('is refused when it does not show the record that the node served', async () => {
    const [red, blue] = [await make('red.example'), await make('blue.example')];
    const { logs, alarms, store } = logsWith(red.pin);
    // Signed by its own keys and in no log: what a node in between could make up.
    const signing = signingKeyFromSeed(random.bytes(32));
    const keys = [{ spkiSha256: random.bytes(32), signing, fromMs: 0, toMs: 0 }];
    blue.record = signNodeRecord({ ...blue.facts, keys });
    await assert.rejects(
      logs.of('blue.example', callerOf(red, blue)),
      refused('RECORD_NOT_IN_LOG'),
    );
    assert.deepEqual(alarms, ['blue.example RECORD_NOT_IN_LOG']);
    assert.equal(store.logs.pinned('blue.example'), undefined);
  });

  test('that is refused leaves nothing that would stand in the way of the honest one', async () => {
    const [red, blue, fake] = await Promise.all(
      ['red.example', 'blue.example', 'blue.example'].map((domain) => make(domain)),
    );
    assert(red !== undefined && blue !== undefined && fake !== undefined);
    const { logs } = logsWith(red.pin);
    fake.record = signNodeRecord({ ...fake.facts, capabilities: ['fake'] });
    await assert.rejects(
      logs.of('blue.example', callerOf(red, fake)),
      refused('RECORD_NOT_IN_LOG'),
    );
    const log = await logs.of('blue.example', callerOf(red, blue));
    assert.equal(log.client.head()?.size, 1);
  });

  test('goes on under a record that an older key signed, and under no other', async () => {
    const [red, blue] = [await make('red.example'), await make('blue.example')];
    const { logs, alarms, store } = logsWith(red.pin);
    const caller = callerOf(red, blue);
    const before = await logs.of('blue.example', caller);
    const heir = signNodeRecord({ ...blue.facts, seq: 2, capabilities: ['more'] });
    await blue.append('@blue.example', toBinary(SignedNodeRecordSchema, heir));
    blue.record = heir;
    // The log's own keys are the same: so is its client, with the turn of its requests.
    assert.equal(await logs.renew('blue.example', caller), before);
    const heldBytes = store.logs.pinned('blue.example')?.record;
    assert.deepEqual(heldBytes, toBinary(SignedNodeRecordSchema, heir));

    // A log may answer from a head of seconds ago: that is waited for, and no reason for an alarm.
    blue.record = signNodeRecord({ ...blue.facts, seq: 3 });
    const renewing = logs.renew('blue.example', caller);
    await testRuntime.clock.sleep(100);
    await blue.append('@blue.example', toBinary(SignedNodeRecordSchema, blue.record));
    assert.equal(await renewing, before);
    const pinned = store.logs.pinned('blue.example');

    const stranger = await make('blue.example');
    await assert.rejects(
      logs.renew('blue.example', callerOf(red, stranger)),
      refused('RECORD_REFUSED'),
    );
    // Older records are replays.
    blue.record = signNodeRecord(blue.facts);
    await assert.rejects(logs.renew('blue.example', caller), refused('RECORD_REFUSED'));
    assert.deepEqual(alarms, ['blue.example RECORD_REFUSED', 'blue.example RECORD_REFUSED']);
    assert.deepEqual(store.logs.pinned('blue.example'), pinned);
  });

  test('is never another log, whoever signed for that', async () => {
    const [red, blue] = [await make('red.example'), await make('blue.example')];
    const { logs } = logsWith(red.pin);
    await logs.of('blue.example', callerOf(red, blue));
    const other = await make('blue.example');
    other.record = signNodeRecord({ ...blue.facts, seq: 2, logs: other.facts.logs ?? [] });
    await assert.rejects(logs.renew('blue.example', callerOf(red, other)), refused('LOG_REPLACED'));
    other.record = signNodeRecord({ ...blue.facts, seq: 2, logs: [] });
    await assert.rejects(logs.renew('blue.example', callerOf(red, other)), refused('NO_LOG'));
  });
});

describe('auditors', () => {
  const vkeyOf = (name: string): string => {
    const { publicKey } = nativeSigner(random.bytes(32));
    return formatVkey(noteKey(nativeSuite.sha256, name, SignatureType.cosignatureV1, publicKey));
  };
  const recordWith = async (domain: string, ...names: string[]) => {
    const log = await make(domain, { cosigners: names.map(vkeyOf) });
    const signed = checkRecord(domain, log.record, {}, testRuntime.clock.now());
    return knownRecordOf(signed.bytes);
  };

  test('are those that nodes name for themselves, never the log’s own', async () => {
    const red = await recordWith('red.example', 'red.example/auditor', 'red.example/witness');
    const blue = await recordWith('blue.example', 'blue.example/auditor', 'green.example/auditor');
    const names = (domain: string, isOwn: boolean, ...records: (typeof red)[]): readonly string[] =>
      (policyFor(domain, isOwn, records)?.witnesses ?? []).map(({ name }) => name);
    assert.deepEqual(names('red.example', true, red, blue), ['blue.example/auditor']);
    assert.deepEqual(names('blue.example', false, red, blue), ['red.example/auditor']);
    assert.equal(policyFor('red.example', true, [red]), undefined);
  });

  test('make a quorum of most at the own node’s log, of one at another', async () => {
    const domains = ['a.example', 'b.example', 'c.example'];
    const records = await Promise.all(domains.map((one) => recordWith(one, `${one}/auditor`)));
    const threshold = (isOwn: boolean): number | undefined => {
      const quorum = policyFor('red.example', isOwn, records)?.quorum;
      return quorum?.kind === 'group' ? quorum.threshold : undefined;
    };
    assert.deepEqual([threshold(true), threshold(false)], [2, 1]);
  });

  test('are parsed again when a node is met or its record is another, and only then', async () => {
    const bytesOf = async (domain: string) => (await recordWith(domain, `${domain}/auditor`)).bytes;
    const [red, blue, heir] = [
      await bytesOf('red.example'),
      await bytesOf('blue.example'),
      await bytesOf('blue.example'),
    ];
    const policyOf = rememberedPolicy('own.example', false);
    assert.equal(policyOf([]), undefined);
    const first = policyOf([red]);
    assert.equal(policyOf([red.slice()]), first);
    const both = policyOf([red, blue]);
    assert.equal(both?.witnesses.length, 2);
    const changed = policyOf([red, heir]);
    assert.notDeepEqual(changed, both);
    assert.deepEqual(changed, policyFor('own.example', false, [red, heir].map(knownRecordOf)));
    assert.deepEqual(policyOf([red]), first);
  });
});
