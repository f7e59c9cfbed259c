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
    method.callers.length === 3 ? 'anyone' : method.callers.join(', '),
    method.rate,
    `${method.deadlineMs / 1000} s`,
    `${method.maxRequestBytes / 1024} KiB`,
    method.isIdempotent ? 'yes' : 'no',
    Object.keys(method.rules).join(', '),
  ];
  return `| ${cells.join(' | ')} |`;
}

export function methodsPage(): string {
  const rows = Object.values(methods)
    .toSorted((a, b) => a.id - b.id)
    .map((method) => row(method as Method));
  return `# Methods

Made from the method table (\`proto/methods/\`) by \`npm run docs:methods\`; do not edit. Messages
are \`<Name>Request\` and \`<Name>Response\` in \`proto/qpc/v1\`. "Idempotent": a repeat of the same
request has the effect of one. "Checked fields" have rules on length, range or format, which are
tested before the handler; a violation is \`InvalidArgument\` with reason \`BAD_FIELD\` and the name of
the field. Every method may also answer \`RATE_LIMITED\`, \`OVERLOADED\`, \`DRAINING\` and \`TIMEOUT\`.

| id | name | callers | rate class | deadline | largest request | idempotent | checked fields |
|---|---|---|---|---|---|---|---|
${rows.join('\n')}
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
