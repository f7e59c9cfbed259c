/**
 * A follower of logs that are honest, slow, wrong, rolled back, forked, and of a process that dies at
 * every await: it cosigns what it replayed and stored, and nothing after evidence was found.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnavailableError } from '@quicprochat/proto/status';
import type { AuditStore, EvidenceRecord } from './audit-store.ts';
import { MemoryAuditStore } from './audit-store.ts';
import type { AuditBundle } from './auditor.ts';
import { auditBundle, signAuditBundle } from './auditor.ts';
import { checkEvidence } from './evidence-check.ts';
import { proveSameSize } from './evidence-proofs.ts';
import type { Statement } from './evidence.ts';
import type { FollowerOptions, Pulled } from './follow.ts';
import { Follower } from './follow.ts';
import { logEntry } from './hash.ts';
import type { LogSource } from './log-source.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { noteKey, openCheckpoint, parseNote, SignatureType, verifyNote } from './note.ts';
import { encode } from './presentation.ts';
import { ManualClock, testKeys } from './test-log.ts';
import type { Face } from './test-source.ts';
import { faceOf, FaceSource, growTo } from './test-source.ts';

const { sha256 } = nativeSuite;
const utf8 = new TextEncoder();
const origin = 'red.example';

const cosigners = ['witness', 'auditor'].map((role, i) => {
  const signer = nativeSigner(new Uint8Array(32).fill(200 + i));
  const { publicKey } = signer;
  const key = noteKey(sha256, `blue.example/${role}`, SignatureType.cosignatureV1, publicKey);
  return { key, signer };
});

interface Scene {
  readonly follower: Follower;
  readonly store: AuditStore;
  readonly found: EvidenceRecord[];
}
function follow(face: Face, options: Partial<FollowerOptions> = {}): Scene {
  const store = options.store ?? new MemoryAuditStore();
  const found: EvidenceRecord[] = [];
  const { config, identity, clock } = face;
  const onEvidence = async (record: EvidenceRecord): Promise<void> => {
    // Whoever is told can rely on it: the evidence is stored, and the log convicted.
    assert.ok((await store.evidence(origin)).some((one) => one.hash === record.hash));
    assert.match((await store.status(origin)) ?? '', /^(?:forked|invalid)$/);
    found.push(record);
  };
  const log = { config, identity };
  const all = { suite: nativeSuite, log, clock, cosigners, onEvidence, ...options, store };
  return { follower: new Follower(all), store, found };
}

function assertCosigned(face: Face, pulled: Pulled, size: number): void {
  assert.equal(pulled.status, 'ok', String(pulled.failure));
  assert.equal(pulled.size, size);
  assert.ok(pulled.cosigned);
  const keys = [face.identity.key, ...cosigners.map((one) => one.key)];
  assert.equal(verifyNote(nativeSuite, parseNote(pulled.cosigned), keys).length, 3);
  const { checkpoint } = openCheckpoint(nativeSuite, pulled.cosigned, face.identity);
  assert.equal(checkpoint.size, size);
}

test('an honest log is replayed in bundles of any size and cosigned by both keys', async () => {
  const face = await faceOf('a', 99, 20);
  for (const bundleEntries of [1, 3, 7, 256]) {
    for (const align of [1, 4]) {
      const { follower, store, found } = follow(face);
      const source = new FaceSource(face);
      source.align = align;
      const steps: number[] = [];
      const onProgress = (size: number): void => void steps.push(size);
      const pulled = await follower.pull(source, { bundleEntries, onProgress });
      assertCosigned(face, pulled, 20);
      assert.equal(steps.length, Math.ceil(20 / (align > 1 ? align : bundleEntries)));
      assert.equal((await store.heads(origin, 1, 99)).length, 20);
      assert.deepEqual(found, []);
      // Nothing new: the same checkpoint, cosigned at another time.
      assertCosigned(face, await follower.pull(source), 20);
    }
  }
});

test('a log that grows is followed by whoever opens the store next', async () => {
  const face = await faceOf('a', 99, 3);
  const source = new FaceSource(face);
  const { follower, store } = follow(face);
  assertCosigned(face, await follower.pull(source), 3);
  await growTo(face, 'a', 99, 11);
  const next = follow(face, { store });
  assertCosigned(face, await next.follower.pull(source), 11);
  assert.equal(await next.follower.size(), 11);
  // Two at once do not disturb one another.
  await growTo(face, 'a', 99, 13);
  const both = await Promise.all([next.follower.pull(source), next.follower.pull(source)]);
  for (const pulled of both) assertCosigned(face, pulled, 13);
});

test('a source without answers or without the newest entries leaves the log behind', async () => {
  const face = await faceOf('a', 99, 9);
  const { follower, store } = follow(face);
  const gone: LogSource = {
    checkpoint: () => Promise.reject(new UnavailableError('PEER_UNREACHABLE', 'gone')),
    bundle: () => Promise.resolve(undefined),
    heads: () => Promise.resolve([]),
  };
  const first = await follower.pull(gone);
  assert.deepEqual([first.status, first.target, first.cosigned], ['behind', undefined, undefined]);
  assert.equal(first.failure?.reason, 'PEER_UNREACHABLE');
  const source = new FaceSource(face);
  const half: LogSource = {
    checkpoint: () => source.checkpoint(),
    bundle: (from, max) => (from < 5 ? source.bundle(from, 5) : gone.bundle(from, max)),
    heads: () => Promise.resolve([]),
  };
  const second = await follower.pull(half);
  assert.deepEqual([second.status, second.size, second.target], ['behind', 5, 9]);
  assert.equal(second.cosigned, undefined);
  assert.equal(await store.status(origin), 'behind');
  assertCosigned(face, await follower.pull(source), 9);
  assert.equal(await store.status(origin), 'ok');
});

test('entries ahead of the clock are waited for, not condemned', async () => {
  const face = await faceOf('a', 99, 5);
  const { config, identity } = face;
  const early = { now: () => face.clock.now() - config.maxAheadMs - 60_000 };
  const { follower } = follow(face, {
    clock: Object.assign(new ManualClock(), early),
    log: { config, identity },
  });
  const pulled = await follower.pull(new FaceSource(face));
  assert.deepEqual([pulled.status, pulled.failure?.reason], ['behind', 'TOO_NEW']);
});

test('what the log did not sign makes its source suspect, and changes nothing', async () => {
  const face = await faceOf('a', 99, 6);
  const { follower, store, found } = follow(face);
  const source = new FaceSource(face);
  await follower.pull(source, { bundleEntries: 3 });
  const before = await store.followed(origin);
  await growTo(face, 'a', 99, 8);
  const flip = (bytes: Uint8Array, at: number): Uint8Array =>
    bytes.with(at, (bytes.at(at) ?? 0) ^ 1);
  const cases: Partial<LogSource>[] = [
    { checkpoint: async () => flip(await source.checkpoint(), 15) },
    { checkpoint: async () => utf8.encode('no note') },
    { bundle: async (from, max) => flip((await source.bundle(from, max)) ?? utf8.encode('x'), 30) },
    { bundle: async () => new Uint8Array(5) },
    { bundle: () => source.bundle(0, 2) },
    { bundle: () => source.bundle(7, 1) },
    {
      heads: async (from, max) =>
        (await source.heads(from, max)).map((head) => ({ ...head, root: new Uint8Array(32) })),
    },
  ];
  for (const [i, lie] of cases.entries()) {
    const liar: LogSource = {
      checkpoint: lie.checkpoint ?? (() => source.checkpoint()),
      bundle: lie.bundle ?? ((from, max) => source.bundle(from, max)),
      heads: lie.heads ?? ((from, max) => source.heads(from, max)),
    };
    const pulled = await follower.pull(liar);
    assert.equal(pulled.status, 'suspect', `case ${i}`);
    assert.equal(pulled.failure?.name, 'VerificationError', `case ${i}`);
    assert.equal(pulled.cosigned, undefined);
    assert.deepEqual(await store.followed(origin), before);
  }
  assert.deepEqual(found, []);
  assertCosigned(face, await follower.pull(source), 8);
});

test('a rollback is not cosigned', async () => {
  const face = await faceOf('a', 99, 9);
  const { follower, store } = follow(face);
  await follower.pull(new FaceSource(face));
  const older = new FaceSource(await faceOf('a', 99, 7));
  for (const hasHeads of [true, false]) {
    older.hasHeads = hasHeads;
    const pulled = await follower.pull(older);
    assert.deepEqual([pulled.status, pulled.failure?.reason], ['suspect', 'ROLLBACK']);
    assert.deepEqual([pulled.size, pulled.cosigned], [9, undefined]);
  }
  assert.equal((await store.followed(origin))?.size, 9);
  // An older checkpoint with another root is evidence at once, by the heads that were kept.
  const forked = await follower.pull(new FaceSource(await faceOf('evil', 3, 7)));
  assert.deepEqual([forked.status, forked.evidence?.kind], ['forked', 'note-vs-head']);
});

test('a fork is convicted wherever it starts and whatever the source gives', async () => {
  const kinds = new Set<string>();
  const honest = await faceOf('a', 99, 9);
  for (const fork of [0, 4, 7, 8]) {
    const evil = await faceOf('evil', fork, 13);
    for (const held of [5, 8, 9]) {
      for (const [hasHeads, align] of [
        [true, 1],
        [false, 1],
        [false, 4],
      ] as const) {
        const name = `fork ${fork}, held ${held}, heads ${hasHeads}, align ${align}`;
        const { follower, store, found } = follow(honest);
        const own = new FaceSource(await faceOf('a', 99, held));
        assertCosigned(honest, await follower.pull(own), held);
        const source = new FaceSource(evil);
        source.hasHeads = hasHeads;
        source.align = align;
        const pulled = await follower.pull(source);
        if (fork >= held) {
          assertCosigned(honest, pulled, 13);
          continue;
        }
        assert.ok(
          pulled.status === 'forked' || pulled.status === 'invalid',
          `${name}: ${String(pulled.failure)}`,
        );
        assert.equal(pulled.cosigned, undefined, name);
        assert.equal((await store.followed(origin))?.size, held, name);
        const [record] = found;
        assert.ok(record, name);
        assert.deepEqual(await store.evidence(origin), [record]);
        assert.equal(checkEvidence(nativeSuite, record.bytes).kind, record.kind);
        kinds.add(record.kind);
        // The honest face does not get a cosignature any more either, until a person decides.
        const after = await follower.pull(new FaceSource(honest));
        assert.deepEqual([after.status, after.cosigned], [pulled.status, undefined], name);
        await store.setStatus(origin, 'suspect');
        assertCosigned(honest, await follower.pull(new FaceSource(honest)), 9);
      }
    }
  }
  assert.ok(kinds.has('same-size') && kinds.size > 1, [...kinds].join());
});

test('two forks of one size are two signatures', async () => {
  const { follower } = follow(await faceOf('a', 99, 1));
  await follower.pull(new FaceSource(await faceOf('a', 99, 9)));
  const pulled = await follower.pull(new FaceSource(await faceOf('evil', 5, 9)));
  assert.deepEqual([pulled.status, pulled.evidence?.kind], ['forked', 'same-size']);
});

test('a signed bundle that cannot be replayed convicts the log', async () => {
  const face = await faceOf('a', 99, 12);
  const { keys } = testKeys(40);
  const lies: ((good: AuditBundle) => Partial<AuditBundle>)[] = [
    (good) => ({ entries: good.entries.with(1, logEntry(1, new Uint8Array(32))) }),
    (good) => ({
      updates: good.updates.map((one, i) => (i === 2 ? { ...one, timestampMs: 1 } : one)),
    }),
    (good) => ({ updates: good.updates.toSpliced(1, 1), entries: good.entries.toSpliced(1, 1) }),
    (good) => ({ updates: good.updates.slice(1) }),
  ];
  for (const held of [0, 4]) {
    for (const [i, lie] of lies.entries()) {
      const { follower, store, found } = follow(face);
      if (held > 0) await follower.pull(new FaceSource(await faceOf('a', 99, held)));
      const source = new FaceSource(face);
      source.hasHeads = false;
      const liar: LogSource = {
        checkpoint: () => source.checkpoint(),
        heads: () => Promise.resolve([]),
        bundle: async (from) => {
          const good = await face.log.auditBundle(from, 12);
          return encode(auditBundle, signAuditBundle(sha256, { ...good, ...lie(good) }, keys.note));
        },
      };
      const pulled = await follower.pull(liar);
      assert.equal(pulled.status, 'invalid', `${held} ${i}: ${String(pulled.failure)}`);
      assert.equal(found[0]?.kind, 'bad-update');
      assert.equal((await store.followed(origin))?.size ?? 0, held);
    }
  }
});

async function headOf(face: Face, size: number): Promise<Statement> {
  const head = await face.store.head(size);
  assert.ok(head);
  return { type: 'head', head: { size, root: head.root, signature: head.signature } };
}
async function noteOf(face: Face, size: number): Promise<Statement> {
  return { type: 'note', note: utf8.encode(await face.log.checkpoint(size)) };
}

test('statements that others show are compared with what is held', async () => {
  const face = await faceOf('a', 99, 12);
  const evil = await faceOf('evil', 4, 12);
  const started = async (): Promise<Scene> => {
    const scene = follow(face);
    const own = new FaceSource(await faceOf('a', 99, 8));
    own.hasHeads = false;
    await scene.follower.pull(own);
    return scene;
  };
  const { follower, store, found } = await started();
  const typeOf = async (statement: Statement) => (await follower.observe(statement)).type;
  assert.equal(await typeOf(await noteOf(face, 8)), 'agrees');
  assert.equal(await typeOf(await headOf(face, 8)), 'agrees');
  assert.equal(await typeOf(await noteOf(face, 5)), 'unknown');
  assert.equal(await typeOf(await headOf(face, 5)), 'unknown');
  assert.equal(await typeOf(await noteOf(face, 5)), 'agrees');
  assert.equal(await typeOf(await noteOf(face, 10)), 'ahead');
  assert.equal(await typeOf(await headOf(face, 10)), 'ahead');
  assert.deepEqual(found, []);
  const stranger = testKeys(90);
  await assert.rejects(
    follower.observe({
      type: 'head',
      head: { size: 8, root: new Uint8Array(32), signature: new Uint8Array(64) },
    }),
    { reason: 'BAD_SIGNATURE' },
  );
  assert.notDeepEqual(stranger.config, face.config);
  for (const [statement, kind] of [
    [await noteOf(evil, 8), 'same-size'],
    [await headOf(evil, 8), 'note-vs-head'],
    [await headOf(evil, 5), 'same-size'],
    [await noteOf(evil, 10), 'note-vs-head'],
  ] as const) {
    await store.setStatus(origin, 'ok');
    const seen = await follower.observe(statement);
    assert.equal(seen.type === 'conflict' && seen.evidence.kind, kind);
    assert.equal(await store.status(origin), 'forked');
  }
  // A head of the fork that came first contradicts the replay of the honest log.
  const other = await started();
  assert.equal((await other.follower.observe(await headOf(evil, 10))).type, 'ahead');
  const source = new FaceSource(face);
  source.hasHeads = false;
  const pulled = await other.follower.pull(source);
  assert.deepEqual([pulled.status, pulled.evidence?.kind], ['forked', 'note-vs-head']);
  assert.equal(pulled.size, 8);
});

test('evidence that somebody else found convicts once, and only its own log', async () => {
  const face = await faceOf('a', 99, 6);
  const evil = await faceOf('evil', 4, 6);
  const { follower, store, found } = follow(face);
  const log = { origin, key: face.identity.key, config: face.config };
  const made = proveSameSize(nativeSuite, log, await noteOf(face, 6), await noteOf(evil, 6));
  assert.equal(await follower.judge(made.bytes), true);
  assert.equal(await store.status(origin), 'forked');
  await store.setStatus(origin, 'ok');
  assert.equal(await follower.judge(made.bytes), false);
  assert.equal(await store.status(origin), 'ok');
  assert.equal(found.length, 1);
  await assert.rejects(follower.judge(made.bytes.with(90, 7)), { name: 'VerificationError' });
  const blue = testKeys(90);
  const other = follow({ ...face, ...blue });
  await assert.rejects(other.follower.judge(made.bytes), { reason: 'CHAIN' });
  assert.equal(await other.store.status(origin), undefined);
});

test('the replay may start at a checkpoint, and finds a fork behind it', async () => {
  const face = await faceOf('a', 99, 12);
  const { follower, store } = follow(face);
  await follower.startAt(new FaceSource(face), 8);
  assert.equal(await follower.size(), 8);
  const whole = follow(face);
  await whole.follower.pull(new FaceSource(await faceOf('a', 99, 8)));
  assert.deepEqual(await store.followed(origin), await whole.store.followed(origin));
  assertCosigned(face, await follower.pull(new FaceSource(face)), 12);
  await assert.rejects(follower.startAt(new FaceSource(face), 9), { reason: 'BAD_FIELD' });
  const late = follow(face);
  await assert.rejects(late.follower.startAt(new FaceSource(face), 13), { reason: 'COUNT' });
  assert.equal(await late.follower.size(), 0);
});

/** Ends the process that it is thrown in. */
class Crash extends Error {}

test('a crash at any await is survived: nothing is cosigned that is not stored', async () => {
  const honest = await faceOf('a', 99, 9);
  const evil = await faceOf('evil', 4, 13);
  for (const face of [honest, evil]) {
    let isDone = false;
    let crashes = 0;
    for (let at = 0; !isDone; at++) {
      const memory = new MemoryAuditStore();
      await follow(honest, { store: memory }).follower.pull(
        new FaceSource(await faceOf('a', 99, 5)),
      );
      for (const isAfter of [false, true]) {
        let left = at;
        /** Dies before or after the effect of call `at`. */
        const fragile = <T extends object>(target: T): T =>
          new Proxy(target, {
            get(object, name) {
              const value: unknown = Reflect.get(object, name);
              if (typeof value !== 'function') return value;
              return async (...args: unknown[]): Promise<unknown> => {
                const isHere = left-- === 0;
                if (isHere && !isAfter) throw new Crash();
                const result: unknown = await Reflect.apply(value, object, args);
                if (isHere) throw new Crash();
                return result;
              };
            },
          });
        const store = fragile<AuditStore>(memory);
        const source = fragile<LogSource>(new FaceSource(face));
        const options = { bundleEntries: 2 };
        let pulled: Pulled | undefined;
        try {
          pulled = await follow(honest, { store }).follower.pull(source, options);
        } catch (error) {
          if (!(error instanceof Crash)) throw error;
          crashes++;
        }
        const held = await memory.followed(origin);
        if (pulled?.cosigned !== undefined) {
          const { checkpoint } = openCheckpoint(nativeSuite, pulled.cosigned, honest.identity);
          assert.equal(checkpoint.size, held?.size);
        }
        const isConvicted = (await memory.status(origin)) === 'forked';
        assert.equal(isConvicted, (await memory.evidence(origin)).length > 0, 'both or none');
        isDone = left >= 0;
      }
      const { follower } = follow(honest, { store: memory });
      const pulled = await follower.pull(new FaceSource(face), { bundleEntries: 2 });
      if (face === honest) assertCosigned(honest, pulled, 9);
      else
        assert.deepEqual([pulled.status, pulled.size, pulled.cosigned], ['forked', 5, undefined]);
      assert.equal((await memory.evidence(origin)).length, face === honest ? 0 : 1);
    }
    assert.ok(crashes > 15, `${crashes} crashes`);
  }
});
