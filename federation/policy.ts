/**
 * Which nodes this one federates with: the peers file (mode `closed`: nobody else) and the deny
 * list, which always wins. Strict: one wrong line refuses the whole file. No look-ups of any kind.
 */
import {
  InvalidArgumentError,
  isDomain,
  parseNodeAddress,
  parsePin,
  PermissionDeniedError,
} from '@quicprochat/proto';
import type { Endpoint } from '@quicprochat/proto/transport';

/** One node that the operator trusts to speak for a domain. */
export interface Peer {
  readonly domain: string;
  /** SHA-256 SPKI (32 bytes each); several during a rotation. */
  readonly pins: readonly Uint8Array[];
  /** Tried in this order. */
  readonly endpoints: readonly Endpoint[];
}

export interface PeersFile {
  readonly peers: readonly Peer[];
  /** A domain here denies itself and everything below it. */
  readonly deniedDomains: readonly string[];
  /** SHA-256 SPKI (32 bytes each). */
  readonly deniedPins: readonly Uint8Array[];
}

export const peersFileLimits = { bytes: 1024 * 1024, peers: 1_000, addressesPerPeer: 8 } as const;

/**
 * Parses the text of a peers file. One line each, `#` starts a comment line:
 *
 *     peer blue.example qpc://blue.example:5001#<pin> [more addresses]
 *     deny-domain evil.example
 *     deny-key <pin>
 *
 * Throws InvalidArgumentError BAD_FIELD that names the file, the line and what to write instead.
 */
export function parsePeersFile(text: string, fileName: string): PeersFile {
  if (text.length > peersFileLimits.bytes) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      `${fileName}: ${text.length} bytes, at most ${peersFileLimits.bytes}`,
    );
  }
  const peers: Peer[] = [];
  const deniedDomains: string[] = [];
  const deniedPins: Uint8Array[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [keyword, ...words] = line.trim().split(/[ \t]+/);
    if (keyword === undefined || keyword === '' || keyword.startsWith('#')) continue;
    try {
      if (keyword === 'peer') addPeer(peers, makePeer(words[0] ?? '', words.slice(1)));
      else if (keyword === 'deny-domain') deniedDomains.push(oneDomain(words));
      else if (keyword === 'deny-key') deniedPins.push(onePin(words));
      else throw wrong(`"${keyword.slice(0, 32)}": need peer, deny-domain or deny-key`);
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error;
      throw new InvalidArgumentError(
        'BAD_FIELD',
        `${fileName} line ${index + 1}: ${error.message}`,
        { cause: error },
      );
    }
  }
  return { peers, deniedDomains, deniedPins };
}

/**
 * Makes a peer of its domain and `qpc://host:port#pin` addresses (1-8). Throws InvalidArgumentError
 * BAD_FIELD that says which part is wrong.
 */
export function makePeer(domain: string, addresses: readonly string[]): Peer {
  if (!isDomain(domain)) throw wrong('domain: need a lower-case domain like blue.example');
  if (addresses.length === 0 || addresses.length > peersFileLimits.addressesPerPeer) {
    throw wrong(
      `${addresses.length} addresses for ${domain}, need 1-${peersFileLimits.addressesPerPeer} ` +
        `like qpc://${domain}:5001#<pin> (its operator finds it in the output of qpcd init)`,
    );
  }
  const parsed = addresses.map((text) => parseNodeAddress(text));
  const pins = new Map(parsed.map(({ pin }) => [Buffer.from(pin).toString('hex'), pin]));
  const endpoints = new Map(
    parsed.map(({ host, port }) => [`${host} ${port}`, { host, port } satisfies Endpoint]),
  );
  return { domain, pins: [...pins.values()], endpoints: [...endpoints.values()] };
}

function addPeer(peers: Peer[], peer: Peer): void {
  if (peers.length >= peersFileLimits.peers) {
    throw wrong(`more than ${peersFileLimits.peers} peers`);
  }
  peers.push(peer);
}

function oneDomain(words: readonly string[]): string {
  const [domain = ''] = words;
  if (words.length !== 1 || !isDomain(domain)) throw wrong('need deny-domain <domain>');
  return domain;
}

function onePin(words: readonly string[]): Uint8Array {
  if (words.length !== 1) throw wrong('need deny-key <pin>');
  return parsePin(words[0] ?? '');
}

function wrong(message: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', message);
}

/** What the rest of federation asks about peers. Denied ones do not exist in it. */
export class PeerPolicy {
  readonly #byDomain = new Map<string, Peer>();
  readonly #domainByPin = new Map<string, string>();

  /**
   * Throws InvalidArgumentError BAD_FIELD when two peers share a domain or a pin, or when one is
   * this node itself (`ownDomain`, `ownPin`): each would make one node speak for another.
   */
  constructor(file: PeersFile, own: { readonly domain: string; readonly pin: Uint8Array }) {
    const ownPin = hex(own.pin);
    const deniedPins = new Set(file.deniedPins.map(hex));
    for (const peer of file.peers) {
      if (peer.domain === own.domain) throw wrong(`peer ${peer.domain}: is this node's own domain`);
      if (this.#byDomain.has(peer.domain)) {
        throw wrong(`peer ${peer.domain}: listed twice; put all its addresses on one line`);
      }
      const isDenied = file.deniedDomains.some(
        (suffix) => peer.domain === suffix || peer.domain.endsWith(`.${suffix}`),
      );
      const pins = peer.pins.filter((pin) => !deniedPins.has(hex(pin)));
      for (const pin of pins.map(hex)) {
        const other = pin === ownPin ? 'this node' : this.#domainByPin.get(pin);
        if (other !== undefined) throw wrong(`peer ${peer.domain}: has the pin of ${other}`);
        if (!isDenied) this.#domainByPin.set(pin, peer.domain);
      }
      if (!isDenied && pins.length > 0) this.#byDomain.set(peer.domain, { ...peer, pins });
    }
  }

  get peers(): readonly Peer[] {
    return [...this.#byDomain.values()];
  }

  /** Undefined for a domain that this node does not federate with. */
  peer(domain: string): Peer | undefined {
    return this.#byDomain.get(domain);
  }

  /** Throws PermissionDeniedError PEER_DENIED for a domain that this node does not federate with. */
  requirePeer(domain: string): Peer {
    const peer = this.#byDomain.get(domain);
    if (peer === undefined) {
      throw new PermissionDeniedError(
        'PEER_DENIED',
        'this node does not federate with that domain',
      );
    }
    return peer;
  }

  /** True when the key of a connection may speak for the domain. */
  isPinned(domain: string, spkiSha256: Uint8Array): boolean {
    return this.#domainByPin.get(hex(spkiSha256)) === domain;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
