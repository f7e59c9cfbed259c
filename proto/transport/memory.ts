/**
 * The transport inside one process, for the simulator and for tests: the rules of the other
 * engines, with seeded delay, reordering between streams, lost connections and partitions.
 */
import type { Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import type { Transport } from './transport.ts';

export interface MemoryNetworkOptions {
  /**
   * Time that one message (a request, a response, a push frame, an opening, a closing) takes from
   * one host to another (ms); asked once per message, so that a seeded answer gives reordering
   * between streams. Messages of one push stream keep their order. Default: 0.
   */
  readonly delayMs?: (fromHost: string, toHost: string) => number;
}

/** The network that the engines of one simulation share. */
export interface MemoryNetwork {
  /**
   * The engine of one host. A loopback or wildcard address means this host itself; any other
   * address is the name of a host. Default name: `local`.
   */
  transport(host?: string): Transport;
  /** Drops every message from one host to the other until `heal`; connections idle out. */
  cut(fromHost: string, toHost: string): void;
  heal(fromHost: string, toHost: string): void;
  /** Ends every connection between the two hosts at once, as a lost path does. Returns how many. */
  breakConnections(host: string, otherHost: string): number;
}

export function memoryNetwork(
  _runtime: Runtime,
  _options: MemoryNetworkOptions = {},
): MemoryNetwork {
  throw new TransportError('internal', 'memory: follows in the next commit');
}
