/**
 * The log as bytes (protocol section 13; kt-log/README.md): an encoded request in, the encoded
 * response and the checkpoint of its tree out. What a node's methods and its HTTP door put on the
 * wire; checks encodings, not callers.
 */
import { InvalidArgumentError, NotFoundError } from '@quicprochat/proto/status';
import type { Answers } from './answers.ts';
import { auditBundle } from './auditor.ts';
import { DeploymentMode } from './codec.ts';
import * as credentials from './credential.ts';
import type { KtLog } from './log.ts';
import type { LruLimits } from './lru.ts';
import { LruCache } from './lru.ts';
import type { Advertised } from './operations.ts';
import * as operations from './operations.ts';
import type { Structure } from './presentation.ts';
import { decode, encode } from './presentation.ts';
import type { UpdateOptions } from './sequencer.ts';
import { VerificationError } from './verification-error.ts';

/** An answer as it travels. */
export interface KtServed {
  /** The KEYTRANS structure. */
  readonly response: Uint8Array;
  /** C2SP checkpoint of the tree of the answer, with the cosignatures known now (UTF-8). */
  readonly checkpoint: Uint8Array;
  /** Entries of that tree. */
  readonly size: number;
}
/** A credential, with what shows its entry to those who know a checkpoint only. */
export interface KtServedCredential extends KtServed {
  /** Position of the distinguished entry that the credential stands on, and its 40 bytes. */
  readonly position: number;
  readonly entry: Uint8Array;
  /** RFC 6962 inclusion proof of the entry in the tree of the checkpoint, 32 bytes each. */
  readonly inclusion: readonly Uint8Array[];
}

/** Responses to searches that are kept. */
export const responseCacheLimits: LruLimits = { countMax: 4096, weightMax: 2 ** 25 };

const mode = DeploymentMode.contactMonitoring;
const utf8 = new TextEncoder();

/**
 * Every method throws what the KtLog method of its name throws, and InvalidArgumentError BAD_FIELD
 * for bytes that are no such request.
 */
export class KtService implements Disposable {
  readonly #log: KtLog;
  readonly #responses: LruCache<string, Uint8Array>;
  readonly #forget: () => void;

  constructor(log: KtLog, limits = responseCacheLimits) {
    this.#log = log;
    this.#responses = new LruCache(limits, (bytes) => bytes.length);
    this.#forget = log.onErase(() => this.#responses.clear());
  }

  /** Section 13.1. NotFoundError UNKNOWN_USER for a label or version that is not there. */
  async search(bytes: Uint8Array): Promise<KtServed> {
    const request = read(operations.searchRequest, bytes);
    const answers = this.#log.answers(request.last);
    const key = `${answers.size}/${Buffer.from(bytes).toString('latin1')}`;
    const cached = this.#responses.get(key);
    if (cached !== undefined) return this.#served(cached, answers.size);
    const structure = operations.searchResponse(mode, request.version !== undefined);
    const { made, size } = await this.#found(request.last, (at) => at.search(request));
    const response = encode(structure, made);
    if (size === answers.size) this.#responses.set(key, response);
    return this.#served(response, size);
  }

  /**
   * Shows that the label of a SearchRequest does not exist (kt-log/README.md). InvalidArgumentError
   * for a label that does, NotFoundError for one that was erased.
   */
  async absence(bytes: Uint8Array): Promise<KtServed> {
    const request = read(operations.searchRequest, bytes);
    // Not at an older head with quorum: the label may be there since.
    const answers = this.#log.answers(this.#log.size);
    const response = encode(operations.absenceProof(mode), await answers.absence(request));
    return this.#served(response, answers.size);
  }

  /** Section 13.2. */
  contactMonitor(bytes: Uint8Array): Promise<KtServed> {
    const response = operations.contactMonitorResponse(mode);
    return this.#answer(bytes, operations.contactMonitorRequest, response, (answers, request) =>
      answers.contactMonitor(request),
    );
  }

  /** Section 13.3. */
  ownerInit(bytes: Uint8Array): Promise<KtServed> {
    const response = operations.ownerInitResponse(mode);
    return this.#answer(bytes, operations.ownerInitRequest, response, (answers, request) =>
      answers.ownerInit(request),
    );
  }

  /** Section 13.4. */
  ownerMonitor(bytes: Uint8Array): Promise<KtServed> {
    const response = operations.ownerMonitorResponse(mode);
    return this.#answer(bytes, operations.ownerMonitorRequest, response, (answers, request) =>
      answers.ownerMonitor(request),
    );
  }

  /** Section 13.6. */
  distinguished(bytes: Uint8Array): Promise<KtServed> {
    const response = operations.distinguishedResponse(mode);
    return this.#answer(bytes, operations.distinguishedRequest, response, (answers, request) =>
      answers.distinguished(request),
    );
  }

  /** Section 13.5; see KtLog.update for `options` and what it waits for. */
  async update(bytes: Uint8Array, options: UpdateOptions = {}): Promise<KtServed> {
    const request = read(operations.updateRequest, bytes);
    const response = await this.#log.update(request, options);
    const { fullTreeHead: head } = response;
    const size = head.type === 'updated' ? head.treeHead.treeSize : (request.last ?? 0);
    return this.#served(encode(operations.updateResponse(mode), response), size);
  }

  /** Section 14.1: a Credential of the label's greatest version. */
  async credential(label: Uint8Array): Promise<KtServedCredential> {
    const { made, size } = await this.#found(undefined, (answers) => answers.credential(label));
    const { position } = made;
    const { entry, proof: inclusion } = await this.#log.inclusion(position, size);
    const served = await this.#served(encode(credentials.credential(mode), made), size);
    return { ...served, position, entry, inclusion };
  }

  /**
   * Section 14.2: a CredentialUpdate for a provisional credential that was made at size `last` and
   * ended in the MonitorMapEntry `entry`.
   */
  async credentialUpdate(label: Uint8Array, last: number, entry: Uint8Array): Promise<KtServed> {
    const terminal = read(operations.monitorMapEntry, entry);
    const answers = await this.#log.answersAtDistinguished(Math.max(last, terminal.position + 1));
    const update = await answers.credentialUpdate(label, last, terminal);
    return this.#served(encode(credentials.credentialUpdate, update), answers.size);
  }

  /**
   * Section 15.2: an AuditBundle of at most `max` entries from `from` on, which ends early when it
   * exceeds `bytesMax` or the log ends. InvalidArgumentError when there is no such entry.
   */
  async auditBundle(from: number, max: number, bytesMax?: number): Promise<Uint8Array> {
    const to = Math.min(from + max, this.#log.size);
    return encode(auditBundle, await this.#log.auditBundle(from, to, bytesMax));
  }

  async #answer<Q extends Advertised, R>(
    bytes: Uint8Array,
    requestStructure: Structure<Q>,
    responseStructure: Structure<R>,
    run: (answers: Answers, request: Q) => Promise<R>,
  ): Promise<KtServed> {
    const request = read(requestStructure, bytes);
    const { made, size } = await this.#found(request.last, (answers) => run(answers, request));
    return this.#served(encode(responseStructure, made), size);
  }

  /**
   * What the preferred state does not hold is looked for in the newest one: that with a quorum may
   * be some seconds older than the version that is asked for.
   */
  async #found<T>(
    last: number | undefined,
    run: (answers: Answers) => Promise<T>,
  ): Promise<{ readonly made: T; readonly size: number }> {
    const answers = this.#log.answers(last);
    try {
      return { made: await run(answers), size: answers.size };
    } catch (error) {
      const newest = this.#log.answers(this.#log.size);
      if (!(error instanceof NotFoundError) || newest.size === answers.size) throw error;
      return { made: await run(newest), size: newest.size };
    }
  }

  async #served(response: Uint8Array, size: number): Promise<KtServed> {
    return { response, checkpoint: utf8.encode(await this.#log.checkpoint(size)), size };
  }

  /** Lets go of the log, which stays open. */
  [Symbol.dispose](): void {
    this.#forget();
  }
}

/** A request that somebody sent. Throws InvalidArgumentError BAD_FIELD with what is wrong with it. */
function read<T>(structure: Structure<T>, bytes: Uint8Array): T {
  try {
    return decode(structure, bytes);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
    throw new InvalidArgumentError('BAD_FIELD', `key log: ${error.message}`, { cause: error });
  }
}
