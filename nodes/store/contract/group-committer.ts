/** The members of a group in one hand, as a hub sees them in a test: entries, commits, certificates. */
import {
  commitHash,
  groupChannelSeed,
  parseEntry,
  signCertificate,
  signEntry,
  signingKeyFromSeed,
  systemRandom,
  type ParsedEntry,
  type SigningKey,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  GroupEntrySchema,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import type { NewGroup, OfferedCommit, OfferedEntry } from '../group-store.ts';
import { dayMs } from './fixture.ts';

interface EpochKeys {
  readonly commit: SigningKey;
  readonly join: SigningKey;
}

/** Fields of an entry that differ from what its parent asks for, and who signs it instead. */
export interface EntryChanges {
  readonly parent?: Uint8Array;
  readonly epoch?: bigint;
  readonly commitHash?: Uint8Array;
  readonly removal?: boolean;
  readonly rejects?: readonly Uint8Array[];
  readonly key?: SigningKey;
}

export class TestCommitter {
  readonly groupId: Uint8Array = systemRandom.bytes(32);
  readonly channelNonce: Uint8Array = systemRandom.bytes(32);
  readonly domain: string;
  readonly hubSigning: SigningKey;
  readonly #keys = new Map<number, EpochKeys>();

  constructor(domain = 'red.example', hubSigning?: SigningKey) {
    this.domain = domain;
    this.hubSigning = hubSigning ?? signingKeyFromSeed(systemRandom.bytes(32));
  }

  keys(epoch: number): EpochKeys {
    const fresh = (): SigningKey => signingKeyFromSeed(systemRandom.bytes(32));
    const keys = this.#keys.get(epoch) ?? { commit: fresh(), join: fresh() };
    this.#keys.set(epoch, keys);
    return keys;
  }

  /** Of the group's channel. */
  get channelSeed(): Uint8Array {
    return groupChannelSeed(this.groupId, this.channelNonce);
  }

  /** An entry behind `parent`, or entry 0. */
  sign(parent: ParsedEntry | undefined, changes: EntryChanges = {}): SignedGroupEntry {
    const { key, rejects = [], ...rest } = changes;
    const epoch = parent === undefined ? 0 : parent.epoch + 1;
    const keys = this.keys(epoch);
    const entry = create(GroupEntrySchema, {
      group: this.groupId,
      parent: parent?.hash ?? new Uint8Array(0),
      epoch: BigInt(epoch),
      nextCommitPub: keys.commit.publicKey,
      joinCommitPub: keys.join.publicKey,
      rejects: [...rejects],
      ...rest,
    });
    return signEntry(entry, key ?? this.keys(parent?.epoch ?? 0).commit);
  }

  certify(entry: SignedGroupEntry): OfferedEntry {
    const parsed = parseEntry(entry);
    const hub = { domain: this.domain, signing: this.hubSigning };
    const signatures = [signCertificate(parsed.hash, 0, hub)];
    return { parsed, certified: create(CertifiedEntrySchema, { entry, term: 0n, signatures }) };
  }

  newGroup(creator: Uint8Array): NewGroup {
    return { ...this.certify(this.sign(undefined)), hubs: [this.domain], creator };
  }

  /** A commit behind `parent` that nobody is told of, unless `changes` say who. */
  offer(
    parent: ParsedEntry,
    changes: Partial<OfferedCommit> = {},
    entry: EntryChanges = {},
  ): OfferedCommit {
    const commit = changes.commit ?? systemRandom.bytes(200);
    const signed = this.sign(parent, { commitHash: commitHash(commit), ...entry });
    return {
      ...this.certify(signed),
      commit,
      mid: systemRandom.bytes(16),
      targets: [],
      welcomes: [],
      sharedWelcome: new Uint8Array(0),
      updates: [],
      channelNonce: new Uint8Array(0),
      groupInfo: new Uint8Array(0),
      ttlMs: 30 * dayMs,
      domain: this.domain,
      ...changes,
    };
  }
}
