/** The peers file: what is accepted, how refusals read, and that deny always wins. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { formatNodeAddress, InvalidArgumentError } from '@quicprochat/proto';
import { makePeer, parsePeersFile, PeerPolicy, type PeersFile } from './policy.ts';

const pinOf = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);
const pinText = (byte: number): string => Buffer.from(pinOf(byte)).toString('base64url');
const address = (host: string, byte: number, port = 5001): string =>
  formatNodeAddress({ host, port, pin: pinOf(byte) });
const own = { domain: 'red.example', pin: pinOf(1) };

function refuses(text: string, message: RegExp): void {
  assert.throws(
    () => new PeerPolicy(parsePeersFile(text, 'peers'), own),
    (error: unknown) =>
      error instanceof InvalidArgumentError &&
      error.reason === 'BAD_FIELD' &&
      message.test(error.message),
    `${text} should be refused with ${message}`,
  );
}

test('a peers file lists domains with their addresses and pins', () => {
  const text = [
    '# friends',
    '',
    `peer blue.example ${address('blue.example', 2)} ${address('10.0.0.2', 3, 7000)}`,
    `\tpeer  green.example\t${address('::1', 4)}\r`,
  ].join('\n');
  const policy = new PeerPolicy(parsePeersFile(text, 'peers'), own);
  assert.deepEqual(
    policy.peers.map(({ domain }) => domain),
    ['blue.example', 'green.example'],
  );
  assert.deepEqual(policy.peer('blue.example')?.endpoints, [
    { host: 'blue.example', port: 5001 },
    { host: '10.0.0.2', port: 7000 },
  ]);
  assert.deepEqual(policy.peer('green.example')?.endpoints, [{ host: '::1', port: 5001 }]);
  assert.deepEqual(policy.peer('blue.example')?.pins, [pinOf(2), pinOf(3)]);
  assert.equal(policy.judge('blue.example'), 'listed');
  assert.equal(policy.judge('white.example'), 'stranger');
});

test('the mode says who else may be found, and deny wins over it', () => {
  const text = [
    `peer blue.example ${address('blue.example', 2)}`,
    'allow-domain friends.example',
    'deny-domain evil.example',
    'deny-domain bad.friends.example',
  ].join('\n');
  const judged = (['closed', 'allowlist', 'open'] as const).map((mode) => {
    const policy = new PeerPolicy(parsePeersFile(text, 'peers'), own, mode);
    const domains = ['blue', 'friends', 'a.friends', 'notfriends', 'bad.friends', 'x.evil', 'red'];
    return domains.map((name) => policy.judge(`${name}.example`));
  });
  const [closed, allowlist, open] = judged;
  const denied = ['denied', 'denied', 'stranger'];
  assert.deepEqual(closed, ['listed', 'stranger', 'stranger', 'stranger', ...denied]);
  assert.deepEqual(allowlist, ['listed', 'findable', 'findable', 'stranger', ...denied]);
  assert.deepEqual(open, ['listed', 'findable', 'findable', 'findable', ...denied]);
});

test('a wrong line refuses the whole file and says where and what to write', () => {
  const good = `peer blue.example ${address('b', 2)}`;
  refuses(
    `${good}\nfriend x`,
    /^peers line 2: "friend": need peer, allow-domain, deny-domain or deny-key$/,
  );
  refuses('peer', /^peers line 1: domain: need a lower-case domain/);
  refuses(`peer Blue.example ${address('b', 2)}`, /line 1: domain/);
  refuses('\n\npeer blue.example', /^peers line 3: 0 addresses for blue.example.*qpcd init/);
  refuses('peer blue.example qpc://b:5001', /line 1: node address: need qpc:/);
  refuses(`peer blue.example qpc://b:99999#${pinText(2)}`, /line 1: node address: port 99999/);
  refuses('deny-domain', /line 1: need deny-domain <domain>/);
  refuses(`deny-domain a.example b.example`, /line 1: need deny-domain <domain>/);
  refuses('deny-key short', /line 1: pin: need 43 characters/);
  refuses('deny-key', /line 1: need deny-key <pin>/);
});

test('no two peers share a domain or a key, and none is this node', () => {
  const good = `peer blue.example ${address('b', 2)}`;
  refuses(`${good}\npeer blue.example ${address('c', 3)}`, /blue.example: listed twice/);
  refuses(`${good}\npeer green.example ${address('c', 2)}`, /green.example: .* of blue.example/);
  refuses(`peer red.example ${address('b', 2)}`, /own domain/);
  refuses(`peer blue.example ${address('b', 1)}`, /the pin of this node/);
});

test('deny wins over a peer, by domain suffix and by key', () => {
  const peers = [
    makePeer('a.evil.example', [address('a', 2)]),
    makePeer('notevil.example', [address('b', 3)]),
    makePeer('blue.example', [address('c', 4), address('d', 5)]),
    makePeer('green.example', [address('e', 6)]),
  ];
  const file: PeersFile = {
    peers,
    deniedDomains: ['evil.example'],
    deniedPins: [pinOf(5), pinOf(6)],
  };
  const policy = new PeerPolicy(file, own);
  assert.equal(policy.peer('a.evil.example'), undefined);
  assert.equal(policy.judge('a.evil.example'), 'denied');
  assert.ok(policy.isDeniedKey(pinOf(5)) && !policy.isDeniedKey(pinOf(4)));
  assert.ok(policy.peer('notevil.example'), 'a suffix denies whole labels only');
  assert.deepEqual(policy.peer('blue.example')?.pins, [pinOf(4)], 'one of its keys is denied');
  assert.equal(policy.peer('green.example'), undefined, 'its only key is denied');
});

test('an oversized file and too many addresses are refused', () => {
  refuses('#'.repeat(1024 * 1024 + 1), /at most 1048576/);
  const addresses = Array.from({ length: 9 }, (_, index) => address('b', index + 2));
  refuses(`peer blue.example ${addresses.join(' ')}`, /9 addresses for blue.example, need 1-8/);
});
