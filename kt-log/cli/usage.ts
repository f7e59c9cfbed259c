/** What `qpc-audit` takes and how it ends: the help text, the exit codes, and wrong usage. */

export const exitCodes = {
  /** Verified up to the newest checkpoint; the file proves what it says. */
  ok: 0,
  /** Behind, unreachable or suspect; the file proves nothing. */
  failed: 1,
  /** Evidence against the log was found, now or before. */
  evidence: 2,
  usage: 3,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const help = `qpc-audit: follow a key transparency log without trusting its node

  qpc-audit follow TARGET [--once] [--from N] [--interval S] [--json]
                          [--state DIR] [--out DIR] [--vkey V] [--policy FILE]
      TARGET: a domain or https://DOMAIN, http://HOST:PORT, qpc://HOST:PORT#PIN, or a mirrored
      directory. Replays every entry, keeps what it replayed in --state (default ~/.qpc-audit),
      writes evidence to --out (default the working directory).
  qpc-audit prove-fork A B -o FILE [--vkey V] [--record FILE]
      Makes evidence of two checkpoints, tree heads (104 bytes), audit bundles, or mirrored
      directories in any mix.
  qpc-audit verify-fork FILE [--vkey V] [--record FILE] [--json]
      Checks evidence offline, with nothing but the file.
  qpc-audit check FILE [--vkey V] [--record FILE] [--policy FILE] [--json]
      Says what evidence, a checkpoint, a tree head, a bundle or a person's credential holds, and
      checks it; a credential needs --record and auditors of two other operators in --policy.

  --vkey V        the log's verifier key: <name>+<id>+<base64>
  --record FILE   the node's record (/.well-known/qpc): the log's keys, as --vkey and more
  --policy FILE   a C2SP tlog-policy: cosigners to name, and the quorum
  --from N        start at size N (a multiple of 256, or the whole log) instead of at 0

Exit codes: 0 ok, 1 behind, unreachable, suspect or not proven, 2 evidence found, 3 wrong usage.
`;

/** Wrong arguments or files that are not there: nothing was done. */
export class UsageError extends Error {
  override name = 'UsageError';
}
