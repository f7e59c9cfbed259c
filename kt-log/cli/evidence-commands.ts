/** `qpc-audit prove-fork`, `verify-fork` and `check`: files in, a verdict out, no network. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { toBase64 } from '../base64.ts';
import type { AuditBundle } from '../auditor.ts';
import { auditBundle, openAuditBundle } from '../auditor.ts';
import { directoryReader } from '../directory-source.ts';
import type { CheckedEvidence, EvidenceKeys } from '../evidence-check.ts';
import { checkEvidence } from '../evidence-check.ts';
import type { ForkItem } from '../evidence-proofs.ts';
import { proveBadUpdate, proveFork, proven } from '../evidence-proofs.ts';
import { isEvidence, signedHead } from '../evidence.ts';
import { sameBytes } from '../hash.ts';
import { Mirror } from '../mirror.ts';
import { nativeSuite } from '../native-suite.ts';
import { formatVkey, keytransRoot, openCheckpoint, parseCheckpoint, parseNote } from '../note.ts';
import { decode, encode } from '../presentation.ts';
import { configuration } from '../codec.ts';
import { verifyTreeHead } from '../tree-head.ts';
import { VerificationError } from '../verification-error.ts';
import { visible } from './audit-report.ts';
import { credentialFacts, isCredential, policyOf } from './credential-command.ts';
import { makeDirectory, writeDurably } from './durable-file.ts';
import type { CommandParts } from './follow-command.ts';
import { manifestRule } from '../manifest-rule.ts';
import { isDirectory } from './open-target.ts';
import { keysOfRecordFile, vkeyOf } from './pinned-keys.ts';
import type { ExitCode } from './usage.ts';
import { exitCodes, UsageError } from './usage.ts';

export interface KeyArguments {
  readonly vkey: string | undefined;
  readonly recordFile: string | undefined;
}
export interface CheckArguments extends KeyArguments {
  readonly file: string;
  readonly isJson: boolean;
}

/** The keys that a person named; undefined when none. */
async function keysOf({ vkey, recordFile }: KeyArguments): Promise<EvidenceKeys | undefined> {
  const key = vkey === undefined ? undefined : vkeyOf(vkey);
  const record = recordFile === undefined ? undefined : await keysOfRecordFile(recordFile);
  if (record === undefined) return key && { origin: key.name, key };
  const isSame = key === undefined || sameBytes(key.publicKey, record.key.publicKey);
  if (!isSame) throw new UsageError('--vkey: not the key of --record');
  return record;
}

async function read(path: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    throw new UsageError(`${path}: ${error instanceof Error ? error.message : 'unreadable'}`);
  }
}

const headBytes = 104;

/** What a file holds, by its form. Throws VerificationError for none of them. */
function itemOf(bytes: Uint8Array): ForkItem {
  if (bytes.length === headBytes) return { type: 'head', head: decode(signedHead, bytes) };
  const bundle = bundleIn(bytes);
  if (bundle !== undefined) return { type: 'bundle', bundle: bytes };
  parseCheckpoint(parseNote(bytes).text);
  return { type: 'note', note: bytes };
}

function bundleIn(bytes: Uint8Array): AuditBundle | undefined {
  try {
    return decode(auditBundle, bytes);
  } catch (error) {
    if (error instanceof VerificationError) return undefined;
    throw error;
  }
}

export interface ProveArguments extends KeyArguments {
  readonly a: string;
  readonly b: string;
  readonly out: string;
}

export async function proveForkCommand(
  args: ProveArguments,
  parts: CommandParts,
): Promise<ExitCode> {
  let keys = await keysOf(args);
  const items: ForkItem[][] = [];
  for (const path of [args.a, args.b]) {
    if (await isDirectory(path)) {
      const mirror = new Mirror(directoryReader(path), nativeSuite.sha256);
      keys ??= await mirror.keys();
      items.push(await itemsOf(mirror));
    } else {
      items.push([itemOf(await read(path))]);
    }
  }
  if (keys === undefined) throw new UsageError('prove-fork: needs --vkey or --record');
  const [first = [], second = []] = items;
  let failure: unknown;
  for (const a of first) {
    for (const b of second) {
      try {
        const { bytes, checked } = proveFork(nativeSuite, keys, a, b);
        await makeDirectory(dirname(resolve(args.out)));
        await writeDurably(args.out, bytes);
        parts.print(`${checked.kind}: ${visible(checked.explain)}\n${args.out}\n`);
        return exitCodes.ok;
      } catch (error) {
        if (!(error instanceof VerificationError)) throw error;
        failure = error;
      }
    }
  }
  throw failure;
}

/** The checkpoint of a mirror, and its bundles. */
async function itemsOf(mirror: Mirror): Promise<ForkItem[]> {
  const note = await mirror.checkpoint();
  const { size } = parseCheckpoint(parseNote(note).text);
  const items: ForkItem[] = [{ type: 'note', note }];
  for (let from = 0; from < size; from += 256) {
    const bundle = await mirror.bundle(from, Math.min(256, size - from));
    if (bundle !== undefined) items.push({ type: 'bundle', bundle });
  }
  return items;
}

export async function verifyForkCommand(
  args: CheckArguments,
  parts: CommandParts,
): Promise<ExitCode> {
  const bytes = await read(args.file);
  tellEvidence(args, parts, checkEvidence(nativeSuite, bytes, manifestRule), await keysOf(args));
  return exitCodes.ok;
}

/** Prints what evidence proves. Throws VerificationError CHAIN when it is about other keys. */
function tellEvidence(
  args: CheckArguments,
  parts: CommandParts,
  checked: CheckedEvidence,
  known: EvidenceKeys | undefined,
): void {
  const { kind, origin, explain, key, config, heads } = checked;
  if (known !== undefined) comparePinned(checked, known);
  const treeHeadKey = config && Buffer.from(config.signaturePublicKey).toString('hex');
  if (args.isJson) {
    const vkey = key === undefined ? null : formatVkey(key);
    const shown = heads.map(({ size, root }) => ({ size, root: toBase64(root) }));
    const record = { type: 'evidence', kind, origin, explain, vkey, heads: shown };
    const isPinned = known !== undefined;
    parts.print(`${JSON.stringify({ ...record, treeHeadKey: treeHeadKey ?? null, isPinned })}\n`);
    return;
  }
  const lines = [
    `${kind}: ${explain}`,
    `log        ${origin}${key === undefined ? ' (by its own word: tree heads name no origin)' : ''}`,
    ...(key === undefined ? [] : [`vkey       ${formatVkey(key)}`]),
    ...(treeHeadKey === undefined ? [] : [`tree heads ${treeHeadKey}`]),
    ...heads.map(({ size, root }) => `head       size ${size}, root ${toBase64(root)}`),
    known === undefined
      ? 'verified: whoever holds these keys did this. Compare them with those of the log (--vkey).'
      : 'verified against the keys that you named.',
  ];
  parts.print(lines.map((line) => `${visible(line)}\n`).join(''));
}

/** Keys that a person did not name are not compared, and said to be so by what is printed. */
function comparePinned({ key, config }: CheckedEvidence, known: EvidenceKeys): void {
  const isKey =
    key === undefined ||
    known.key === undefined ||
    (key.name === known.key.name && sameBytes(key.publicKey, known.key.publicKey));
  const isConfig =
    config === undefined ||
    (known.config !== undefined &&
      sameBytes(encode(configuration, config), encode(configuration, known.config)));
  if (!isKey) throw new VerificationError('CHAIN', 'checkpoint key of the evidence', 'yours');
  if (!isConfig) {
    const expected = 'yours: name the record of the node with --record';
    throw new VerificationError('CHAIN', 'configuration in the evidence', expected);
  }
}

export async function checkCommand(
  args: CheckArguments & { readonly policyFile: string | undefined },
  parts: CommandParts,
): Promise<ExitCode> {
  const bytes = await read(args.file);
  if (isEvidence(bytes)) return verifyForkCommand(args, parts);
  const keys = await keysOf(args);
  const policy = args.policyFile === undefined ? undefined : await policyOf(args.policyFile);
  const facts = isCredential(bytes)
    ? credentialFacts(bytes, keys, policy, parts.runtime.clock.now())
    : factsOf(itemOf(bytes), keys);
  if (args.isJson) parts.print(`${JSON.stringify(facts)}\n`);
  else {
    const lines = Object.entries(facts).map(([name, value]) => `${name}: ${String(value)}`);
    parts.print(lines.map((line) => `${visible(line)}\n`).join(''));
  }
  return exitCodes.ok;
}

type Facts = Readonly<Record<string, string | number | boolean | null>>;
function factsOf(item: ForkItem, keys: EvidenceKeys | undefined): Facts {
  switch (item.type) {
    case 'head': {
      const { size, root, signature } = item.head;
      const { config } = keys ?? {};
      if (config !== undefined) {
        verifyTreeHead(nativeSuite, config, { treeSize: size, signature }, root);
      }
      return { type: 'tree head', size, root: toBase64(root), isVerified: config !== undefined };
    }
    case 'note': {
      const note = parseNote(item.note);
      const { origin, size, root } = parseCheckpoint(note.text);
      const { key } = keys ?? {};
      if (key !== undefined) openCheckpoint(nativeSuite, item.note, { origin: key.name, key });
      const keytrans = keytransRoot(parseCheckpoint(note.text));
      return {
        type: 'checkpoint',
        origin,
        size,
        root: toBase64(root),
        keytransRoot: keytrans === undefined ? null : toBase64(keytrans),
        signatures: note.signatures.map(({ name }) => name).join(', '),
        isVerified: key !== undefined,
      };
    }
    case 'bundle': {
      const { from, entries, updates } = decode(auditBundle, item.bundle);
      const { key } = keys ?? {};
      if (key !== undefined) openAuditBundle(nativeSuite, key, item.bundle);
      const breach =
        keys?.key && proven(() => proveBadUpdate(nativeSuite, keys, undefined, item.bundle));
      const leaves = updates.reduce((sum, { added }) => sum + added.length, 0);
      return {
        type: 'audit bundle',
        from,
        entries: entries.length,
        leaves,
        isVerified: key !== undefined,
        breach: breach?.checked.explain ?? null,
      };
    }
  }
}
