/**
 * libp2p peer ids of Ed25519 keys, as text: base58btc of the identity multihash of the key's protobuf
 * (libp2p peer-ids spec). Pure, so that what checks endpoint records needs no libp2p.
 */
import { InvalidArgumentError, ed25519KeyBytes } from '@quicprochat/proto';

/** Text of a peer id: "12D3KooW" and 44 more characters. */
export type PeerIdText = string;

/** Identity multihash of 36 bytes: a protobuf with key type 1 (Ed25519) and 32 bytes of key. */
const prefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);
const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
/** Longest text of a peer id of this kind. */
export const peerIdTextMax = 52;

/** The peer id of a raw Ed25519 public key. Throws InvalidArgumentError BAD_FIELD unless 32 bytes. */
export function peerIdOf(swarmKey: Uint8Array): PeerIdText {
  if (swarmKey.length !== ed25519KeyBytes) {
    throw new InvalidArgumentError('BAD_FIELD', `swarm key: ${swarmKey.length} bytes, need 32`);
  }
  return base58(Uint8Array.from([...prefix, ...swarmKey]));
}

/** The raw Ed25519 public key of a peer id; undefined for every other kind of text. */
export function swarmKeyOf(peerId: PeerIdText): Uint8Array | undefined {
  if (peerId.length > peerIdTextMax) return undefined;
  const bytes = unbase58(peerId);
  const isOurs =
    bytes?.length === prefix.length + ed25519KeyBytes && prefix.every((b, i) => bytes[i] === b);
  return isOurs ? bytes.subarray(prefix.length) : undefined;
}

function base58(bytes: Uint8Array): string {
  let zeros = 0;
  while (bytes[zeros] === 0) zeros += 1;
  let value = BigInt(`0x0${Buffer.from(bytes).toString('hex')}`);
  let text = '';
  for (; value > 0n; value /= 58n) text = alphabet.charAt(Number(value % 58n)) + text;
  return '1'.repeat(zeros) + text;
}

function unbase58(text: string): Uint8Array | undefined {
  let zeros = 0;
  while (text[zeros] === '1') zeros += 1;
  let value = 0n;
  for (const character of text) {
    const digit = alphabet.indexOf(character);
    if (digit < 0) return undefined;
    value = value * 58n + BigInt(digit);
  }
  const hex = value === 0n ? '' : value.toString(16);
  const rest = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  return Uint8Array.from([...new Uint8Array(zeros), ...rest]);
}
