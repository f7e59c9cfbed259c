/**
 * The look-up of the page, in the browser: asks the door's /kt/search, verifies the answer with the
 * same code as every client, and shows the keys or why they were refused. What it verified stays in
 * the browser's storage, so that a later answer cannot go back behind it.
 */
import {
  configuration,
  decode,
  LogClient,
  parsePolicy,
  parseVkey,
  portableSuite,
  VerificationError,
  type FoundValue,
  type LogAnswer,
  type LogClientStore,
  type ValueToCheck,
} from '@quicprochat/kt-log/verify';
import { viewManifest, type ManifestView } from './manifest-view.ts';
import { decodeSearchAnswer } from './search-answer.ts';

/** What the page says about the log; page.ts writes it. */
export interface LogOfPage {
  readonly domain: string;
  /** Configuration (base64), C2SP verifier key, C2SP policy (empty: nobody has to cosign). */
  readonly config: string;
  readonly vkey: string;
  readonly policy: string;
}

interface Remembered {
  readonly config: string;
  readonly vkey: string;
  readonly blobs: Readonly<Record<string, string>>;
}

/** The door has no answer; its message is a line for the reader. */
class NoAnswer extends Error {
  override name = 'NoAnswer';
}

const utf8 = new TextEncoder();
const toBase64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes));
const fromBase64 = (text: string): Uint8Array =>
  Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** All that this browser knows of one log, under one name: it changes as a whole or not at all. */
class BrowserStore implements LogClientStore {
  readonly #name: string;
  readonly #log: LogOfPage;

  constructor(log: LogOfPage) {
    this.#name = `qpc-kt ${log.domain}`;
    this.#log = log;
  }

  remembered(): Remembered {
    const text = localStorage.getItem(this.#name);
    const { config, vkey } = this.#log;
    // Only this program writes under that name; the blobs carry checksums of their own.
    return text === null ? { config, vkey, blobs: {} } : (JSON.parse(text) as Remembered);
  }
  get(key: string): Uint8Array | undefined {
    const blob = this.remembered().blobs[key];
    return blob === undefined ? undefined : fromBase64(blob);
  }
  save(changes: ReadonlyMap<string, Uint8Array | undefined>): void {
    const before = this.remembered();
    const blobs = new Map(Object.entries(before.blobs));
    for (const [key, blob] of changes) {
      if (blob === undefined) blobs.delete(key);
      else blobs.set(key, toBase64(blob));
    }
    const after: Remembered = { ...before, blobs: Object.fromEntries(blobs) };
    localStorage.setItem(this.#name, JSON.stringify(after));
  }
  forget(): void {
    localStorage.removeItem(this.#name);
  }
}

/** The keys that were seen first stay; others are refused until the reader says to forget. */
function checkPins(log: LogOfPage, store: BrowserStore): void {
  const { config, vkey } = store.remembered();
  if (config === log.config && vkey === log.vkey) return;
  throw new VerificationError('CHAIN', 'keys of the log', 'those that this browser saw before');
}

/** The rules of a value that can be checked without the versions before it. */
function checkValue({ label, version, value }: ValueToCheck): void {
  const need = (holds: boolean, checked: string, expected: string): void => {
    if (!holds) throw new VerificationError('CHAIN', checked, expected);
  };
  const view = viewManifest(value);
  if (view === undefined) throw new VerificationError('CHAIN', 'value', 'a signed device manifest');
  need(view.userId === new TextDecoder().decode(label), 'manifest user', 'the one looked up');
  need(view.seq === version, 'manifest number', `${version}, that of the version`);
  const tag = utf8.encode('qpc/manifest/1\0');
  const signed = new Uint8Array(tag.length + view.manifest.length);
  signed.set(tag);
  signed.set(view.manifest, tag.length);
  const isSigned = portableSuite.verifySignature(view.accountKey, signed, view.signature);
  need(isSigned, 'manifest', "the account key's signature");
}

/** Throws NoAnswer when there is nothing to verify. */
async function ask(request: Uint8Array): Promise<LogAnswer> {
  const response = await fetch('/kt/search', {
    method: 'POST',
    body: Uint8Array.from(request),
    headers: { 'content-type': 'application/octet-stream' },
  });
  if (!response.ok) throw new NoAnswer((await response.text()).slice(0, 200).trim());
  const answer = decodeSearchAnswer(new Uint8Array(await response.arrayBuffer()));
  if (answer === undefined) throw new VerificationError('MALFORMED', 'answer', 'its two parts');
  return answer;
}

function lookUp(log: LogOfPage, store: BrowserStore, userId: string): Promise<FoundValue> {
  checkPins(log, store);
  const key = parseVkey(portableSuite.sha256, log.vkey);
  const client = new LogClient({
    identity: { origin: key.name, key },
    config: decode(configuration, fromBase64(log.config)),
    suite: portableSuite,
    store,
    clock: { now: () => Date.now() },
    random: { bytes: (length) => crypto.getRandomValues(new Uint8Array(length)) },
    policy: log.policy === '' ? undefined : parsePolicy(portableSuite.sha256, log.policy),
    checkValue,
  });
  return client.search({ search: ask }, utf8.encode(userId));
}

const witnessedWords = {
  quorum: 'yes, by a quorum',
  pending: 'not yet by a quorum; look again in a minute',
  'none-required': 'this log has no peers that cosign it',
} as const;

function rowsOf(found: FoundValue, view: ManifestView | undefined): [string, string][] {
  const by = found.byWitnesses.length === 0 ? '' : `: ${found.byWitnesses.join(', ')}`;
  return [
    ['version', String(found.version)],
    [
      'in the log',
      `since ${dateOf(found.entryTimeMs)} UTC at the latest (entry ${found.position})`,
    ],
    ['seen in', `the log of ${found.size} entries, the newest of ${dateOf(found.timestampMs)} UTC`],
    ['cosigned', `${witnessedWords[found.witnessed]}${by}`],
    ['account key', hex(view?.accountKey ?? new Uint8Array())],
    ...(view?.devices ?? []).map(({ id, identityKey }): [string, string] => [
      `device ${id}`,
      hex(identityKey),
    ]),
    ['revoked devices', String(view?.revokedCount ?? 0)],
    ...(view?.isClosed === true ? [['account', 'closed'] satisfies [string, string]] : []),
  ];
}

const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 19).replace('T', ' ');

function show(
  output: HTMLElement,
  state: 'asking' | 'verified' | 'refused' | 'unanswered',
  title: string,
  rows: readonly (readonly [string, string])[] = [],
): void {
  const heading = document.createElement('p');
  heading.textContent = title;
  const list = document.createElement('dl');
  for (const [term, detail] of rows) {
    const dt = document.createElement('dt');
    const dd = document.createElement('dd');
    dt.textContent = term;
    dd.textContent = detail;
    list.append(dt, dd);
  }
  output.replaceChildren(heading, ...(rows.length > 0 ? [list] : []));
  output.dataset['state'] = state;
}

async function run(log: LogOfPage, store: BrowserStore, output: HTMLElement, userId: string) {
  show(output, 'asking', 'asking and verifying …');
  try {
    const found = await lookUp(log, store, userId);
    show(output, 'verified', `${userId}: verified`, rowsOf(found, viewManifest(found.value)));
  } catch (error) {
    if (error instanceof VerificationError) {
      show(
        output,
        'refused',
        `${userId}: REFUSED. The answer does not hold; do not use its keys.`,
        [
          ['reason', error.reason],
          ['checked', error.checked],
          ['expected', error.expected],
        ],
      );
    } else {
      const why = error instanceof Error ? error.message : String(error);
      show(output, 'unanswered', `${userId}: nothing verified, nothing refuted`, [['why', why]]);
    }
  }
}

function start(): void {
  const form = document.querySelector<HTMLFormElement>('#look-up');
  const input = document.querySelector<HTMLInputElement>('#user');
  const output = document.querySelector<HTMLElement>('#result');
  const data = document.querySelector('#log')?.textContent;
  if (form === null || input === null || output === null || typeof data !== 'string') return;
  // page.ts wrote it.
  const log = JSON.parse(data) as LogOfPage;
  const store = new BrowserStore(log);
  form.hidden = false;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const name = input.value.trim().toLowerCase();
    void run(log, store, output, name.includes('@') ? name : `${name}@${log.domain}`);
  });
  document.querySelector('#forget')?.addEventListener('click', () => {
    store.forget();
    show(output, 'unanswered', 'forgotten: the next look-up starts anew');
  });
}

start();
