/**
 * Which domains this node federates with: the peers file, the mode (`closed`: nobody else), and the
 * deny list, which always wins. Strict: one wrong line refuses the whole file. No look-ups of any
 * kind: which keys speak for a domain that is not in the file says trust.ts.
 */
import {
  InvalidArgumentError,
  isDomain,
  parseNodeAddress,
  parsePin,
  hex,
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
  /** In mode `allowlist`: these and everything below them may be found by their sites. */
  readonly allowedDomains?: readonly string[];
}

/** Who may federate beside the peers of the file: nobody, domains that it allows, everybody. */
export type FederationMode = 'closed' | 'allowlist' | 'open';

/**
 * - `listed`: in the peers file, with keys.
 * - `findable`: not in it; the domain's own site may say its keys.
 * - `denied`: on the deny list. `stranger`: neither.
 */
export type Judgement = 'listed' | 'findable' | 'denied' | 'stranger';

export const peersFileLimits = { bytes: 1024 * 1024, peers: 1_000, addressesPerPeer: 8 } as const;

/**
 * Parses the text of a peers file. One line each, `#` starts a comment line:
 *
 *     peer blue.example qpc://blue.example:5001#<pin> [more addresses]
 *     allow-domain example.org
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
  const allowedDomains: string[] = [];
  const deniedDomains: string[] = [];
  const deniedPins: Uint8Array[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [keyword, ...words] = line.trim().split(/[ \t]+/);
    if (keyword === undefined || keyword === '' || keyword.startsWith('#')) continue;
    try {
      if (keyword === 'peer') addPeer(peers, makePeer(words[0] ?? '', words.slice(1)));
      else if (keyword === 'allow-domain') allowedDomains.push(oneDomain(keyword, words));
      else if (keyword === 'deny-domain') deniedDomains.push(oneDomain(keyword, words));
      else if (keyword === 'deny-key') deniedPins.push(onePin(words));
      else
        throw wrong(`"${keyword.slice(0, 32)}": need peer, allow-domain, deny-domain or deny-key`);
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error;
      throw new InvalidArgumentError(
        'BAD_FIELD',
        `${fileName} line ${index + 1}: ${error.message}`,
        { cause: error },
      );
    }
  }
  return { peers, allowedDomains, deniedDomains, deniedPins };
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

function oneDomain(keyword: string, words: readonly string[]): string {
  const [domain = ''] = words;
  if (words.length !== 1 || !isDomain(domain)) throw wrong(`need ${keyword} <domain>`);
  return domain;
}

function onePin(words: readonly string[]): Uint8Array {
  if (words.length !== 1) throw wrong('need deny-key <pin>');
  return parsePin(words[0] ?? '');
}

function wrong(message: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', message);
}

/** What the rest of federation asks about domains. Denied peers of the file do not exist in it. */
export class PeerPolicy {
  readonly mode: FederationMode;
  readonly #byDomain = new Map<string, Peer>();
  readonly #ownDomain: string;
  readonly #allowed: readonly string[];
  readonly #denied: readonly string[];
  readonly #deniedPins: ReadonlySet<string>;

  /**
   * Throws InvalidArgumentError BAD_FIELD when two peers share a domain or a pin, or when one is
   * this node itself (`ownDomain`, `ownPin`): each would make one node speak for another.
   */
  constructor(
    file: PeersFile,
    own: { readonly domain: string; readonly pin: Uint8Array },
    mode: FederationMode = 'closed',
  ) {
    this.mode = mode;
    this.#ownDomain = own.domain;
    this.#allowed = file.allowedDomains ?? [];
    this.#denied = file.deniedDomains;
    this.#deniedPins = new Set(file.deniedPins.map(hex));
    const ownPin = hex(own.pin);
    const domainByPin = new Map<string, string>();
    for (const peer of file.peers) {
      if (peer.domain === own.domain) throw wrong(`peer ${peer.domain}: is this node's own domain`);
      if (this.#byDomain.has(peer.domain)) {
        throw wrong(`peer ${peer.domain}: listed twice; put all its addresses on one line`);
      }
      const isDenied = isBelow(peer.domain, this.#denied);
      const pins = peer.pins.filter((pin) => !this.isDeniedKey(pin));
      for (const pin of pins.map(hex)) {
        const other = pin === ownPin ? 'this node' : domainByPin.get(pin);
        if (other !== undefined) throw wrong(`peer ${peer.domain}: has the pin of ${other}`);
        if (!isDenied) domainByPin.set(pin, peer.domain);
      }
      if (!isDenied && pins.length > 0) this.#byDomain.set(peer.domain, { ...peer, pins });
    }
  }

  /** Those of the file. */
  get peers(): readonly Peer[] {
    return [...this.#byDomain.values()];
  }

  /** As the file lists it; undefined for a domain that it does not list. */
  peer(domain: string): Peer | undefined {
    return this.#byDomain.get(domain);
  }

  judge(domain: string): Judgement {
    if (isBelow(domain, this.#denied)) return 'denied';
    if (this.#byDomain.has(domain)) return 'listed';
    const isAllowed =
      this.mode === 'open' || (this.mode === 'allowlist' && isBelow(domain, this.#allowed));
    return isAllowed && domain !== this.#ownDomain ? 'findable' : 'stranger';
  }

  /** True for a domain that rows may be sent to. */
  allows(domain: string): boolean {
    const judgement = this.judge(domain);
    return judgement === 'listed' || judgement === 'findable';
  }

  isDeniedKey(pin: Uint8Array): boolean {
    return this.#deniedPins.has(hex(pin));
  }
}

/** True for one of the domains, and for what is below one of them. */
function isBelow(domain: string, suffixes: readonly string[]): boolean {
  return suffixes.some((suffix) => domain === suffix || domain.endsWith(`.${suffix}`));
}
