/**
 * `qpc-audit check` of a wrapped credential: what a person's device shows others while nodes are down,
 * checked with nothing but the log's record and a policy that names the auditors to believe.
 */
import { parsePolicy, type Policy } from '../policy.ts';
import { readFile } from 'node:fs/promises';
import { nativeSha256 } from '../native-hash.ts';
import { nativeSuite } from '../native-suite.ts';
import { decode } from '../presentation.ts';
import { VerificationError } from '../verification-error.ts';
import { logVerifier } from '../verify-response.ts';
import {
  defaultAuditorsMin,
  openWrapped,
  wrappedCredential,
  type OpenedCredential,
} from '../wrapped-credential.ts';
import { defaultRecency } from '../log.ts';
import type { EvidenceKeys } from '../evidence-check.ts';
import { UsageError } from './usage.ts';

/** Throws UsageError for a file that is no C2SP policy. */
export async function policyOf(path: string): Promise<Policy> {
  try {
    return parsePolicy(nativeSha256, await readFile(path, 'utf8'));
  } catch (error) {
    const why = error instanceof Error ? error.message : 'unreadable';
    throw new UsageError(`--policy ${path}: ${why}`);
  }
}

export function isCredential(bytes: Uint8Array): boolean {
  try {
    decode(wrappedCredential, bytes);
    return true;
  } catch (error) {
    if (error instanceof VerificationError) return false;
    throw error;
  }
}

/**
 * What a credential shows, once auditors of two operators other than the log's vouch for its entry.
 * Throws VerificationError, and UsageError without the log's record or a policy.
 */
export function credentialFacts(
  bytes: Uint8Array,
  keys: EvidenceKeys | undefined,
  policy: Policy | undefined,
  nowMs: number,
): Readonly<Record<string, string | number>> {
  const { config, key, origin } = keys ?? {};
  if (config === undefined || key === undefined || origin === undefined || policy === undefined) {
    throw new UsageError('check: a credential needs --record and --policy');
  }
  const opened: OpenedCredential = openWrapped(
    logVerifier(config, nativeSuite),
    { origin, key },
    [],
    { policy, auditorsMin: defaultAuditorsMin, recentMs: defaultRecency.recentMs },
    bytes,
    nowMs,
  );
  return {
    type: 'credential',
    log: origin,
    label: new TextDecoder().decode(opened.label),
    version: opened.version,
    'value sha256': Buffer.from(nativeSha256(opened.value)).toString('hex'),
    'greatest at': new Date(opened.entryTimeMs).toISOString(),
    auditors: opened.auditors.join(' '),
  };
}
