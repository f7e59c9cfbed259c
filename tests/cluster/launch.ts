/**
 * How a test starts a program: behind other programs that replace themselves by it (`ip netns exec`,
 * `prlimit`), with a module loaded first, with more in its environment. The process id stays that of
 * the program itself.
 */
export interface Launch {
  /** Command and arguments that come before the program, like `ip netns exec red`. */
  readonly prefix?: readonly string[];
  /** Arguments of Node, like `--import`. */
  readonly nodeArgs?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** The command line and environment that start `script` with `args`. */
export function launchOf(
  { prefix = [], nodeArgs = [], env = {} }: Launch,
  script: string,
  args: readonly string[] = [],
): { readonly command: string; readonly args: readonly string[]; readonly env: NodeJS.ProcessEnv } {
  const [command = process.execPath, ...rest] = [
    ...prefix,
    process.execPath,
    ...nodeArgs,
    script,
    ...args,
  ];
  return { command, args: rest, env: { ...process.env, ...env } };
}
