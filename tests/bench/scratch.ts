/** The directory of one bench and its nodes: both are gone when the bench ends, however it ends. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeProcess } from '../cluster/node-process.ts';

/** A start on a loaded machine is slow and no error (ms). */
const readyMs = 120_000;

export class Scratch implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'qpc-bench-'));
  readonly #nodes: NodeProcess[] = [];

  /** These nodes die with the scratch. */
  own(nodes: readonly NodeProcess[]): void {
    this.#nodes.push(...nodes);
    for (const node of nodes) node.readyMs = readyMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.kill()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Runs nodes for the time of `job`, each in a fresh process. */
export async function whileRunning<T>(
  nodes: readonly NodeProcess[],
  job: () => Promise<T>,
): Promise<T> {
  await Promise.all(nodes.map((node) => node.start()));
  try {
    return await job();
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
  }
}
