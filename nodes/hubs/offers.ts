/**
 * Commits as the store takes them, from what members submit or other hubs wrote down: who gets rows is
 * either a device of this node or one of a peer. Certificates are signed here, and become true when the
 * store accepts the entry.
 */
import {
  groupLogLimits,
  InvalidArgumentError,
  maxTtlS,
  parseEntry,
  parseOffered,
  PermissionDeniedError,
  signCertificate,
  type SigningKey,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  fromBinary,
  SubmitCommitRequestSchema,
  toBinary,
  type CommitTarget,
  type HubSignature,
  type MessageInitShape,
  type HubSignatureSchema,
  type SignedGroupEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import type {
  GroupTarget,
  OfferedCommit,
  OfferedEntry,
  PreparedCommit,
  PreparedEntry,
} from '../store/group-store.ts';

export interface OfferParts {
  readonly domain: string;
  /** A signing key of the node's record. */
  readonly signing: SigningKey;
  /** True for a domain that this node relays to. */
  readonly knows: (domain: string) => boolean;
}

export class CommitOffers {
  readonly #parts: OfferParts;

  constructor(parts: OfferParts) {
    this.#parts = parts;
  }

  /** This hub's word for an entry in a term. */
  sign(hash: Uint8Array, term: number): Pick<HubSignature, 'domain' | 'signPub' | 'signature'> {
    return signCertificate(hash, term, this.#parts);
  }

  /** With the certificate of these hubs. Throws InvalidArgumentError BAD_FIELD. */
  entry(
    entry: SignedGroupEntry | undefined,
    term: number,
    others: readonly MessageInitShape<typeof HubSignatureSchema>[] = [],
  ): OfferedEntry {
    const parsed = parseEntry(entry);
    const signatures = [this.sign(parsed.hash, term), ...others];
    const fields = { term: BigInt(term), signatures, ...(entry && { entry }) };
    return { parsed, certified: create(CertifiedEntrySchema, fields) };
  }

  /**
   * What a member submits. Throws InvalidArgumentError BAD_FIELD, FailedPreconditionError EPOCH_FULL, PermissionDeniedError PEER_DENIED for a
   * target at a domain that this node does not relay to.
   */
  submitted(request: SubmitCommitRequest, sender?: Uint8Array): PreparedCommit {
    parseOffered(request.entry);
    return this.#commit(request, sender, (domain) => {
      if (this.#parts.knows(domain)) return domain;
      throw new PermissionDeniedError('PEER_DENIED', `${domain} is no peer of this node`);
    });
  }

  /** What another hub wrote down: its targets were judged there. Throws InvalidArgumentError BAD_FIELD. */
  taken(request: SubmitCommitRequest): PreparedCommit {
    return this.#commit(request, undefined, (domain) => domain);
  }

  /** What this hub wrote down, as it is accepted now. */
  decided(
    { submit, sender }: PreparedEntry,
    term: number,
    others: readonly MessageInitShape<typeof HubSignatureSchema>[],
  ): OfferedCommit {
    const request = fromBinary(SubmitCommitRequestSchema, submit);
    const commit = this.#commit(request, sender, (domain) => domain);
    return { ...commit, ...this.entry(request.entry, term, others) };
  }

  #commit(
    request: SubmitCommitRequest,
    sender: Uint8Array | undefined,
    peerOf: (domain: string) => string,
  ): PreparedCommit {
    const { domain: own, knows } = this.#parts;
    const { channel, commit, mid, groupInfo, channelNonce, sharedWelcome, returnTo } = request;
    needOneRow(request);
    const others = (channel?.domains ?? []).filter((domain) => domain !== own);
    const targetOf = ({ rid, domain, token }: CommitTarget): GroupTarget =>
      domain === own ? { rid, token } : { rid, token, peer: peerOf(domain) };
    return {
      parsed: parseEntry(request.entry),
      submit: toBinary(SubmitCommitRequestSchema, { ...request, hub: '', proof: undefined }),
      ...{ commit, mid, groupInfo, channelNonce, sharedWelcome },
      ttlMs: maxTtlS * 1000,
      domain: own,
      targets: request.targets.map(targetOf),
      welcomes: request.welcomes.map(({ target, mid: welcomeMid, welcome, slip }) => {
        if (target === undefined) throw new InvalidArgumentError('BAD_FIELD', 'welcomes: target');
        const returned = sender === undefined && slip.length > 0 ? { slip } : {};
        return { target: { ...targetOf(target), ...returned }, mid: welcomeMid, welcome };
      }),
      updates: request.updates.map(({ domain, update: payload }) =>
        domain === own ? { payload } : { payload, peer: peerOf(domain) },
      ),
      ...(channel && {
        channel: {
          cid: channel.cid,
          epoch: Number(channel.epoch),
          signature: channel.signature,
          peers: others.filter((domain) => knows(domain)),
          denied: others.filter((domain) => !knows(domain)),
        },
      }),
      ...(sender && { sender }),
      ...(sender === undefined && returnTo !== '' && { returnTo }),
    };
  }
}

/** A Welcome for several devices goes to all of them in one row. */
function needOneRow({ welcomes, sharedWelcome }: SubmitCommitRequest): void {
  if (sharedWelcome.length === 0) return;
  const [first] = welcomes;
  if (first === undefined) throw new InvalidArgumentError('BAD_FIELD', 'sharedWelcome: for nobody');
  if (welcomes.some(({ mid }) => Buffer.compare(mid, first.mid) !== 0)) {
    throw new InvalidArgumentError('BAD_FIELD', 'welcomes: more than one mid');
  }
  const bytes = welcomes.reduce((sum, { welcome }) => sum + welcome.length, sharedWelcome.length);
  if (bytes > groupLogLimits.envelopeBytes) {
    throw new InvalidArgumentError('BAD_FIELD', `sharedWelcome: ${bytes} bytes with its keys`);
  }
}

/** Domains that get rows of a commit, or are told what did not arrive. */
export function peersOf(commit: Omit<PreparedCommit, 'submit'>): ReadonlySet<string> {
  const { targets, welcomes, updates, channel, returnTo, domain } = commit;
  const peers = [
    returnTo === domain ? undefined : returnTo,
    ...targets.map(({ peer }) => peer),
    ...welcomes.map(({ target }) => target.peer),
    ...updates.map(({ peer }) => peer),
    ...(channel?.peers ?? []),
  ];
  return new Set(peers.filter((peer) => peer !== undefined));
}
