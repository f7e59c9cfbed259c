/** A part of a node with some of its methods replaced: how tests make a real node lie. */
export function lying<T extends object>(honest: T, lies: Partial<T>): T {
  return new Proxy(honest, {
    get(target, name) {
      const lie: unknown = Reflect.get(lies, name);
      if (lie !== undefined) return lie;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}
