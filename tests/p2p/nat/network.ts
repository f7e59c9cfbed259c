/**
 * The network of tests/p2p/nat: a public bridge with a relay and two nodes, and two homes whose
 * routers MASQUERADE. All of it in network namespaces of this machine; `remove` takes it away.
 *
 *     anna 10.1.0.2 - router 203.0.113.1 --+-- bridge --+-- 203.0.113.2 router - 10.2.0.2 bert
 *                                          |            |
 *                    relay 203.0.113.10 ---+            +--- nodes 203.0.113.11 and .12
 */
import { need, tryCommand } from '../../chaos/capabilities.ts';

/** Documentation addresses (RFC 5737) stand for public ones: they are routed nowhere. */
export const addresses = {
  anna: '10.1.0.2',
  bert: '10.2.0.2',
  relay: '203.0.113.10',
  red: '203.0.113.11',
  blue: '203.0.113.12',
} as const;
export type Party = keyof typeof addresses;

const homes = [
  { party: 'anna', router: 'gate-a', inner: '10.1.0.1', outer: '203.0.113.1' },
  { party: 'bert', router: 'gate-b', inner: '10.2.0.1', outer: '203.0.113.2' },
] as const;

export class NatNetwork {
  readonly #prefix = `qpcnat${process.pid}`;
  readonly #names: string[] = [];

  build(): void {
    this.#space('wan');
    need('ip', '-n', this.#name('wan'), 'link', 'add', 'bridge', 'type', 'bridge');
    need('ip', '-n', this.#name('wan'), 'link', 'set', 'bridge', 'up');
    for (const party of ['relay', 'red', 'blue'] as const) {
      this.#space(party);
      this.#plug(party, addresses[party]);
    }
    // A network of their own on the same bridge: multicast DNS tells private addresses only.
    for (const [party, address] of [
      ['red', '10.9.0.1'],
      ['blue', '10.9.0.2'],
    ] as const) {
      need('ip', '-n', this.#name(party), 'addr', 'add', `${address}/24`, 'dev', 'eth0');
      need('ip', '-n', this.#name(party), 'route', 'add', '224.0.0.0/4', 'dev', 'eth0');
    }
    for (const { party, router, inner, outer } of homes) {
      this.#space(router);
      this.#space(party);
      this.#plug(router, outer);
      const [inside, home] = [this.#name(router), this.#name(party)];
      const link = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', home];
      need('ip', '-n', inside, 'link', 'add', 'home', ...link);
      need('ip', '-n', inside, 'addr', 'add', `${inner}/24`, 'dev', 'home');
      need('ip', '-n', inside, 'link', 'set', 'home', 'up');
      need('ip', '-n', home, 'addr', 'add', `${addresses[party]}/24`, 'dev', 'eth0');
      need('ip', '-n', home, 'link', 'set', 'eth0', 'up');
      need('ip', '-n', home, 'route', 'add', 'default', 'via', inner);
      need('ip', 'netns', 'exec', inside, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward');
      const masquerade = ['-t', 'nat', '-A', 'POSTROUTING', '-o', 'eth0', '-j', 'MASQUERADE'];
      need('ip', 'netns', 'exec', inside, 'iptables', ...masquerade);
    }
  }

  /** What stands before a command of a party. */
  prefix(party: Party): readonly string[] {
    return ['ip', 'netns', 'exec', this.#name(party)];
  }

  /** Cuts a party off the bridge, or puts it back. */
  setLink(party: 'relay' | 'red' | 'blue', isUp: boolean): void {
    need('ip', '-n', this.#name('wan'), 'link', 'set', party, isUp ? 'up' : 'down');
  }

  remove(): void {
    for (const name of this.#names.splice(0)) tryCommand('ip', 'netns', 'del', name);
  }

  #space(party: string): void {
    const name = this.#name(party);
    need('ip', 'netns', 'add', name);
    this.#names.push(name);
    need('ip', '-n', name, 'link', 'set', 'lo', 'up');
  }

  /** A cable from the bridge to a party. */
  #plug(party: string, address: string): void {
    const [wan, name] = [this.#name('wan'), this.#name(party)];
    const cable = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', name];
    need('ip', '-n', wan, 'link', 'add', party, ...cable);
    need('ip', '-n', wan, 'link', 'set', party, 'master', 'bridge', 'up');
    need('ip', '-n', name, 'addr', 'add', `${address}/24`, 'dev', 'eth0');
    need('ip', '-n', name, 'link', 'set', 'eth0', 'up');
  }

  #name(party: string): string {
    return `${this.#prefix}-${party}`;
  }
}
