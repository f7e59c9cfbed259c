/** The watch over delivery proofs finds what is wrong with one, and nothing in good ones. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  messageTag,
  methods,
  signDeliveryProof,
  signingKeyFromSeed,
  systemRandom,
} from '@quicprochat/proto';
import {
  BatchEnqueueRequestSchema,
  BatchEnqueueResponseSchema,
  create,
  EnqueueRequestSchema,
  EnqueueResponseSchema,
  Outcome,
  toBinary,
} from '@quicprochat/proto/messages';
import { ProofWatch } from './proofs.ts';

const domain = 'red.example';
const [rid, mid, payload] = [systemRandom.bytes(32), systemRandom.bytes(16), Uint8Array.of(1)];
const tag = messageTag(mid, payload);
const [good, bad] = [1, 2].map((n) => signingKeyFromSeed(new Uint8Array(32).fill(n)));
assert.ok(good !== undefined && bad !== undefined);

const proofOf = (receivedMs: number, key = good, home = domain): Uint8Array =>
  signDeliveryProof({ mid, tag, target: { rid, domain: home }, receivedMs }, key);

function one(receivedMs: number, proof: Uint8Array, status = 0, outcome: Outcome = Outcome.STORED) {
  const request = create(EnqueueRequestSchema, { rid, domain, mid, payload });
  const fields = { outcome, tag, receivedMs: BigInt(receivedMs), proof };
  const answer = create(EnqueueResponseSchema, fields);
  return [
    {
      methodId: methods.enqueue.id,
      requestId: 1,
      payload: toBinary(EnqueueRequestSchema, request),
    },
    { status, requestId: 1, payload: toBinary(EnqueueResponseSchema, answer) },
  ] as const;
}

function batch(statuses: readonly { readonly outcome?: Outcome; readonly proof?: Uint8Array }[]) {
  const targets = [{ payload: 0, rid, domain }];
  const request = create(BatchEnqueueRequestSchema, { payloads: [{ mid, payload }], targets });
  const times = statuses.map((status) => ({ receivedMs: 5n, ...status }));
  const answer = create(BatchEnqueueResponseSchema, { statuses: times });
  const methodId = methods.batchEnqueue.id;
  return [
    { methodId, requestId: 1, payload: toBinary(BatchEnqueueRequestSchema, request) },
    { status: 0, requestId: 1, payload: toBinary(BatchEnqueueResponseSchema, answer) },
  ] as const;
}

const stored = { outcome: Outcome.STORED };
for (const [name, frames, found, said] of [
  [
    'good answers',
    [one(5, proofOf(5)), batch([{ ...stored, proof: proofOf(5) }])],
    undefined,
    true,
  ],
  ['what was refused', [one(5, bad.publicKey, 9), batch([{}])], undefined, false],
  ['an OK without a signature', [one(5, new Uint8Array(0))], /not signed/, true],
  ['another key', [one(5, proofOf(5, bad))], /not signed/, true],
  ['another target', [one(5, proofOf(5, good, 'blue.example'))], /not signed/, true],
  ['another time than it says', [batch([{ ...stored, proof: proofOf(6) }])], /not signed/, true],
  [
    'a repeat with another time',
    [one(5, proofOf(5)), one(6, proofOf(6), 0, Outcome.DUPLICATE)],
    /two times, 5 and 6/,
    true,
  ],
  ['what came back and is taken anew', [one(5, proofOf(5)), one(6, proofOf(6))], undefined, true],
  ['what was not committed', [one(5, proofOf(5))], /before its transaction/, false],
  ['a target without an answer', [batch([])], /0 answers for 1/, true],
] as const) {
  test(`delivery proofs: ${name}`, () => {
    const watch = new ProofWatch({
      signKeyOf: () => good.publicKey,
      wasSaid: () => said,
      mayForget: false,
    });
    for (const [request, response] of frames) watch.answered(domain, request, response);
    const texts = watch.violations.map(({ text }) => text);
    assert.equal(texts.length, found === undefined ? 0 : 1, texts.join('; '));
    if (found !== undefined) assert.match(texts[0] ?? '', found);
  });
}
