/**
 * The node's configuration: one TOML file, every key checked, defaults here and documented on the
 * type. Paths are relative to the file. Secrets never stand in it, only where they lie.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'smol-toml';
import * as v from 'valibot';
import type { Ceilings, FederationMode } from '@quicprochat/federation';
import { isDomain, type Rate, type Rates } from '@quicprochat/proto';
import { isIP } from 'node:net';
import {
  engineNames,
  maxProcesses,
  type EngineName,
  type Endpoint,
} from '@quicprochat/proto/transport';
import { issueLine, tomlLine } from './config-issue.ts';
import type { SendLimits } from './send-quota.ts';
import { codeOf, SetupError } from './setup-error.ts';
import type { StoreLimits } from './store/store-limits.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));
const count = (fallback: number, max: number) => v.optional(whole(1, max), fallback);
const path = v.pipe(v.string(), v.minLength(1));
const rate = (perSecond: number, burst: number) =>
  v.optional(
    v.strictObject({
      per_second: v.pipe(v.number(), v.minValue(0.01), v.maxValue(1e6)),
      burst: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1e6)),
    }),
    { per_second: perSecond, burst },
  );

const socketAddress = v.pipe(
  v.string(),
  v.check((text) => parseEndpoint(text) !== undefined, 'need ip:port or [ipv6]:port'),
);

const schema = v.strictObject({
  domain: v.pipe(v.string(), v.check(isDomain, 'need a lower-case domain like red.example')),
  /** Address and UDP port to bind. */
  listen: socketAddress,
  /** Where others reach this node, for its signed record: host:port. */
  advertise: v.optional(
    v.pipe(
      v.string(),
      v.check((text) => parseEndpoint(text, 'any') !== undefined, 'need host:port'),
    ),
  ),
  transport: v.optional(
    v.strictObject({
      /**
       * Engines that listen, all on the port of `listen`, and that dial peers, best first: `quic`,
       * `quic-stock` (the slow reference), `tls` (TCP, for networks that drop UDP).
       */
      engines: v.optional(
        v.pipe(
          v.array(v.picklist(engineNames)),
          v.minLength(1),
          v.check((names) => new Set(names).size === names.length, 'each engine at most once'),
          v.check(
            (names) => !(names.includes('quic') && names.includes('quic-stock')),
            'quic and quic-stock share one UDP port: choose one',
          ),
        ),
        ['quic'],
      ),
      /** Processes that the engine `quic` listens on; 1 is the node's own. */
      processes: count(1, maxProcesses),
    }),
    {},
  ),
  database: path,
  /** 64 hex digits in a file that only its owner can read. */
  database_key_file: path,
  peers_file: v.optional(path),
  /** Whether commands of the operator may speak to the running node, over a socket beside the database. */
  admin_door: v.optional(v.boolean(), true),
  log_level: v.optional(v.picklist(['debug', 'info', 'warn', 'error']), 'info'),
  session_ttl_days: count(90, 3650),
  limits: v.optional(
    v.strictObject({
      connections: count(20_000, 1e6),
      connections_per_host: count(2_000, 1e6),
      handshakes_per_host_per_second: count(200, 1e5),
      calls_in_flight: count(8_192, 1e6),
      inbox_rows: count(10_000, 1e8),
      inbox_mib: count(64, 1e6),
      inbox_stranger_rows: count(50, 1e6),
      channel_rows: count(100_000, 1e8),
      channel_mib: count(256, 1e6),
      outbox_rows_per_peer: count(1_000_000, 1e9),
      outbox_gib_per_peer: count(10, 1e4),
      outbox_age_days: count(7, 365),
      recipients_per_sender_per_hour: count(4_096, 1e6),
      mib_per_sender_per_minute: v.optional(whole(3, 1e5), 20),
      /** Used part of the disk (%) at which health turns red, and nothing is taken any more. */
      disk_red_percent: v.optional(whole(1, 100), 80),
      disk_full_percent: v.optional(whole(1, 100), 90),
      /** ...and at which only reads, acks and what ends rows goes on. */
      disk_last_percent: v.optional(whole(1, 100), 95),
      /** With so much free (GiB) the three do not count: the disk is large. */
      disk_free_gib: count(10, 1e6),
      delayed_after_minutes: count(60, 60 * 24 * 7),
      key_packages_per_asker_per_hour: count(100, 1e6),
      key_packages_per_peer_and_target_per_hour: count(10, 1e6),
      lookups_per_peer_user_per_minute: count(60, 1e6),
    }),
    {},
  ),
  rates: v.optional(
    v.strictObject({
      cheap: rate(100, 500),
      auth: rate(2, 20),
      auth_per_user: rate(0.2, 10),
      send: rate(60, 300),
      send_anonymous: rate(6, 30),
      ephemeral: rate(2, 20),
      read: rate(200, 1_000),
      keys: rate(2, 50),
      lookup: rate(5, 100),
      audit: rate(2, 20),
      relay: rate(200, 1_000),
      /** Look-ups and calls to hubs here, of all users of one peer. */
      peer_users: rate(200, 1_000),
    }),
    {},
  ),
  federation: v.optional(
    v.strictObject({
      /** `closed`: the peers file only; `allowlist`: and domains that it allows; `open`: everybody. */
      mode: v.optional(v.picklist(['closed', 'allowlist', 'open']), 'closed'),
      /** What one peer may send. */
      items_per_second: count(2_000, 1e6),
      mib_per_second: count(50, 1e5),
      recipients_per_minute: count(5_000, 1e7),
      /** Permanent rejects of 10 minutes above which a peer's credit is halved (%). */
      reject_percent: v.optional(v.pipe(v.number(), v.minValue(0.01), v.maxValue(100)), 1),
      /** Part of the writer's capacity that all peers together get (%). */
      writer_share_percent: count(50, 100),
      /** How long a domain's site must show other keys before they replace lost ones. */
      lost_key_hours: count(72, 24 * 365),
      /** Certificate authorities (PEM) that prove the sites of domains, in the place of the usual. */
      site_ca_file: v.optional(path),
      /** Sites may have addresses of a private network. */
      site_private_addresses: v.optional(v.boolean(), false),
    }),
    {},
  ),
  /** The key-transparency log; what a running log may not change is fixed by its own record. */
  kt: v.optional(
    v.strictObject({
      batch_ms: v.optional(whole(0, 10_000), 500),
      max_ahead_ms: count(300_000, dayMs),
      max_behind_ms: v.optional(whole(600, 30 * dayMs), hourMs),
      reasonable_monitoring_window_ms: v.optional(whole(1, 365 * dayMs), dayMs),
      registrations: rate(20, 500),
      leaves: rate(100, 2_000),
      vrf_threads: v.optional(whole(0, 64), 2),
      public_search: v.optional(v.boolean(), false),
    }),
    {},
  ),
  p2p: v.optional(
    v.strictObject({
      /** Address and port, UDP and TCP, of the swarm; without it there is none. */
      listen: v.optional(socketAddress),
      /** Where others reach it; by default what `advertise` has for a host, if that is an IP. */
      advertise: v.optional(v.pipe(v.array(socketAddress), v.maxLength(4))),
      /** Whether it relays for the devices of its users. */
      relay: v.optional(v.boolean(), true),
      reservations: count(500, 1e5),
      /** How many devices of peers' users it relays for besides. */
      guests: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1e5)), 250),
      guests_per_domain: count(100, 1e5),
      guests_per_user: count(4, 1e5),
      memory_mib: count(1_024, 1e6),
    }),
    {},
  ),
  mailboxes: v.optional(
    v.strictObject({
      /** Devices of peers' users that may have a mailbox here; 0: none. */
      places: v.optional(whole(0, 1e6), 0),
      places_per_domain: count(200, 1e6),
      places_per_user: count(8, 1e4),
      rows: count(1_000, 1e6),
      stranger_rows: count(100, 1e6),
      mib: count(16, 1e4),
      days: count(7, 30),
    }),
    {},
  ),
  http: v.optional(
    v.strictObject({
      /** Address and TCP port of the read-only HTTP door; without it there is none. */
      listen: v.optional(socketAddress),
    }),
    {},
  ),
});

/** How the node keeps its key-transparency log. */
export interface KtConfig {
  /** How long a change may wait for others to share its log entry (ms). */
  readonly batchMs: number;
  /** Part of the log's Configuration (protocol section 11.2), fixed once the log has an entry. */
  readonly maxAheadMs: number;
  readonly maxBehindMs: number;
  readonly reasonableMonitoringWindowMs: number;
  /** New accounts of the whole node; the rest of `leaves` is for those that are there. */
  readonly registrations: Rate;
  /** Growth of the log: new versions of all labels. */
  readonly leaves: Rate;
  /** Worker threads that make VRF proofs; 0: the node's own thread does. */
  readonly vrfThreads: number;
  /** Whether the HTTP door answers searches of anybody. */
  readonly publicSearch: boolean;
}

/** Who this node federates with, and what each may cost it. */
export interface FederationConfig {
  readonly mode: FederationMode;
  readonly ceilings: Ceilings;
  readonly lostKeyMs: number;
  readonly site: { readonly caPath: string | undefined; readonly allowsPrivate: boolean };
}

/** The node's libp2p swarm. */
export interface P2pConfig {
  readonly listen: Endpoint;
  /** In the form of p2p's addresses, without "/p2p/"; at most 8. */
  readonly addresses: readonly string[];
  readonly isRelay: boolean;
  /** Places at the relay in all, and how many of them devices of peers' users may have. */
  readonly reservations: number;
  readonly guests: { readonly all: number; readonly perDomain: number; readonly perUser: number };
  /** Its process is started anew above that (bytes). */
  readonly rssBytesMax: number;
}

export interface NodeConfig {
  readonly domain: string;
  readonly listen: Endpoint;
  readonly advertise: Endpoint;
  readonly engines: readonly EngineName[];
  readonly transportProcesses: number;
  readonly databasePath: string;
  readonly databaseKeyPath: string;
  readonly peersPath: string | undefined;
  readonly hasAdminDoor: boolean;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly sessionTtlMs: number;
  readonly connections: number;
  readonly connectionsPerHost: number;
  readonly handshakesPerHostPerSecond: number;
  readonly callsInFlight: number;
  readonly singleUsePerRequesterPerHour: number;
  readonly singleUsePerPeerAndTargetPerHour: number;
  readonly lookupsPerPeerUserPerMinute: number;
  readonly federation: FederationConfig;
  readonly store: StoreLimits;
  readonly rates: Rates;
  readonly ratePerUser: Rate;
  /** Of one device, and of one address without a login. */
  readonly sending: SendLimits;
  readonly sendingAnonymous: SendLimits;
  readonly kt: KtConfig;
  /** Undefined: no swarm. */
  readonly p2p: P2pConfig | undefined;
  readonly http: { readonly listen: Endpoint | undefined };
}

/** Parses `host:port`, `1.2.3.4:port` or `[ipv6]:port`; `ip` allows literals only. */
export function parseEndpoint(text: string, kind: 'ip' | 'any' = 'ip'): Endpoint | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) return undefined;
  const isLiteral = isIP(host) !== 0;
  return isLiteral || (kind === 'any' && isDomain(host)) ? { host, port } : undefined;
}

export function formatEndpoint({ host, port }: Endpoint): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Reads and checks a config file. Throws SetupError that names file, key and need. */
export function loadConfig(file: string): NodeConfig {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    const advice = 'name another with --config, or make a node with qpcd init';
    throw new SetupError(`${file}: cannot be read (${codeOf(cause)}); ${advice}`, cause);
  }
  return parseConfig(text, file);
}

/** `file` names the source in errors and is the base of relative paths. */
export function parseConfig(text: string, file: string): NodeConfig {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (cause) {
    throw new SetupError(`${file}: ${tomlLine(cause)}`, cause);
  }
  const checked = v.safeParse(schema, raw);
  if (!checked.success) {
    throw new SetupError(`${file}: ${issueLine(schema, checked.issues[0])}`);
  }
  const config = resolveConfig(checked.output, dirname(resolve(file)));
  const {
    disk_red_percent: red,
    disk_full_percent: full,
    disk_last_percent: last,
  } = v.parse(schema.entries.limits.wrapped, checked.output.limits);
  if (red > full || full > last) {
    const order = 'disk_red_percent <= disk_full_percent <= disk_last_percent';
    throw new SetupError(`${file}: limits: need ${order}`);
  }
  return config;
}

function resolveConfig(raw: v.InferOutput<typeof schema>, base: string): NodeConfig {
  const limits = v.parse(schema.entries.limits.wrapped, raw.limits);
  const rates = v.parse(schema.entries.rates.wrapped, raw.rates);
  const kt = v.parse(schema.entries.kt.wrapped, raw.kt);
  const federation = v.parse(schema.entries.federation.wrapped, raw.federation);
  const http = v.parse(schema.entries.http.wrapped, raw.http);
  const p2p = v.parse(schema.entries.p2p.wrapped, raw.p2p);
  const mailboxes = v.parse(schema.entries.mailboxes.wrapped, raw.mailboxes);
  const listen = endpoint(raw.listen, 'ip');
  const transport = v.parse(schema.entries.transport.wrapped, raw.transport);
  const bucket = (one: { per_second: number; burst: number }) => ({
    perSecond: one.per_second,
    burst: one.burst,
  });
  return {
    domain: raw.domain,
    listen,
    advertise: raw.advertise === undefined ? listen : endpoint(raw.advertise, 'any'),
    engines: transport.engines,
    transportProcesses: transport.processes,
    databasePath: resolve(base, raw.database),
    databaseKeyPath: resolve(base, raw.database_key_file),
    peersPath: raw.peers_file === undefined ? undefined : resolve(base, raw.peers_file),
    hasAdminDoor: raw.admin_door,
    logLevel: raw.log_level,
    sessionTtlMs: raw.session_ttl_days * dayMs,
    connections: limits.connections,
    connectionsPerHost: limits.connections_per_host,
    handshakesPerHostPerSecond: limits.handshakes_per_host_per_second,
    callsInFlight: limits.calls_in_flight,
    singleUsePerRequesterPerHour: limits.key_packages_per_asker_per_hour,
    singleUsePerPeerAndTargetPerHour: limits.key_packages_per_peer_and_target_per_hour,
    lookupsPerPeerUserPerMinute: limits.lookups_per_peer_user_per_minute,
    federation: {
      mode: federation.mode,
      ceilings: {
        itemsPerSecond: federation.items_per_second,
        bytesPerSecond: federation.mib_per_second * 1024 ** 2,
        recipientsPerMinute: federation.recipients_per_minute,
        rejectPercent: federation.reject_percent,
        writerShare: federation.writer_share_percent / 100,
      },
      lostKeyMs: federation.lost_key_hours * hourMs,
      site: {
        caPath:
          federation.site_ca_file === undefined
            ? undefined
            : resolve(base, federation.site_ca_file),
        allowsPrivate: federation.site_private_addresses,
      },
    },
    store: {
      inboxRows: limits.inbox_rows,
      inboxBytes: limits.inbox_mib * 1024 ** 2,
      strangerRows: limits.inbox_stranger_rows,
      mailboxes: {
        places: mailboxes.places,
        perDomain: mailboxes.places_per_domain,
        perUser: mailboxes.places_per_user,
        rows: mailboxes.rows,
        strangerRows: mailboxes.stranger_rows,
        bytes: mailboxes.mib * 1024 ** 2,
        lifetimeMs: mailboxes.days * dayMs,
      },
      channelRows: limits.channel_rows,
      channelBytes: limits.channel_mib * 1024 ** 2,
      outboxRowsPerPeer: limits.outbox_rows_per_peer,
      outboxBytesPerPeer: limits.outbox_gib_per_peer * 1024 ** 3,
      outboxAgeMs: limits.outbox_age_days * dayMs,
      deferredRetryMs: 60_000,
      delayedAfterMs: limits.delayed_after_minutes * 60_000,
      tombstoneMs: 72 * hourMs,
      disk: {
        redShare: limits.disk_red_percent / 100,
        fullShare: limits.disk_full_percent / 100,
        lastShare: limits.disk_last_percent / 100,
        freeBytes: limits.disk_free_gib * 1024 ** 3,
      },
    },
    rates: {
      cheap: bucket(rates.cheap),
      auth: bucket(rates.auth),
      send: bucket(rates.send),
      sendAnonymous: bucket(rates.send_anonymous),
      ephemeral: bucket(rates.ephemeral),
      read: bucket(rates.read),
      keys: bucket(rates.keys),
      lookup: bucket(rates.lookup),
      audit: bucket(rates.audit),
      relay: bucket(rates.relay),
      peerUsers: bucket(rates.peer_users),
    },
    ratePerUser: bucket(rates.auth_per_user),
    sending: sendLimits(bucket(rates.send), limits, 1),
    sendingAnonymous: sendLimits(bucket(rates.send_anonymous), limits, 0.1),
    kt: {
      batchMs: kt.batch_ms,
      maxAheadMs: kt.max_ahead_ms,
      maxBehindMs: kt.max_behind_ms,
      reasonableMonitoringWindowMs: kt.reasonable_monitoring_window_ms,
      registrations: bucket(kt.registrations),
      leaves: bucket(kt.leaves),
      vrfThreads: kt.vrf_threads,
      publicSearch: kt.public_search,
    },
    p2p: resolveP2p(p2p, raw.advertise),
    http: { listen: http.listen === undefined ? undefined : endpoint(http.listen, 'ip') },
  };
}

function sendLimits(
  messages: Rate,
  limits: {
    readonly recipients_per_sender_per_hour: number;
    readonly mib_per_sender_per_minute: number;
  },
  share: number,
): SendLimits {
  return {
    messages,
    recipientsPerHour: Math.ceil(limits.recipients_per_sender_per_hour * share),
    bytesPerMinute: limits.mib_per_sender_per_minute * 1024 ** 2 * share,
  };
}

/** QUIC and TCP at one port, where others reach the node's swarm. */
function resolveP2p(
  raw: v.InferOutput<typeof schema.entries.p2p.wrapped>,
  advertised: string | undefined,
): P2pConfig | undefined {
  if (raw.listen === undefined) return undefined;
  const listen = endpoint(raw.listen, 'ip');
  // Swarms dial no names: without an address of its own the node is found by nobody.
  const host = advertised === undefined ? listen.host : endpoint(advertised, 'any').host;
  const reached = raw.advertise?.map((text) => endpoint(text, 'ip')) ?? [{ ...listen, host }];
  const addresses = reached
    .filter((one) => isIP(one.host) !== 0 && !['0.0.0.0', '::'].includes(one.host))
    .flatMap((one) => swarmAddresses(one));
  return {
    listen,
    addresses,
    isRelay: raw.relay,
    reservations: raw.reservations + raw.guests,
    guests: {
      all: raw.guests,
      perDomain: raw.guests_per_domain,
      perUser: raw.guests_per_user,
    },
    rssBytesMax: raw.memory_mib * 1024 ** 2,
  };
}

/** An address and port as p2p writes them, QUIC first. */
export function swarmAddresses({ host, port }: Endpoint): string[] {
  const ip = `/ip${isIP(host)}/${host}`;
  return [`${ip}/udp/${port}/quic-v1`, `${ip}/tcp/${port}`];
}

function endpoint(text: string, kind: 'ip' | 'any'): Endpoint {
  const parsed = parseEndpoint(text, kind);
  // The schema checked the same text; this keeps the types honest.
  if (parsed === undefined) throw new SetupError(`${text}: no host:port`);
  return parsed;
}
