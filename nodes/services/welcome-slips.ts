/**
 * What goes with a commit so that its committer hears of Welcomes that came back, whichever hub wrote them (docs:
 * protocol/federation, "Return slips"): the home of the committer, and slips that only its node can read.
 */
import type { SubmitCommitRequest } from '@quicprochat/proto/messages';
import type { NodeStore } from '../store/store.ts';

const none = new Uint8Array(0);

/** For a device of this node; what its client says of slips is dropped. */
export async function withSlips(
  { store, domain }: { readonly store: Pick<NodeStore, 'welcomeSlips'>; readonly domain: string },
  request: SubmitCommitRequest,
  committer: Uint8Array,
): Promise<SubmitCommitRequest> {
  const { welcomes } = request;
  const written = welcomes.map(({ mid, target }) => ({ mid, rid: target?.rid ?? none }));
  const slips = written.length === 0 ? [] : await store.welcomeSlips(committer, written);
  return {
    ...request,
    returnTo: slips.length === 0 ? '' : domain,
    welcomes: welcomes.map((welcome, index) => ({ ...welcome, slip: slips[index] ?? none })),
  };
}

/** As a peer passes it on: it speaks for its own devices, or is a hub that names another node. */
export function ofPeer(
  request: SubmitCommitRequest,
  by: {
    readonly from: string;
    readonly fromHub: boolean;
    /** This node, or one that it relays to. */
    readonly isKnown: (domain: string) => boolean;
  },
): SubmitCommitRequest {
  const { from, fromHub, isKnown } = by;
  const named = isKnown(request.returnTo) ? request.returnTo : '';
  return { ...request, returnTo: fromHub ? named : from };
}
