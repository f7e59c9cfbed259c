/** Proves that `npm run answers` notices an answer that no test brings about, and one that no row names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commonRefusals, methods, type Method } from '@quicprochat/proto';
import { wrongAnswers } from './tools/answers.ts';

const table: readonly Method[] = [methods.hello, methods.enqueue, methods.fedBlob];
const complete = table.flatMap((row) => {
  const reasons = [...commonRefusals(row), ...row.refusals];
  const answered = row === methods.fedBlob ? [] : ['OK'];
  return [...answered, ...reasons].map((reason) => `${row.name} ${reason}`);
});

test('all that rows name, and what may befall any of them, is right', () => {
  assert.deepEqual(wrongAnswers([...complete, 'Enqueue TIMEOUT', 'Hello OK'], table), []);
});

test('every missing answer is named', () => {
  for (const answer of new Set(complete)) {
    const others = complete.filter((one) => one !== answer);
    assert.deepEqual(wrongAnswers(others, table), [`${answer}: no test has a node answer so`]);
  }
  assert.ok(complete.includes('Enqueue QUEUE_FULL') && complete.includes('Hello OVERLOADED'));
});

test('an answer that no row names is named, and so are faults and what is not built', () => {
  for (const answer of ['Enqueue NAME_TAKEN', 'Hello INTERNAL', 'Hello DRAINING', 'FedBlob OK']) {
    const wrong = wrongAnswers([...complete, answer], table);
    assert.deepEqual(wrong, [`${answer}: the row does not name it`]);
  }
});
