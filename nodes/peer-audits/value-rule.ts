/** What `bad-value` evidence is judged by: the rules of manifests that every node keeps. */
import type { ValueRule } from '@quicprochat/kt-log';
import { checkManifest, checkNextManifest, manifestOfValue, QpcError } from '@quicprochat/proto';

/** The breach in words; undefined for a value that an honest node logs. */
export const manifestRule: ValueRule = (label, version, value, previous) => {
  const userId = new TextDecoder().decode(label);
  // The log's own labels hold other things.
  if (userId.startsWith('@')) return undefined;
  try {
    const signed = manifestOfValue(value);
    const manifest = checkManifest(signed, userId);
    if (manifest.seq !== BigInt(version)) return `manifest ${manifest.seq} is version ${version}`;
    if (version === 0 || previous !== undefined) {
      checkNextManifest(previous && manifestOfValue(previous), signed, userId);
    }
    return undefined;
  } catch (error) {
    if (error instanceof QpcError) return error.message;
    throw error;
  }
};
