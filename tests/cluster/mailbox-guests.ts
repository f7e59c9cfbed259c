/**
 * Devices of another node's users at a node that keeps mailboxes, below the level of a client: what they ask for
 * a mailbox with (docs: protocol/p2p, "Mailboxes"), and a connection that is a guest's from then on.
 */
import { wrapCredential } from '@quicprochat/kt-log';
import {
  call,
  hasReason,
  methods,
  signGuestProof,
  systemClock,
  systemRandom,
  type SigningKey,
} from '@quicprochat/proto';
import { makeIdentity, type Connection, type NodeIdentity } from '@quicprochat/proto/transport';
import type { LocalNode, TestDevice } from './local-node.ts';

/** For nodes that keep mailboxes and their peers: logs that are cosigned at once. */
export const quickLogs =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\nreasonable_monitoring_window_ms = 50\nmax_behind_ms = 600\n';
/** A new entry is cosigned within a moment; what takes longer failed (ms). */
const patienceMs = 20_000;

/** One connection and its key. */
export interface Line {
  readonly connection: Connection;
  readonly transport: NodeIdentity;
}

/** Of somebody whom the node does not know yet. */
export async function lineTo(node: LocalNode, fromHost = 'somewhere'): Promise<Line> {
  const transport = await makeIdentity(systemRandom);
  return { transport, connection: await node.dial(transport, fromHost) };
}

export interface MailboxProof {
  readonly key: SigningKey;
  readonly credential: Uint8Array;
  /** Unless told: the key's. */
  readonly device?: Uint8Array;
  readonly issuedMs?: number;
}

/** RequestMailbox of a device over its connection to the node with this key. */
export function mailboxRequest(nodeSpki: Uint8Array, { transport }: Line, proof: MailboxProof) {
  const { key, credential, device = key.publicKey, issuedMs = systemClock.now() } = proof;
  const binding = { clientSpki: transport.spkiSha256, nodeSpki, issuedMs };
  const signature = signGuestProof(binding, key);
  return { credential, device, issuedMs: BigInt(issuedMs), signature };
}

/** That this node takes from a device of its peer, with or without a place for it: a moment after registering. */
export async function credentialFor(node: LocalNode, device: TestDevice): Promise<Uint8Array> {
  const endMs = systemClock.monotonic() + patienceMs;
  for (;;) {
    const request = { case: 'own', value: {} } as const;
    const made = await call(device.connection, methods.ktCredential, { request });
    const { credential: response, checkpoint, entry, inclusion } = made;
    const credential = wrapCredential({ response, checkpoint, entry, inclusion });
    const line = await lineTo(node);
    const { spkiSha256: nodeSpki } = node.identity;
    const asked = mailboxRequest(nodeSpki, line, { key: device.identityKey, credential });
    try {
      await call(line.connection, methods.requestMailbox, asked);
      return credential;
    } catch (error) {
      if (hasReason(error, 'QUOTA')) return credential;
      if (!hasReason(error, 'BLOCKED') || systemClock.monotonic() > endMs) throw error;
      await systemClock.sleep(20);
    } finally {
      await line.connection.close(0, 'done');
    }
  }
}

/** A connection of this device that is a guest's. */
export async function guestAt(
  node: LocalNode,
  { identityKey: key }: TestDevice,
  credential: Uint8Array,
): Promise<Line> {
  const line = await lineTo(node);
  const asked = mailboxRequest(node.identity.spkiSha256, line, { key, credential });
  await call(line.connection, methods.requestMailbox, asked);
  return line;
}
