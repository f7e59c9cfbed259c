/**
 * Judges by the method table what nodes answered while the tests ran (`answer-recorder.ts`): every row with OK and
 * with each refusal that stands in it or follows from it, and no row with anything else. Ends with 1 otherwise.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commonRefusals, methods, nodeRefusals, type Method } from '@quicprochat/proto';

const rows: readonly Method[] = Object.values(methods);

/** What is not built refuses everybody. */
const unbuilt = new Set<string>([methods.fedBlob.name]);

/**
 * What takes so much that no test brings a whole node to it, and the tests that prove it without one. A node may
 * answer so all the same.
 */
const provenElsewhere: ReadonlyMap<string, string> = new Map([
  ...[
    'OpaqueRegisterFinish',
    'RegisterDevice',
    'RevokeDevice',
    'RevokeKey',
    'DeleteAccount',
    'KtUpdate',
  ].map(
    // 16 384 versions at once.
    (method) => [`${method} QUEUE_FULL`, 'kt-log/sequencer.test.ts'] as const,
  ),
  ...['CreateGroup', 'CreateChannel', 'FedHubReplicate', 'FedHubInstall'].map(
    // Thousands of groups or channels of one device, or of one peer.
    (method) => [`${method} QUOTA`, 'nodes/store/quotas.test.ts'] as const,
  ),
]);

/** What is wrong with answers, each a method and its reason: `Enqueue QUOTA`, `Enqueue OK`. */
export function wrongAnswers(answers: Iterable<string>, table = rows): string[] {
  const seen = new Set(answers);
  const wanted = new Set(
    table.flatMap((row) => {
      const reasons = [...commonRefusals(row), ...row.refusals];
      return [...(unbuilt.has(row.name) ? [] : ['OK']), ...reasons].map(
        (reason) => `${row.name} ${reason}`,
      );
    }),
  );
  const anyTime = table.flatMap(({ name }) => nodeRefusals.map((reason) => `${name} ${reason}`));
  const allowed = new Set([...wanted, ...anyTime, 'unknown UNIMPLEMENTED']);
  const missing = [...wanted].filter((one) => !seen.has(one) && !provenElsewhere.has(one));
  return [
    ...missing.map((answer) => `${answer}: no test has a node answer so`),
    ...[...seen]
      .filter((one) => !allowed.has(one))
      .map((answer) => `${answer}: the row does not name it`),
  ].toSorted();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = process.env.QPC_ANSWERS ?? '';
  const lines = readdirSync(folder).flatMap((file) =>
    readFileSync(join(folder, file), 'utf8').trimEnd().split('\n'),
  );
  const wrong = wrongAnswers(lines);
  for (const line of wrong) console.error(line);
  console.log(
    `${rows.length} methods, ${new Set(lines).size} kinds of answers, ${wrong.length} wrong`,
  );
  if (wrong.length > 0) process.exitCode = 1;
}
