/**
 * A group in one hand, as its hub sees it: signed entries and commits of random bytes, each for one device.
 * What a hub does with a commit does not depend on what is in it.
 */
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import {
  call,
  commitHash,
  methods,
  parseEntry,
  systemRandom,
  type ParsedEntry,
} from '@quicprochat/proto';
import type { MessageInitShape, SubmitCommitRequestSchema } from '@quicprochat/proto/messages';
import type { Connection } from '@quicprochat/proto/transport';
import type { DeviceKeys } from './devices.ts';

export type RawCommit = MessageInitShape<typeof SubmitCommitRequestSchema>;

const token = new Uint8Array(0);

export class RawGroup {
  readonly #committer: TestCommitter;
  #head: ParsedEntry;

  private constructor(committer: TestCommitter, head: ParsedEntry) {
    this.#committer = committer;
    this.#head = head;
  }

  /** Makes its log at the connection's node, which is the first of `hubs`. */
  static async begin(connection: Connection, hubs: readonly string[]): Promise<RawGroup> {
    const committer = new TestCommitter();
    const entry = committer.sign(undefined);
    const made = await call(connection, methods.createGroup, { entry, hubs: [...hubs] });
    return new RawGroup(committer, parseEntry(made.entry?.entry));
  }

  get id(): Uint8Array {
    return this.#committer.groupId;
  }

  /** Of the newest accepted entry. */
  get head(): Uint8Array {
    return this.#head.hash;
  }

  /** A commit of so many bytes behind the newest one, for one device. */
  commit({ rid, domain }: DeviceKeys, bytes: number, more: RawCommit = {}): RawCommit {
    const commit = systemRandom.bytes(bytes);
    const entry = this.#committer.sign(this.#head, { commitHash: commitHash(commit) });
    const targets = [{ rid, domain, token }];
    return { entry, commit, mid: systemRandom.bytes(16), targets, ...more };
  }

  /** Resolves when the hub, or a majority of three, has it on disk. */
  async submit(connection: Connection, request: RawCommit): Promise<void> {
    const { entry } = await call(connection, methods.submitCommit, request);
    this.#head = parseEntry(entry?.entry);
  }

  /** The same at a hub that is to lead, unless the one that does can be reached. */
  async submitTakingOver(connection: Connection, request: RawCommit): Promise<void> {
    const answer = await call(connection, methods.groupTakeover, {
      group: this.id,
      submit: request,
    });
    this.#head = parseEntry(answer.submitted?.entry?.entry);
  }
}
