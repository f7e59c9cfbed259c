/** C2SP signed notes, checkpoints, cosignatures, policies: the documents' examples and refusals. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import type { NoteKey } from './note.ts';
import {
  cosign,
  formatCheckpoint,
  formatNote,
  formatVkey,
  keytransExtension,
  keytransRoot,
  noteKey,
  openCheckpoint,
  parseCheckpoint,
  parseNote,
  parseVkey,
  signNote,
  SignatureType,
  subtreeMessage,
  verifyNote,
} from './note.ts';
import { meetsQuorum, parsePolicy } from './policy.ts';
import { specText, toHex } from './spec-vectors.ts';

const { sha256 } = nativeSuite;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** signed-note.md, "Example". */
const exampleVkey = 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k';
const exampleNote = `This is an example message.

\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
`;
/** tlog-cosignature.md, first example (its keys are not given). */
const exampleCheckpoint = `example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
`;

test('the example of signed-note verifies with its key, and with no other', () => {
  const key = parseVkey(sha256, exampleVkey);
  assert.equal(formatVkey(key), exampleVkey);
  const note = parseNote(bytes(exampleNote));
  assert.equal(note.text, 'This is an example message.\n');
  assert.equal(formatNote(note), exampleNote);
  assert.deepEqual(verifyNote(nativeSuite, note, [key]), [{ key, timeSeconds: undefined }]);
  const changed = parseNote(bytes(exampleNote.replace('example message', 'Example message')));
  assert.throws(() => verifyNote(nativeSuite, changed, [key]), { reason: 'BAD_SIGNATURE' });
  const stranger = { ...key, name: 'example.com/bar' };
  assert.throws(() => verifyNote(nativeSuite, note, [stranger]), { reason: 'BAD_SIGNATURE' });
});

test('the examples stand in the documents that lie beside the project', (context) => {
  const signedNote = specText('signed-note.md');
  const cosignature = specText('tlog-cosignature.md');
  if (signedNote === undefined || cosignature === undefined) {
    context.skip('specifications not found (set QPC_SPEC_DIR)');
    return;
  }
  assert.ok(signedNote.includes(exampleVkey) && signedNote.includes(exampleNote.trim()));
  assert.ok(cosignature.includes(exampleCheckpoint.trim()));
});

test('the example of tlog-cosignature parses to its parts', () => {
  const note = parseNote(bytes(exampleCheckpoint));
  assert.equal(formatNote(note), exampleCheckpoint);
  const checkpoint = parseCheckpoint(note.text);
  assert.equal(checkpoint.origin, 'example.com/behind-the-sofa');
  assert.equal(checkpoint.size, 20_852_163);
  assert.equal(formatCheckpoint(checkpoint), note.text);
  const [, witness] = note.signatures;
  assert.equal(witness?.name, 'witness.example.com/w1');
  assert.equal(witness.keyId, 0x8d66cf3f);
  assert.equal(witness.signature.length, 8 + 64);
});

const keyOf = (name: string, seed: number, type: 1 | 4): { key: NoteKey; sign: Signer } => {
  const sign = nativeSigner(new Uint8Array(32).fill(seed));
  return { key: noteKey(sha256, name, type, sign.publicKey), sign };
};
type Signer = ReturnType<typeof nativeSigner>;
const log = keyOf('red.example', 1, SignatureType.ed25519);
const blue = keyOf('blue.example/auditor', 2, SignatureType.cosignatureV1);
const root = new Uint8Array(32).fill(9);
const text = formatCheckpoint({
  origin: 'red.example',
  size: 42,
  root,
  extensions: [keytransExtension(root)],
});

test('a checkpoint is signed by its log and cosigned at a time', () => {
  const signed = signNote(text, log.key, log.sign);
  const cosigned = cosign(text, blue.key, blue.sign, 1_679_315_147);
  const whole = bytes(formatNote({ text, signatures: [signed, cosigned] }));
  const identity = { origin: 'red.example', key: log.key };
  const { note, checkpoint } = openCheckpoint(nativeSuite, whole, identity);
  assert.deepEqual(keytransRoot(checkpoint), root);
  assert.deepEqual(verifyNote(nativeSuite, note, [log.key, blue.key]), [
    { key: log.key, timeSeconds: undefined },
    { key: blue.key, timeSeconds: 1_679_315_147 },
  ]);
  // The time is part of what is signed.
  const late = { ...cosigned, signature: cosigned.signature.with(7, 0) };
  assert.throws(
    () => verifyNote(nativeSuite, { text, signatures: [signed, late] }, [log.key, blue.key]),
    { reason: 'BAD_SIGNATURE' },
  );
  const other = { origin: 'green.example', key: log.key };
  assert.throws(() => openCheckpoint(nativeSuite, whole, other), { reason: 'CHAIN' });
});

test('the message of an ML-DSA-44 cosigner has the layout of the document', () => {
  const message = subtreeMessage('w', 5, { origin: 'o', size: 6, root, extensions: ['x y'] });
  const expected = `${toHex(bytes('subtree/v1\n\0'))}0177${'05'.padStart(16, '0')}016f${'0'.repeat(16)}${'06'.padStart(16, '0')}${toHex(root)}`;
  assert.equal(toHex(message), expected);
});

test('an ML-DSA-44 key is unknown until somebody brings its algorithm', () => {
  const key = noteKey(sha256, 'w', SignatureType.mlDsa44, new Uint8Array(1312));
  const signature = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3);
  const note = { text, signatures: [{ name: 'w', keyId: key.keyId, signature }] };
  assert.throws(() => verifyNote(nativeSuite, note, [key]), { checked: 'signed note' });
  const seen: string[] = [];
  const verified = verifyNote(nativeSuite, note, [key], (publicKey, message, bare) => {
    seen.push(`${publicKey.length} ${toHex(message).slice(0, 20)} ${toHex(bare)}`);
    return true;
  });
  assert.deepEqual(verified, [{ key, timeSeconds: 5 }]);
  assert.deepEqual(seen, [`1312 ${toHex(bytes('subtree/v1'))} 010203`]);
});

test('malformed notes and checkpoints are refused', () => {
  const bad = [
    'no blank line\n',
    exampleNote.slice(0, -1),
    exampleNote.replace('\u2014', '-'),
    exampleNote.replace('Uw2Q', 'Uw2Q '),
    exampleNote.replace('aQM=', 'aQN='),
    exampleNote.replace('This', '\u0007his'),
    exampleNote.replace('example.com/foo', 'example.com+foo'),
    `${exampleNote}\u2014 a AAAA\n`,
    exampleNote + '\u2014 a AAAAAAA=\n'.repeat(64),
  ];
  for (const note of bad) {
    assert.throws(() => parseNote(bytes(note)), { name: 'VerificationError', reason: 'MALFORMED' });
  }
  assert.throws(() => parseNote(Uint8Array.of(0xff, 0x0a, 0x0a)), { reason: 'MALFORMED' });
  const body = 'o\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n';
  parseCheckpoint(body);
  for (const wrong of [
    body.replace('7', '07'),
    body.replace('7', '-7'),
    body.replace('7', '9007199254740993'),
    body.replace('o', ''),
    body.slice(0, -1),
    `${body}\n`,
    body.replace('Cs', 'C'),
  ]) {
    assert.throws(() => parseCheckpoint(wrong), { reason: 'MALFORMED' }, wrong);
  }
  for (const vkey of [exampleVkey.replace('530d', '530e'), 'a+b+c', 'example.com/foo+530d903a+']) {
    assert.throws(() => parseVkey(sha256, vkey), { reason: 'MALFORMED' });
  }
});

test('whatever bytes come, a note parses or is refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.string({ maxLength: 60 }), (noise, words) => {
      for (const input of [noise, bytes(words), bytes(`${words}\n\n\u2014 ${words}\n`)]) {
        try {
          const note = parseNote(input);
          assert.deepEqual(bytes(formatNote(note)), input);
        } catch (error) {
          assert.equal((error as Error).name, 'VerificationError');
        }
      }
    }),
  );
});

/** The shape of the example in tlog-policy.md, with keys. */
const witnessKeys = ['X1', 'X2', 'X3', 'Y1', 'Y2', 'Y3'].map((name, i) =>
  keyOf(`${name}.example`, 10 + i, SignatureType.cosignatureV1),
);
const vkeys = witnessKeys.map(({ key }) => formatVkey(key));
const policyText = `
# a comment
log ${formatVkey(log.key)} https://red.example/kt

witness X1 ${vkeys[0]}
witness X2 ${vkeys[1]}
\twitness X3 ${vkeys[2]} https://x3.example/
group X-witnesses 2 X1 X2 X3
witness Y1 ${vkeys[3]}
witness Y2 ${vkeys[4]}
witness Y3 ${vkeys[5]}
group Y-witnesses any Y1 Y2 Y3
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
`;

test('the example of tlog-policy: two of X and one of Y', () => {
  const policy = parsePolicy(sha256, policyText);
  const signedBy = (...indexes: number[]) =>
    indexes.map((i) => ({ key: witnessKeys[i]?.key ?? log.key, timeSeconds: 1 }));
  assert.deepEqual(meetsQuorum(policy, signedBy(0, 2, 4)), {
    ok: true,
    by: ['X1.example', 'X3.example', 'Y2.example'],
  });
  for (const few of [[0, 1], [0, 3, 4, 5], [3], []]) {
    assert.equal(meetsQuorum(policy, signedBy(...few)).ok, false);
  }
  assert.equal(meetsQuorum(parsePolicy(sha256, 'quorum none\n'), []).ok, true);
});

test('a policy with a mistake is refused with its line', () => {
  const wrong: [string, number | undefined][] = [
    [policyText.replace('quorum X-and-Y', ''), undefined],
    [`${policyText}quorum none\n`, 15],
    [policyText.replace('any Y1', 'any Y4'), 12],
    [policyText.replace('2 X1 X2 X3', '4 X1 X2 X3'), 8],
    [policyText.replace('2 X1 X2 X3', '0 X1 X2 X3'), 8],
    [policyText.replace('witness Y1', 'witness X1'), 9],
    [policyText.replace('witness Y1', 'witness none'), 9],
    [policyText.replace(vkeys[3] ?? '', vkeys[0] ?? ''), 9],
    [policyText.replace('all X-witnesses', 'all X1'), 13],
    [policyText.replace('# a comment', 'what'), 2],
    [policyText.replace(`log ${formatVkey(log.key)}`, `log ${vkeys[0]}`), 3],
  ];
  for (const [policy, line] of wrong) {
    const checked = line === undefined ? 'policy' : `policy line ${line}`;
    assert.throws(() => parsePolicy(sha256, policy), { reason: 'MALFORMED', checked });
  }
});
