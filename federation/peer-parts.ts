/**
 * What federation has for one peer: its link, a sender for each lane, its typing, and everything that
 * runs while the link is up. It decides nothing about who is a peer.
 */
import { hasReason, methods, type Runtime } from '@quicprochat/proto';
import type { FedHelloRequest } from '@quicprochat/proto/messages';
import {
  defaultLimits,
  type NodeIdentity,
  type Transport,
  type TransportLimits,
} from '@quicprochat/proto/transport';
import { EphemeralQueue } from './ephemeral.ts';
import { checkAnswer, type Hellos } from './hellos.ts';
import { laneNames } from './lane.ts';
import type { LinkSession } from './link-session.ts';
import { PeerLink } from './link.ts';
import { LaneSender } from './outbox.ts';
import type { PeerNotes, PeerStanding } from './peer-notes.ts';
import type { Rewinds } from './rewinds.ts';
import type { OutboxStore } from './store.ts';
import type { PeerTrust, RecordSite } from './trust.ts';

/** A link that stays up asks for the peer's record again (ms). */
const recordEveryMs = 10 * 60_000;

/** What runs over the links beside the rows. */
export interface LinkService {
  /** True while the peer is worth dialing for it. */
  hasWork(domain: string): boolean;
  /** Runs while the link is up and returns once the session's signal is aborted. Never throws. */
  serve(domain: string, session: LinkSession): Promise<void>;
}

export interface PeerParts {
  readonly domain: string;
  readonly link: PeerLink;
  readonly lanes: readonly LaneSender[];
  readonly ephemeral: EphemeralQueue;
  /** The peer was asked what it remembers, or could not be. */
  readonly asked: PromiseWithResolvers<void>;
  /** Ends the link. */
  readonly stop: AbortController;
  /** Ends once the link has. */
  running: Promise<void>;
}

export interface PeerPartsOptions {
  readonly store: OutboxStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly transportLimits?: TransportLimits;
  readonly identity: NodeIdentity;
  readonly site?: RecordSite;
  readonly trust: PeerTrust;
  readonly rewinds: Rewinds;
  readonly hellos: Hellos;
  readonly notes: PeerNotes;
  readonly services: readonly LinkService[];
  readonly wake: (domain: string) => void;
  /** The peer refused rows for now. */
  readonly noteDeferred: () => void;
}

export function makePeerParts(domain: string, options: PeerPartsOptions): PeerParts {
  const { store, runtime, transport, identity, site } = options;
  const { trust, rewinds, hellos, notes, services, noteDeferred } = options;
  const { transportLimits = defaultLimits } = options;
  const asked = Promise.withResolvers<void>();
  const lanes = laneNames.map(
    (lane) =>
      new LaneSender({
        peer: domain,
        lane,
        store,
        runtime,
        onMark: (mark) => rewinds.hearReply(domain, mark),
        onDeferred: noteDeferred,
      }),
  );
  const ephemeral = new EphemeralQueue(runtime);
  const link = new PeerLink({
    domain,
    peer: () => trust.peer(domain),
    prepare: async () => {
      if (trust.peer(domain).pins.length === 0) await trust.discover(domain);
    },
    transport,
    transportLimits,
    identity,
    runtime,
    loadState: () => store.peerState(domain),
    saveState: (state) => store.setPeerState(domain, state),
    makeHello: () => hellos.make(domain),
    checkHello: (hello) => checkAnswer(hello, domain),
    onUndialed: (error) => {
      asked.resolve();
      const hasOtherKey = site !== undefined && hasReason(error, 'BAD_CREDENTIAL');
      if (hasOtherKey) void lookForKey(domain, options);
    },
    onState: () => void notes.note(domain, standingOf(parts)),
    hasWork: () =>
      lanes.some((lane) => !lane.isIdle) || services.some((service) => service.hasWork(domain)),
    serve: async (session) => {
      await hellos.hear(domain, session.hello).catch((error: unknown) => session.end(error));
      asked.resolve();
      notes.connected(domain, session.hello.creditItems, standingOf(parts));
      await Promise.all([
        serveLanes(lanes, session),
        ephemeral.serve(session),
        serveRest(domain, session, options),
      ]);
    },
  });
  const running = Promise.resolve();
  const stop = new AbortController();
  const parts: PeerParts = { domain, link, lanes, ephemeral, asked, stop, running };
  return parts;
}

export function standingOf({ link, lanes }: Pick<PeerParts, 'link' | 'lanes'>): PeerStanding {
  return { link: link.status(), lanes: lanes.map((lane) => lane.status()) };
}

/** Whether a peer is back with less than it confirmed: worth a link, also when no row waits. Never fails. */
export async function showsLoss(
  { lanes }: Pick<PeerParts, 'lanes'>,
  { streams }: Pick<FedHelloRequest, 'streams'>,
): Promise<boolean> {
  // What cannot be read now the next link looks at.
  const behind = lanes.map((lane) => lane.isReceiverBehind(streams).catch(() => false));
  return (await Promise.all(behind)).includes(true);
}

/** The peer shows a key that is not known: maybe its site shows a record that a known key signed. */
async function lookForKey(domain: string, { trust, wake }: PeerPartsOptions): Promise<void> {
  const before = trust.peer(domain).pins.length;
  await trust.discover(domain).catch(() => undefined);
  if (trust.peer(domain).pins.length > before) wake(domain);
}

/** Both lanes until the session ends; the error of one ends it for both. */
async function serveLanes(lanes: readonly LaneSender[], session: LinkSession): Promise<void> {
  await Promise.all(
    lanes.map((lane) => lane.run(session).catch((error: unknown) => session.end(error))),
  );
}

async function serveRest(
  domain: string,
  session: LinkSession,
  options: PeerPartsOptions,
): Promise<void> {
  await refreshRecord(domain, session, options.trust);
  await Promise.all([
    keepRecordFresh(domain, session, options),
    ...options.services.map((service) => service.serve(domain, session)),
  ]);
}

/** Keys may change while a link lives for weeks. */
async function keepRecordFresh(
  domain: string,
  session: LinkSession,
  { runtime, trust }: PeerPartsOptions,
): Promise<void> {
  while (!session.signal.aborted) {
    // The only rejection is the session's end.
    await runtime.clock.sleep(recordEveryMs, session.signal).catch(() => undefined);
    if (!session.signal.aborted) await refreshRecord(domain, session, trust);
  }
}

function refreshRecord(domain: string, session: LinkSession, trust: PeerTrust): Promise<void> {
  return trust.refresh(domain, session, async () => {
    return (await session.call(methods.getNodeRecord, { domain: '' })).record;
  });
}
