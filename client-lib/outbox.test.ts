/** What an error of Enqueue means for a copy (the outbox against a node: tests/client/outbox.test.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  PermissionDeniedError,
  ResourceExhaustedError,
  TransportError,
  UnauthenticatedError,
} from '@quicprochat/proto';
import { outboxLimits, sealedVerdict, sendVerdict } from './outbox.ts';

test('a full inbox is for good where the node names no time', () => {
  const full = (options = {}): Error => new ResourceExhaustedError('QUEUE_FULL', 'full', options);
  assert.equal(sendVerdict(full()), 'permanent');
  assert.equal(sendVerdict(full({ retryAfterMs: 10_000 })), 'temporary');
  assert.equal(sendVerdict(new ResourceExhaustedError('QUOTA', 'enough')), 'temporary');
});

test('a copy of a sealed sender waits a day for a token, and never ends the session', () => {
  const blocked = new PermissionDeniedError('BLOCKED', 'no valid token');
  const unknown = new UnauthenticatedError('NOT_LOGGED_IN', 'who are you');
  for (const error of [blocked, unknown]) {
    assert.equal(sealedVerdict(error, 0), 'temporary');
    assert.equal(sealedVerdict(error, outboxLimits.tokenWaitMs), 'permanent');
  }
  assert.equal(sendVerdict(blocked), 'permanent');
  assert.equal(sendVerdict(unknown), 'expired');
  assert.equal(sealedVerdict(new TransportError('closed', 'gone'), 0), 'disconnected');
});
