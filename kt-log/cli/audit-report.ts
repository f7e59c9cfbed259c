/**
 * The report of a follower: the facts once, as an object for programs and as lines for people
 * (docs/auditor/following-a-log.md). Text that came from a log never reaches a terminal raw.
 */
import { toBase64 } from '../base64.ts';
import type { Configuration } from '../codec.ts';
import { DeploymentMode } from '../codec.ts';
import { nativeSha256 } from '../native-hash.ts';
import type { NoteKey } from '../note.ts';
import { formatVkey } from '../note.ts';
import type { LogStatus } from '../audit-store.ts';
import { sparkline } from './activity.ts';
import type { PinnedBy } from './pinned-keys.ts';

export interface CosignerFact {
  readonly name: string;
  readonly algorithm: 'Ed25519' | 'ML-DSA-44' | 'other';
  /** `unknown`: a signature that no key here can check. */
  readonly state: 'signed' | 'missing' | 'unknown';
  readonly ageS: number | undefined;
}
export interface EvidenceFact {
  readonly kind: string;
  readonly explain: string;
  readonly heads: readonly { readonly size: number; readonly root: Uint8Array }[];
  readonly file: string;
}

export interface AuditFacts {
  readonly target: string;
  readonly origin: string;
  readonly status: LogStatus;
  readonly failure: string | undefined;
  readonly key: NoteKey;
  readonly config: Configuration;
  readonly pinnedBy: PinnedBy;
  /** Where this replay started. */
  readonly startSize: number;
  readonly replayedSize: number;
  /** Of the source's newest checkpoint. */
  readonly newestSize: number | undefined;
  /** Time of the newest replayed entry, and how long ago that was. */
  readonly newestEntryMs: number | undefined;
  readonly ageMs: number | undefined;
  readonly roots: { readonly rfc6962: Uint8Array; readonly keytrans: Uint8Array } | undefined;
  readonly perHour: { readonly entries: readonly number[]; readonly leaves: readonly number[] };
  readonly cosigners: readonly CosignerFact[];
  /** Undefined without a policy. */
  readonly hasQuorum: boolean | undefined;
  readonly evidence: readonly EvidenceFact[];
  readonly baseUrl: string | undefined;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** SHA-256 of a key: what people compare. */
const fingerprint = (key: Uint8Array): string => hex(nativeSha256(key));

/** C0, C1, line separators, and the marks that turn text around. */
const unprintable = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
export function visible(text: string): string {
  return text.replaceAll(unprintable, (one) => `\\u{${(one.codePointAt(0) ?? 0).toString(16)}}`);
}

const modes: Readonly<Record<DeploymentMode, string>> = {
  [DeploymentMode.contactMonitoring]: 'contact monitoring',
  [DeploymentMode.thirdPartyManagement]: 'third-party management',
  [DeploymentMode.thirdPartyAuditing]: 'third-party auditing',
};

/** One line of JSON. Byte strings are base64, keys and roots hex. */
export function jsonReport(facts: AuditFacts): Readonly<Record<string, unknown>> {
  const { key, config, roots, newestEntryMs } = facts;
  return {
    type: 'report',
    target: facts.target,
    origin: facts.origin,
    status: facts.status,
    failure: facts.failure ?? null,
    vkey: formatVkey(key),
    keyFingerprints: {
      checkpoint: fingerprint(key.publicKey),
      treeHead: fingerprint(config.signaturePublicKey),
      vrf: fingerprint(config.vrfPublicKey),
    },
    pinnedBy: facts.pinnedBy,
    configuration: {
      mode: modes[config.mode],
      cipherSuite: config.cipherSuite,
      maxAheadMs: config.maxAheadMs,
      maxBehindMs: config.maxBehindMs,
      reasonableMonitoringWindowMs: config.reasonableMonitoringWindowMs,
      maximumLifetimeMs: config.maximumLifetimeMs ?? null,
    },
    startSize: facts.startSize,
    replayedSize: facts.replayedSize,
    newestSize: facts.newestSize ?? null,
    newestEntry: newestEntryMs === undefined ? null : new Date(newestEntryMs).toISOString(),
    ageMs: facts.ageMs ?? null,
    rfc6962Root: roots === undefined ? null : toBase64(roots.rfc6962),
    keytransRoot: roots === undefined ? null : toBase64(roots.keytrans),
    entriesPerHour: facts.perHour.entries,
    leavesPerHour: facts.perHour.leaves,
    cosigners: facts.cosigners.map((one) => ({ ...one, ageS: one.ageS ?? null })),
    hasQuorum: facts.hasQuorum ?? null,
    evidence: facts.evidence.map(({ heads, ...one }) => ({
      ...one,
      heads: heads.map(({ size, root }) => ({ size, root: toBase64(root) })),
    })),
  };
}

const verdicts: Readonly<Record<LogStatus, string>> = {
  ok: 'ok: every entry was replayed and agrees with both signed roots',
  behind: 'behind: not replayed up to the newest checkpoint',
  suspect: 'suspect: what came is not what an honest log gives; this is no proof',
  forked: 'FORKED: the log showed two histories, and here is the proof',
  invalid: 'INVALID: the log did what it must not do, and here is the proof',
};

/** Lines for people. */
export function peoplesReport(facts: AuditFacts): string {
  const { key, config, roots, perHour } = facts;
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const lines = [
    `log        ${facts.origin}, read from ${facts.target}`,
    `verdict    ${verdicts[facts.status]}`,
    ...(facts.failure === undefined ? [] : [`because    ${facts.failure}`]),
    `replayed   entries ${facts.startSize} to ${facts.replayedSize} of ${facts.newestSize ?? 'unknown'}`,
    ...(facts.startSize > 0
      ? [`           what lies before ${facts.startSize} is taken from the log's word`]
      : []),
    ...(facts.ageMs === undefined || facts.newestEntryMs === undefined
      ? []
      : [
          `newest     ${new Date(facts.newestEntryMs).toISOString()}, ${duration(facts.ageMs)} ago`,
        ]),
    ...(roots === undefined
      ? []
      : [
          `roots      RFC 6962 ${toBase64(roots.rfc6962)}`,
          `           KEYTRANS ${toBase64(roots.keytrans)}`,
        ]),
    ...(perHour.entries.length === 0
      ? []
      : [
          `24 hours   ${sparkline(perHour.entries)} ${sum(perHour.entries)} entries replayed now`,
          `           ${sparkline(perHour.leaves)} ${sum(perHour.leaves)} leaves`,
        ]),
    `keys       pinned by ${facts.pinnedBy}; SHA-256 of each:`,
    `           checkpoints ${fingerprint(key.publicKey)}`,
    `           tree heads  ${fingerprint(config.signaturePublicKey)}`,
    `           VRF         ${fingerprint(config.vrfPublicKey)}`,
    `rules      ${modes[config.mode]}; entries at most ${duration(config.maxAheadMs)} ahead and the newest`,
    `           at most ${duration(config.maxBehindMs)} old; changes are watched for ${duration(config.reasonableMonitoringWindowMs)}`,
    ...cosignerLines(facts),
    ...(facts.evidence.length === 0 ? ['evidence   none'] : facts.evidence.flatMap(evidenceLines)),
    ...byHand(facts),
  ];
  return lines.map((line) => `${visible(line)}\n`).join('');
}

function cosignerLines({ cosigners, hasQuorum }: AuditFacts): string[] {
  const quorum = hasQuorum === undefined ? 'no policy given' : hasQuorum ? 'quorum' : 'NO QUORUM';
  return [
    `cosigners  ${quorum}`,
    ...cosigners.map(({ name, algorithm, state, ageS }) => {
      const age = ageS === undefined ? '' : `, ${duration(ageS * 1000)} ago`;
      return `           ${state.padEnd(8)} ${name} (${algorithm}${age})`;
    }),
  ];
}

function evidenceLines({ kind, explain, heads, file }: EvidenceFact): string[] {
  return [
    `evidence   ${kind}: ${explain}`,
    ...heads.map(({ size, root }) => `           head of size ${size}, root ${toBase64(root)}`),
    `           ${file}`,
    `           check it anywhere: qpc-audit verify-fork ${file}`,
  ];
}

/** How to check the log with standard tools. */
function byHand({ baseUrl, key, replayedSize }: AuditFacts): string[] {
  if (baseUrl === undefined) return [`by hand    vkey ${formatVkey(key)}`];
  const isUrl = /^https?:/.test(baseUrl);
  const show = isUrl ? 'curl -s' : 'cat';
  if (replayedSize === 0) {
    return [`by hand    vkey ${formatVkey(key)}`, `           ${show} ${baseUrl}/kt/checkpoint`];
  }
  const width = Math.min(replayedSize, 256);
  const partial = width === 256 ? '' : `.p/${width}`;
  return [
    `by hand    vkey ${formatVkey(key)}`,
    `           ${show} ${baseUrl}/kt/checkpoint`,
    `           ${show} ${baseUrl}/kt/tile/0/000${partial} | xxd -c 32`,
    `           ${show} ${baseUrl}/kt/tile/entries/000${partial} | xxd -c 42`,
  ];
}

/** A duration in its largest fitting unit. */
function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800
    ? `${Math.round(seconds / 3600)} h`
    : `${Math.round(seconds / 86_400)} d`;
}
