/** A store in this thread that can crash: it goes on from an image of its files as they lie. */
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { openNodeStoreInThread } from '../open.ts';
import type { NodeStore } from '../store.ts';
import type { StoreLimits } from '../store-limits.ts';
import type { StoreFixture } from './fixture.ts';

export class CrashableStore implements AsyncDisposable {
  readonly #fixture: StoreFixture;
  readonly #limits: StoreLimits;
  #path: string;
  #store: NodeStore;
  #crashes = 0;

  static async create(fixture: StoreFixture, limits: StoreLimits): Promise<CrashableStore> {
    await fixture.create();
    return new CrashableStore(fixture, limits);
  }

  private constructor(fixture: StoreFixture, limits: StoreLimits) {
    this.#fixture = fixture;
    this.#limits = limits;
    this.#path = fixture.path;
    this.#store = this.#open();
  }

  get store(): NodeStore {
    return this.#store;
  }

  get path(): string {
    return this.#path;
  }

  /** The database and its write-ahead log, as a power cut would leave them, become the store. */
  async crash(): Promise<void> {
    this.#crashes += 1;
    const folder = join(dirname(this.#fixture.path), `crash-${this.#crashes}`);
    mkdirSync(folder);
    const image = join(folder, basename(this.#fixture.path));
    for (const end of ['', '-wal', '-commits']) {
      if (existsSync(this.#path + end)) copyFileSync(this.#path + end, image + end);
    }
    await this.#store[Symbol.asyncDispose]();
    if (this.#crashes > 1) rmSync(dirname(this.#path), { recursive: true });
    this.#path = image;
    this.#store = this.#open();
  }

  #open(): NodeStore {
    return openNodeStoreInThread({ ...this.#fixture.options(this.#limits), path: this.#path });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }
}
