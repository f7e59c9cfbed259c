/** A Welcome for several devices: each opens it, nobody else does, and what a node puts in its place is refused. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { groupLogLimits, PayloadTooLargeError, QpcError, systemRandom } from '@quicprochat/proto';
import { hybridKeyId, sealHybrid, type SealedContent } from '../../crypto/envelope.ts';
import { xwingGenerateKeyPair } from '../../crypto/xwing.ts';
import { Unopened } from '../../receiving/row-verdict.ts';
import { openWelcome, sealWelcomes, type SealedWelcomes } from './shared-welcome.ts';

const random = systemRandom;

class Joiner {
  readonly userId: string;
  readonly identityPub = random.bytes(32);
  readonly pair = xwingGenerateKeyPair(random);

  constructor(name: string) {
    this.userId = `${name}@red.example`;
  }

  open({ sharedWelcome, welcomes }: SealedWelcomes<Joiner>, mid = welcomes[0]?.mid): SealedContent {
    const keys = welcomes.map(({ welcome }) => welcome);
    const [first = random.bytes(1)] = keys;
    const row =
      sharedWelcome.length === 0
        ? { welcome: first, welcomeKeys: [] }
        : { welcome: sharedWelcome, welcomeKeys: keys };
    const id = hybridKeyId(this.pair.publicKey);
    const seedOf = (keyId: Uint8Array): Uint8Array | undefined =>
      // Opening wipes nothing of the caller's.
      Buffer.compare(keyId, id) === 0 ? this.pair.secretSeed : undefined;
    return openWelcome(row, mid ?? random.bytes(16), this.identityPub, seedOf);
  }
}

const [bob, carol, dave, mallory] = ['bob', 'carol', 'dave', 'mallory'].map(
  (name) => new Joiner(name),
) as [Joiner, Joiner, Joiner, Joiner];

function seal(content: SealedContent, joiners: readonly Joiner[]): SealedWelcomes<Joiner> {
  const prekeyOf = (rid: Uint8Array): Uint8Array | undefined =>
    joiners.find(({ identityPub }) => Buffer.compare(identityPub, rid) === 0)?.pair.publicKey;
  return sealWelcomes(content, joiners, prekeyOf, random);
}

function refused(run: () => unknown, reason: string): void {
  assert.throws(run, (error) => {
    const found =
      error instanceof QpcError
        ? error.reason
        : error instanceof Unopened && error.verdict.kind === 'never' && error.verdict.reason;
    assert.equal(found, reason);
    return true;
  });
}

suite('a Welcome for several devices', () => {
  const welcome = {
    kind: 'welcome',
    bytes: random.bytes(3_000),
    joinKey: random.bytes(32),
  } as const;
  const sealed = seal(welcome, [bob, carol, dave]);

  test('is sealed once, and opened by each of them alone', () => {
    for (const joiner of [bob, carol, dave]) assert.deepEqual(joiner.open(sealed), welcome);
    refused(() => mallory.open(sealed), 'UNKNOWN_KEY');
    refused(() => bob.open(sealed, random.bytes(16)), 'BAD_ENVELOPE');
    const sizes = sealed.welcomes.map((one) => one.welcome.length);
    assert.ok(sealed.sharedWelcome.length > 3_000 && Math.max(...sizes) < 1_600, sizes.join(' '));
    assert.equal(
      new Set(sealed.welcomes.map(({ mid }) => Buffer.from(mid).toString('hex'))).size,
      1,
    );
  });

  test('for one device is that device’s as it is', () => {
    const alone = seal(welcome, [bob]);
    assert.equal(alone.sharedWelcome.length, 0);
    assert.deepEqual(bob.open(alone), welcome);
  });

  test('with its keys fits into a row, or is refused before it leaves', () => {
    const large = { ...welcome, bytes: random.bytes(470 * 1024) };
    const fitting = seal(large, [bob, carol]);
    const keys = fitting.welcomes.reduce((sum, one) => sum + one.welcome.length, 0);
    assert.ok(fitting.sharedWelcome.length + keys <= groupLogLimits.envelopeBytes);
    const crowd = Array.from({ length: 40 }, () => bob);
    assert.throws(() => seal(large, crowd), PayloadTooLargeError);
  });

  test('is refused where a node changed, swapped or left out something', () => {
    const other = seal(welcome, [bob, carol]);
    const [ofBob] = sealed.welcomes;
    assert.ok(ofBob !== undefined);
    refused(() => bob.open({ ...sealed, sharedWelcome: other.sharedWelcome }), 'UNKNOWN_KEY');
    const cut = sealed.sharedWelcome.slice();
    cut[cut.length - 1] = (cut.at(-1) ?? 0) ^ 1;
    refused(() => bob.open({ ...sealed, sharedWelcome: cut }), 'BAD_ENVELOPE');
    refused(() => bob.open({ ...sealed, welcomes: sealed.welcomes.slice(1) }), 'UNKNOWN_KEY');
    // A key alone is no Welcome, and a Welcome no key.
    const { mid } = ofBob;
    refused(() => bob.open({ sharedWelcome: new Uint8Array(0), welcomes: [ofBob] }), 'MALFORMED');
    const whole = sealHybrid({
      ...{ content: welcome, mid, random, rid: bob.identityPub },
      recipientKey: bob.pair.publicKey,
    });
    const misplaced = [{ ...ofBob, welcome: whole }];
    refused(() => bob.open({ ...sealed, welcomes: misplaced }), 'MALFORMED');
    const many = Array.from({ length: 65 }, () => ofBob);
    refused(() => bob.open({ ...sealed, welcomes: many }), 'MALFORMED');
  });

  test('junk in the place of somebody else’s key, or beside one’s own, stops nobody', () => {
    const [ofBob, ofCarol, ofDave] = sealed.welcomes;
    assert.ok(ofBob !== undefined && ofCarol !== undefined && ofDave !== undefined);
    const junk = { ...ofCarol, welcome: random.bytes(100) };
    const spoilt = { ...ofBob, welcome: ofBob.welcome.slice() };
    spoilt.welcome[ofBob.welcome.length - 1] = (ofBob.welcome.at(-1) ?? 0) ^ 1;
    const welcomes = [junk, spoilt, ofBob, ofDave];
    assert.deepEqual(bob.open({ ...sealed, welcomes }), welcome);
  });
});
