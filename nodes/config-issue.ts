/** What is wrong with one key of the configuration, in the words of an operator: what belongs there. */
import { TomlError } from 'smol-toml';
import * as v from 'valibot';

/** A schema whose `entries`, if it has some, have the names of keys. */
type Schema = v.GenericSchema;

/** One line: the key, and what belongs there. */
export function issueLine(schema: Schema, issue: v.BaseIssue<unknown>): string {
  const key = v.getDotPath(issue);
  const text = wordsOf(schema, issue);
  return key === null ? text : `${key}: ${text}`;
}

/** What the parser says of a file that is no TOML, with its line. */
export function tomlLine(error: unknown): string {
  const [first = ''] = error instanceof Error ? error.message.split('\n') : [];
  return error instanceof TomlError ? `line ${error.line}: ${first}` : first;
}

function wordsOf(schema: Schema, issue: v.BaseIssue<unknown>): string {
  const { type, expected, requirement } = issue;
  const got = `not ${shown(issue.input)}`;
  switch (type) {
    case 'strict_object':
      if (expected === 'never') return strangerWords(schema, issue);
      return expected === 'Object' ? `need a section of keys, ${got}` : 'is missing';
    case 'string':
      return `need text in quotes, ${got}`;
    case 'number':
      return `need a number without quotes, ${got}`;
    case 'boolean':
      return `need true or false, ${got}`;
    case 'array':
      return `need a list in brackets, ${got}`;
    case 'picklist':
      return `need one of ${expected?.slice(1, -1).replaceAll(' | ', ', ')}, ${got}`;
    case 'integer':
      return `need a whole number, ${got}`;
    case 'min_value':
      return `need at least ${String(requirement)}, ${got}`;
    case 'max_value':
      return `need at most ${String(requirement)}, ${got}`;
    case 'min_length':
      return 'must not be empty';
    default:
      return issue.message;
  }
}

/** Of a key that there is not: the one that was meant, if one is close. */
function strangerWords(schema: Schema, { path }: v.BaseIssue<unknown>): string {
  const keys = (path ?? []).map(({ key }) => String(key));
  const typed = keys.pop() ?? '';
  let section: unknown = schema;
  for (const key of keys) section = entriesOf(section)[key];
  const [nearest] = Object.keys(entriesOf(section))
    .map((name) => ({ name, distance: distanceOf(typed, name) }))
    .filter(({ name, distance }) => distance <= Math.ceil(name.length / 4))
    .toSorted((a, b) => a.distance - b.distance);
  return nearest === undefined
    ? 'no such key; docs/operator/configuration.md lists them'
    : `no such key; ${nearest.name} was meant?`;
}

/** Schemas of the keys of a section; none for what is no section. */
function entriesOf(schema: unknown): Readonly<Record<string, unknown>> {
  if (!isRecord(schema)) return {};
  if (isRecord(schema['entries'])) return schema['entries'];
  return isRecord(schema['wrapped']) ? entriesOf(schema['wrapped']) : {};
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Letters to add, drop or replace (Levenshtein). */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let at = 0; at < a.length; at += 1) {
    const next = [at + 1];
    for (let to = 1; to <= b.length; to += 1) {
      const replaced = (row[to - 1] ?? 0) + (b[to - 1] === a[at] ? 0 : 1);
      next.push(Math.min(replaced, (row[to] ?? 0) + 1, (next[to - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 64);
}
