/** What the application is given: nothing of people that are blocked, and all of it once they are not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import type { Contacts } from '../contacts/contacts.ts';
import { News, receivedMessages } from './received.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';

test('a loop that runs passes over a blocked person, also in what it has read, and goes back for it', async () => {
  using store = openMemoryStore();
  const news = new News();
  let count = 0;
  const add = (senderUser: string, text: string): void => {
    count += 1;
    store.messages.add({
      ...{ conversationId: new Uint8Array(32), senderUser, senderDevice: senderUser },
      ...{ innerId: new Uint8Array(16).fill(count), n: count, lamport: count, text },
      ...{ sentMs: count, receivedMs: count },
    });
    news.ring();
  };
  const [bob, carol] = ['bob@blue.example', 'carol@red.example'] as const;
  for (const text of ['one', 'two', 'three']) add(bob, text);
  add(carol, 'four');
  const loop = receivedMessages({
    ...{ store, news, onHad: () => {} },
    runtime: { clock: systemClock, random: systemRandom, log: silentLog },
    // The only thing that is asked of it.
    contacts: { verificationOf: () => 'logged' } as unknown as Contacts,
  });
  const next = async (): Promise<string> => {
    const { value } = (await loop.next()) as { readonly value: { readonly text: string } };
    return value.text;
  };
  assert.equal(await next(), 'one');
  store.tokens.block(bob, 5);
  assert.equal(await next(), 'four');
  const waiting = next();
  add(bob, 'five');
  store.tokens.unblock(bob);
  news.restart();
  assert.deepEqual([await waiting, await next(), await next()], ['two', 'three', 'five']);
  await loop.return?.();
  assert.deepEqual(store.messages.undisplayed(0, 9), []);
});
