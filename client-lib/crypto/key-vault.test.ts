/**
 * Key vaults on a real disk: round trips, wrong passphrases, file modes, damage at every byte, and
 * no key ever replaced by accident.
 */
import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { QpcError, systemRandom } from '@quicprochat/proto';
import { hasOpensslArgon2, nobleArgon2id, opensslArgon2id } from './argon2.ts';
import { createKeyVault, openKeyVault, rewrapKeyVault } from './key-vault.ts';
import type { AskPassphrase } from './key-vault.ts';
import { readPrivateFile } from './private-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'qpc-key-vault-'));
after(() => rmSync(directory, { recursive: true }));

let lastPath = 0;
function newPath(): string {
  lastPath += 1;
  return join(directory, `vault-${lastPath}`);
}
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const says =
  (text: string): AskPassphrase =>
  async () =>
    utf8(text);
const mustNotAsk: AskPassphrase = async () => assert.fail('asked for a passphrase');
const passphrase = (text: string) => ({ kind: 'passphrase', passphrase: utf8(text) }) as const;

test('a passphrase opens its vault, a wrong one is a typed error', async () => {
  const path = newPath();
  const key = await createKeyVault(path, passphrase('correct horse'), systemRandom);
  assert.equal(key.length, 32);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(await openKeyVault(path, says('correct horse')), key);
  await assert.rejects(openKeyVault(path, says('correct horsf')), { reason: 'VAULT_PASSPHRASE' });
  await assert.rejects(openKeyVault(path, says('')), { reason: 'BAD_FIELD' });
  const file = readFileSync(path, 'latin1');
  assert(!file.includes(Buffer.from(key).toString('base64url')), 'the key is not in the file');
});

test('a vault without a passphrase opens without asking', async () => {
  const path = newPath();
  const key = await createKeyVault(path, { kind: 'none' }, systemRandom);
  assert.deepEqual(await openKeyVault(path, mustNotAsk), key);
});

test('what the vault asked for is wiped', async () => {
  const path = newPath();
  await createKeyVault(path, passphrase('x'), systemRandom);
  const answer = utf8('x');
  await openKeyVault(path, async () => answer);
  assert.deepEqual(answer, new Uint8Array(1));
});

test('a vault that others may use is refused with the command that mends it', async () => {
  const path = newPath();
  const key = await createKeyVault(path, { kind: 'none' }, systemRandom);
  for (const mode of [0o640, 0o604, 0o620, 0o666]) {
    chmodSync(path, mode);
    await assert.rejects(openKeyVault(path, mustNotAsk), (error) => {
      assert(error instanceof QpcError);
      assert.equal(error.reason, 'FILE_PERMISSIONS');
      assert(error.message.endsWith(`chmod 600 ${path}`));
      return true;
    });
  }
  chmodSync(path, 0o400);
  assert.deepEqual(await openKeyVault(path, mustNotAsk), key);
});

test('an existing vault is never replaced', async () => {
  const path = newPath();
  const key = await createKeyVault(path, { kind: 'none' }, systemRandom);
  await assert.rejects(createKeyVault(path, { kind: 'none' }, systemRandom), {
    reason: 'FILE_EXISTS',
  });
  assert.deepEqual(await openKeyVault(path, mustNotAsk), key);
  const raced = newPath();
  const attempts = await Promise.allSettled(
    ['a', 'b', 'c'].map((text) => createKeyVault(raced, passphrase(text), systemRandom)),
  );
  assert.equal(attempts.filter(({ status }) => status === 'fulfilled').length, 1);
  assert.deepEqual(
    readdirSync(directory).filter((name) => name.endsWith('.tmp')),
    [],
  );
});

test('rewrapping keeps the key and ends the old passphrase', async () => {
  const path = newPath();
  const key = await createKeyVault(path, passphrase('old'), systemRandom);
  await rewrapKeyVault(path, says('old'), passphrase('new'), systemRandom);
  assert.deepEqual(await openKeyVault(path, says('new')), key);
  await assert.rejects(openKeyVault(path, says('old')), { reason: 'VAULT_PASSPHRASE' });
  await assert.rejects(rewrapKeyVault(path, says('old'), { kind: 'none' }, systemRandom), {
    reason: 'VAULT_PASSPHRASE',
  });
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('every flipped and cut byte of a plain vault is refused, and no error quotes it', async () => {
  const path = newPath();
  const key = await createKeyVault(path, { kind: 'none' }, systemRandom);
  const good = readFileSync(path);
  const marks = [good.toString('latin1').slice(70, 90), Buffer.from(key).toString('hex')];
  const refused = async (bytes: Uint8Array): Promise<void> => {
    writeFileSync(path, bytes);
    await assert.rejects(openKeyVault(path, says('x')), (error) => {
      assert(error instanceof QpcError && error.reason === 'VAULT_FORMAT', String(error));
      for (const mark of marks) assert(!`${error.stack} ${String(error.cause)}`.includes(mark));
      return true;
    });
  };
  for (let at = 0; at < good.length; at += 1) {
    const flipped = Uint8Array.from(good);
    flipped[at] = (flipped[at] ?? 0) ^ 0x01;
    await refused(flipped);
    await refused(good.subarray(0, at));
  }
  await refused(Buffer.concat([good, Buffer.from('\n')]));
  await refused(Buffer.concat([Buffer.from('\ufeff'), good]));
});

test('a wrapped vault of another version or shape is refused before any passphrase', async () => {
  const path = newPath();
  await createKeyVault(path, passphrase('x'), systemRandom);
  const good = readFileSync(path, 'utf8');
  for (const text of [
    good.replace('"version":1', '"version":2'),
    good.replace('"version":1', '"version":"1"'),
    good.replace('"protection":"passphrase"', '"protection":"none"'),
    good.replace('"salt":"', '"salt":"A'),
    good.replace('{"format"', '{"extra":1,"format"'),
    good.replace('"nonce"', '"nounce"'),
    '[]',
    'null',
    '',
  ]) {
    writeFileSync(path, text);
    await assert.rejects(openKeyVault(path, mustNotAsk), { reason: 'VAULT_FORMAT' });
  }
});

test('a missing vault, a directory and a file that is too large are typed errors', async () => {
  await assert.rejects(openKeyVault(newPath(), mustNotAsk), { reason: 'FILE_MISSING' });
  const path = newPath();
  mkdirSync(path, { mode: 0o700 });
  await assert.rejects(openKeyVault(path, mustNotAsk), { reason: 'FILE_UNUSABLE' });
  const large = newPath();
  writeFileSync(large, new Uint8Array(5000), { mode: 0o600 });
  await assert.rejects(openKeyVault(large, mustNotAsk), { reason: 'FILE_UNUSABLE' });
  assert.equal(readPrivateFile(large, 5000).length, 5000);
  await assert.rejects(
    createKeyVault(join(directory, 'nowhere', 'vault'), { kind: 'none' }, systemRandom),
    { reason: 'FILE_MISSING' },
  );
});

test('both engines of argon2id give the same bytes', async () => {
  assert(hasOpensslArgon2(), 'this Node has argon2');
  const [password, salt] = [utf8('correct horse'), new Uint8Array(16).fill(7)];
  assert.deepEqual(await opensslArgon2id(password, salt), await nobleArgon2id(password, salt));
});
