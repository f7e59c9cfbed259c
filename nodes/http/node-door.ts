/** The HTTP door of a running node: its routes over the node's log, store and audits. */
import { KtService } from '@quicprochat/kt-log';
import type { Runtime } from '@quicprochat/proto';
import type { NodeConfig } from '../config.ts';
import { formatEndpoint } from '../config.ts';
import { openHttpDoor, type HttpDoor } from '../http.ts';
import type { KeyLog } from '../key-log.ts';
import type { PeerAudits } from '../peer-audits.ts';
import { SetupError } from '../setup-error.ts';
import type { NodeStore } from '../store/store.ts';
import { Routes } from './routes.ts';

/** Search responses that the door keeps beside those of the node's own methods. */
const cacheLimits = { countMax: 512, weightMax: 4 * 1024 * 1024 };

export interface NodeDoorParts {
  readonly config: NodeConfig;
  readonly keyLog: KeyLog;
  readonly store: NodeStore;
  readonly audits: PeerAudits;
  readonly runtime: Runtime;
}

/** Undefined where the configuration has no door. Throws SetupError for an address that is taken. */
export async function openNodeDoor(parts: NodeDoorParts): Promise<HttpDoor | undefined> {
  const { config, keyLog, store, audits, runtime } = parts;
  const { listen } = config.http;
  if (listen === undefined) return undefined;
  const service = new KtService(keyLog.log, cacheLimits);
  const routes = new Routes({
    domain: config.domain,
    log: keyLog.log,
    config: keyLog.config,
    identity: keyLog.identity,
    tree: store.keyLog,
    audits: store.audits,
    service,
    peers: audits,
    record: () => keyLog.record,
    clock: runtime.clock,
    publicSearch: config.kt.publicSearch,
  });
  try {
    const door = await openHttpDoor({ listen, routes, rates: config.rates, runtime });
    runtime.log.info('http door', { listen: formatEndpoint(door.endpoint) });
    return {
      endpoint: door.endpoint,
      async [Symbol.asyncDispose]() {
        await door[Symbol.asyncDispose]();
        service[Symbol.dispose]();
      },
    };
  } catch (cause) {
    service[Symbol.dispose]();
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new SetupError(
      `[http] listen: ${formatEndpoint(listen)} cannot be bound (${code}); choose another port or stop what uses it`,
      cause,
    );
  }
}
