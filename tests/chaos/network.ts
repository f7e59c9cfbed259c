/**
 * A network of namespaces: one bridge, one namespace for each party, packet filters inside of them.
 * Names carry the driver's pid; `remove` takes everything away.
 */
import type { Launch } from '../cluster/launch.ts';
import { need, tryCommand } from './capabilities.ts';

/** Who has a namespace of its own: the two nodes, and all people together. */
export const parties = ['red', 'blue', 'people'] as const;
export type PartyName = (typeof parties)[number];

/** The port of a node in its namespace. */
export const nodePort = 5001;

export class Network {
  readonly #prefix = `qpc${process.pid}`;
  #isUp = false;

  /** Builds it; the caller sees to it that `remove` runs. */
  build(): void {
    this.#isUp = true;
    const hub = `${this.#prefix}-hub`;
    need('ip', 'netns', 'add', hub);
    need('ip', '-n', hub, 'link', 'add', 'bridge', 'type', 'bridge');
    need('ip', '-n', hub, 'link', 'set', 'bridge', 'up');
    for (const party of parties) {
      const name = this.#name(party);
      need('ip', 'netns', 'add', name);
      const peer = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', name];
      need('ip', '-n', hub, 'link', 'add', party, ...peer);
      need('ip', '-n', hub, 'link', 'set', party, 'master', 'bridge', 'up');
      need('ip', '-n', name, 'addr', 'add', `${addressOf(party)}/24`, 'dev', 'eth0');
      for (const device of ['lo', 'eth0']) need('ip', '-n', name, 'link', 'set', device, 'up');
    }
  }

  launch(party: PartyName): Launch {
    return { prefix: ['ip', 'netns', 'exec', this.#name(party)] };
  }

  /** Adds a rule to what a party receives, like `-s 10.213.7.1 -j DROP`. */
  filter(party: PartyName, ...rule: readonly string[]): void {
    need('ip', 'netns', 'exec', this.#name(party), 'iptables', '-A', 'INPUT', ...rule);
  }

  /** Takes all rules away. */
  heal(): void {
    for (const party of parties) {
      need('ip', 'netns', 'exec', this.#name(party), 'iptables', '-F', 'INPUT');
    }
  }

  /** Packets that rules dropped so far. */
  dropped(): number {
    return parties.reduce((sum, party) => {
      const list = ['iptables', '-nvxL', 'INPUT'];
      const rules = need('ip', 'netns', 'exec', this.#name(party), ...list).matchAll(
        /^ *(\d+) .*\bDROP\b/gmu,
      );
      return sum + [...rules].reduce((part, [, packets]) => part + Number(packets), 0);
    }, 0);
  }

  remove(): void {
    if (!this.#isUp) return;
    this.#isUp = false;
    for (const name of [...parties, 'hub']) tryCommand('ip', 'netns', 'del', this.#name(name));
  }

  #name(party: string): string {
    return `${this.#prefix}-${party}`;
  }
}

/** Private to the namespaces: nothing of the machine is reachable from them. */
export function addressOf(party: PartyName): string {
  return `10.213.7.${parties.indexOf(party) + 1}`;
}

/** ip:port where a node listens. */
export function listenOf(party: PartyName): string {
  return `${addressOf(party)}:${nodePort}`;
}
