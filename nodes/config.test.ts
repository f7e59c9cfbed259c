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
