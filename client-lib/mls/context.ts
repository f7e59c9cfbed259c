/** What every operation of the adapter takes, and the strict decoding that all of them share. */
import type { Clock, Random } from '@quicprochat/proto';
import type {
  AuthenticationService,
  CiphersuiteImpl,
  CryptoProvider,
  Decoder,
  Encoder,
  MlsContext,
} from 'ts-mls';
import type { MlsSuite } from '../crypto/provider.ts';
import type { ManifestLookup } from './authentication.ts';
import { MlsError } from './errors.ts';
import { encode } from './library.ts';
import type { CommitPolicy } from './policy.ts';
import { clientConfig, limits, sameBytes } from './suite.ts';

/** The parts that the adapter is given. */
export interface MlsParts {
  readonly provider: CryptoProvider;
  readonly clock: Clock;
  readonly random: Random;
  readonly manifests: ManifestLookup;
  readonly mayCommit: CommitPolicy;
}

/** The library's per-call context. */
export async function mlsContext(
  parts: MlsParts,
  suite: MlsSuite,
  authService: AuthenticationService,
  {
    contentLength = 0,
    leaves = 1,
  }: { readonly contentLength?: number; readonly leaves?: number } = {},
): Promise<MlsContext> {
  return {
    cipherSuite: await cipherSuite(parts, suite),
    authService,
    clientConfig: clientConfig(contentLength, leaves),
  };
}

/** The provider's suite. */
export async function cipherSuite(parts: MlsParts, suite: MlsSuite): Promise<CiphersuiteImpl> {
  return parts.provider.getCiphersuiteImpl(suite);
}

/**
 * Decodes all of `bytes` in its canonical encoding. The library ignores trailing bytes and
 * takes over-long lengths, so the value is encoded again and compared. The result shares no
 * memory with `bytes`. Throws MlsError MALFORMED.
 */
export function decodeExactly<T>(
  decoder: Decoder<T>,
  encoder: Encoder<T>,
  bytes: Uint8Array,
  what: string,
): T {
  if (bytes.length > limits.messageBytesMax) {
    throw new MlsError(
      'MALFORMED',
      `${what}: ${bytes.length} bytes, at most ${limits.messageBytesMax}`,
    );
  }
  const own = Uint8Array.from(bytes);
  let value: T | undefined;
  let canonical = false;
  try {
    value = decoder(own, 0)?.[0];
    canonical = value !== undefined && sameBytes(encode(encoder, value), own);
  } catch (cause) {
    throw new MlsError('MALFORMED', `${what}: cannot be decoded`, { cause });
  }
  if (value === undefined || !canonical) throw new MlsError('MALFORMED', `${what}: not canonical`);
  return value;
}
