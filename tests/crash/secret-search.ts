/**
 * Looks for secrets in bytes that must not hold them, in every form that programs write bytes in:
 * raw, hex, base64 and base64url at any alignment, and the lists that JSON and inspect print.
 * Compressed or encrypted copies are not found.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Something that must not be found. */
export interface Mark {
  readonly name: string;
  /** At least 12 bytes, or chance would find them. */
  readonly bytes: Uint8Array;
}

export interface Hit {
  readonly mark: string;
  readonly form: string;
  readonly place: string;
}

/** Somewhere to look: a file, or what a process wrote. */
export interface Haystack {
  readonly place: string;
  readonly bytes: Buffer;
}

const minMarkBytes = 12;

/** Every form of the bytes, as what to search for. */
export function searchForms(bytes: Uint8Array): readonly { form: string; needle: Buffer }[] {
  if (bytes.length < minMarkBytes) throw new Error(`mark: ${bytes.length} bytes are too few`);
  const hex = Buffer.from(bytes).toString('hex');
  const pairs = hex.match(/../g) ?? [];
  const decimals = [...bytes].map(String);
  const forms: [string, string][] = [
    ['hex', hex],
    ['HEX', hex.toUpperCase()],
    ['hex with spaces', pairs.join(' ')],
    ['hex with colons', pairs.join(':')],
    ['list', decimals.join(',')],
    ['list with spaces', decimals.join(', ')],
    ['object', decimals.map((value, index) => `"${index}":${value}`).join(',')],
  ];
  for (const encoding of ['base64', 'base64url'] as const) {
    for (const before of [0, 1, 2]) {
      forms.push([`${encoding} at ${before}`, aligned(bytes, before, encoding)]);
    }
  }
  return [
    { form: 'raw', needle: Buffer.from(bytes) },
    ...forms.map(([form, text]) => ({ form, needle: Buffer.from(text, 'latin1') })),
  ];
}

/** The base64 digits that the bytes alone decide when `before` other bytes stand in front. */
function aligned(bytes: Uint8Array, before: number, encoding: 'base64' | 'base64url'): string {
  const digits = Buffer.concat([Buffer.alloc(before), bytes]).toString(encoding);
  const first = Math.ceil((before * 8) / 6);
  const end = Math.floor(((before + bytes.length) * 8) / 6);
  return digits.slice(first, end);
}

/** Every mark in every form, wherever it stands. */
export function findMarks(haystacks: readonly Haystack[], marks: readonly Mark[]): Hit[] {
  return marks.flatMap(({ name, bytes }) =>
    searchForms(bytes).flatMap(({ form, needle }) =>
      haystacks
        .filter((haystack) => haystack.bytes.includes(needle))
        .map(({ place }) => ({ mark: name, form, place })),
    ),
  );
}

/** All files below a directory. */
export function filesBelow(directory: string): Haystack[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
    .map((place) => ({ place, bytes: readFileSync(place) }));
}

/** A secret that consists of several, or of which a part is enough: marks of 32 bytes each. */
export function markParts(name: string, bytes: Uint8Array): Mark[] {
  const parts: Mark[] = [];
  for (let start = 0; start + minMarkBytes <= bytes.length; start += 32) {
    parts.push({ name: `${name} [${start}]`, bytes: bytes.subarray(start, start + 32) });
  }
  return parts;
}

export function textMark(name: string, text: string): Mark {
  return { name, bytes: new TextEncoder().encode(text) };
}
