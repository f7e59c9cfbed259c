/** The memory engine under the contract of all engines, once with every frame torn to bytes. */
import { memoryNetwork } from './memory.ts';
import { transportContract, type MakeEngine } from './contract.ts';

const make: MakeEngine = (runtime) => {
  const network = memoryNetwork(runtime);
  return {
    transport: network.transport(),
    host: '127.0.0.1',
    dialSession: (endpoint, options) => network.transport().dialSession(endpoint, options),
    cuttablePath: async (_t, endpoint) => ({
      endpoint,
      cut: () => network.cut('local', 'local'),
    }),
  };
};

transportContract('memory', make);
