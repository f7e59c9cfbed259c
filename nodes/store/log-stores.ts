/** The key log and the audits of a NodeStore: reads at once, writes as operations of the store. */
import type {
  AuditStore,
  EvidenceRecord,
  FollowedLog,
  LogBatch,
  LogStatus,
  LogTreeName,
  NewEvaluation,
  NoteSignature,
  SignedHead,
  TreeStore,
} from '@quicprochat/kt-log';
import type { StoreChannel } from './store-client.ts';

export class KeyLogStore implements TreeStore {
  readonly #channel: StoreChannel;

  constructor(channel: StoreChannel) {
    this.#channel = channel;
  }

  async newestHead() {
    return this.#channel.read(({ keyLog }) => keyLog.newestHead());
  }
  async head(size: number) {
    return this.#channel.read(({ keyLog }) => keyLog.head(size));
  }
  async entries(from: number, to: number) {
    return this.#channel.read(({ keyLog }) => keyLog.entries(from, to));
  }
  async tiles(ids: readonly number[]) {
    return this.#channel.read(({ keyLog }) => keyLog.tiles(ids));
  }
  async logTile(tree: LogTreeName, level: number, index: number) {
    return this.#channel.read(({ keyLog }) => keyLog.logTile(tree, level, index));
  }
  async positions(label: Uint8Array) {
    return this.#channel.read(({ keyLog }) => keyLog.positions(label));
  }
  async versions(label: Uint8Array, versions: readonly number[]) {
    return this.#channel.read(({ keyLog }) => keyLog.versions(label, versions));
  }
  async evaluations(label: Uint8Array, versions: readonly number[]) {
    return this.#channel.read(({ keyLog }) => keyLog.evaluations(label, versions));
  }
  async cosignatures(size: number) {
    return this.#channel.read(({ keyLog }) => keyLog.cosignatures(size));
  }

  commit(batch: LogBatch) {
    return this.#channel.call('commitEntry', batch);
  }
  addEvaluations(evaluations: readonly NewEvaluation[]) {
    return this.#channel.call('addEvaluations', evaluations);
  }
  addCosignatures(size: number, signatures: readonly NoteSignature[]) {
    return this.#channel.call('addCosignatures', size, signatures);
  }
  erase(label: Uint8Array) {
    return this.#channel.call('eraseLabel', label);
  }
}

export class NodeAuditStore implements AuditStore {
  readonly #channel: StoreChannel;

  constructor(channel: StoreChannel) {
    this.#channel = channel;
  }

  async followed(origin: string) {
    return this.#channel.read(({ audits }) => audits.followed(origin));
  }
  async status(origin: string) {
    return this.#channel.read(({ audits }) => audits.status(origin));
  }
  async heads(origin: string, fromSize: number, max: number) {
    return this.#channel.read(({ audits }) => audits.heads(origin, fromSize, max));
  }
  async evidence(origin?: string) {
    return this.#channel.read(({ audits }) => audits.evidence(origin));
  }

  advance(log: FollowedLog) {
    return this.#channel.call('advance', log);
  }
  setStatus(origin: string, status: LogStatus) {
    return this.#channel.call('setStatus', origin, status);
  }
  putHeads(origin: string, heads: readonly SignedHead[]) {
    return this.#channel.call('putHeads', origin, heads);
  }
  putEvidence(record: EvidenceRecord, status: LogStatus) {
    return this.#channel.call('putEvidence', record, status);
  }
}
