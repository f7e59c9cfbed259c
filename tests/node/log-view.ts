/**
 * A node's log as somebody sees it who verifies everything: Configuration from the node's record,
 * answers of the wire methods, the state kept between them.
 */
import assert from 'node:assert/strict';
import {
  configuration,
  decode,
  encode,
  logVerifier,
  nativeSuite,
  openCheckpoint,
  parseVkey,
  searchRequest,
  updateRequest,
  verifyAbsence,
  verifySearch,
  type LogIdentity,
  type LogVerifier,
  type UserState,
} from '@quicprochat/kt-log';
import { call, manifestOfValue, manifestValue, methods, systemClock } from '@quicprochat/proto';
import {
  fromBinary,
  NodeRecordSchema,
  type KtAnswer,
  type NodeRecord,
  type SignedManifest,
} from '@quicprochat/proto/messages';
import type { Connection } from '@quicprochat/proto/transport';

export class LogView {
  readonly record: NodeRecord;
  readonly verifier: LogVerifier;
  readonly identity: LogIdentity;
  #state: UserState | undefined;

  private constructor(record: NodeRecord) {
    const log = record.kt.at(-1);
    assert.ok(log !== undefined, 'the record names a log');
    this.record = record;
    this.verifier = logVerifier(decode(configuration, log.config), nativeSuite);
    const key = parseVkey(nativeSuite.sha256, log.vkey);
    this.identity = { origin: key.name, key };
  }

  static async of(connection: Connection): Promise<LogView> {
    const { record } = await call(connection, methods.getNodeRecord, {});
    assert.ok(record !== undefined);
    return new LogView(fromBinary(NodeRecordSchema, record.record));
  }

  /** Size of the tree that was seen last. */
  get last(): number | undefined {
    return this.#state?.heads.treeHead.treeSize;
  }
  get state(): UserState | undefined {
    return this.#state;
  }

  request(label: Uint8Array, version?: number): Uint8Array {
    return encode(searchRequest, { last: this.last, label, version });
  }

  /** A 531: the next versions of a label, or what followed `greatest`. */
  update(label: Uint8Array, greatest: number, ...manifests: readonly SignedManifest[]): Uint8Array {
    const { last } = this;
    const values = manifests.map(manifestValue);
    return encode(updateRequest, { last, label, greatestVersion: greatest, values });
  }

  /** The greatest version of a label, verified. */
  async search(
    connection: Connection,
    label: Uint8Array,
  ): Promise<{ readonly version: number; readonly value: Uint8Array }> {
    const { answer } = await call(connection, methods.ktSearch, { request: this.request(label) });
    assert.ok(answer.case === 'found');
    return this.found(label, answer.value);
  }

  /** The same, for an answer to `request(label)` that came otherwise. */
  found(
    label: Uint8Array,
    answer: KtAnswer | undefined,
  ): { readonly version: number; readonly value: Uint8Array } {
    assert.ok(answer !== undefined);
    const { state, found } = verifySearch(
      this.verifier,
      this.#state,
      { label },
      answer.response,
      systemClock.now(),
    );
    this.#state = state;
    const { checkpoint } = openCheckpoint(nativeSuite, answer.checkpoint, this.identity);
    assert.equal(checkpoint.size, this.last, 'the checkpoint is that of the answer');
    return found;
  }

  /** The manifest that the log shows for a person. */
  async manifestOf(
    connection: Connection,
    label: Uint8Array,
  ): Promise<{ readonly version: number; readonly signed: SignedManifest }> {
    const { version, value } = await this.search(connection, label);
    return { version, signed: manifestOfValue(value) };
  }

  absent(label: Uint8Array, answer: KtAnswer): void {
    const { state } = verifyAbsence(
      this.verifier,
      this.#state,
      label,
      answer.response,
      systemClock.now(),
    );
    this.#state = state;
  }
}
