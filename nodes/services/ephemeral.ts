/**
 * SendEphemeral: typing, sealed for its recipients, to devices that listen now. Nothing of it touches
 * the disk, nothing is repeated, and the answer says nothing of what became of it.
 */
import type { Handlers } from '@quicprochat/proto';

export interface EphemeralParts {
  readonly domain: string;
  readonly push: { typing(rid: Uint8Array, payload: Uint8Array): void };
  readonly federation: {
    /** Takes it along to a peer; false when there is no link, or no room. */
    sendEphemeral(
      domain: string,
      item: { readonly rids: Uint8Array[]; readonly payload: Uint8Array },
    ): boolean;
  };
}

export function ephemeralHandlers(parts: EphemeralParts): Pick<Handlers, 'sendEphemeral'> {
  const { push, federation } = parts;
  return {
    async sendEphemeral({ targets, payload }) {
      for (const [domain, ofDomain] of Map.groupBy(targets, (target) => target.domain)) {
        const rids = ofDomain.map(({ rid }) => rid);
        if (domain === parts.domain) for (const rid of rids) push.typing(rid, payload);
        else federation.sendEphemeral(domain, { rids, payload });
      }
      return {};
    },
  };
}
