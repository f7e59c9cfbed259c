/**
 * Rules on the fields of a request, beyond what protobuf checks: lengths, ranges, formats. A row
 * of the method table names them; `checkFields` runs them before a handler sees the request.
 */
import { isDomain, parseUserId } from './address.ts';
import { InvalidArgumentError } from './status.ts';

/** Returns what is wrong with a value ("31 bytes, need 32"), or undefined. */
export type FieldRule = (value: unknown) => string | undefined;

/** A rule for any of a message's fields. */
export type FieldRules<M> = { readonly [K in keyof M]?: FieldRule };

export const exactBytes =
  (length: number): FieldRule =>
  (value) =>
    value instanceof Uint8Array && value.length === length
      ? undefined
      : `${sizeOf(value)} bytes, need ${length}`;

export const bytesBetween =
  (min: number, max: number): FieldRule =>
  (value) => {
    const size = sizeOf(value);
    return size >= min && size <= max ? undefined : `${size} bytes, need ${min}-${max}`;
  };

export const emptyOrBytes =
  (length: number): FieldRule =>
  (value) =>
    sizeOf(value) === 0 ? undefined : exactBytes(length)(value);

export const atMost =
  (max: number): FieldRule =>
  (value) =>
    Number(value) <= max ? undefined : `${String(value)}, at most ${max}`;

export const itemsBetween =
  (min: number, max: number, item?: FieldRule): FieldRule =>
  (value) => {
    if (!Array.isArray(value) || value.length < min || value.length > max) {
      return `${Array.isArray(value) ? value.length : 0} items, need ${min}-${max}`;
    }
    for (const [index, one] of value.entries()) {
      const wrong = item?.(one);
      if (wrong !== undefined) return `item ${index}: ${wrong}`;
    }
    return undefined;
  };

export const textAtMost =
  (maxBytes: number): FieldRule =>
  (value) => {
    const size = Buffer.byteLength(String(value));
    return size <= maxBytes ? undefined : `${size} bytes, at most ${maxBytes}`;
  };

export const domainName: FieldRule = (value) =>
  typeof value === 'string' && isDomain(value) ? undefined : 'need a lower-case domain';

export const userIdText: FieldRule = (value) => {
  try {
    parseUserId(String(value));
    return undefined;
  } catch (error) {
    // The parser's own words, without its prefix; anything else would be our bug.
    if (error instanceof InvalidArgumentError) return error.message.replace(/^user id: /, '');
    throw error;
  }
};

export const present: FieldRule = (value) => (value === undefined ? 'is missing' : undefined);

/** Seqs travel as u64 but must stay exact as numbers (at most 2^53 - 1). */
export const safeSeq: FieldRule = (value) =>
  typeof value === 'bigint' && value <= BigInt(Number.MAX_SAFE_INTEGER)
    ? undefined
    : 'above 2^53 - 1';

/**
 * Of a message that is kept as it came: fields that this version does not know are kept with it, and nobody has
 * signed them. A later version may need a few bytes.
 */
export const unknownAtMost =
  (maxBytes: number): FieldRule =>
  (value) => {
    const unknown = (value as { $unknown?: readonly { readonly data: Uint8Array }[] }).$unknown;
    const size = (unknown ?? []).reduce((sum, { data }) => sum + data.length, 0);
    return size <= maxBytes ? undefined : `${size} bytes of unknown fields, at most ${maxBytes}`;
  };

/** All rules must hold. */
export const every =
  (...rules: readonly FieldRule[]): FieldRule =>
  (value) => {
    for (const rule of rules) {
      const wrong = rule(value);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  };

/** Rules of a nested message; absent messages pass (combine with `present`). */
export const nested =
  <M extends object>(rules: FieldRules<M>): FieldRule =>
  (value) =>
    value === undefined ? undefined : firstViolation(value as M, rules);

function sizeOf(value: unknown): number {
  return value instanceof Uint8Array ? value.length : 0;
}

function firstViolation<M extends object>(message: M, rules: FieldRules<M>): string | undefined {
  for (const name of Object.keys(rules) as (keyof M & string)[]) {
    const wrong = rules[name]?.(message[name]);
    if (wrong !== undefined) return `${name}: ${wrong}`;
  }
  return undefined;
}

/** Throws InvalidArgumentError BAD_FIELD naming the field, what it has and what it needs. */
export function checkFields<M extends object>(message: M, rules: FieldRules<M>): void {
  const wrong = firstViolation(message, rules);
  if (wrong !== undefined) throw new InvalidArgumentError('BAD_FIELD', wrong);
}
