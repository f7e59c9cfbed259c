/** A member's proof is for one connection, group, entry and day, and by one key. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { guestProofMs } from './guest-proof.ts';
import { signMemberProof, verifyMemberProof, type MemberBinding } from './member-proof.ts';
import { signingKeyFromSeed, verifyStatement } from './signature.ts';

const hash = fc.uint8Array({ minLength: 32, maxLength: 32 });
const binding: fc.Arbitrary<MemberBinding> = fc.record({
  clientSpki: hash,
  nodeSpki: hash,
  group: hash,
  entry: hash,
  issuedMs: fc.integer({ min: guestProofMs, max: 2 ** 48 }),
});
const fields = ['clientSpki', 'nodeSpki', 'group', 'entry'] as const;

test('it holds as it was made, within a day, and with nothing changed', () => {
  fc.assert(
    fc.property(binding, hash, hash, fc.constantFrom(...fields), (made, seed, other, field) => {
      fc.pre(Buffer.compare(seed, other) !== 0 && Buffer.compare(made[field], other) !== 0);
      const key = signingKeyFromSeed(seed);
      const proof = signMemberProof(made, key);
      const { issuedMs } = made;
      const holds = (changed: object, nowMs = issuedMs, by = key): boolean =>
        verifyMemberProof({ ...made, ...changed }, proof, by.publicKey, nowMs);
      for (const nowMs of [issuedMs - guestProofMs, issuedMs, issuedMs + guestProofMs]) {
        assert(holds({}, nowMs));
      }
      assert(!holds({}, issuedMs - guestProofMs - 1));
      assert(!holds({}, issuedMs + guestProofMs + 1));
      assert(!holds({ [field]: other }));
      assert(!holds({ issuedMs: issuedMs + 1 }));
      assert(!holds({}, issuedMs, signingKeyFromSeed(other)));
      // No two fields in each other's place, and no other statement.
      assert(!holds({ clientSpki: made.nodeSpki, nodeSpki: made.clientSpki }) || isSame(made));
      assert(!verifyStatement('qpc/entry/1', made.entry, proof, key.publicKey));
    }),
  );
});

const isSame = ({ clientSpki, nodeSpki }: MemberBinding): boolean =>
  Buffer.compare(clientSpki, nodeSpki) === 0;
