/** Which of the addresses that a node names as its relay's is used. */
import { parseSwarmAddress, peerIdOf, type PeerIdText, type Reach } from '@quicprochat/p2p';
import { QpcError } from '@quicprochat/proto';

export interface RelayRules {
  readonly reach: readonly Reach[];
  /** Of this device: no relay of its own. */
  readonly ownPeerId: PeerIdText;
  /** Of another node (32 bytes): it names its own swarm, and no third one for devices to knock at. */
  readonly swarmKey?: Uint8Array;
}

/**
 * One address: TCP before QUIC, for it gets through where UDP does not, and its end is noticed at once.
 * Undefined: none can be used; one that readers of the own record refuse would cost them the whole record.
 */
export function usableRelay(
  relays: readonly string[],
  { reach, ownPeerId, swarmKey }: RelayRules,
): string | undefined {
  const wanted = swarmKey === undefined ? undefined : peerIdOf(swarmKey);
  const usable = relays.flatMap((text) => {
    try {
      const { peerId, transport, reach: of } = parseSwarmAddress(text);
      const isMeant = peerId !== undefined && peerId !== ownPeerId && reach.includes(of);
      return isMeant && (wanted ?? peerId) === peerId ? [{ text, transport }] : [];
    } catch (error) {
      if (error instanceof QpcError) return [];
      throw error;
    }
  });
  return (usable.find(({ transport }) => transport === 'tcp') ?? usable[0])?.text;
}
