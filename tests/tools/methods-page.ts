/**
 * Writes docs/reference/methods.md from the method table; with `--check` it only compares, and ends
 * with 1 when the page is stale. The table is the source, the page is for reading.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { methods, type Method } from '@quicprochat/proto';

const page = fileURLToPath(new URL('../../docs/reference/methods.md', import.meta.url));

function row(method: Method): string {
  const cells = [
    method.id,
    method.name,
    method.callers.join(', '),
    method.rate,
    `${method.deadlineMs / 1000} s`,
    `${method.maxRequestBytes / 1024} KiB`,
    method.isIdempotent ? 'yes' : 'no',
    Object.keys(method.rules).join(', '),
  ];
  return `| ${cells.join(' | ')} |`;
}

function refusalsOf({ name, refusals }: Method): string {
  const reasons = [...new Set(refusals)].map((reason) => `\`${reason}\``);
  return `| ${name} | ${reasons.join(', ')} |`;
}

export function methodsPage(): string {
  const table: readonly Method[] = Object.values(methods).toSorted((a, b) => a.id - b.id);
  const refusing = table.filter(({ refusals }) => refusals.length > 0);
  return `# Methods

Made from the method table (\`proto/methods/\`) by \`npm run docs:methods\`; do not edit. Messages
are \`<Name>Request\` and \`<Name>Response\` in \`proto/qpc/v1\`. "Idempotent": a repeat of the same
request has the effect of one. "Checked fields" have rules on length, range or format, which are
tested before the handler; a violation is \`InvalidArgument\` with reason \`BAD_FIELD\` and the name of
the field.

| id | name | callers | rate class | deadline | largest request | idempotent | checked fields |
|---|---|---|---|---|---|---|---|
${table.map(row).join('\n')}

## Refusals

Every method may be refused with:

| reason | when |
|---|---|
| \`NOT_LOGGED_IN\` | the method is for devices, and nobody is known behind this connection (any more) |
| \`CALLER_CLASS\` | the method is for other callers |
| \`TOO_LARGE\` | the request is larger than this caller may send ([the wire](../protocol/wire.md)) |
| \`BAD_FIELD\` | the request is none, or a field of it breaks a rule, here or at the node that was asked for it |
| \`RATE_LIMITED\` | too much by this caller, or by all of them: again after \`retry_after_ms\` |
| \`OVERLOADED\` | the node, or the part of it that would answer, has too much to do: again after \`retry_after_ms\` |
| \`DRAINING\` | the node stops; Hello and Health are answered still |
| \`STORE_FULL\` | the disk has reached its end; methods below refuse with it before that |
| \`TIMEOUT\` | the deadline passed: what was asked for may have happened |
| \`INTERNAL\` | a fault of the node, which has the rest in its log |

And with what stands here, for a program to switch on. The tests have a node answer with each of
them, and have seen no other (\`npm run answers\`). What keeps BatchEnqueue from one of its targets
stands in the status of that target.

| name | reasons |
|---|---|
${refusing.map(refusalsOf).join('\n')}
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = methodsPage();
  if (process.argv.includes('--check')) {
    if (readFileSync(page, 'utf8') !== text) {
      console.error('docs/reference/methods.md is stale: npm run docs:methods');
      process.exitCode = 1;
    }
  } else {
    writeFileSync(page, text);
  }
}
