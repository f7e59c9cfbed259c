/**
 * Whose cosignatures this node's log takes: the two keys of each peer's record, and the policy that
 * a majority of the auditor keys has to have signed.
 */
import {
  nativeSuite,
  parsePolicy,
  parseVkey,
  SignatureType,
  VerificationError,
  type Cosigners,
  type NoteKey,
} from '@quicprochat/kt-log';
import type { NodeRecord } from '@quicprochat/proto/messages';

/** A peer's cosigner key. */
export interface PeerCosigner {
  readonly vkey: string;
  readonly key: NoteKey;
  readonly isAuditor: boolean;
}

/** The cosigner keys of a record that bear the names of its domain; others are nobody's. */
export function cosignersOf(record: NodeRecord): PeerCosigner[] {
  const { domain } = record;
  return record.cosigners.flatMap((vkey) => {
    const key = keyFrom(vkey);
    const isAuditor = key?.name === `${domain}/auditor`;
    const isKnown = isAuditor || key?.name === `${domain}/witness`;
    const isRightType = key?.type === SignatureType.cosignatureV1;
    return key !== undefined && isKnown && isRightType ? [{ vkey, key, isAuditor }] : [];
  });
}

function keyFrom(vkey: string): NoteKey | undefined {
  try {
    return parseVkey(nativeSuite.sha256, vkey);
  } catch (error) {
    if (error instanceof VerificationError) return undefined;
    throw error;
  }
}

/** In C2SP tlog-policy syntax: a majority of the auditors; empty without any. */
export function policyTextOf(cosigners: readonly PeerCosigner[]): string {
  const auditors = cosigners.filter(({ isAuditor }) => isAuditor);
  if (auditors.length === 0) return '';
  const names = auditors.map(({ key }) => key.name);
  const witnesses = auditors.map(({ key, vkey }) => `witness ${key.name} ${vkey}\n`).join('');
  const threshold = Math.floor(names.length / 2) + 1;
  return `${witnesses}group peers ${threshold} ${names.join(' ')}\nquorum peers\n`;
}

/** For KtLog. */
export function logCosigners(cosigners: readonly PeerCosigner[]): Cosigners {
  const text = policyTextOf(cosigners);
  const policy = text === '' ? undefined : parsePolicy(nativeSuite.sha256, text);
  return { keys: cosigners.map(({ key }) => key), policy };
}
