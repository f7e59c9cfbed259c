/** How much memory a process has, as Linux tells it. */
import { readFileSync } from 'node:fs';

/** Resident set (MiB) of a process that runs; 0 where the system does not say. */
export const rssMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
