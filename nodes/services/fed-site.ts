/**
 * A domain's own word about its node: `https://domain/.well-known/qpc`, proven by the Web PKI. Only
 * federation asks, and only for domains that it may believe (docs/protocol/federation.md).
 */
import { lookup, type LookupAddress } from 'node:dns';
import { get, type RequestOptions } from 'node:https';
import { BlockList, isIP } from 'node:net';
import type { RecordSite } from '@quicprochat/federation';
import { UnavailableError } from '@quicprochat/proto';

export const siteLimits = {
  /** A signed record is at most 16 KiB, its signatures some hundred bytes. */
  bytes: 20 * 1024,
} as const;

export interface SiteOptions {
  /** PEM of certificate authorities that are trusted in the place of the usual ones. */
  readonly ca?: string;
  /** Domains may lead to addresses of a private network. Otherwise a stranger could aim us at ours. */
  readonly allowsPrivate?: boolean;
  readonly port?: number;
  /** How names are looked up; the system's way if not given. */
  readonly lookup?: Lookup;
}

type Lookup = NonNullable<RequestOptions['lookup']>;

/** Asks over HTTPS. No redirect is followed: another place is another domain's word. */
export function httpsSite({
  ca,
  allowsPrivate = false,
  port = 443,
  lookup: find = allowsPrivate ? lookup : lookupPublic,
}: SiteOptions = {}): RecordSite {
  return {
    fetch(domain, signal) {
      const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
      const options: RequestOptions = {
        host: domain,
        port,
        path: '/.well-known/qpc',
        headers: { accept: 'application/octet-stream' },
        agent: false,
        signal,
        ...(ca === undefined ? {} : { ca }),
        lookup: find,
      };
      const request = get(options, (response) => {
        const chunks: Uint8Array[] = [];
        let bytes = 0;
        if (response.statusCode !== 200) {
          response.destroy();
          reject(failed(domain, `status ${response.statusCode}`));
          return;
        }
        response.on('data', (chunk: Uint8Array) => {
          bytes += chunk.length;
          chunks.push(chunk);
          if (bytes <= siteLimits.bytes) return;
          response.destroy();
          reject(failed(domain, `more than ${siteLimits.bytes} bytes`));
        });
        response.on('error', (error) => reject(failed(domain, error.message)));
        response.on('end', () => resolve(new Uint8Array(Buffer.concat(chunks))));
      });
      request.on('error', (error) => reject(failed(domain, error.message)));
      return promise;
    },
  };
}

function failed(domain: string, why: string): UnavailableError {
  const message = `https://${domain}/.well-known/qpc: ${why.slice(0, 200)}`;
  return new UnavailableError('PEER_UNREACHABLE', message);
}

const privateNets = new BlockList();
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
] as const) {
  privateNets.addSubnet(net, bits, 'ipv4');
}
for (const [net, bits] of [
  ['::', 127],
  ['fc00::', 7],
  ['fe80::', 10],
] as const) {
  privateNets.addSubnet(net, bits, 'ipv6');
}

/** True for addresses that lead nowhere but into some private network. */
export function isPrivateAddress(address: string): boolean {
  const family = isIP(address);
  return family === 0 || privateNets.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

const lookupPublic: Lookup = (host, options, callback) => {
  lookup(host, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
    const open =
      error === null ? addresses.filter(({ address }) => !isPrivateAddress(address)) : [];
    const [first] = open;
    if (error !== null) callback(error, '', 4);
    else if (first === undefined) callback(new Error('its address is a private one'), '', 4);
    else if (options.all === true) callback(null, open);
    else callback(null, first.address, first.family);
  });
};
