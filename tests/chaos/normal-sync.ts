/**
 * Loaded before `qpcd` by one scenario only: its store then runs with `synchronous = NORMAL`, which
 * is what the power-cut scenario must catch, or it catches nothing. Exists nowhere in the product.
 */
import { registerHooks } from 'node:module';

const wanted = "db.pragma('synchronous = FULL');";

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.endsWith('/nodes/store/database.ts')) return loaded;
    const source = String(Buffer.from(loaded.source as Uint8Array));
    if (!source.includes(wanted))
      throw new Error('normal-sync: the store has no such line any more');
    return { ...loaded, source: source.replace(wanted, wanted.replace('FULL', 'NORMAL')) };
  },
});
