/** Counts what clients hand to their nodes: a transport over another one. */
import type { Connection, Transport } from '@quicprochat/proto/transport';

export class CallMeter {
  /** Of all requests, payloads alone. */
  bytes = 0;
  calls = 0;
  readonly #byMethod = new Map<number, number>();

  /** Calls of one method. */
  of(methodId: number): number {
    return this.#byMethod.get(methodId) ?? 0;
  }

  over(transport: Transport): Transport {
    return {
      name: transport.name,
      listen: (options) => transport.listen(options),
      dial: async (endpoint, options) => this.#metered(await transport.dial(endpoint, options)),
    };
  }

  #metered(connection: Connection): Connection {
    return new Proxy(connection, {
      get: (target, name) => {
        if (name !== 'call') {
          const value: unknown = Reflect.get(target, name, target);
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        }
        return (...[request, options]: Parameters<Connection['call']>) => {
          this.calls += 1;
          this.bytes += request.payload.length;
          this.#byMethod.set(request.methodId, this.of(request.methodId) + 1);
          return target.call(request, options);
        };
      },
    });
  }
}
