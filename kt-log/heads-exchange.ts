/**
 * Heads that contacts send each other, so that a log which shows them two faces is found out
 * (protocol section 10.2; kt-log/README.md): the recent distinguished heads and the newest one, each
 * as the checkpoint that the log signed, so that a contradiction proves itself. Browser-safe.
 */
import type { LogKeys } from './client-checkpoint.ts';
import { checkSameSize, ForkError } from './client-checkpoint.ts';
import { evidenceLimits } from './evidence.ts';
import { formatNote, openCheckpoint, parseNote } from './note.ts';
import type { Structure } from './presentation.ts';
import { decode, encode, maxUint16, maxUint8 } from './presentation.ts';
import { verify } from './verification-error.ts';

export const headsLimits = {
  distinguishedMax: 10,
  noteBytesMax: evidenceLimits.noteBytesMax,
} as const;

export interface HeadsMessage {
  readonly origin: string;
  /** Checkpoints of the trees that recent distinguished entries end; ascending, without gaps. */
  readonly distinguished: readonly Uint8Array[];
  /** Checkpoint of the newest head. */
  readonly newest: Uint8Array;
}
const headsMessage: Structure<HeadsMessage> = {
  name: 'HeadsMessage',
  write(w, message) {
    w.opaque(new TextEncoder().encode(message.origin), maxUint8, 'origin');
    w.vector(message.distinguished, maxUint8, 'distinguished', (note) =>
      w.opaque(note, maxUint16, 'note'),
    );
    w.opaque(message.newest, maxUint16, 'newest');
  },
  read: (r) => ({
    origin: new TextDecoder().decode(r.opaque(maxUint8, 'origin')),
    distinguished: r.vector(
      maxUint8,
      2,
      'distinguished',
      () => r.opaque(maxUint16, 'note', headsLimits.noteBytesMax),
      headsLimits.distinguishedMax,
    ),
    newest: r.opaque(maxUint16, 'newest', headsLimits.noteBytesMax),
  }),
};

/** About 300 bytes for a head; cosignatures are left out. */
export function encodeHeads(
  { identity }: Pick<LogKeys, 'identity'>,
  distinguished: readonly Uint8Array[],
  newest: Uint8Array,
): Uint8Array {
  const ownOnly = (bytes: Uint8Array): Uint8Array => {
    const note = parseNote(bytes);
    const { name, keyId } = identity.key;
    const signatures = note.signatures.filter((one) => one.name === name && one.keyId === keyId);
    return new TextEncoder().encode(formatNote({ text: note.text, signatures }));
  };
  return encode(headsMessage, {
    origin: identity.origin,
    distinguished: distinguished.slice(-headsLimits.distinguishedMax).map(ownOnly),
    newest: ownOnly(newest),
  });
}

/** Which log a message is about tells who can compare it. Throws VerificationError MALFORMED. */
export function decodeHeads(bytes: Uint8Array): HeadsMessage {
  return decode(headsMessage, bytes);
}

export interface HeadsCompared {
  /** Sizes at which both hold the same head. Empty: nothing could be compared. */
  readonly agreed: readonly number[];
}

/** The message's heads by size. Throws VerificationError for what the log did not sign. */
function opened(log: LogKeys, message: HeadsMessage) {
  const { origin } = log.identity;
  verify(message.origin === origin, 'CHAIN', 'origin of the heads', origin);
  const bySize = (note: Uint8Array): [number, Uint8Array] => [
    openCheckpoint(log.suite, note, log.identity).checkpoint.size,
    note,
  ];
  const distinguished = message.distinguished.map(bySize);
  const ascends = distinguished.every(([size], i) => size > (distinguished[i - 1]?.[0] ?? 0));
  verify(ascends, 'MALFORMED', 'distinguished heads', 'ascending sizes');
  const newest = bySize(message.newest);
  return {
    distinguished: distinguished.map(([size]) => size),
    notes: new Map([...distinguished, newest]),
  };
}

/**
 * Compares two messages about one log; `ours` may be missing. Throws a ForkError: with evidence when
 * both hold a head of one size, without when the distinguished entries differ where the lists overlap
 * (one log has one list of them). Throws VerificationError for a message that the log did not sign: a
 * contact cannot accuse the log with it.
 */
export function compareHeads(
  log: LogKeys,
  ours: Uint8Array | undefined,
  theirs: Uint8Array,
): HeadsCompared {
  const other = opened(log, decodeHeads(theirs));
  if (ours === undefined) return { agreed: [] };
  const mine = opened(log, decodeHeads(ours));
  const agreed: number[] = [];
  for (const [size, note] of mine.notes) {
    const their = other.notes.get(size);
    if (their === undefined) continue;
    checkSameSize(log, note, their);
    agreed.push(size);
  }
  const [a, b] = [mine.distinguished, other.distinguished];
  const from = Math.max(a[0] ?? Number.POSITIVE_INFINITY, b[0] ?? Number.POSITIVE_INFINITY);
  const to = Math.min(a.at(-1) ?? 0, b.at(-1) ?? 0);
  const inBoth = (sizes: readonly number[]): string =>
    sizes.filter((size) => size >= from && size <= to).join();
  if (inBoth(a) !== inBoth(b)) {
    throw new ForkError(undefined, 'distinguished heads', 'the same entries in both lists');
  }
  return { agreed: agreed.sort((x, y) => x - y) };
}
