/** The process behind client-process.ts: a QpcClient that does what its parent asks. */
import { type PeerSwarm, QpcClient } from '@quicprochat/client-lib';
import { hex, QpcError, sameBytes } from '@quicprochat/proto';
import type {
  ChangeEnd,
  ClientProgress,
  ClientReply,
  ClientRequest,
  ContactView,
  GroupChange,
  GroupView,
  Ledger,
  Refusal,
} from './client-process.ts';

let client: QpcClient | undefined;
let received = 0;

function opened(): QpcClient {
  if (client === undefined) throw new Error('open the store first');
  return client;
}

function tell(message: ClientReply | ClientProgress): void {
  process.send?.(message);
}

/** Reads until the client closes, as an application would. */
async function readMessages(from: QpcClient): Promise<void> {
  for await (const { id, text, senderUserId } of from.messages()) {
    received += 1;
    tell({ received, text, from: senderUserId, idHex: hex(id) });
  }
}

/** Tells the parent what becomes of own messages and of groups. */
async function tellEvents(of: QpcClient): Promise<void> {
  for await (const event of of.events()) {
    switch (event.type) {
      case 'accepted':
      case 'sendFailed':
      case 'bounced':
      case 'expired': {
        const text = event.messageId === undefined ? undefined : ownText(of, event.messageId);
        if (text !== undefined) tell({ fate: event.type, text });
        break;
      }
      case 'joined':
      case 'membersChanged':
      case 'renamed':
      case 'groupChange':
        await tellEpoch(of, event.conversationId);
        break;
      case 'fork':
        tell({ alarm: `fork at epoch ${event.epoch}, signed by ${event.hubs.join(', ')}` });
        break;
      case 'logAlarm':
        tell({ alarm: `log of ${event.domain}: ${event.kind}: ${event.message}` });
        break;
      default:
    }
  }
}

async function tellEpoch(of: QpcClient, conversationId: Uint8Array): Promise<void> {
  const state = await of.groupState(conversationId);
  if (state === undefined) return;
  const { epoch, epochAuthenticator } = state;
  const conversationHex = hex(conversationId);
  tell({ epoch, authenticatorHex: hex(epochAuthenticator), conversationHex });
}

/** Texts by local id, of those that were looked up. */
const ownTexts = new Map<number, string>();
function ownText(of: QpcClient, messageId: number): string | undefined {
  if (!ownTexts.has(messageId)) {
    for (const conversation of of.conversations()) {
      for (const { id, text } of of.history(conversation.id, 200)) ownTexts.set(id, text);
    }
  }
  const text = ownTexts.get(messageId);
  if (ownTexts.size > 10_000) ownTexts.clear();
  return text;
}

/** A swarm that others on this machine reach. */
async function loopbackPeers(): Promise<PeerSwarm> {
  const { deviceSwarm } = await import('@quicprochat/p2p/device');
  const listen = ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'];
  return deviceSwarm({ listen, reach: ['loopback'] });
}

/** A refusal is an answer; anything else that goes wrong is a finding. */
async function endOf(change: GroupChange, conversationId: Uint8Array): Promise<ChangeEnd> {
  try {
    await carryOut(change, conversationId);
    return { outcome: 'done', reason: '' };
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    return { outcome: 'refused', reason: error.reason };
  }
}

async function carryOut(change: GroupChange, id: Uint8Array): Promise<void> {
  switch (change.kind) {
    case 'add':
      return opened().addMembers(id, [change.userId]);
    case 'remove':
      return opened().removeMembers(id, [change.userId]);
    case 'admin':
      return opened().setRole(id, change.userId, 'admin');
    case 'rename':
      return opened().updateMetadata(id, { name: change.name });
    case 'rekey':
      return opened().rotateKeys(id);
  }
}

async function viewOf(conversationId: Uint8Array): Promise<GroupView | null> {
  const of = opened();
  if (!of.conversations().some(({ id }) => sameBytes(id, conversationId))) return null;
  const state = await of.groupState(conversationId);
  if (state === undefined) return null;
  const { name = '' } = (await of.metadata(conversationId)) ?? {};
  const { epoch, epochAuthenticator } = state;
  const members = await of.members(conversationId);
  return { name, members, epoch, authenticatorHex: hex(epochAuthenticator) };
}

const bytesOf = (digits: string): Uint8Array => new Uint8Array(Buffer.from(digits, 'hex'));

async function handle(request: ClientRequest): Promise<unknown> {
  switch (request.do) {
    case 'open':
      client = await QpcClient.open({
        storePath: request.storePath,
        storeKey: new Uint8Array(Buffer.from(request.storeKeyHex, 'hex')),
        ...(request.peers === true ? { fallback: { peers: await loopbackPeers() } } : {}),
      });
      return null;
    case 'register':
      await opened().register({
        userId: request.userId,
        password: new TextEncoder().encode(request.password),
        nodeAddress: request.nodeAddress,
      });
      return null;
    case 'login':
      await opened().login({
        userId: request.userId,
        password: new TextEncoder().encode(request.password),
      });
      return null;
    case 'start': {
      const running = opened();
      running.start();
      for (const reading of [readMessages(running), tellEvents(running)]) {
        reading.catch((error: unknown) => console.error(error));
      }
      return null;
    }
    case 'create': {
      const { name, members } = request;
      return hex(await opened().createConversation({ name, members }));
    }
    case 'createRefused': {
      const { name, members } = request;
      try {
        await opened().createConversation({ name, members });
        return null;
      } catch (error) {
        if (!(error instanceof QpcError)) throw error;
        return { reason: error.reason, message: error.message } satisfies Refusal;
      }
    }
    case 'contact': {
      const found = opened().contact(request.userId);
      if (found === undefined) return null;
      const { verification, version, treeSize } = found;
      return { verification, version, treeSize } satisfies ContactView;
    }
    case 'conversations':
      return opened()
        .conversations()
        .map(({ id }) => hex(id));
    case 'countMessages':
      return opened()
        .conversations()
        .reduce((sum, { id }) => sum + opened().history(id, Number.MAX_SAFE_INTEGER).length, 0);
    case 'ledger': {
      const messages = opened()
        .conversations()
        .flatMap(({ id }) => opened().history(id, Number.MAX_SAFE_INTEGER));
      const own = messages.filter(({ receivedMs }) => receivedMs === undefined);
      const heard = messages.filter(({ receivedMs }) => receivedMs !== undefined);
      return {
        said: own.map(({ text, conversationId }) => ({
          text,
          conversationHex: hex(conversationId),
        })),
        heard: heard.map(({ text }) => text),
      } satisfies Ledger;
    }
    case 'send':
      for (let index = 1; index <= request.count; index += 1) {
        await opened().send(bytesOf(request.conversationHex), `${request.prefix} ${index}`);
        await new Promise((resolve) => setTimeout(resolve, request.everyMs));
      }
      return null;
    case 'say':
      await opened().send(bytesOf(request.conversationHex), request.text);
      return null;
    case 'change':
      return endOf(request.change, bytesOf(request.conversationHex));
    case 'group':
      return viewOf(bytesOf(request.conversationHex));
    case 'online':
      await opened().online(AbortSignal.timeout(request.timeoutMs));
      return null;
    case 'flush':
      await opened().flush(AbortSignal.timeout(request.timeoutMs));
      return null;
    case 'close':
      await opened().close();
      return null;
  }
}

process.on('message', ({ id, request }: { id: number; request: ClientRequest }) => {
  handle(request).then(
    (value) => {
      tell({ id, value });
      if (request.do === 'close') process.disconnect();
    },
    (error: unknown) =>
      tell({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
// The parent is gone, however it ended: nobody would ever ask this process to close.
process.once('disconnect', () => process.exit(0));
