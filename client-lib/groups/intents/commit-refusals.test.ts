/** A hub that lost its disk refuses nobody's wish where two others know the group. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConflictError, FailedPreconditionError, NotFoundError } from '@quicprochat/proto';
import { isTemporary, ofOneHub } from './commit-refusals.ts';

test('a hub that another one overtook refuses nobody’s wish: who leads now is asked', () => {
  const fenced = new FailedPreconditionError('TERM_FENCED', 'this hub promised term 17');
  assert.equal(isTemporary(fenced), true);
  assert.equal(isTemporary(new FailedPreconditionError('FEATURE_OFF', 'no groups here')), false);
});

test('an epoch in which nothing is accepted any more refuses the wish for good', () => {
  assert.equal(isTemporary(new FailedPreconditionError('EPOCH_FULL', 'no room')), false);
});

test('one of several hubs that knows the group no more is passed by, and other refusals stand', () => {
  const unknown = new NotFoundError('UNKNOWN_GROUP', 'this node is not its hub');
  assert.equal(isTemporary(unknown), false, 'the only hub of a group');
  assert.equal(isTemporary(ofOneHub(unknown)), true);
  const other = new ConflictError('NAME_TAKEN', 'there');
  assert.equal(ofOneHub(other), other);
  assert.equal(isTemporary(ofOneHub(other)), false);
});
