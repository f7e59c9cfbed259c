/** The contract of a NodeStore, kept by the store in its thread and by the one in this thread. */
import { describe } from 'node:test';
import { accountContract } from './contract/accounts.ts';
import { channelContract } from './contract/channels.ts';
import { channelLogContract } from './contract/channels-log.ts';
import { deadLetterContract } from './contract/dead-letters.ts';
import type { OpenStore } from './contract/fixture.ts';
import { groupContract } from './contract/groups.ts';
import { groupSetContract } from './contract/groups-set.ts';
import { inboxContract } from './contract/inbox.ts';
import { keyContract } from './contract/keys.ts';
import { keyLogContract } from './contract/key-log.ts';
import { noticeContract } from './contract/notices.ts';
import { outboxContract } from './contract/outbox.ts';
import { peerContract } from './contract/peers.ts';
import { relayInboxContract } from './contract/relay-inbox.ts';
import { relayStatusContract } from './contract/relay-status.ts';
import { openNodeStore, openNodeStoreInThread } from './open.ts';

const stores: readonly (readonly [name: string, open: OpenStore])[] = [
  ['store in its own thread', openNodeStore],
  ['store in the calling thread', openNodeStoreInThread],
];

for (const [name, open] of stores) {
  describe(name, () => {
    accountContract(open);
    keyContract(open);
    inboxContract(open);
    channelContract(open);
    channelLogContract(open);
    groupContract(open);
    groupSetContract(open);
    outboxContract(open);
    noticeContract(open);
    deadLetterContract(open);
    peerContract(open);
    relayInboxContract(open);
    relayStatusContract(open);
    keyLogContract(open);
  });
}
