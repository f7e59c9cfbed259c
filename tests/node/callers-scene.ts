/** Test support: a whole node in the process, and one connection of each class of caller. */
import assert from 'node:assert/strict';
import { makePeer } from '@quicprochat/federation';
import {
  call,
  formatNodeAddress,
  maxRequestBytes,
  methods,
  systemRandom,
  type CallerClass,
  type Method,
} from '@quicprochat/proto';
import { defaultLimits, makeIdentity, type Connection } from '@quicprochat/proto/transport';
import type { LocalNode } from '../cluster/local-node.ts';
import { Person } from './account-rig.ts';

/** A node with a caller of every class but guests, who are in mailboxes.test.ts. */
export class CallersScene implements AsyncDisposable {
  readonly node: LocalNode;
  readonly person: Person;
  readonly callers = new Map<CallerClass, Connection>();
  readonly #red = makeIdentity(systemRandom);

  constructor(node: LocalNode) {
    this.node = node;
    this.person = new Person('alice@blue.example', (identity) => node.dial(identity, 'alice'));
  }

  async start(): Promise<void> {
    const { node, callers, person } = this;
    await node.start();
    const device = await person.newDevice();
    await device.register();
    callers.set('device', device.connection);
    const second = await person.newDevice();
    await second.login();
    callers.set('enrolling', second.connection);
    callers.set('anyone', await node.dial(await makeIdentity(systemRandom), 'somewhere'));
    // Not from the start: its log would wait for the heads that a peer knows, and this one is not there.
    const { spkiSha256: pin } = await this.#red;
    const address = formatNodeAddress({ host: 'red.example', port: 5001, pin });
    const peers = [makePeer('red.example', [address])];
    await node.node?.reloadPeers({ peers, deniedDomains: [], deniedPins: [] });
    const peer = await node.dial(await this.#red, 'red.example');
    await call(peer, methods.fedHello, { domain: 'red.example', versionMin: 1, versionMax: 1 });
    callers.set('peer', peer);
    callers.set('admin', await this.#dialAdmin());
  }

  /** The admin door is a socket of its own; here it is one more host of the network. */
  async #dialAdmin(): Promise<Connection> {
    const { node } = this;
    const door = node.network.transport('admin.blue.example');
    const endpoint = { host: 'admin.blue.example', port: 1 };
    const limits = defaultLimits;
    await door.listen({
      endpoint,
      identity: node.identity,
      limits,
      maxRequestBytes,
      onConnection: (connection) => node.node?.serveAdmin(connection),
    });
    const pins = [node.identity.spkiSha256];
    const identity = await makeIdentity(systemRandom);
    return node.network
      .transport('operator')
      .dial(endpoint, { identity, limits, maxRequestBytes, pins });
  }

  /** Somebody who may call it. */
  callerOf({ name, callers }: Method): Connection {
    const found = callers.map((one) => this.callers.get(one)).find((one) => one !== undefined);
    assert.ok(found !== undefined, `nobody may call ${name}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.callers.values()) await connection.close(0, 'done');
    await this.node[Symbol.asyncDispose]();
  }
}
