/**
 * Addresses of people and nodes: `alice@red.example` and
 * `qpc://red.example:5001#<base64url SHA-256 SPKI>`. Parsed once, strictly; compared as bytes.
 */
import { InvalidArgumentError } from './status.ts';

/** Default UDP port of a node. */
export const defaultPort = 5001;

const localPart = /^[a-z0-9._-]{1,64}$/;
const domainLabel = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export interface UserAddress {
  readonly userId: string;
  readonly name: string;
  readonly domain: string;
}

/** True for a lower-case DNS name in A-label form of at most 253 bytes. */
export function isDomain(text: string): boolean {
  return text.length <= 253 && text.split('.').every((label) => domainLabel.test(label));
}

/** Parses `name@domain`. Throws InvalidArgumentError BAD_FIELD that says which part is wrong. */
export function parseUserId(text: string): UserAddress {
  const at = text.indexOf('@');
  const name = text.slice(0, Math.max(at, 0));
  const domain = text.slice(at + 1);
  if (at < 0 || !localPart.test(name)) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      'user id: need name@domain, name of 1-64 characters a-z 0-9 . _ -',
    );
  }
  if (!isDomain(domain)) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      'user id: the part after @ is no lower-case domain',
    );
  }
  return { userId: text, name, domain };
}

/** Where a node is and which key it must show. */
export interface NodeAddress {
  readonly host: string;
  readonly port: number;
  /** SHA-256 of the node's SubjectPublicKeyInfo (32 bytes). */
  readonly pin: Uint8Array;
}

/** Formats a `qpc://` address; IPv6 literals get brackets. */
export function formatNodeAddress(address: NodeAddress): string {
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `qpc://${host}:${address.port}#${Buffer.from(address.pin).toString('base64url')}`;
}

/** Parses a `qpc://host:port#pin` address. Throws InvalidArgumentError BAD_FIELD. */
export function parseNodeAddress(text: string): NodeAddress {
  const match =
    /^qpc:\/\/(?:\[([0-9a-fA-F:.]+)\]|([^:#/[\]]+))(?::(\d{1,5}))?#([A-Za-z0-9_-]{43})$/.exec(text);
  if (match === null) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      'node address: need qpc://host:port#pin with a pin of 43 characters',
    );
  }
  const [, ipv6, name, portText, pinText] = match;
  const port = portText === undefined ? defaultPort : Number(portText);
  if (port < 1 || port > 65_535) {
    throw new InvalidArgumentError('BAD_FIELD', `node address: port ${port}, need 1-65535`);
  }
  return { host: ipv6 ?? name ?? '', port, pin: parsePin(pinText ?? '') };
}

/** Parses a base64url SHA-256 SPKI pin into 32 bytes. Throws InvalidArgumentError BAD_FIELD. */
export function parsePin(text: string): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, 'base64url'));
  // Re-encoding refuses padding bits and foreign characters that the decoder would skip.
  if (bytes.length !== 32 || Buffer.from(bytes).toString('base64url') !== text) {
    throw new InvalidArgumentError('BAD_FIELD', 'pin: need 43 characters of base64url (32 bytes)');
  }
  return bytes;
}
