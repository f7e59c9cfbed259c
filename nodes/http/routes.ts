/**
 * What the HTTP door answers: the node's record, the log's checkpoint, tiles and audit bundles,
 * evidence, the page, and searches where they are public. It reads, and knows nothing of sockets.
 */
import {
  entryBundle,
  logEntry,
  mirrorFile,
  parseMirrorPath,
  type AuditStore,
  type EvidenceRecord,
  type KtService,
  type MirrorFile,
} from '@quicprochat/kt-log';
import { NotFoundError, type Clock, hex } from '@quicprochat/proto';
import {
  SignedNodeRecordSchema,
  toBinary,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import { browserModules, type BrowserModules } from './browser-modules.ts';
import { gatherFacts, type FactSources } from './facts.ts';
import { pageCss, renderPage } from './page.ts';
import { bytesType, found, htmlType, refusal, textType, type Reply } from './reply.ts';
import { encodeSearchAnswer } from './search-answer.ts';

/** Entries of an audit bundle and of a full tile. */
const bundleEntries = 256;

export const routeLimits = {
  /** The page is made anew at most this often (ms). */
  pageMs: 2_000,
  /** Encoded audit bundles that are kept; each is at most a few MiB. */
  bundlesKept: 4,
} as const;

export interface RouteParts extends FactSources {
  readonly service: Pick<KtService, 'search' | 'auditBundle'>;
  readonly audits: Pick<AuditStore, 'evidence' | 'status'>;
  readonly record: () => SignedNodeRecord;
  readonly clock: Clock;
  readonly publicSearch: boolean;
}

/** What a path costs, for the rate limits. */
export type PathCost = 'cheap' | 'audit';

export class Routes {
  readonly #parts: RouteParts;
  readonly #modules: BrowserModules | undefined;
  readonly #bundles = new Map<string, Uint8Array>();
  #page: { readonly madeMs: number; readonly html: Promise<string> } | undefined;

  /** Reads the page's program from disk where searches are public. */
  constructor(parts: RouteParts) {
    this.#parts = parts;
    const program = new URL(import.meta.resolve('./look-up.ts')).pathname;
    this.#modules = parts.publicSearch ? browserModules(program, '/kt/js/') : undefined;
  }

  get hasSearch(): boolean {
    return this.#parts.publicSearch;
  }

  costOf(path: string): PathCost {
    return path.startsWith('/kt/audit/') ? 'audit' : 'cheap';
  }

  /** Answers a GET. `path` has no query; any text that came over a socket may be given. */
  async get(path: string): Promise<Reply> {
    const { log, record } = this.#parts;
    switch (path) {
      case '/.well-known/qpc':
        return found(bytesType, toBinary(SignedNodeRecordSchema, record()), 'fresh');
      case '/kt/':
        return found(htmlType, await this.#pageNow(), 'fresh');
      case '/kt/page.css':
        return found('text/css; charset=utf-8', pageCss, 'fresh');
      case '/kt/checkpoint':
        return log.size === 0 ? nothing() : found(textType, await log.checkpoint(), 'fresh');
      case '/kt/evidence/':
        return found(textType, await this.#evidenceList(), 'fresh');
      default:
        return (await this.#below(path)) ?? nothing();
    }
  }

  async #below(path: string): Promise<Reply | undefined> {
    const script = this.#modules?.files.get(path);
    if (script !== undefined) return found('text/javascript; charset=utf-8', script, 'immutable');
    const file = path.startsWith('/kt/') ? parseMirrorPath(path.slice('/kt/'.length)) : undefined;
    if (file !== undefined) return this.#file(file);
    const hash = /^\/kt\/evidence\/([0-9a-f]{64})$/.exec(path)?.[1];
    return hash === undefined ? undefined : this.#evidence(hash);
  }

  /** Answers a POST of SearchRequest bytes. Throws what KtService.search throws. */
  async search(body: Uint8Array): Promise<Reply> {
    try {
      const answer = await this.#parts.service.search(body);
      return found(bytesType, encodeSearchAnswer(answer), 'fresh');
    } catch (error) {
      if (error instanceof NotFoundError) return refusal(404, 'the node knows no such user');
      throw error;
    }
  }

  /** Files of the log (kt-log/mirror.ts). Those that exist never change, partial ones included. */
  async #file(file: MirrorFile): Promise<Reply | undefined> {
    const { log } = this.#parts;
    const { kind, index, width } = file;
    if (kind !== 'tile' && index * bundleEntries + width > log.size) return undefined;
    const bytes =
      kind === 'audit'
        ? await this.#bundle(index, width)
        : kind === 'entries'
          ? await this.#entries(index, width)
          : await mirrorFile(log, file);
    return bytes === undefined ? undefined : found(bytesType, bytes, 'immutable');
  }

  async #entries(index: number, width: number): Promise<Uint8Array> {
    const from = index * bundleEntries;
    const entries = await this.#parts.tree.entries(from, from + width);
    return entryBundle(entries.map((entry) => logEntry(entry.timestampMs, entry.prefixRoot)));
  }

  /** Entries from 256n on, with the checkpoint of the size at which they end. */
  async #bundle(n: number, width: number): Promise<Uint8Array> {
    const key = `${n}/${width}`;
    const kept = this.#bundles.get(key);
    if (kept !== undefined) return kept;
    const bytes = await this.#parts.service.auditBundle(n * bundleEntries, width);
    this.#bundles.set(key, bytes);
    const [oldest] = this.#bundles.keys();
    if (this.#bundles.size > routeLimits.bundlesKept && oldest !== undefined) {
      this.#bundles.delete(oldest);
    }
    return bytes;
  }

  async #evidenceList(): Promise<string> {
    const lines = (await this.#parts.audits.evidence()).map(
      (one) =>
        `${hex(one.hash)} ${one.kind} ${one.origin} ${new Date(one.foundMs).toISOString()}\n`,
    );
    return lines.join('');
  }

  async #evidence(hash: string): Promise<Reply | undefined> {
    const isIt = (one: EvidenceRecord): boolean => hex(one.hash) === hash;
    const record = (await this.#parts.audits.evidence()).find(isIt);
    return record && found(bytesType, record.bytes, 'immutable');
  }

  /** One rendering serves everybody who asks within a moment. */
  async #pageNow(): Promise<string> {
    const { clock } = this.#parts;
    const nowMs = clock.monotonic();
    if (this.#page === undefined || nowMs - this.#page.madeMs >= routeLimits.pageMs) {
      const html = gatherFacts(this.#parts, clock.now()).then((facts) =>
        renderPage(facts, this.#modules),
      );
      this.#page = { madeMs: nowMs, html };
    }
    try {
      return await this.#page.html;
    } catch (error) {
      this.#page = undefined;
      throw error;
    }
  }
}

const nothing = (): Reply => refusal(404, 'there is nothing here');
