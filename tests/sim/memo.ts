/**
 * Remembers what pure functions of the crypto library answered: all runs of a process begin with the same
 * world, and every recipient checks the same signature. Same inputs, same answers; only time is saved.
 */
import crypto, { type KeyObject } from 'node:crypto';
import { createRequire, syncBuiltinESMExports } from 'node:module';

/** Answers that are kept before all are forgotten. */
const answersMax = 200_000;

const keys = new Map<string, KeyObject>();
const keyNumbers = new WeakMap<KeyObject, number>();
const verdicts = new Map<string, boolean>();
let lastKey = 0;

/** From now on, for the whole process. Idempotent. */
export function rememberCrypto(): void {
  if (isInstalled) return;
  isInstalled = true;
  const { createPublicKey, createPrivateKey, verify } = crypto;
  const der = (input: unknown): string | undefined => {
    if (typeof input !== 'object' || input === null || !('format' in input)) return undefined;
    if (input.format !== 'der' || !('key' in input)) return undefined;
    return input.key instanceof Uint8Array ? Buffer.from(input.key).toString('latin1') : undefined;
  };
  const remembered =
    (make: (input: never) => KeyObject, kind: string) =>
    (input: unknown): KeyObject => {
      const bytes = der(input);
      // The library's own type of its input; what is not DER goes through as it came.
      if (bytes === undefined) return make(input as never);
      const name = kind + bytes;
      let key = keys.get(name);
      if (key === undefined) {
        key = make(input as never);
        if (keys.size >= answersMax) keys.clear();
        keys.set(name, key);
        keyNumbers.set(key, (lastKey += 1));
      }
      return key;
    };
  Object.assign(crypto, {
    createPublicKey: remembered(createPublicKey, 'public'),
    createPrivateKey: remembered(createPrivateKey, 'private'),
    verify: (...args: Parameters<typeof verify>): unknown => {
      const [algorithm, data, key, signature] = args;
      const number = typeof key === 'object' ? keyNumbers.get(key as KeyObject) : undefined;
      const isKnowable = number !== undefined && data instanceof Uint8Array && algorithm === null;
      if (!isKnowable || !(signature instanceof Uint8Array))
        return Reflect.apply(verify, crypto, args);
      const digest = crypto.hash('sha256', data, 'base64');
      const name = `${number} ${digest} ${Buffer.from(signature).toString('latin1')}`;
      let verdict = verdicts.get(name);
      if (verdict === undefined) {
        verdict = verify(algorithm, data, key, signature);
        if (verdicts.size >= answersMax) verdicts.clear();
        verdicts.set(name, verdict);
      }
      return verdict;
    },
  });
  syncBuiltinESMExports();
}
let isInstalled = false;

/**
 * From now on, for the whole process, databases are written as plain SQLite: what is simulated is when
 * their bytes reach the disk, not that others cannot read them. Idempotent.
 */
export function skipEncryption(): void {
  const driver: unknown = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers');
  if (typeof driver !== 'function') throw new Error('sqlite driver: no class');
  const prototype = driver.prototype as {
    key: (key: Uint8Array) => unknown;
    pragma: (text: string, options?: object) => unknown;
  };
  if (isPlain) return;
  isPlain = true;
  const { pragma } = prototype;
  prototype.key = () => undefined;
  prototype.pragma = function plain(this: unknown, text, options) {
    if (/^(cipher|legacy|key) *=/.test(text)) return undefined;
    return Reflect.apply(pragma, this, options === undefined ? [text] : [text, options]);
  };
}
let isPlain = false;
