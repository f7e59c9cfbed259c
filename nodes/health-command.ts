/** `qpcd health`: asks the running node of a configuration how it is, over the port that it listens on. */
import {
  call,
  DeadlineExceededError,
  methods,
  QpcError,
  TransportError,
  type Runtime,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  transportOf,
  type Connection,
  type Endpoint,
} from '@quicprochat/proto/transport';
import { formatEndpoint, type NodeConfig } from './config.ts';
import { protocolVersion } from './services/core.ts';

/** For a dial (ms); calls have deadlines of their own. */
const dialMs = 5_000;

export interface HealthAnswer {
  /** The node takes calls and messages, and its disk has room. */
  readonly isReady: boolean;
  /** For a person. */
  readonly line: string;
}

/** Never rejects for what a node does, or does not. */
export async function askHealth(config: NodeConfig, runtime: Runtime): Promise<HealthAnswer> {
  const endpoint = ownEndpoint(config.listen);
  try {
    const connection = await dial(endpoint, config, runtime);
    try {
      const hello = {
        versionMin: protocolVersion,
        versionMax: protocolVersion,
        agent: 'qpcd health',
      };
      const { domain } = await call(connection, methods.hello, hello);
      if (domain !== config.domain) {
        return {
          isReady: false,
          line: `${formatEndpoint(endpoint)}: the node of ${domain} answers`,
        };
      }
      const { status, uptimeMs, software } = await call(connection, methods.health, {});
      const line = `${domain}  ${status}  ${software}, up ${durationOf(Number(uptimeMs))}`;
      return { isReady: status === 'ready', line };
    } finally {
      await connection.close(CloseCode.Normal, 'done');
    }
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    return { isReady: false, line: `${formatEndpoint(endpoint)}: ${error.message}` };
  }
}

async function dial(
  endpoint: Endpoint,
  { engines }: NodeConfig,
  runtime: Runtime,
): Promise<Connection> {
  const late = new AbortController();
  const timer = runtime.clock.timer(dialMs, () =>
    late.abort(new TransportError('timeout', `dial: not done in ${dialMs} ms`)),
  );
  try {
    return await transportOf(runtime, engines).dial(endpoint, {
      identity: await makeIdentity(runtime.random),
      limits: defaultLimits,
      // It serves nothing.
      maxRequestBytes: () => 0,
      signal: late.signal,
    });
  } catch (cause) {
    if (!(cause instanceof TransportError)) throw cause;
    throw new DeadlineExceededError('no node answers there; does "qpcd run" run?', { cause });
  } finally {
    timer.cancel();
  }
}

/** Where a process of this machine reaches what listens on all addresses. */
function ownEndpoint({ host, port }: Endpoint): Endpoint {
  return { host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port };
}

function durationOf(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 72 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}
