/**
 * Handlers of the key-transparency log (520, 530-535): own look-ups go to the node's log, those
 * about another domain to that domain's node, whose bytes pass unchanged.
 */
import {
  ConflictError,
  InvalidArgumentError,
  manifestOfValue,
  manifestValue,
  PermissionDeniedError,
  UnauthenticatedError,
  type CallContext,
  type Handlers,
} from '@quicprochat/proto';
import { fromBinary, ManifestSchema, type SignedManifest } from '@quicprochat/proto/messages';
import type { KtProxy } from '@quicprochat/federation';
import { plainManifest, type Accounts } from '../accounts.ts';
import type { KeyLogAnswers } from '../key-log-answers.ts';
import { accountOf, requesterOf } from './caller.ts';

export interface KtParts {
  readonly domain: string;
  readonly answers: KeyLogAnswers;
  readonly accounts: Accounts;
  readonly pseudonymKey: Uint8Array;
  /** The logs of peers. */
  readonly peers: Pick<KtProxy, 'search' | 'monitor' | 'distinguished' | 'treeHead' | 'credential'>;
}

export function ktHandlers(
  parts: KtParts,
): Pick<
  Handlers,
  | 'auditKeyTransparency'
  | 'ktSearch'
  | 'ktUpdate'
  | 'ktMonitor'
  | 'ktDistinguished'
  | 'ktTreeHead'
  | 'ktCredential'
> {
  const { answers, accounts, peers } = parts;
  const isOwn = ({ domain }: { readonly domain: string }): boolean =>
    domain === '' || domain === parts.domain;

  /** How a peer is asked for a user of this node. */
  function asked(context: CallContext): {
    readonly requester: Uint8Array;
    readonly signal: AbortSignal;
  } {
    return { requester: requesterOf(parts.pseudonymKey, context), signal: context.signal };
  }

  return {
    auditKeyTransparency: (request) => answers.audit(request),

    async ktSearch(request, context) {
      if (isOwn(request)) return answers.search(request);
      return peers.search(request.domain, request, asked(context));
    },

    async ktUpdate({ request: bytes }, context) {
      const owner = accountOf(context);
      const { values, greatestVersion } = answers.updateRequest(bytes, owner);
      const [update, second] = values;
      if (update === undefined) return { answer: await answers.update(bytes) };
      if (second !== undefined) {
        throw new InvalidArgumentError('BAD_FIELD', 'values: one version at a time');
      }
      if (context.caller.class !== 'device') {
        throw new PermissionDeniedError('CALLER_CLASS', 'values: only of a registered device');
      }
      const { identityPub } = context.caller;
      const signed = manifestIn(update);
      if (Number(seqOf(signed)) !== (greatestVersion ?? -1) + 1) {
        throw new ConflictError('SEQ_CONFLICT', 'manifest: its seq is not the next version');
      }
      let answer: Awaited<ReturnType<KeyLogAnswers['update']>> | undefined;
      await accounts.change(owner, signed, { kind: 'update', identityPub }, async (effects) => {
        answer = await answers.update(bytes, effects);
      });
      // A repeat: the log shows the version that is there.
      return { answer: answer ?? (await answers.update(bytes)) };
    },

    async ktMonitor(request, context) {
      if (isOwn(request)) return answers.monitor(request, accountOf(context));
      return peers.monitor(request.domain, request, asked(context));
    },

    async ktDistinguished(request, context) {
      if (isOwn(request)) return answers.distinguished(request);
      return peers.distinguished(request.domain, request, asked(context));
    },

    async ktTreeHead(request, context) {
      if (isOwn(request)) return answers.treeHead(request);
      refuseStrangers(context);
      return peers.treeHead(request.domain, request, asked(context));
    },

    async ktCredential(request, context) {
      if (isOwn(request)) return answers.credential(request, accountOf(context));
      return peers.credential(request.domain, request, asked(context));
    },
  };
}

/** The answering node asks others for its own users only: one hop. */
function refuseStrangers({ caller }: CallContext): void {
  if (caller.class === 'peer') {
    throw new PermissionDeniedError('PEER_DENIED', 'this node answers for its own log only');
  }
  if (caller.class === 'anyone') {
    throw new UnauthenticatedError('NOT_LOGGED_IN', 'logs of other domains: log in first');
  }
}

/** Throws InvalidArgumentError BAD_FIELD for what account and log would not hold byte for byte. */
function manifestIn(value: Uint8Array): SignedManifest {
  const signed = manifestOfValue(value);
  const isPlain = Buffer.compare(manifestValue(plainManifest(signed)), value) === 0;
  if (!isPlain) {
    throw new InvalidArgumentError('BAD_FIELD', 'values: not the plain encoding of a manifest');
  }
  return signed;
}

function seqOf(signed: SignedManifest): bigint {
  try {
    return fromBinary(ManifestSchema, signed.manifest).seq;
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'manifest: not the encoded message', { cause });
  }
}
