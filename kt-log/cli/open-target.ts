/** From what a person names to a source of a log: a directory, an HTTP door, a node, a domain. */
import { stat } from 'node:fs/promises';
import { isDomain, type Runtime } from '@quicprochat/proto';
import { directoryReader } from '../directory-source.ts';
import type { Sha256 } from '../hash.ts';
import { httpReader } from '../http-source.ts';
import type { PublishedLog } from '../log-source.ts';
import { Mirror } from '../mirror.ts';
import { UsageError } from './usage.ts';

export interface OpenedTarget extends AsyncDisposable {
  readonly source: PublishedLog;
  /** Where a person finds the same files; undefined for a node over QUIC. */
  readonly baseUrl: string | undefined;
}

export async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    // There is none, or none that may be looked at.
    return false;
  }
}

/** Throws UsageError for what is none of them; QpcError when a node cannot be reached. */
export async function openTarget(
  target: string,
  parts: { readonly runtime: Runtime; readonly sha256: Sha256 },
  signal: AbortSignal,
): Promise<OpenedTarget> {
  const close = async (): Promise<void> => undefined;
  if (target.startsWith('qpc://')) {
    // The QUIC engine takes a second to load: only for whoever needs it.
    const { NodeSource } = await import('./node-source.ts');
    const node = await NodeSource.dial(target, parts, signal);
    return {
      source: node,
      baseUrl: undefined,
      [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
    };
  }
  const isUrl = /^https?:\/\//.test(target);
  if (!isUrl && (await isDirectory(target))) {
    const source = new Mirror(directoryReader(target), parts.sha256);
    return { source, baseUrl: target.replace(/\/$/, ''), [Symbol.asyncDispose]: close };
  }
  const text = isUrl ? target : `https://${target}`;
  if (!URL.canParse(text) || !(isUrl || isDomain(target))) {
    throw new UsageError(`${target}: no directory, URL or domain`);
  }
  const source = new Mirror(httpReader(new URL(text), parts.runtime.clock), parts.sha256);
  return { source, baseUrl: text.replace(/\/$/, ''), [Symbol.asyncDispose]: close };
}
