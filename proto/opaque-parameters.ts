/**
 * The OPAQUE parameters that client and node must share (RFC 9807, ristretto255-SHA512).
 */

/** Message sizes (bytes). */
export const opaqueBytes = {
  registrationRequest: 32,
  registrationResponse: 64,
  registrationRecord: 192,
  ke1: 96,
  ke2: 320,
  ke3: 64,
} as const;

/** Key stretching by number: argon2id with 3 passes over 64 MiB in 4 lanes. */
export const ksfArgon2id = 1;

/** The identifiers both sides authenticate; the version of the protocol rides in the server's. */
export function opaqueIdentifiers(
  userId: string,
  domain: string,
): { client: string; server: string } {
  return { client: userId, server: `qpc/1:${domain}` };
}
