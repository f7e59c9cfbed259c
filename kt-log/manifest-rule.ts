/**
 * The rule of a user's label for `bad-value` evidence: each version is the signed device manifest
 * that follows the one before (proto/manifest-chain.ts). Labels of the node itself have no such rule.
 */
import { checkManifest, checkNextManifest, manifestOfValue } from '@quicprochat/proto';
import { QpcError } from '@quicprochat/proto/status';
import type { ValueRule } from './evidence-check.ts';

export const manifestRule: ValueRule = (label, version, value, previous) => {
  const userId = new TextDecoder().decode(label);
  if (userId.startsWith('@')) return undefined;
  try {
    const signed = manifestOfValue(value);
    const { seq } = checkManifest(signed, userId);
    if (seq !== BigInt(version)) return `its manifest says version ${seq}`;
    if (version === 0) checkNextManifest(undefined, signed, userId);
    // A previous value that is none itself is evidence of its own, not of this version.
    else if (previous !== undefined) checkNextManifest(manifestOfValue(previous), signed, userId);
    return undefined;
  } catch (error) {
    if (error instanceof QpcError) return error.message;
    throw error;
  }
};
