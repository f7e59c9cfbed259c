/**
 * The door to the native quiche of @matrixai/quic, without that package's own glue: one shared
 * configuration per identity, and what quiche's errors mean to us (RFC 9000 section 20). Nothing of
 * the package's types leaves the `quiche-*` files.
 */
import type { native } from '@matrixai/quic';
import { TransportError } from '../status.ts';
import type { NodeIdentity } from './certificate.ts';
import { loadEngine, type Engine } from './quic-engine.ts';
import { failureOfCloseCode, lost } from './session.ts';
import type { CloseInfo, TransportLimits } from './transport.ts';

export type Quiche = Engine['native']['quiche'];
export type NativeConfig = native.Config;
export type NativeConnection = native.Connection;
export type NativeAddress = native.Host;
export type PathEvent = native.PathEvent;

/** Length of the connection ids that we give ourselves (bytes). */
export const connectionIdBytes = 16;
/** A client pads every datagram with an Initial packet to this (RFC 9000 section 14.1). */
export const minInitialBytes = 1200;
/** The largest UDP payload that we send or take (bytes): fits into every path that carries 1378. */
export const datagramBytes = 1350;

const alpn = 'qpc';
/** Bytes that a peer may send on one stream, and on all of them, before we read any. */
const streamWindowBytes = 1024 * 1024;
/** Of all streams: a listener knows less of its peers than a dialer, and reads or stops all they open. */
export const windowBytes = { listen: 2 * 1024 * 1024, dial: 10 * 1024 * 1024 } as const;
/**
 * quiche 0.18 gives no credit back for a push stream that its reader stopped. How many may be open
 * at a time is counted above the engine; this is how many may be stopped in a connection's life.
 */
const sparePushStreams = 1000;
/**
 * quiche 0.18 keeps every address that a peer had, and drops packets from one more: after so many
 * NAT rebindings a connection idles out and its client dials again.
 */
const pathsRemembered = 64;

/** TLS alerts as QUIC error codes (RFC 9001 section 4.8). */
export const tlsAlert = {
  badCertificate: 0x100 + 42,
  certificateRequired: 0x100 + 116,
  noApplicationProtocol: 0x100 + 120,
} as const;
/** Transport error codes of RFC 9000 section 20.1. */
export const transportCode = { noError: 0, internalError: 1 } as const;

/** Throws TransportError `internal` on platforms without the native binding. */
export async function loadQuiche(): Promise<Quiche> {
  const { native: binding } = await loadEngine();
  return binding.quiche;
}

/**
 * One configuration, with its TLS context, for all connections of an identity. TLS checks that the
 * peer holds the Ed25519 key of its certificate; who that is, is judged when the handshake is over.
 * Throws TransportError `internal` when the identity does not load.
 */
export function nativeConfig(
  quiche: Quiche,
  identity: NodeIdentity,
  limits: TransportLimits,
  role: keyof typeof windowBytes,
): NativeConfig {
  const pem = new TextEncoder();
  let config: NativeConfig;
  try {
    config = quiche.Config.withBoringSslCtx(
      true,
      true,
      null,
      [pem.encode(identity.privateKeyPem)],
      [pem.encode(identity.certificatePem)],
      'ed25519',
    );
  } catch (cause) {
    throw new TransportError('internal', 'quic: the identity does not load', { cause });
  }
  config.setApplicationProtos([alpn]);
  config.grease(true);
  config.setMaxIdleTimeout(limits.idleMs);
  config.setMaxRecvUdpPayloadSize(datagramBytes);
  config.setMaxSendUdpPayloadSize(datagramBytes);
  config.setInitialMaxData(windowBytes[role]);
  config.setInitialMaxStreamDataBidiLocal(streamWindowBytes);
  config.setInitialMaxStreamDataBidiRemote(streamWindowBytes);
  config.setInitialMaxStreamDataUni(streamWindowBytes);
  // quiche would let both grow to 16 and 24 MiB for a fast reader.
  config.setMaxConnectionWindow(windowBytes[role]);
  config.setMaxStreamWindow(streamWindowBytes);
  config.setInitialMaxStreamsBidi(limits.incomingStreams);
  config.setInitialMaxStreamsUni(limits.incomingPushStreams + sparePushStreams);
  config.setActiveConnectionIdLimit(pathsRemembered);
  config.setDisableActiveMigration(true);
  return config;
}

/** The code in quiche's `StreamReset(7)` or `StreamStopped(7)`, or undefined for other errors. */
export function streamErrorCode(
  error: unknown,
  kind: 'StreamReset' | 'StreamStopped',
): number | undefined {
  if (!(error instanceof Error) || !error.message.startsWith(`${kind}(`)) return undefined;
  const code = Number.parseInt(error.message.slice(kind.length + 1), 10);
  // Beyond 2^53 no code is ours.
  return Number.isSafeInteger(code) ? code : -1;
}

/** Why a connection that is draining or closed ended, as both sides of our wire read it. */
export function closeInfoOf(connection: NativeConnection): CloseInfo {
  if (connection.isTimedOut()) return lost('idle time-out');
  const peerError = connection.peerError();
  const error = peerError ?? connection.localError();
  if (error === null) return lost('no path left');
  const local = peerError === null;
  const { isApp, errorCode } = error;
  if (isApp) {
    const failure = local ? 'closed' : failureOfCloseCode(errorCode);
    const reason = new TextDecoder().decode(Uint8Array.from(error.reason));
    return { failure, code: errorCode, reason, local };
  }
  if (errorCode >= 0x100 && errorCode <= 0x1ff) {
    const failure = errorCode === tlsAlert.noApplicationProtocol ? 'alpn' : 'refusedIdentity';
    return { failure, code: 0, reason: `TLS alert ${errorCode - 0x100}`, local };
  }
  const failure = errorCode === transportCode.noError ? 'closed' : 'protocol';
  return { failure, code: 0, reason: `QUIC error ${errorCode}`, local };
}
