/**
 * The addresses of swarms that are spoken here, a small strict part of multiaddr: an IP literal in
 * canonical form with a UDP port of QUIC v1 or a TCP port, and a relay's peer id behind it where a
 * relay is meant. No names: to resolve one would tell a stranger's server who is dialed.
 */
import { isIP } from 'node:net';
import { InvalidArgumentError } from '@quicprochat/proto';
import { swarmKeyOf, type PeerIdText } from './peer-id.ts';

/** From where an address can be reached. */
export type Reach = 'loopback' | 'link' | 'private' | 'public';

export interface SwarmAddress {
  readonly family: 4 | 6;
  readonly host: string;
  readonly port: number;
  readonly transport: 'quic' | 'tcp';
  readonly reach: Reach;
  /** Set when the text ends with "/p2p/..." */
  readonly peerId: PeerIdText | undefined;
}

/** Longest text of an address (bytes): IPv6, QUIC and a peer id. */
export const addressTextMax = 128;

const grammar =
  /^\/(ip4|ip6)\/([0-9a-f.:]{2,39})\/(?:udp\/([1-9][0-9]{0,4})\/quic-v1|tcp\/([1-9][0-9]{0,4}))(?:\/p2p\/([1-9A-HJ-NP-Za-km-z]{1,52}))?$/;

/** Parses one address. Throws InvalidArgumentError BAD_FIELD and says what is wrong. */
export function parseSwarmAddress(text: string): SwarmAddress {
  const wrong = (what: string): InvalidArgumentError =>
    new InvalidArgumentError('BAD_FIELD', `address: ${what}`);
  if (text.length > addressTextMax) throw wrong(`${text.length} bytes, at most ${addressTextMax}`);
  const [matched, kind, host = '', udp, tcp, peerId] = grammar.exec(text) ?? [];
  if (matched === undefined) throw wrong('need an IP literal with udp and quic-v1, or tcp');
  const port = Number(udp ?? tcp);
  if (port > 65_535) throw wrong(`port ${port}, at most 65535`);
  const reach = kind === 'ip4' ? reachOf4(host) : reachOf6(host);
  if (reach === undefined) throw wrong('no host can have this IP');
  if (peerId !== undefined && swarmKeyOf(peerId) === undefined) throw wrong('no Ed25519 peer id');
  const family = kind === 'ip4' ? 4 : 6;
  return { family, host, port, transport: udp === undefined ? 'tcp' : 'quic', reach, peerId };
}

export function formatSwarmAddress(address: Omit<SwarmAddress, 'reach'>): string {
  const { family, host, port, transport, peerId } = address;
  const end = transport === 'quic' ? `udp/${port}/quic-v1` : `tcp/${port}`;
  return `/ip${family}/${host}/${end}${peerId === undefined ? '' : `/p2p/${peerId}`}`;
}

/** Undefined: no address of a host (unspecified, multicast, reserved), or not in canonical form. */
function reachOf4(host: string): Reach | undefined {
  if (isIP(host) !== 4) return undefined;
  const [a = 0, b = 0] = host.split('.').map(Number);
  if (a === 0 || a >= 224) return undefined;
  if (a === 127) return 'loopback';
  if (a === 169 && b === 254) return 'link';
  // RFC 1918, and the shared space of carriers (RFC 6598).
  const isPrivate =
    a === 10 ||
    (a === 172 && b >> 4 === 1) ||
    (a === 192 && b === 168) ||
    (a === 100 && b >> 6 === 1);
  return isPrivate ? 'private' : 'public';
}

function reachOf6(host: string): Reach | undefined {
  if (isIP(host) !== 6 || new URL(`http://[${host}]/`).hostname !== `[${host}]`) return undefined;
  if (host === '::1') return 'loopback';
  // The rest of ::/8 is unspecified, embeds IPv4 addresses or is reserved.
  if (host.startsWith('::')) return undefined;
  const first = Number.parseInt(host, 16);
  // NAT64 (RFC 6052) would reach IPv4 hosts past the rules for them.
  if (first >> 8 === 0xff || first < 0x100 || host.startsWith('64:ff9b:')) return undefined;
  if (first >> 6 === 0xfe80 >> 6) return 'link';
  return first >> 9 === 0xfc00 >> 9 ? 'private' : 'public';
}
