/** The driver's Buffer as the plain Uint8Array that it is everywhere else; no copy. */
export function plainBytes({ buffer, byteOffset, length }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, length);
}
