/**
 * Key services: single-use KeyPackages, signed prekeys, ResolveUser and CheckRevocation. Only keys
 * of devices in the manifest that the key-transparency log holds are handed out. A key of another
 * domain is asked from that domain's node, never cached; a proxied request is answered for local
 * users only (one hop).
 */
import {
  checkPrekey,
  InvalidArgumentError,
  NotFoundError,
  parseUserId,
  PermissionDeniedError,
  QpcError,
  ResourceExhaustedError,
  TokenBuckets,
  type CallContext,
  type Clock,
  type Handlers,
} from '@quicprochat/proto';
import {
  fromBinary,
  ManifestSchema,
  type FetchHybridKeyResponseSchema,
  type FetchKeyPackageRequest,
  type FetchKeyPackageResponseSchema,
  type MessageInitShape,
  type ResolveUserRequest,
  type ResolveUserResponse,
  type ResolveUserResponseSchema,
  type RevokedDevice,
} from '@quicprochat/proto/messages';
import type { Federation } from '@quicprochat/federation';
import type { KeyLogAnswers } from '../key-log-answers.ts';
import { parseKeyPackage } from '../key-package.ts';
import type { PushHub } from '../push.ts';
import type { NewKeyPackage } from '../store/key-store.ts';
import type { NodeStore } from '../store/store.ts';
import { deviceOf, peerOf, requesterOf } from './caller.ts';

/** Longest total lifetime of a KeyPackage (93 days), and the skew granted to its start (ms). */
const maxLifetimeMs = 93 * 24 * 3600 * 1000;
const skewMs = 24 * 3600 * 1000;
/** Below this many single-use packages of a suite the device is told. */
const lowKeyPackages = 20;

type FetchedKeyPackages = MessageInitShape<typeof FetchKeyPackageResponseSchema>;
type FetchedPrekeys = MessageInitShape<typeof FetchHybridKeyResponseSchema>;
type Resolved = MessageInitShape<typeof ResolveUserResponseSchema>;
type UserQuestion = Pick<ResolveUserRequest, 'userId' | 'ktSearch'>;

export interface KeyParts {
  readonly domain: string;
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly push: PushHub;
  /** Keys the pseudonyms by which peers know this node's users. */
  readonly pseudonymKey: Uint8Array;
  /** Single-use packages that one asker gets in an hour, of this node or of a peer. */
  readonly singleUsePerRequesterPerHour: number;
  /** Single-use packages of one user that a whole peer gets in an hour: it names its users itself. */
  readonly singleUsePerPeerAndTargetPerHour: number;
  /** Users that one user of a peer may look up in a minute. */
  readonly lookupsPerPeerUserPerMinute: number;
  /** Look-ups at peers. */
  readonly proxy: Federation['proxy'];
  /** Proofs of this node's log. */
  readonly answers: KeyLogAnswers;
}

export function keyHandlers(
  parts: KeyParts,
): Pick<
  Handlers,
  | 'uploadKeyPackage'
  | 'fetchKeyPackage'
  | 'uploadHybridKey'
  | 'fetchHybridKey'
  | 'fetchHybridKeys'
  | 'keyPackageCount'
  | 'resolveUser'
  | 'checkRevocation'
  | 'proxyFetchKeyPackage'
  | 'proxyFetchHybridKey'
  | 'proxyResolveUser'
> {
  const { store, clock, proxy } = parts;
  const perMinute = parts.lookupsPerPeerUserPerMinute;
  const peerUsers = new TokenBuckets(clock);

  /** Throws ResourceExhaustedError RATE_LIMITED for a user of a peer who asks too often. */
  function admitPeerUser(requester: Uint8Array, context: CallContext): void {
    const user = `${peerOf(context)} ${Buffer.from(requester).toString('hex')}`;
    const rate = { perSecond: perMinute / 60, burst: perMinute };
    const retryAfterMs = peerUsers.take(user, rate);
    if (retryAfterMs === 0) return;
    const message = `one of the peer's users: more than ${perMinute} look-ups in a minute`;
    throw new ResourceExhaustedError('RATE_LIMITED', message, { retryAfterMs });
  }
  const requesterIn = (context: CallContext): Uint8Array =>
    requesterOf(parts.pseudonymKey, context);

  /** Throws unless the user is this node's: proxied requests go one hop. */
  function ownOnly(userId: string): void {
    if (parseUserId(userId).domain !== parts.domain) {
      throw new PermissionDeniedError('PEER_DENIED', `this node serves ${parts.domain} only`);
    }
  }

  async function claimOwn(
    request: FetchKeyPackageRequest,
    asker: { readonly scope: string; readonly requester: string },
    singleUsePerTargetPerHour: number,
  ): Promise<FetchedKeyPackages> {
    const claimed = await store.claimKeyPackages({
      userId: request.userId,
      claimId: request.claimId,
      ...asker,
      suites: request.suites,
      singleUsePerRequesterPerHour: parts.singleUsePerRequesterPerHour,
      singleUsePerTargetPerHour,
    });
    if (claimed === undefined) throw unknownUser();
    if (claimed.packages.length === 0) {
      throw new NotFoundError('NO_KEY_PACKAGE', 'no device of this user has a KeyPackage left');
    }
    await tellWhoRunsLow(claimed.packages);
    return {
      manifest: claimed.manifest,
      packages: claimed.packages.map(({ identityPub, suite, bytes, lastResort, prekey }) => ({
        identityPub,
        suite,
        keyPackage: bytes,
        lastResort,
        ...(prekey === undefined ? {} : { prekey }),
      })),
    };
  }

  async function tellWhoRunsLow(
    packages: readonly { readonly identityPub: Uint8Array; readonly suite: number }[],
  ): Promise<void> {
    for (const { identityPub, suite } of packages) {
      const counts = await store.keyPackageCounts(identityPub);
      const count = counts.find((one) => one.suite === suite);
      if (count === undefined || count.singleUse < lowKeyPackages || count.lastResortUsed) {
        parts.push.keyPackagesLow(identityPub, suite, count?.singleUse ?? 0);
      }
    }
  }

  async function ownPrekeys(userId: string): Promise<FetchedPrekeys> {
    const found = await store.prekeys(userId);
    if (found === undefined) throw unknownUser();
    return { manifest: found.manifest, prekeys: [...found.prekeys] };
  }

  async function ownUser({ userId, ktSearch }: UserQuestion): Promise<Resolved> {
    const account = await store.account(userId);
    if (account === undefined) throw unknownUser();
    if (ktSearch.length === 0) return { manifest: account.manifest };
    return { manifest: account.manifest, kt: await parts.answers.searchFor(userId, ktSearch) };
  }

  async function userOf(
    { userId, ktSearch }: UserQuestion,
    context: CallContext,
  ): Promise<Resolved | ResolveUserResponse> {
    const { domain } = parseUserId(userId);
    if (domain === parts.domain) return ownUser({ userId, ktSearch });
    const requester = requesterIn(context);
    return proxy.resolveUser(domain, { userId, ktSearch }, { requester, signal: context.signal });
  }

  async function prekeysOf(userId: string, context: CallContext): Promise<FetchedPrekeys> {
    const { domain } = parseUserId(userId);
    if (domain === parts.domain) return ownPrekeys(userId);
    const requester = requesterIn(context);
    return proxy.fetchHybridKey(domain, { userId }, { requester, signal: context.signal });
  }

  return {
    async uploadKeyPackage(request, context) {
      const device = deviceOf(context);
      const identity = `${device.userId}/${device.deviceId}`;
      const packages = request.keyPackages.map((bytes) =>
        acceptKeyPackage(bytes, device.identityPub, identity, clock.now()),
      );
      const { stored, counts } = await store.addKeyPackages(device.identityPub, packages);
      return { stored, counts: wireCounts(counts) };
    },

    async keyPackageCount(_request, context) {
      return { counts: wireCounts(await store.keyPackageCounts(deviceOf(context).identityPub)) };
    },

    async fetchKeyPackage(request, context) {
      const { domain } = parseUserId(request.userId);
      const { identityPub } = deviceOf(context);
      if (domain === parts.domain) {
        const requester = `device ${Buffer.from(identityPub).toString('hex')}`;
        // A device cannot pass for another one, so its own bound is enough.
        return claimOwn(request, { scope: 'local', requester }, Number.MAX_SAFE_INTEGER);
      }
      return proxy.fetchKeyPackage(domain, request, {
        requester: requesterIn(context),
        signal: context.signal,
      });
    },

    async uploadHybridKey(request, context) {
      const { identityPub } = deviceOf(context);
      if (request.prekey === undefined)
        throw new InvalidArgumentError('BAD_FIELD', 'prekey: is missing');
      const { notAfterMs } = checkPrekey(request.prekey, identityPub, clock.now());
      await store.putPrekey(identityPub, request.prekey, notAfterMs);
      return {};
    },

    fetchHybridKey: ({ userId }, context) => prekeysOf(userId, context),

    async fetchHybridKeys(request, context) {
      const users = await Promise.all(
        request.userIds.map(async (userId) => {
          try {
            return { userId, keys: await prekeysOf(userId, context) };
          } catch (error) {
            // One that is unknown, or whose node does not answer, does not fail the others: its answer is empty.
            const isOwn = parseUserId(userId).domain === parts.domain;
            if (error instanceof NotFoundError || (error instanceof QpcError && !isOwn)) {
              return { userId };
            }
            throw error;
          }
        }),
      );
      return { users };
    },

    resolveUser: (request, context) => userOf(request, context),

    async checkRevocation(request, context) {
      const resolved = await userOf(request, context);
      const revoked = revokedIn(resolved, request.identityPub);
      const { manifest, kt } = resolved;
      return {
        ...(revoked === undefined ? {} : { revoked }),
        ...(manifest === undefined ? {} : { manifest }),
        ...(kt === undefined ? {} : { kt }),
      };
    },

    async proxyFetchKeyPackage({ fetch, requester }, context) {
      if (fetch === undefined) throw new InvalidArgumentError('BAD_FIELD', 'fetch: is missing');
      ownOnly(fetch.userId);
      const scope = `peer ${peerOf(context)}`;
      const asker = { scope, requester: `${scope} ${Buffer.from(requester).toString('hex')}` };
      return { fetched: await claimOwn(fetch, asker, parts.singleUsePerPeerAndTargetPerHour) };
    },

    async proxyFetchHybridKey({ fetch, requester }, context) {
      if (fetch === undefined) throw new InvalidArgumentError('BAD_FIELD', 'fetch: is missing');
      ownOnly(fetch.userId);
      admitPeerUser(requester, context);
      return { fetched: await ownPrekeys(fetch.userId) };
    },

    async proxyResolveUser({ resolve, requester }, context) {
      if (resolve === undefined) throw new InvalidArgumentError('BAD_FIELD', 'resolve: is missing');
      ownOnly(resolve.userId);
      // Before the look: a refusal must not tell whether there is such a user.
      admitPeerUser(requester, context);
      return { resolved: await ownUser(resolve) };
    },
  };
}

/** Where a manifest says that a key is revoked. The caller verifies it; a peer's may be anything. */
function revokedIn(
  { manifest: signed }: Resolved | ResolveUserResponse,
  identityPub: Uint8Array,
): RevokedDevice | undefined {
  if (signed?.manifest === undefined) return undefined;
  try {
    const { revoked } = fromBinary(ManifestSchema, signed.manifest);
    return revoked.find((one) => Buffer.compare(one.identityPub, identityPub) === 0);
  } catch {
    // No manifest at all: the caller sees that for itself, in the bytes that it gets.
    return undefined;
  }
}

/** Judges one uploaded package against the device that uploads it. Throws InvalidArgumentError. */
function acceptKeyPackage(
  bytes: Uint8Array,
  identityPub: Uint8Array,
  identity: string,
  nowMs: number,
): NewKeyPackage {
  const parsed = parseKeyPackage(bytes);
  if (Buffer.compare(parsed.signatureKey, identityPub) !== 0 || parsed.identity !== identity) {
    throw new InvalidArgumentError('BAD_FIELD', 'key package: not of the uploading device');
  }
  const lifetimeMs = parsed.notAfterMs - parsed.notBeforeMs;
  if (!(lifetimeMs > 0 && lifetimeMs <= maxLifetimeMs)) {
    throw new InvalidArgumentError('BAD_FIELD', 'key package: lifetime above 93 days');
  }
  if (parsed.notBeforeMs > nowMs + skewMs || parsed.notAfterMs <= nowMs) {
    throw new InvalidArgumentError('BAD_FIELD', 'key package: not valid now');
  }
  return {
    ref: parsed.ref,
    suite: parsed.suite,
    bytes,
    notBeforeMs: parsed.notBeforeMs,
    notAfterMs: parsed.notAfterMs,
    lastResort: parsed.isLastResort,
  };
}

function wireCounts(
  counts: readonly {
    readonly suite: number;
    readonly singleUse: number;
    readonly hasLastResort: boolean;
    readonly lastResortUsed: boolean;
  }[],
): { suite: number; singleUse: number; hasLastResort: boolean; lastResortUsed: boolean }[] {
  return counts.map((count) => ({ ...count }));
}

function unknownUser(): NotFoundError {
  return new NotFoundError('UNKNOWN_USER', 'no such user');
}
