/**
 * Remembers what pure functions of the crypto library answered: all runs of a process begin with the same
 * world, every recipient checks the same signature, and what was signed here holds. Same inputs, same
 * answers; only time is saved.
 */
import crypto, { type KeyObject } from 'node:crypto';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { nativeVrf, type ImmediateVrfProver, type VrfVerifier } from '@quicprochat/kt-log';

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
  const { createPublicKey, createPrivateKey, sign, verify } = crypto;
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
        if (kind === 'public') keyNumbers.set(key, (lastKey += 1));
      }
      return key;
    };
  const publicKey = remembered(createPublicKey, 'public');
  const numberOfPublic = (privateKey: KeyObject): number | undefined => {
    const known = keyNumbers.get(privateKey);
    if (known !== undefined || privateKey.asymmetricKeyType !== 'ed25519') return known;
    const key = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
    const number = keyNumbers.get(publicKey({ key, format: 'der', type: 'spki' }));
    if (number !== undefined) keyNumbers.set(privateKey, number);
    return number;
  };
  Object.assign(crypto, {
    createPublicKey: publicKey,
    createPrivateKey: remembered(createPrivateKey, 'private'),
    sign: (...args: Parameters<typeof sign>): unknown => {
      const [algorithm, data, key] = args;
      const signature: unknown = Reflect.apply(sign, crypto, args);
      if (algorithm !== null || !(data instanceof Uint8Array)) return signature;
      const isKey = typeof key === 'object' && 'type' in key && key.type === 'private';
      const number = isKey ? numberOfPublic(key) : undefined;
      // Whoever checks it later would find that it holds.
      if (number !== undefined && signature instanceof Uint8Array)
        keepVerdict(verdictName(number, data, signature), true);
      return signature;
    },
    verify: (...args: Parameters<typeof verify>): unknown => {
      const [algorithm, data, key, signature] = args;
      const number = typeof key === 'object' ? keyNumbers.get(key as KeyObject) : undefined;
      const isKnowable = number !== undefined && data instanceof Uint8Array && algorithm === null;
      if (!isKnowable || !(signature instanceof Uint8Array))
        return Reflect.apply(verify, crypto, args);
      const name = verdictName(number, data, signature);
      const known = verdicts.get(name);
      return known ?? keepVerdict(name, verify(algorithm, data, key, signature));
    },
  });
  syncBuiltinESMExports();
}
let isInstalled = false;

function verdictName(key: number, data: Uint8Array, signature: Uint8Array): string {
  const bytes = Buffer.from(signature.buffer, signature.byteOffset, signature.length);
  return `${key} ${crypto.hash('sha256', data, 'hex')} ${bytes.toString('latin1')}`;
}

function keepVerdict(name: string, verdict: boolean): boolean {
  if (verdicts.size >= answersMax) verdicts.clear();
  verdicts.set(name, verdict);
  return verdict;
}

/** The VRF's proofs and verdicts: those of a world's labels are made and checked in every run. Idempotent. */
export function rememberVrf(): void {
  if (isVrfKept) return;
  isVrfKept = true;
  const engine = { ...nativeVrf };
  const text = (bytes: Uint8Array): string =>
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  const provers = new Map<string, ImmediateVrfProver>();
  const outcomes = new Map<string, unknown>();
  /** What `make` gave for this name the first time; an error of it is no answer. */
  const once = <T>(name: string, make: () => T): T => {
    if (outcomes.size >= answersMax) outcomes.clear();
    if (!outcomes.has(name)) outcomes.set(name, make());
    return outcomes.get(name) as T;
  };
  const rememberingProver = (seed: Uint8Array): ImmediateVrfProver => {
    const known = engine.prover(seed);
    const key = text(known.publicKey);
    return {
      publicKey: known.publicKey,
      // Whatever is known of a place: the proof is the same.
      prove: (label, versions) =>
        versions.map((version) =>
          once(`proof ${version} ${key} ${text(label)}`, () =>
            single(known.prove(label, [version])),
          ),
        ),
      places: (label, versions) =>
        versions.map((version) =>
          once(`place ${version} ${key} ${text(label)}`, () =>
            single(known.places(label, [version])),
          ),
        ),
    };
  };
  Object.assign(nativeVrf, {
    prover: (seed: Uint8Array): ImmediateVrfProver => {
      const name = text(seed);
      const made = provers.get(name) ?? rememberingProver(seed);
      if (provers.size >= answersMax) provers.clear();
      provers.set(name, made);
      return made;
    },
    verifier: (publicKey: Uint8Array): VrfVerifier => {
      const key = text(publicKey);
      const known = once(`key ${key}`, () => engine.verifier(publicKey));
      return {
        verify: (label, version, proof) => {
          const name = `verdict ${version} ${key} ${text(proof)} ${text(label)}`;
          return once(name, () => known.verify(label, version, proof));
        },
      };
    },
  });
}
let isVrfKept = false;

function single<T>(made: readonly T[]): T {
  const [one] = made;
  if (one === undefined) throw new TypeError('memo: a prover left out an answer');
  return one;
}

/**
 * From now on, for the whole process, databases are written as plain SQLite: what is simulated is when
 * their bytes reach the disk, not that others cannot read them. Statements are compiled when they are
 * first used: a node has hundreds, and a run starts ten nodes. Idempotent.
 */
export function cheapenDatabases(): void {
  const driver: unknown = createRequire(import.meta.url)('better-sqlite3-multiple-ciphers');
  if (typeof driver !== 'function') throw new Error('sqlite driver: no class');
  const prototype = driver.prototype as {
    key: (key: Uint8Array) => unknown;
    pragma: (text: string, options?: object) => unknown;
    prepare: (sql: string) => Statement;
  };
  if (isPlain) return;
  isPlain = true;
  const { pragma, prepare } = prototype;
  prototype.prepare = function late(this: unknown, sql) {
    return lateStatement(() => Reflect.apply(prepare, this, [sql]));
  };
  prototype.key = () => undefined;
  prototype.pragma = function plain(this: OpenDatabase, text, options) {
    remember(this);
    if (/^(cipher|legacy|key) *=/.test(text)) return undefined;
    return Reflect.apply(pragma, this, options === undefined ? [text] : [text, options]);
  };
}
let isPlain = false;

interface OpenDatabase {
  /** Its path. */
  readonly name: string;
  readonly open: boolean;
  prepare(sql: string): Statement;
}
/** By path, the first that is open: the connection of whoever owns the file. A client's file has no other. */
const opened = new Map<string, WeakRef<OpenDatabase>>();
const questions = new WeakMap<OpenDatabase, Map<string, Statement>>();

function remember(db: OpenDatabase): void {
  if (opened.get(db.name)?.deref()?.open === true) return;
  opened.set(db.name, new WeakRef(db));
}

/**
 * One number out of a database that this process has open, 0 where there is none. It is asked through the owner's own
 * connection: to open another one costs more than the question. Throws when it is closed.
 */
export function numberIn(path: string, sql: string, ...parameters: readonly unknown[]): number {
  return Number(questionOf(path, sql, true).get(...parameters) ?? 0);
}

/** Rows out of such a database; the caller knows what the question asks for. */
export function rowsIn<Row>(path: string, sql: string, ...parameters: readonly unknown[]): Row[] {
  return questionOf(path, sql, false).all(...parameters) as Row[];
}

function questionOf(path: string, sql: string, isOneNumber: boolean): Statement {
  const db = opened.get(path)?.deref();
  if (db?.open !== true) throw new Error(`${path}: not open`);
  const known = questions.get(db) ?? new Map<string, Statement>();
  questions.set(db, known);
  let statement = known.get(sql);
  if (statement === undefined) {
    statement = db.prepare(sql);
    if (isOneNumber) statement.pluck();
    known.set(sql, statement);
  }
  return statement;
}

interface Statement {
  pluck(): unknown;
  run(...parameters: readonly unknown[]): unknown;
  get(...parameters: readonly unknown[]): unknown;
  all(...parameters: readonly unknown[]): unknown;
  iterate(...parameters: readonly unknown[]): unknown;
}

/** What looks like a statement and becomes one with its first call. */
function lateStatement(prepare: () => Statement): Statement {
  let isPlucked = false;
  const late: Statement = {
    pluck() {
      isPlucked = true;
      return late;
    },
    run: (...parameters) => make().run(...parameters),
    get: (...parameters) => make().get(...parameters),
    all: (...parameters) => make().all(...parameters),
    iterate: (...parameters) => make().iterate(...parameters),
  };
  const make = (): Statement => {
    const statement = prepare();
    if (isPlucked) statement.pluck();
    for (const name of ['run', 'get', 'all', 'iterate'] as const) {
      late[name] = statement[name].bind(statement);
    }
    return late;
  };
  return late;
}
