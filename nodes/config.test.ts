/** What an operator reads about a wrong configuration: one line with the file, the key, and what belongs there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from './config.ts';
import { SetupError } from './setup-error.ts';

const base = `domain = "red.example"
listen = "127.0.0.1:5001"
database = "node.db"
database_key_file = "database.key"
`;

function messageOf(text: string): string {
  try {
    parseConfig(text, 'qpcd.toml');
  } catch (error) {
    assert.ok(error instanceof SetupError);
    return error.message;
  }
  assert.fail(`taken: ${text}`);
}

for (const [name, text, message] of [
  [
    'a mistyped key',
    '[limits]\ninbox_row = 5',
    'limits.inbox_row: no such key; inbox_rows was meant?',
  ],
  [
    'a mistyped section',
    '[federations]\nmode = "open"',
    'federations: no such key; federation was meant?',
  ],
  ['a mistyped rate', '[rates.snd]\nburst = 5', 'rates.snd: no such key; send was meant?'],
  [
    'a key of another section',
    '[kt]\nmode = "open"',
    'kt.mode: no such key; docs/operator/configuration.md lists them',
  ],
  [
    'text for a number',
    'session_ttl_days = "90"',
    'session_ttl_days: need a number without quotes, not "90"',
  ],
  ['a number for text', 'peers_file = 5', 'peers_file: need text in quotes, not 5'],
  [
    'text for a switch',
    '[kt]\npublic_search = "yes"',
    'kt.public_search: need true or false, not "yes"',
  ],
  ['a value for a section', 'http = 5', 'http: need a section of keys, not 5'],
  [
    'text for a list',
    '[transport]\nengines = "quic"',
    'transport.engines: need a list in brackets, not "quic"',
  ],
  [
    'a word that is none of the words',
    '[federation]\nmode = "opne"',
    'federation.mode: need one of "closed", "allowlist", "open", not "opne"',
  ],
  ['half a row', '[limits]\ninbox_rows = 1.5', 'limits.inbox_rows: need a whole number, not 1.5'],
  ['too little', '[limits]\ninbox_rows = 0', 'limits.inbox_rows: need at least 1, not 0'],
  ['too much', '[mailboxes]\ndays = 31', 'mailboxes.days: need at most 30, not 31'],
  ['nothing', 'peers_file = ""', 'peers_file: must not be empty'],
  ['half a rate', '[rates.send]\nper_second = 5', 'rates.send.burst: is missing'],
  [
    'a name where an address belongs',
    '[p2p]\nlisten = "localhost:1"',
    'p2p.listen: need ip:port or [ipv6]:port',
  ],
  [
    'steps of a filling disk in a wrong order',
    '[limits]\ndisk_red_percent = 95',
    'limits: need disk_red_percent <= disk_full_percent <= disk_last_percent',
  ],
] as const) {
  test(`${name} is told with what belongs there`, () => {
    assert.equal(messageOf(`${base}${text}\n`), `qpcd.toml: ${message}`);
  });
}

test('a key that is missing is named', () => {
  assert.equal(messageOf(base.replace(/^database =.*\n/m, '')), 'qpcd.toml: database: is missing');
});

test('what is no TOML is told with its line', () => {
  const twice = `${base}database = "other.db"\n`;
  assert.match(messageOf(twice), /^qpcd\.toml: line 5: .*redefine/);
  assert.match(messageOf(`${base}[limits`), /^qpcd\.toml: line 5: [^\n]+$/);
});

test('every bound of a sender, an inbox, a channel, a peer and the disk is what the file says, in its unit', () => {
  const text = `
[limits]
connections = 11
connections_per_host = 12
handshakes_per_host_per_second = 13
calls_in_flight = 14
inbox_rows = 15
inbox_mib = 16
inbox_stranger_rows = 17
channel_rows = 18
channel_mib = 19
outbox_rows_per_peer = 20
outbox_gib_per_peer = 21
outbox_age_days = 22
recipients_per_sender_per_hour = 23
mib_per_sender_per_minute = 24
disk_red_percent = 25
disk_full_percent = 26
disk_last_percent = 27
disk_free_gib = 28
delayed_after_minutes = 29
key_packages_per_asker_per_hour = 30
key_packages_per_peer_and_target_per_hour = 31
lookups_per_peer_user_per_minute = 32
[rates]
send = { per_second = 33, burst = 34 }
send_anonymous = { per_second = 35, burst = 36 }
lookup = { per_second = 37, burst = 38 }
relay = { per_second = 39, burst = 40 }
peer_users = { per_second = 47, burst = 48 }
[federation]
items_per_second = 41
mib_per_second = 42
recipients_per_minute = 43
reject_percent = 44
writer_share_percent = 45
lost_key_hours = 46
`;
  const config = parseConfig(`${base}${text}`, 'qpcd.toml');
  const [mib, gib, minuteMs] = [1024 ** 2, 1024 ** 3, 60_000];
  const { store, federation, rates, sending, sendingAnonymous } = config;
  assert.deepEqual(
    [config.connections, config.connectionsPerHost, config.handshakesPerHostPerSecond],
    [11, 12, 13],
  );
  assert.equal(config.callsInFlight, 14);
  assert.deepEqual([store.inboxRows, store.inboxBytes, store.strangerRows], [15, 16 * mib, 17]);
  assert.deepEqual([store.channelRows, store.channelBytes], [18, 19 * mib]);
  assert.deepEqual([store.outboxRowsPerPeer, store.outboxBytesPerPeer], [20, 21 * gib]);
  assert.equal(store.outboxAgeMs, 22 * 24 * 60 * minuteMs);
  assert.equal(store.delayedAfterMs, 29 * minuteMs);
  assert.deepEqual(store.disk, {
    ...{ redShare: 0.25, fullShare: 0.26, lastShare: 0.27 },
    freeBytes: 28 * gib,
  });
  assert.equal(config.singleUsePerRequesterPerHour, 30);
  assert.equal(config.singleUsePerPeerAndTargetPerHour, 31);
  assert.equal(config.lookupsPerPeerUserPerMinute, 32);
  assert.deepEqual(sending, {
    messages: { perSecond: 33, burst: 34 },
    ...{ recipientsPerHour: 23, bytesPerMinute: 24 * mib },
  });
  const { recipientsPerHour, messages } = sendingAnonymous;
  assert.deepEqual([messages, recipientsPerHour], [{ perSecond: 35, burst: 36 }, 3]);
  assert.equal(Math.round(sendingAnonymous.bytesPerMinute), Math.round(2.4 * mib));
  assert.deepEqual(rates.lookup, { perSecond: 37, burst: 38 });
  assert.deepEqual(rates.relay, { perSecond: 39, burst: 40 });
  assert.deepEqual(rates.peerUsers, { perSecond: 47, burst: 48 });
  assert.deepEqual(federation.ceilings, {
    ...{ itemsPerSecond: 41, bytesPerSecond: 42 * mib, recipientsPerMinute: 43 },
    ...{ rejectPercent: 44, writerShare: 0.45 },
  });
  assert.equal(federation.lostKeyMs, 46 * 60 * minuteMs);
});

test('what the file does not say is what the design and the operator pages say', () => {
  const { store, sending, rates, federation } = parseConfig(base, 'qpcd.toml');
  const mib = 1024 ** 2;
  assert.deepEqual([store.inboxRows, store.inboxBytes, store.strangerRows], [10_000, 64 * mib, 50]);
  assert.deepEqual([store.channelRows, store.channelBytes], [100_000, 256 * mib]);
  assert.deepEqual(sending, {
    messages: { perSecond: 60, burst: 300 },
    ...{ recipientsPerHour: 4_096, bytesPerMinute: 20 * mib },
  });
  assert.deepEqual(rates.sendAnonymous, { perSecond: 6, burst: 30 });
  assert.deepEqual(federation.ceilings, {
    ...{ itemsPerSecond: 2_000, bytesPerSecond: 50 * mib, recipientsPerMinute: 5_000 },
    ...{ rejectPercent: 1, writerShare: 0.5 },
  });
  assert.equal(federation.mode, 'closed');
});
