/** Which handler answers which method: every service, with the parts of the node that it works with. */
import type { Handlers, Runtime } from '@quicprochat/proto';
import type { Federation } from '@quicprochat/federation';
import { Accounts } from './accounts.ts';
import type { NodeConfig } from './config.ts';
import type { Drain } from './drain.ts';
import type { KeyLogAnswers } from './key-log-answers.ts';
import type { KeyLog } from './key-log.ts';
import { ExchangeTable, OpaqueServer } from './opaque.ts';
import type { PeerAudits } from './peer-audits.ts';
import { typingOfPeers } from './peer-typing.ts';
import type { PushHub } from './push.ts';
import type { NodeSecrets } from './secrets.ts';
import { SendQuota } from './send-quota.ts';
import { adminHandlers } from './services/admin.ts';
import { authHandlers, type AuthExchange } from './services/auth.ts';
import { channelHandlers, ChannelPosts } from './services/channels.ts';
import { coreHandlers, type NodeHealth } from './services/core.ts';
import { deliveryHandlers } from './services/delivery.ts';
import { deviceHandlers } from './services/devices.ts';
import { endpointHandlers, type EndpointParts } from './services/endpoint.ts';
import { enqueueHandlers } from './services/enqueue.ts';
import { ephemeralHandlers } from './services/ephemeral.ts';
import { fedKtHandlers } from './services/fed-kt.ts';
import { federationHandlers } from './services/federation.ts';
import { withPurposes } from './services/group-purposes.ts';
import { withStrangers } from './services/group-strangers.ts';
import { groupHandlers, type GroupParts } from './services/groups.ts';
import { keyHandlers } from './services/keys.ts';
import { ktHeardHandlers } from './services/kt-heard.ts';
import { ktHandlers } from './services/kt.ts';
import { withMailboxes } from './services/mailboxes.ts';
import type { Sessions } from './sessions.ts';
import type { NodeStore } from './store/store.ts';
import type { DiskState } from './store/store-limits.ts';
import type { Reservers } from './swarm/reservers.ts';
import type { LogWaiters } from './waiters.ts';

export interface HandlerParts {
  readonly config: NodeConfig;
  readonly secrets: NodeSecrets;
  readonly store: NodeStore;
  readonly runtime: Runtime;
  readonly software: string;
  readonly sessions: Sessions;
  readonly push: PushHub;
  readonly waiters: LogWaiters;
  readonly federation: Federation;
  readonly drain: Drain;
  /** As it was last seen. */
  readonly disk: { state: DiskState };
  readonly keyLog: KeyLog;
  readonly answers: KeyLogAnswers;
  readonly audits: PeerAudits;
  readonly reservers: Reservers;
  readonly hubs: Pick<GroupParts, 'offers' | 'hubSet' | 'restored' | 'epochs'>;
}

/** Resolves when the password library is ready. */
export async function buildHandlers(parts: HandlerParts): Promise<Handlers> {
  const { sessions, push, waiters, federation, drain, keyLog, answers, audits, hubs } = parts;
  const { config, secrets, store, runtime, software } = parts;
  const { clock } = runtime;
  const { domain, sessionTtlMs } = config;
  const { pseudonymKey } = secrets;
  const opaque = new OpaqueServer({ setup: secrets.opaqueSetup, domain });
  await opaque.ready();
  const accounts = new Accounts({
    clock,
    store,
    log: keyLog.log,
    sessions,
    push,
    waiters,
    registrations: config.kt.registrations,
    leaves: config.kt.leaves,
  });
  const quota = new SendQuota(clock, config.sending);
  const anonymousQuota = new SendQuota(clock, config.sendingAnonymous);
  const channels = new ChannelPosts({ domain, store, federation });
  return {
    ...coreHandlers({
      domain,
      software,
      clock,
      nodeRecord: () => keyLog.record,
      peers: federation,
      health: () => healthOf(drain.isDraining, parts.disk.state),
    }),
    ...authHandlers({
      domain,
      clock,
      store,
      accounts,
      opaque,
      exchanges: new ExchangeTable<AuthExchange>({ clock, random: runtime.random }),
      sessions,
      push,
      nodeSpki: secrets.identity.spkiSha256,
      sessionTtlMs,
      ratePerUser: config.ratePerUser,
    }),
    ...ephemeralHandlers({ domain, push, federation }),
    ...endpointHandlers({
      swarm: swarmOf(config, secrets, parts.reservers, federation),
      store,
      audits,
    }),
    ...enqueueHandlers({
      quota,
      anonymousQuota,
      domain,
      clock,
      store,
      signing: secrets.signing,
      channels,
      federation,
    }),
    ...channelHandlers({ domain, store, federation }),
    ...withPurposes(
      withStrangers(
        { domain, store, runtime, nodeSpki: secrets.identity.spkiSha256 },
        groupHandlers({ domain, store, ...hubs, quota, anonymousQuota, federation }),
      ),
    ),
    ...withMailboxes(
      {
        ...{ clock, store, waiters, sessions, audits, limits: config.store.mailboxes },
        nodeSpki: secrets.identity.spkiSha256,
      },
      deliveryHandlers({ clock, store, push, waiters, sessions }),
    ),
    ...keyHandlers({
      domain,
      clock,
      store,
      push,
      pseudonymKey,
      singleUsePerRequesterPerHour: config.singleUsePerRequesterPerHour,
      singleUsePerPeerAndTargetPerHour: config.singleUsePerPeerAndTargetPerHour,
      lookupsPerPeerUserPerMinute: config.lookupsPerPeerUserPerMinute,
      proxy: federation.proxy,
      answers,
    }),
    ...federationHandlers({
      federation,
      sessions,
      onTyping: typingOfPeers(clock, (rid, payload) => push.typing(rid, payload)),
    }),
    ...ktHandlers({ domain, answers, accounts, pseudonymKey, peers: federation.kt }),
    ...deviceHandlers({ clock, store, accounts, sessions, sessionTtlMs }),
    ...adminHandlers({ store, federation, log: runtime.log }),
    ...ktHeardHandlers(audits),
    ...fedKtHandlers({ domain, clock, answers, audits, lookups: config.rates.lookup }),
  };
}

function swarmOf(
  { p2p }: NodeConfig,
  { swarm }: NodeSecrets,
  reservers: Reservers,
  { policy, records }: Federation,
): EndpointParts['swarm'] {
  if (p2p === undefined) return undefined;
  const addresses = p2p.isRelay ? p2p.addresses : [];
  return {
    reservers,
    relays: addresses.map((address) => `${address}/p2p/${swarm.peerId}`),
    peers: () =>
      policy.peers
        .map(({ domain }) => domain)
        .filter((domain) => records.get(domain)?.record.swarm !== undefined),
  };
}

function healthOf(isDraining: boolean, disk: DiskState): NodeHealth {
  if (isDraining) return 'draining';
  if (disk === 'ok') return 'ready';
  return disk === 'red' ? 'diskRed' : 'diskFull';
}
