/**
 * Evidence against a log: what two of its signatures, or one signature over what cannot be, prove
 * to anybody who has nothing but the bytes (kt-log/README.md). Browser-safe.
 */

/** What a log did; programs switch on it, so a kind is never renamed. */
export const evidenceKinds = [
  'same-size',
  'note-vs-head',
  'inconsistent',
  'time',
  'bad-update',
  'bad-value',
] as const;
export type EvidenceKind = (typeof evidenceKinds)[number];
