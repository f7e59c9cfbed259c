/**
 * A real Chromium for tests of pages, driven over its debugging protocol with Node's own WebSocket.
 * Debian's package is installed where that is possible; where not, the tests say so and are skipped.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const installMs = 300_000;
const callMs = 20_000;

function isThere(): boolean {
  return spawnSync('chromium', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** Undefined when there is a Chromium, if need be after installing it; else why there is none. */
export function chromiumMissing(): string | undefined {
  if (isThere()) return undefined;
  if (process.getuid?.() !== 0) return 'no chromium, and only root could install it';
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const options = { stdio: 'ignore', timeout: installMs, env } as const;
  const install = ['install', '-y', '--no-install-recommends', 'chromium'];
  if (spawnSync('apt-get', ['update'], options).error !== undefined) {
    return 'no chromium, and no apt-get to install it';
  }
  spawnSync('apt-get', install, options);
  return isThere() ? undefined : 'no chromium, and apt-get could not install it';
}

interface Reply {
  readonly id?: number;
  readonly method?: string;
  readonly params?: unknown;
  readonly sessionId?: string;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

type EventListener = (session: string | undefined, method: string, params: unknown) => void;

export class Chromium implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #socket: WebSocket;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #listeners = new Set<EventListener>();
  #lastId = 0;

  private constructor(child: ChildProcess, profile: string, socket: WebSocket) {
    this.#child = child;
    this.#profile = profile;
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => {
      this.#take(JSON.parse(String(data)) as Reply);
    });
    socket.addEventListener('close', () => {
      for (const call of this.#calls.values()) call.reject(new Error('chromium is gone'));
    });
  }

  static async start(): Promise<Chromium> {
    const profile = mkdtempSync(join(tmpdir(), 'qpc-chromium-'));
    const child = spawn(
      'chromium',
      [
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--disable-background-networking',
        '--no-first-run',
        '--remote-debugging-port=0',
        `--user-data-dir=${profile}`,
        'about:blank',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const address = await new Promise<string>((resolve, reject) => {
      const seen: string[] = [];
      createInterface({ input: child.stderr }).on('line', (line) => {
        seen.push(line);
        const found = /^DevTools listening on (ws:\S+)$/.exec(line)?.[1];
        if (found !== undefined) resolve(found);
      });
      child.on('close', () => reject(new Error(`chromium ended: ${seen.join(' | ')}`)));
      child.on('error', reject);
    });
    const socket = new WebSocket(address);
    await once(socket, 'open');
    return new Chromium(child, profile, socket);
  }

  /** A new, empty page with storage of its own. */
  async newPage(): Promise<Page> {
    const { browserContextId } = await this.call<{ browserContextId: string }>(
      'Target.createBrowserContext',
    );
    const { targetId } = await this.call<{ targetId: string }>('Target.createTarget', {
      url: 'about:blank',
      browserContextId,
    });
    const { sessionId } = await this.call<{ sessionId: string }>('Target.attachToTarget', {
      targetId,
      flatten: true,
    });
    return Page.open(this, sessionId);
  }

  async call<T>(method: string, params: object = {}, sessionId?: string): Promise<T> {
    const id = ++this.#lastId;
    const call = Promise.withResolvers<unknown>();
    this.#calls.set(id, call);
    const timer = setTimeout(() => call.reject(new Error(`${method}: no answer`)), callMs);
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    try {
      // The protocol's types are the caller's to know.
      return (await call.promise) as T;
    } finally {
      clearTimeout(timer);
      this.#calls.delete(id);
    }
  }

  /** Calls `listener` with the events of one session, until the returned function is called. */
  onEvent(session: string, listener: (method: string, params: unknown) => void): () => void {
    const own: EventListener = (from, method, params) => {
      if (from === session) listener(method, params);
    };
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  #take({ id, method, params, sessionId, result, error }: Reply): void {
    if (method !== undefined) {
      for (const listener of this.#listeners) listener(sessionId, method, params);
    }
    const call = id === undefined ? undefined : this.#calls.get(id);
    if (error === undefined) call?.resolve(result);
    else call?.reject(new Error(error.message));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#socket.close();
    this.#child.kill('SIGKILL');
    await closed;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

export class Page {
  readonly #browser: Chromium;
  readonly #session: string;
  /** What the page's console and the browser's log complained about. */
  readonly complaints: string[] = [];

  private constructor(browser: Chromium, session: string) {
    this.#browser = browser;
    this.#session = session;
  }

  static async open(browser: Chromium, session: string): Promise<Page> {
    const page = new Page(browser, session);
    browser.onEvent(session, (method, params) => {
      if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded') {
        page.complaints.push(JSON.stringify(params).slice(0, 500));
      }
    });
    for (const domain of ['Page', 'Runtime', 'Log']) {
      await browser.call(`${domain}.enable`, {}, session);
    }
    return page;
  }

  async goTo(url: string): Promise<void> {
    const loaded = Promise.withResolvers<void>();
    const stop = this.#browser.onEvent(this.#session, (method) => {
      if (method === 'Page.loadEventFired') loaded.resolve();
    });
    const { errorText } = await this.#browser.call<{ errorText?: string }>(
      'Page.navigate',
      { url },
      this.#session,
    );
    if (errorText !== undefined) throw new Error(`${url}: ${errorText}`);
    await loaded.promise;
    stop();
  }

  /** The value of an expression, awaited in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#browser.call<{
      result: { value: unknown };
      exceptionDetails?: unknown;
    }>('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, this.#session);
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return result.value as T;
  }
}
