/**
 * The differential test against the Go reference implementation (README.md): both clients and both
 * auditors on random histories of both logs. Says in one line why, where there is nothing to compare
 * with.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Dice } from '../../cluster/dice.ts';
import { runHistory } from './history.ts';
import { KatieProgram, KatieServer, whyAbsent } from './katie-process.ts';
import { poolOf } from './primitives.ts';
import { Tally } from './tally.ts';

/** Histories that each direction has to show; lowered for development only. */
const historiesMin = Number(process.env['QPC_KATIE_HISTORIES'] ?? 1000);
/** Where the time of the Go program begins. */
const startMs = Date.UTC(2000, 0, 1);

const absent = await whyAbsent();
suite('differential test with the Go reference', { skip: absent ?? false }, () => {
  const dice = new Dice();
  for (const [index, side] of (['katie', 'ours'] as const).entries()) {
    const name = side === 'katie' ? "katie's log" : 'our log';
    test(`both clients and both auditors agree on ${name}`, async (context) => {
      context.diagnostic(`QPC_SEED=${dice.seed} repeats this plan`);
      using program = await KatieProgram.build('server');
      await using katie = new KatieServer(program);
      const tally = new Tally();
      const pool = poolOf(dice.branch(-1));
      let nowMs = startMs;
      // A history counts for the clients when both took an answer; few have none.
      const done = (): number => tally.of('histories, clients');
      for (let i = 0; done() < historiesMin && i < 2 * historiesMin; i++) {
        try {
          nowMs = await runHistory(katie, side, dice.branch(2 * i + index), pool, tally, nowMs);
        } catch (error) {
          throw new Error(`history ${i} of ${name}, QPC_SEED=${dice.seed}`, { cause: error });
        }
      }
      for (const line of tally.lines('')) context.diagnostic(line);
      const [clients, auditors] = ['clients', 'auditors'].map((who) =>
        tally.of(`histories, ${who}`),
      );
      const directions =
        side === 'katie'
          ? ["our client, katie's log", "our auditor, katie's log"]
          : ["katie's client, our log", "katie's auditor, our log"];
      for (const [i, count = 0] of [clients, auditors].entries()) {
        context.diagnostic(`${directions[i]}: ${count} histories`);
        assert.ok(count >= historiesMin, `${directions[i]}: ${count} of ${historiesMin} histories`);
      }
    });
  }
});
