/**
 * C2SP trust policies (../spec/tlog-policy.md): which logs and witnesses are known, and which of
 * them have to have cosigned a checkpoint. Names are taken as text; the file has to be UTF-8.
 * Browser-safe.
 */
import type { Sha256 } from './hash.ts';
import type { NoteKey, VerifiedSignature } from './note.ts';
import { parseVkey, SignatureType } from './note.ts';
import { verify, VerificationError } from './verification-error.ts';

export const policyLimits = { bytesMax: 262_144, logsMax: 64, namesMax: 256 } as const;

/** A witness, or so many of some witnesses and groups. */
type Rule =
  | { readonly kind: 'witness'; readonly key: NoteKey }
  | { readonly kind: 'group'; readonly threshold: number; readonly members: readonly Rule[] }
  | { readonly kind: 'none' };

export interface Policy {
  readonly logs: readonly NoteKey[];
  readonly witnesses: readonly NoteKey[];
  readonly quorum: Rule;
}

const logTypes: readonly number[] = [SignatureType.ed25519, SignatureType.mlDsa44];
const witnessTypes: readonly number[] = [SignatureType.cosignatureV1, SignatureType.mlDsa44];
const sameKey = (a: NoteKey, b: NoteKey): boolean =>
  a.publicKey.toString() === b.publicKey.toString();

/** Throws VerificationError MALFORMED that names the line. */
export function parsePolicy(sha256: Sha256, text: string): Policy {
  verify(text.length <= policyLimits.bytesMax, 'MALFORMED', 'policy', 'a shorter file');
  const logs: NoteKey[] = [];
  const witnesses: NoteKey[] = [];
  const rules = new Map<string, Rule>();
  const members = new Set<string>();
  let quorum: Rule | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const fail = (expected: string): VerificationError =>
      new VerificationError('MALFORMED', `policy line ${index + 1}`, expected);
    // oxlint-disable-next-line no-control-regex -- the format forbids exactly these
    if (/[\u0000-\u0008\u000b-\u001f\u007f]/.test(line)) throw fail('no control characters');
    const [keyword, ...words] = line.split(/[ \t]+/).filter((word) => word !== '');
    if (keyword === undefined || keyword.startsWith('#')) continue;
    const define = (name: string, rule: Rule): void => {
      if (name === 'none' || rules.has(name)) throw fail('a name that is not taken');
      if (rules.size >= policyLimits.namesMax) throw fail(`at most ${policyLimits.namesMax} names`);
      rules.set(name, rule);
    };
    const key = (vkey: string, types: readonly number[], known: readonly NoteKey[]): NoteKey => {
      const parsed = parseVkey(sha256, vkey);
      if (!types.includes(parsed.type)) throw fail('a key of the right signature type');
      if (known.some((other) => sameKey(other, parsed))) throw fail('a key that is not there yet');
      return parsed;
    };
    switch (keyword) {
      case 'log': {
        const [vkey, , ...more] = words;
        if (vkey === undefined || more.length > 0) throw fail('log <vkey> [<url>]');
        if (logs.length >= policyLimits.logsMax) throw fail(`at most ${policyLimits.logsMax} logs`);
        logs.push(key(vkey, logTypes, logs));
        break;
      }
      case 'witness': {
        const [name, vkey, , ...more] = words;
        if (name === undefined || vkey === undefined || more.length > 0) {
          throw fail('witness <name> <vkey> [<url>]');
        }
        const witness = key(vkey, witnessTypes, witnesses);
        define(name, { kind: 'witness', key: witness });
        witnesses.push(witness);
        break;
      }
      case 'group': {
        const [name, threshold = '', ...names] = words;
        if (name === undefined || names.length === 0) throw fail('group <name> <k> <name>...');
        const rule = names.map((member) => {
          const found = rules.get(member);
          if (found === undefined || members.has(member)) throw fail('members defined and unused');
          members.add(member);
          return found;
        });
        const isNumber = /^[1-9][0-9]{0,3}$/.test(threshold);
        const count =
          threshold === 'all' ? names.length : threshold === 'any' ? 1 : Number(threshold);
        if (!isNumber && threshold !== 'all' && threshold !== 'any') throw fail('all, any or k');
        if (count > names.length) throw fail(`a threshold of at most ${names.length}`);
        define(name, { kind: 'group', threshold: count, members: rule });
        break;
      }
      case 'quorum': {
        const [name, ...more] = words;
        if (name === undefined || more.length > 0 || quorum !== undefined) {
          throw fail('one line: quorum <name>');
        }
        quorum = name === 'none' ? { kind: 'none' } : rules.get(name);
        if (quorum === undefined) throw fail('a quorum that is defined above');
        break;
      }
      default:
        throw fail('log, witness, group or quorum');
    }
  }
  verify(quorum !== undefined, 'MALFORMED', 'policy', 'a quorum line');
  return { logs, witnesses, quorum };
}

/** Whether the signatures of a note satisfy a policy's quorum, and which of its witnesses signed. */
export function meetsQuorum(
  policy: Policy,
  signatures: readonly VerifiedSignature[],
): { readonly ok: boolean; readonly by: readonly string[] } {
  const signed = (key: NoteKey): boolean =>
    signatures.some((one) => one.key.name === key.name && one.key.keyId === key.keyId);
  const holds = (rule: Rule): boolean => {
    switch (rule.kind) {
      case 'none':
        return true;
      case 'witness':
        return signed(rule.key);
      case 'group':
        return rule.members.filter(holds).length >= rule.threshold;
    }
  };
  return { ok: holds(policy.quorum), by: policy.witnesses.filter(signed).map((key) => key.name) };
}
