/** Who is asked first where not all are asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { askLimits } from './holes.ts';
import { byTurns } from './turns.ts';

test('of more devices than are asked half of the places are for those that were not heard, and all are others each time', () => {
  const places = askLimits.catchUpDevices;
  const heard = Array.from({ length: 2 * places }, (_, n) => n);
  const silent = heard.map((n) => -1 - n);
  const draw = () => byTurns(systemRandom, heard, silent).slice(0, places);
  const [once, again] = [draw(), draw()];
  assert.equal(once.filter((n) => n < 0).length, places / 2);
  assert.notDeepEqual(new Set(once), new Set(again));
  const all = byTurns(systemRandom, heard, silent.slice(0, 3));
  assert.deepEqual(new Set(all), new Set([...heard, ...silent.slice(0, 3)]));
  assert.equal(all.length, heard.length + 3);
  assert.equal(all.slice(0, 6).filter((n) => n < 0).length, 3);
});
