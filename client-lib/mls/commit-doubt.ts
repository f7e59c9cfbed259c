/**
 * Which commits a member can call invalid for everybody, and which only for itself
 * (docs/protocol/group-log.md, "What cannot be judged alone"). All members of an epoch see the same signature,
 * proposals and public keys of a commit. What the path says to this member alone, and what logs
 * answer this member, others may see differently.
 */
import type {
  CiphersuiteImpl,
  ClientState,
  IncomingMessageCallback,
  PrivateKey,
  Proposal,
} from 'ts-mls';
import { CredentialError, DoubtError, MlsError } from './errors.ts';
import type { SeenCommit } from './errors.ts';
import { nodeKeyAt } from './group.ts';
import type { MlsGroup } from './group.ts';
import { defaultProposalTypes, isDefaultProposal } from './library.ts';
import { effectsOf } from './policy.ts';
import { sameBytes } from './suite.ts';

/** Watches the library apply one commit. */
export class CommitWatch {
  /** To be given to the library in place of the suite and callback that this one is made with. */
  readonly suite: CiphersuiteImpl;
  readonly callback: IncomingMessageCallback;
  readonly #group: MlsGroup;
  #facts: SeenCommit | undefined;
  #isSecret = false;
  /** Keys that were made of path secrets: private half in hex, and public half. */
  readonly #pairs = new Map<string, Uint8Array>();

  constructor(group: MlsGroup, suite: CiphersuiteImpl, callback: IncomingMessageCallback) {
    this.#group = group;
    this.callback = (incoming) => {
      if (incoming.kind === 'commit') this.#note(incoming);
      return callback(incoming);
    };
    const { hpke } = suite;
    this.suite = {
      ...suite,
      hpke: {
        ...hpke,
        // The library opens nothing with a private key before all that is public was right.
        importPrivateKey: async (bytes): Promise<PrivateKey> => {
          this.#isSecret = true;
          return hpke.importPrivateKey(bytes);
        },
        deriveKeyPair: async (ikm) => {
          const pair = await hpke.deriveKeyPair(ikm);
          const name = Buffer.from(await hpke.exportPrivateKey(pair.privateKey)).toString('hex');
          this.#pairs.set(name, await hpke.exportPublicKey(pair.publicKey));
          return pair;
        },
      },
    };
  }

  #note({
    senderLeafIndex,
    proposals,
  }: Parameters<IncomingMessageCallback>[0] & { kind: 'commit' }): void {
    const members = this.#group.members();
    const { removed = [] } = effectsOf(members, proposals) ?? {};
    const author = senderLeafIndex ?? returningLeaf(proposals);
    const by = members.find(({ leafIndex }) => leafIndex === author)?.userId;
    const gone = new Set(removed.map(({ leafIndex }) => leafIndex));
    const staying = members.filter(({ leafIndex }) => !gone.has(leafIndex));
    const voters = new Set(staying.map(({ userId }) => userId).filter((userId) => userId !== by));
    this.#facts = { by, voters: [...voters] };
  }

  /**
   * The library takes the keys of a path as they stand there. One that does not follow from the secrets
   * would make the next honest commit unreadable, with another member's name on it (RFC 9420 section 7.5).
   * Throws MlsError INVALID_COMMIT.
   */
  requireOwnPath({ ratchetTree, privatePath }: ClientState): void {
    for (const [index, secret] of Object.entries(privatePath.privateKeys)) {
      const derived = this.#pairs.get(Buffer.from(secret).toString('hex'));
      const there = nodeKeyAt(ratchetTree, Number(index));
      if (derived === undefined || (there !== undefined && sameBytes(there, derived))) continue;
      throw new MlsError('INVALID_COMMIT', 'commit: a key that its path secret does not lead to');
    }
  }

  /** What an error on the way means. */
  judged(error: unknown): unknown {
    const facts = this.#facts;
    if (facts === undefined) return error;
    if (error instanceof CredentialError) return new CredentialError(error.failures, facts);
    if (!(error instanceof MlsError)) return error;
    const isRule = error.reason === 'NOT_ALLOWED';
    if (!isRule && (this.#isSecret || !isPublic(error.cause))) {
      return new DoubtError(facts, { cause: error });
    }
    error.author = facts.by;
    return error;
  }
}

/** Whose device comes back has no say about its own commit: the leaf that an external commit takes out. */
function returningLeaf(proposals: readonly { readonly proposal: Proposal }[]): number | undefined {
  for (const { proposal } of proposals) {
    if (!isDefaultProposal(proposal)) continue;
    if (proposal.proposalType === defaultProposalTypes.remove) return proposal.remove.removed;
  }
  return undefined;
}

/** Whether the library found what is wrong by looking at the commit; whatever else stopped it proves nothing. */
function isPublic(cause: unknown): boolean {
  const names = ['ValidationError', 'CodecError', 'CryptoVerificationError'];
  return cause instanceof Error && names.includes(cause.name);
}
