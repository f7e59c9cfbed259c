/** The surroundings of a store in a test: a folder, a key, a clock that only the test moves. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog, systemClock, systemRandom, type Clock, type Runtime } from '@quicprochat/proto';
import { createNodeStore, type OpenOptions } from '../open.ts';
import type { NewAccount, NewDevice, StoredManifest } from '../account-store.ts';
import type { EnqueueRow } from '../message-store.ts';
import type { NodeStore } from '../store.ts';
import type { StoreLimits } from '../store-limits.ts';
import { registerAccount } from './log-batch.ts';

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

/** Small, so that tests reach them. */
export const smallLimits: StoreLimits = {
  inboxRows: 8,
  inboxBytes: 2_000,
  strangerRows: 3,
  channelRows: 8,
  channelBytes: 2_000,
  outboxRowsPerPeer: 8,
  outboxBytesPerPeer: 2_000,
  outboxAgeMs: 7 * dayMs,
  deferredRetryMs: 5 * minuteMs,
  delayedAfterMs: hourMs,
  tombstoneMs: 72 * hourMs,
};

export const bigLimits: StoreLimits = {
  ...smallLimits,
  inboxRows: 100_000,
  inboxBytes: 2 ** 30,
  channelRows: 100_000,
  channelBytes: 2 ** 30,
  outboxRowsPerPeer: 100_000,
  outboxBytesPerPeer: 2 ** 30,
};

/** Some way to open a store. */
export type OpenStore = (options: OpenOptions) => NodeStore | Promise<NodeStore>;

export class StoreFixture implements AsyncDisposable {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'qpc-store-'));
  readonly path: string = join(this.folder, 'node.db');
  readonly key: Uint8Array = systemRandom.bytes(32);
  readonly runtime: Runtime;
  nowMs: number = Date.UTC(2026, 0, 1);
  readonly #opened: NodeStore[] = [];

  constructor() {
    const clock: Clock = { ...systemClock, now: () => this.nowMs };
    this.runtime = { clock, random: systemRandom, log: silentLog };
  }

  options(limits: StoreLimits = smallLimits): OpenOptions {
    const { path, key, runtime } = this;
    return { path, key, runtime, limits };
  }

  /** Makes the database file. */
  create(): Promise<void> {
    return createNodeStore(this.options());
  }

  /** Opens the file; closed with the fixture, if not before. */
  async open(open: OpenStore, limits?: StoreLimits): Promise<NodeStore> {
    const store = await open(this.options(limits));
    this.#opened.push(store);
    return store;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#opened) await store[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A fresh fixture with an open store. */
export async function storeFixture(
  open: OpenStore,
  limits?: StoreLimits,
): Promise<{ readonly fixture: StoreFixture; readonly store: NodeStore }> {
  const fixture = new StoreFixture();
  await fixture.create();
  return { fixture, store: await fixture.open(open, limits) };
}

export function newAccount(userId: string): NewAccount {
  return {
    userId,
    setupId: 1,
    opaqueRecord: systemRandom.bytes(192),
    manifest: newManifest(),
    manifestSeq: 0,
    device: newDevice('laptop'),
    sessionExpiresMs: Date.UTC(2027, 0, 1),
  };
}

export function newManifest(): StoredManifest {
  return { manifest: systemRandom.bytes(100), signature: systemRandom.bytes(64) };
}

export function newDevice(deviceId: string): NewDevice {
  return {
    deviceId,
    identityPub: systemRandom.bytes(32),
    transportSpki: systemRandom.bytes(32),
  };
}

/** Makes an account; returns its device key. */
export async function addDevice(store: NodeStore, userId: string): Promise<Uint8Array> {
  const account = newAccount(userId);
  await registerAccount(store, account);
  return account.device.identityPub;
}

/** A row with a fresh mid. */
export function newRow(rid: Uint8Array, row: Partial<EnqueueRow> = {}): EnqueueRow {
  return {
    rid,
    kind: 1,
    mid: systemRandom.bytes(16),
    payload: systemRandom.bytes(100),
    ttlMs: 30 * dayMs,
    ...row,
  };
}

/** Bytes as text, to compare sets of them. */
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
