/**
 * The door to @matrixai/quic: loads it on first use, builds its configuration, and translates its
 * errors. Nothing of the package's types leaves the `quic-*` files.
 */
import type * as glue from '@matrixai/quic';
import type { NodeIdentity } from './certificate.ts';
import { spkiSha256OfCertificate } from './certificate.ts';
import { TransportError, type TransportFailure } from '../status.ts';
import { failureOfCloseCode, lost, streamCodes, streamError } from './session.ts';
import type { StreamReason } from './session.ts';
import type { CloseInfo, TransportLimits } from './transport.ts';

export type Engine = typeof glue;

const alpn = 'qpc';
/** Bytes that a peer may send on one stream, and on all of them, before we read any. */
const streamWindowBytes = 1024 * 1024;
const connectionWindowBytes = 10 * 1024 * 1024;
/**
 * quiche 0.18 gives no credit back for a push stream that its reader stopped. How many may be open
 * at a time is counted above the engine; this is how many may be stopped in a connection's life.
 */
const sparePushStreams = 1000;
/** TLS alert `no_application_protocol` (RFC 7301 section 3.2) as a QUIC error code. */
const noApplicationProtocol = 0x100 + 120;

/**
 * The package. It carries a native binding that throws at import where there is none (linux-arm64,
 * musl): TransportError `internal` then, with the platform in its message.
 */
export async function loadEngine(): Promise<Engine> {
  try {
    return await import('@matrixai/quic');
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}`;
    const message = `quic: no native binding for this platform (${platform})`;
    throw new TransportError('internal', message, { cause });
  }
}

/** The glue logs every stream; its default logger prints, and a silenced one still queues. */
export function quietLogger() {
  const quiet: unknown = {
    debug() {},
    info() {},
    warn() {},
    error() {},
    getChild: (): unknown => quiet,
  };
  // The class has protected members, so no object literal can be it; the five methods above are all
  // that the glue calls.
  return quiet as NonNullable<ConstructorParameters<Engine['QUICSocket']>[0]['logger']>;
}

/** Our side gave up a stream; the glue hands the error back to whoever reads or writes it. */
export class LocalReset extends TransportError {
  override name = 'LocalReset';
  readonly streamReason: StreamReason;

  constructor(streamReason: StreamReason) {
    super('cancelled', `stream: given up here (${streamReason})`);
    this.streamReason = streamReason;
  }
}

/** Stream error codes, for the options of the glue's classes. */
export const streamCodeOptions = {
  reasonToCode: (_side: 'read' | 'write', reason?: unknown): number =>
    reason instanceof LocalReset ? streamCodes[reason.streamReason] : streamCodes.done,
  codeToReason: (_side: 'read' | 'write', code: number): TransportError => streamError(code),
};

/** The identity in a certificate chain, or undefined when there is none that we accept. */
export function peerSpki(chain: readonly Uint8Array[] | null): Uint8Array | undefined {
  const [der] = chain ?? [];
  if (der === undefined) return undefined;
  try {
    return spkiSha256OfCertificate(der);
  } catch {
    // Not a certificate, or not Ed25519: no identity.
    return undefined;
  }
}

/**
 * Configuration of either side. The TLS library checks that the peer holds the key of its
 * certificate; `accepts` judges the key; chain, names and dates are not looked at.
 */
export function quicConfig(
  { native }: Engine,
  identity: NodeIdentity,
  limits: TransportLimits,
  accepts: (spkiSha256: Uint8Array) => boolean,
) {
  return {
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    sigalgs: 'ed25519',
    verifyPeer: true,
    verifyCallback: async (chain: Uint8Array[] | null) => {
      const spki = peerSpki(chain);
      if (spki === undefined) return native.CryptoError.CertificateRequired;
      return accepts(spki) ? undefined : native.CryptoError.BadCertificate;
    },
    grease: true,
    applicationProtos: [alpn],
    // Resumption is not reachable through the glue, and without it early data means nothing.
    enableEarlyData: false,
    maxIdleTimeout: limits.idleMs,
    maxRecvUdpPayloadSize: native.quiche.MAX_DATAGRAM_SIZE,
    maxSendUdpPayloadSize: native.quiche.MAX_DATAGRAM_SIZE,
    initialMaxData: connectionWindowBytes,
    initialMaxStreamDataBidiLocal: streamWindowBytes,
    initialMaxStreamDataBidiRemote: streamWindowBytes,
    initialMaxStreamDataUni: streamWindowBytes,
    initialMaxStreamsBidi: limits.incomingStreams,
    initialMaxStreamsUni: limits.incomingPushStreams + sparePushStreams,
    // The glue accepts these two and ignores them.
    maxConnectionWindow: connectionWindowBytes,
    maxStreamWindow: streamWindowBytes,
    enableDgram: [false, 0, 0] satisfies [boolean, number, number],
    disableActiveMigration: true,
    readableChunkSize: 16 * 1024,
  };
}

/** How the end of a connection, which the glue always reports as an error, reads for us. */
export function closeInfoOf({ errors }: Engine, error: unknown): CloseInfo {
  if (error instanceof errors.ErrorQUICConnectionIdleTimeout) return lost('idle time-out');
  // First: in this package PeerTLS is a subclass of Local.
  if (error instanceof errors.ErrorQUICConnectionPeerTLS) {
    return tlsCloseInfo(error.data.errorCode, false);
  }
  if (error instanceof errors.ErrorQUICConnectionLocalTLS) {
    return tlsCloseInfo(error.data.errorCode, true);
  }
  const isLocal = error instanceof errors.ErrorQUICConnectionLocal;
  if (isLocal || error instanceof errors.ErrorQUICConnectionPeer) {
    const { isApp, errorCode, reason } = error.data;
    if (isApp) {
      const failure = isLocal ? 'closed' : failureOfCloseCode(errorCode);
      const text = new TextDecoder().decode(reason);
      return { failure, code: errorCode, reason: text, local: isLocal };
    }
    const failure: TransportFailure = errorCode === 0 ? 'closed' : 'protocol';
    return { failure, code: 0, reason: `QUIC error ${errorCode}`, local: isLocal };
  }
  return { failure: 'internal', code: 0, reason: 'fault of the engine', local: true };
}

function tlsCloseInfo(code: number, local: boolean): CloseInfo {
  const failure = code === noApplicationProtocol ? 'alpn' : 'refusedIdentity';
  return { failure, code: 0, reason: `TLS alert ${code - 0x100}`, local };
}

/** The system's error code (`EADDRINUSE`) anywhere in the chain of causes. */
export function systemError(error: unknown): (Error & { code: string }) | undefined {
  let current = error;
  for (let depth = 0; depth < 8 && current instanceof Error; depth += 1) {
    if ('code' in current && typeof current.code === 'string') {
      return Object.assign(current, { code: current.code });
    }
    current = current.cause;
  }
  return undefined;
}
